//! What handlers return. Invariant: every outcome of the contract has exactly one word here, and undo is never implied.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

use crate::{
    contract::{
        Cause, Completion, Delay, Emission, Evidence, Outcome, Problem, Progress, Rejection, StateChange, Undo,
        UndoOutcome, Undone,
    },
    event,
};

/// What a handler returns. `U` is the undo data that its `#[undo]` counterpart gets; without one, leave it out.
pub type Handled<U = NoUndo> = Result<Done<U>, Fail>;

/// The undo data of a step that has no `#[undo]` function: there can be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoUndo {}

/// The step is done. Whether something must be undone later is said first, so that it cannot be forgotten:
///
/// ```
/// use sagahost_sdk::{Done, Handled, data, event};
///
/// #[event]
/// struct PaymentProcessed { order_id: String }
/// #[data]
/// struct Charge { amount_cents: u64 }
///
/// fn charge() -> Handled<Charge> {
///     Ok(Done::undo_with(Charge { amount_cents: 500 })
///         .emit(PaymentProcessed { order_id: "o-1".into() })
///         .note("customer", "c-1"))
/// }
/// # assert!(charge().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Done<U = NoUndo> {
    undo: Option<U>,
    emit: Vec<Emission>,
    state: StateChange,
    progress: Progress,
    notes: Vec<(String, String)>,
}

impl<U> Done<U> {
    /// Should the saga fail later, the `#[undo]` function gets this.
    pub fn undo_with(undo: U) -> Self {
        Self::new(Some(undo))
    }

    /// The step leaves nothing behind that would have to be undone.
    pub fn nothing_to_undo() -> Self {
        Self::new(None)
    }

    fn new(undo: Option<U>) -> Self {
        Self { undo, emit: Vec::new(), state: StateChange::Keep, progress: Progress::GoingOn, notes: Vec::new() }
    }

    /// Publishes this event with the step.
    pub fn emit(mut self, event: impl Into<Emission>) -> Self {
        self.emit.push(event.into());
        self
    }

    /// Keeps this as the participant's state in this saga.
    pub fn state<S: Serialize>(mut self, state: &S) -> Self {
        self.state = StateChange::Put(event::encode(state));
        self
    }

    /// Forgets the participant's state in this saga.
    pub fn delete_state(mut self) -> Self {
        self.state = StateChange::Delete;
        self
    }

    /// A searchable note on the saga (`sagas list --where customer=c-1`).
    pub fn note(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.notes.push((name.into(), value.to_string()));
        self
    }

    /// Ends the saga with this result: the HTTP answer, and what `sagas show` prints. Needs `finishes` in the manifest.
    pub fn finish<R: Serialize>(mut self, result: &R) -> Self {
        self.progress = Progress::Finished(event::encode(result));
        self
    }
}

impl<U: Serialize> From<Done<U>> for Completion {
    fn from(done: Done<U>) -> Self {
        let undo = match &done.undo {
            Some(undo) => Undo::Data(event::encode(undo)),
            None => Undo::NothingToUndo,
        };
        Self { emit: done.emit, state: done.state, undo, progress: done.progress, attributes: done.notes }
    }
}

/// Why a step is not done. `?` makes one of a [`Rejection`], a [`Delay`], and of your own errors where you say how:
///
/// ```
/// use sagahost_sdk::Fail;
///
/// enum Declined { Limit, Busy }
///
/// impl From<Declined> for Fail {
///     fn from(declined: Declined) -> Self {
///         match declined {
///             Declined::Limit => Fail::reject("LIMIT_EXCEEDED", "the amount is above the limit"),
///             Declined::Busy => Fail::retry("BUSY", "the ledger is being closed"),
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fail {
    /// Nothing happened, for a reason of the business: the saga compensates.
    Rejected(Rejection),
    /// Another attempt may succeed.
    Retry(Delay),
    /// Parked until this saga brings this participant another event, or until the time to live ends.
    NotYet(Problem),
    /// No attempt will ever handle this event: dead letter.
    Invalid(Problem),
    /// An error that the code has no answer to: treated like a panic, with this text.
    Crash(String),
}

