//! The records and variants of `wit/plugin.wit` as plain Rust. Invariant: whatever crosses the boundary to the host is
//! one of these; they are the same natively and in WebAssembly.
//!
//! A participant rarely names them: [`Context`](crate::Context), [`Done`](crate::Done) and [`Fail`](crate::Fail) stand
//! in front. A test host, or a participant written without the macros, uses them directly.

use std::{fmt::Display, time::Duration};

use crate::event;

/// Lower-case names, unique.
pub type Attributes = Vec<(String, String)>;

/// An event as the host delivers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Unique within its source.
    pub id: String,
    /// The saga that it belongs to.
    pub saga_id: String,
    /// What happened: `OrderCreated`.
    pub kind: String,
    /// Who says so.
    pub source: String,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// `application/json` in most cases.
    pub content_type: String,
    /// The payload.
    pub data: Vec<u8>,
    /// CloudEvents extensions and the headers that the operator lets through.
    pub attributes: Attributes,
}

/// State or undo data, with the `data_format` of the plugin that wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// JSON, where this SDK wrote it.
    pub data: Vec<u8>,
    /// `data_format` of the writer.
    pub format: u32,
}

/// What the host says about one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// Same on every attempt, and in both directions.
    pub step_id: String,
    /// 1, 2, …
    pub attempt: u32,
    /// Same on every attempt; differs between the two directions.
    pub idempotency_key: String,
    /// When this attempt began: the only clock.
    pub now_ms: u64,
    /// After this much running time the attempt is stopped.
    pub budget_ms: u32,
    /// 32 bytes, same on every attempt.
    pub seed: Vec<u8>,
    /// This participant's private bytes in this saga.
    pub state: Option<Saved>,
}

/// A code for machines, a detail for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// Stable, upper case by custom: `LIMIT_EXCEEDED`.
    pub code: String,
    /// One sentence.
    pub detail: String,
}

impl Problem {
    /// A problem with this code and detail.
    pub fn new(code: impl Into<String>, detail: impl Display) -> Self {
        Self { code: code.into(), detail: detail.to_string() }
    }
}

/// An event to publish. Typed events turn into one by themselves; name it for a delay, another saga or attributes:
///
/// ```
/// use sagahost_sdk::{Emission, event};
/// # use std::time::Duration;
/// #[event]
/// struct ReminderDue { order_id: String }
///
/// let reminder = Emission::from(ReminderDue { order_id: "o-1".into() }).after(Duration::from_secs(3600));
/// assert_eq!(reminder.kind, "ReminderDue");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emission {
    /// Must stand under `emits` (or `starts`) in the manifest.
    pub kind: String,
    /// The payload.
    pub data: Vec<u8>,
    /// None: `application/json`.
    pub content_type: Option<String>,
    /// None: this saga.
    pub saga_id: Option<String>,
    /// Durable delay, counted from the commit.
    pub after_seconds: Option<u32>,
    /// `subject` and `dataschema` mean what CloudEvents says.
    pub attributes: Attributes,
}

impl Emission {
    /// Bytes of any content type.
    pub fn raw(kind: impl Into<String>, content_type: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        Self { kind: kind.into(), content_type: Some(content_type.into()), data: data.into(), ..Self::default() }
    }

    /// Publishes it this long after the commit, in whole seconds (rounded up); dropped when the saga compensates or
    /// has ended by then.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        self.after_seconds = Some(u32::try_from(seconds).unwrap_or(u32::MAX));
        self
    }

    /// Publishes it in another saga; its kind must stand under `starts`.
    #[must_use]
    pub fn in_saga(mut self, saga_id: impl Into<String>) -> Self {
        self.saga_id = Some(saga_id.into());
        self
    }

    /// Adds a CloudEvents extension; the name is lower case.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.attributes.push((name.into(), value.to_string()));
        self
    }
}

impl<E: crate::Event> From<E> for Emission {
    fn from(event: E) -> Self {
        Self { kind: E::KIND.to_owned(), data: event::encode(&event), ..Self::default() }
    }
}

/// What becomes of the participant's state in this saga.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StateChange {
    /// As it was.
    #[default]
    Keep,
    /// Replaced.
    Put(Vec<u8>),
    /// Gone.
    Delete,
}

/// What `compensate` needs in order to undo a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    /// The step left nothing behind.
    NothingToUndo,
    /// Handed to `compensate`.
    Data(Vec<u8>),
}

/// Does the saga end here?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No.
    GoingOn,
    /// Yes, with this result.
    Finished(Vec<u8>),
}

/// The step is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Events to publish.
    pub emit: Vec<Emission>,
    /// The new state.
    pub state: StateChange,
    /// How to undo it.
    pub undo: Undo,
    /// Whether the saga ends.
    pub progress: Progress,
    /// Searchable notes on the saga.
    pub attributes: Attributes,
}

/// Nothing happened, for a reason of the business; the saga compensates. Only `emit` is published.
///
/// ```
/// # use sagahost_sdk::{Fail, Rejection};
/// fn check(amount_cents: i64) -> Result<(), Fail> {
///     if amount_cents > 100_000 {
///         Err(Rejection::new("LIMIT_EXCEEDED", format!("{amount_cents} is more than 100000")))?;
///     }
///     Ok(())
/// }
/// # assert!(check(100_001).is_err());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub problem: Problem,
    /// Events to publish anyway.
    pub emit: Vec<Emission>,
    /// Searchable notes on the saga.
    pub attributes: Attributes,
}

impl Rejection {
    /// A rejection with this code and detail.
    pub fn new(code: impl Into<String>, detail: impl Display) -> Self {
        Self { problem: Problem::new(code, detail), ..Self::default() }
    }

    /// Publishes this event, although nothing else of the attempt happened.
    #[must_use]
    pub fn emit(mut self, event: impl Into<Emission>) -> Self {
        self.emit.push(event.into());
        self
    }

    /// A searchable note on the saga.
    #[must_use]
    pub fn note(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.attributes.push((name.into(), value.to_string()));
        self
    }
}

/// Another attempt may succeed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// Why not now.
    pub problem: Problem,
    /// None: the subscription's backoff.
    pub after_ms: Option<u32>,
}

impl Delay {
    /// Try again after the subscription's backoff.
    pub fn new(code: impl Into<String>, detail: impl Display) -> Self {
        Self { problem: Problem::new(code, detail), after_ms: None }
    }

    /// Try again after this long instead.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.after_ms = Some(u32::try_from(delay.as_millis()).unwrap_or(u32::MAX));
        self
    }
}

/// How an attempt of `handle-event` ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Completed(Completion),
    /// Nothing happened; the saga compensates.
    Rejected(Rejection),
    /// Another attempt may succeed.
    Retry(Delay),
    /// Parked until this saga brings this participant another event.
    NotYet(Problem),
    /// No attempt will ever handle this event.
    Invalid(Problem),
}

/// What the host knows of a step that is to be compensated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence<U = Saved> {
    /// It was done; this is its undo data.
    Done(U),
    /// It may or may not have happened: an outside call left the host. Only for plugins with such grants.
    Uncertain,
    /// Its event arrived, but the saga failed before the step was done. Announce what must be announced; there is
    /// nothing to take back.
    NeverRan,
}

/// Why the saga compensates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// `rejected`, `attempts-spent`, `failure-event`, `cancelled`, `saga-deadline`, `operator`; more may come.
    pub code: String,
    /// For people.
    pub detail: String,
    /// Who failed.
    pub participant: Option<String>,
    /// The kind of the event that failed, or that announced the failure.
    pub event_kind: Option<String>,
}

/// A step to compensate, as the host delivers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The event that the step handled.
    pub event: Event,
    /// What is known of it.
    pub evidence: Evidence,
    /// Why it is undone.
    pub cause: Cause,
    /// Version of the plugin that did the step.
    pub plugin_version: String,
}

/// The step is undone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Events to publish.
    pub emit: Vec<Emission>,
    /// The new state.
    pub state: StateChange,
    /// Searchable notes on the saga.
    pub attributes: Attributes,
}

/// How an attempt of `compensate` ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UndoOutcome {
    /// Undone.
    Undone(Undone),
    /// It had left nothing behind.
    NothingToUndo,
    /// Another attempt may succeed.
    Retry(Delay),
    /// No attempt will help: the saga needs an operator.
    Stuck(Problem),
}