impl Fail {
    /// See [`Fail::Rejected`]; with [`Rejection::new`] an event can go with it.
    pub fn reject(code: impl Into<String>, detail: impl Display) -> Self {
        Self::Rejected(Rejection::new(code, detail))
    }

    /// See [`Fail::Retry`]; with [`Delay::new`] the wait can be chosen.
    pub fn retry(code: impl Into<String>, detail: impl Display) -> Self {
        Self::Retry(Delay::new(code, detail))
    }

    /// See [`Fail::NotYet`].
    pub fn not_yet(code: impl Into<String>, detail: impl Display) -> Self {
        Self::NotYet(Problem::new(code, detail))
    }

    /// See [`Fail::Invalid`].
    pub fn invalid(code: impl Into<String>, detail: impl Display) -> Self {
        Self::Invalid(Problem::new(code, detail))
    }

    /// See [`Fail::Crash`].
    pub fn crash(error: impl Display) -> Self {
        Self::Crash(error.to_string())
    }
}

impl From<Rejection> for Fail {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Delay> for Fail {
    fn from(delay: Delay) -> Self {
        Self::Retry(delay)
    }
}

impl From<Fail> for Result<Outcome, String> {
    fn from(fail: Fail) -> Self {
        match fail {
            Fail::Rejected(rejection) => Ok(Outcome::Rejected(rejection)),
            Fail::Retry(delay) => Ok(Outcome::Retry(delay)),
            Fail::NotYet(problem) => Ok(Outcome::NotYet(problem)),
            Fail::Invalid(problem) => Ok(Outcome::Invalid(problem)),
            Fail::Crash(text) => Err(text),
        }
    }
}

/// Turns a `false`, a `None` or an `Err` into an answer, so that a rule is one line:
///
/// ```
/// use sagahost_sdk::{Fail, OrFail};
///
/// fn check(quantity: i64, sku: Option<&str>) -> Result<&str, Fail> {
///     (quantity > 0).or_invalid("QUANTITY", format!("{quantity} articles cannot be ordered"))?;
///     let sku = sku.or_invalid("SKU", "the article is missing")?;
///     (sku != "unicorn").or_reject("SOLD_OUT", "there are none left")?;
///     Ok(sku)
/// }
/// # assert!(check(0, None).is_err());
/// ```
pub trait OrFail<T>: Sized {
    /// The value, or what is wrong beside `detail`.
    fn value(self) -> Result<T, Option<String>>;

    /// Rejects: nothing happened, the saga compensates.
    fn or_reject(self, code: impl Into<String>, detail: impl Display) -> Result<T, Rejection> {
        self.value().map_err(|more| Rejection::new(code, with(detail, more)))
    }

    /// Asks for another attempt; in handlers and in `#[undo]` functions.
    fn or_retry(self, code: impl Into<String>, detail: impl Display) -> Result<T, Delay> {
        self.value().map_err(|more| Delay::new(code, with(detail, more)))
    }

    /// Parks the event until this saga brings another one.
    fn or_not_yet(self, code: impl Into<String>, detail: impl Display) -> Result<T, Fail> {
        self.value().map_err(|more| Fail::not_yet(code, with(detail, more)))
    }

    /// No attempt will ever handle this event.
    fn or_invalid(self, code: impl Into<String>, detail: impl Display) -> Result<T, Fail> {
        self.value().map_err(|more| Fail::invalid(code, with(detail, more)))
    }

    /// In an `#[undo]` function: no attempt will help, an operator must.
    fn or_stuck(self, code: impl Into<String>, detail: impl Display) -> Result<T, NotUndone> {
        self.value().map_err(|more| NotUndone::stuck(code, with(detail, more)))
    }
}

fn with(detail: impl Display, more: Option<String>) -> String {
    match more {
        Some(more) => format!("{detail}: {more}"),
        None => detail.to_string(),
    }
}

impl OrFail<()> for bool {
    fn value(self) -> Result<(), Option<String>> {
        if self { Ok(()) } else { Err(None) }
    }
}

impl<T> OrFail<T> for Option<T> {
    fn value(self) -> Result<T, Option<String>> {
        self.ok_or(None)
    }
}

impl<T, E: Display> OrFail<T> for Result<T, E> {
    fn value(self) -> Result<T, Option<String>> {
        self.map_err(|error| Some(error.to_string()))
    }
}

/// What an `#[undo]` function returns.
pub type Compensated = Result<Undone, NotUndone>;

impl Undone {
    /// The step is undone.
    pub fn new() -> Self {
        Self::default()
    }

    /// Publishes this event with the compensation.
    #[must_use]
    pub fn emit(mut self, event: impl Into<Emission>) -> Self {
        self.emit.push(event.into());
        self
    }

    /// Keeps this as the participant's state in this saga.
    #[must_use]
    pub fn state<S: Serialize>(mut self, state: &S) -> Self {
        self.state = StateChange::Put(event::encode(state));
        self
    }

    /// Forgets the participant's state in this saga.
    #[must_use]
    pub fn delete_state(mut self) -> Self {
        self.state = StateChange::Delete;
        self
    }

    /// A searchable note on the saga.
    #[must_use]
    pub fn note(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.attributes.push((name.into(), value.to_string()));
        self
    }
}

/// Why an `#[undo]` function undid nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotUndone {
    /// For a step that had not happened.
    NothingToUndo,
    /// Another attempt may succeed.
    Retry(Delay),
    /// No attempt will help: the saga needs an operator.
    Stuck(Problem),
    /// An error that the code has no answer to: treated like a panic, with this text.
    Crash(String),
}

impl NotUndone {
    /// See [`NotUndone::Retry`].
    pub fn retry(code: impl Into<String>, detail: impl Display) -> Self {
        Self::Retry(Delay::new(code, detail))
    }

    /// See [`NotUndone::Stuck`].
    pub fn stuck(code: impl Into<String>, detail: impl Display) -> Self {
        Self::Stuck(Problem::new(code, detail))
    }

    /// See [`NotUndone::Crash`].
    pub fn crash(error: impl Display) -> Self {
        Self::Crash(error.to_string())
    }
}

impl From<Delay> for NotUndone {
    fn from(delay: Delay) -> Self {
        Self::Retry(delay)
    }
}

impl From<NotUndone> for Result<UndoOutcome, String> {
    fn from(not_undone: NotUndone) -> Self {
        match not_undone {
            NotUndone::NothingToUndo => Ok(UndoOutcome::NothingToUndo),
            NotUndone::Retry(delay) => Ok(UndoOutcome::Retry(delay)),
            NotUndone::Stuck(problem) => Ok(UndoOutcome::Stuck(problem)),
            NotUndone::Crash(text) => Err(text),
        }
    }
}

/// A step to undo: the event that it handled, and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step<E, U> {
    /// The event that the step handled.
    pub event: E,
    /// Whether it was done, with the undo data if so.
    pub evidence: Evidence<U>,
    /// Why it is undone.
    pub cause: Cause,
    /// Version of the plugin that did it.
    pub plugin_version: String,
}

impl<E, U> Step<E, U> {
    /// The undo data of a step that was done. With `?`: a step that never ran has nothing to undo, and an uncertain one
    /// (only with outside effects) is stuck. Match on [`evidence`](Self::evidence) where that is not your answer.
    pub fn done(&self) -> Result<&U, NotUndone> {
        match &self.evidence {
            Evidence::Done(undo) => Ok(undo),
            Evidence::NeverRan => Err(NotUndone::NothingToUndo),
            Evidence::Uncertain => {
                Err(NotUndone::stuck("UNCERTAIN", "the step may or may not have happened, and nothing here finds out"))
            }
        }
    }
}
