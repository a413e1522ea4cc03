//! What a plugin's call returns, as plain data: the types of `wit/plugin.wit`, and beside them what the host adds
//! (a trap is an outcome too). Invariant: nothing here has happened; the host makes it happen by committing it.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    event::{Attributes, Event},
    id::{Direction, Kind, Participant, SagaId, Time},
};

/// State or undo data, with the manifest's `data-format` of the plugin that wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    pub data: Arc<[u8]>,
    pub format: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub code: String,
    pub detail: String,
}

impl Problem {
    pub fn new(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code: code.into(), detail: detail.into() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emission {
    pub kind: Kind,
    pub data: Arc<[u8]>,
    /// None: `application/json`.
    pub content_type: Option<String>,
    /// None: this saga.
    pub saga: Option<SagaId>,
    pub after: Option<Duration>,
    pub attributes: Attributes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateChange {
    Keep,
    Put(Saved),
    Delete,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Undo {
    NothingToUndo,
    Data(Saved),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    GoingOn,
    Finished(Arc<[u8]>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    pub emit: Vec<Emission>,
    pub state: StateChange,
    pub undo: Undo,
    pub progress: Progress,
    pub attributes: Attributes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    pub problem: Problem,
    pub emit: Vec<Emission>,
    pub attributes: Attributes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delay {
    pub problem: Problem,
    /// None: the subscription's backoff.
    pub after: Option<Duration>,
}

/// Why a call ended without an answer of the guest's. For a plugin without outside effects nothing happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// trap, deadline, memory, guest-error, log-limit, payload-limit, bad-outcome, …
    pub code: String,
    /// For people: the guest's panic text, the functions it was in.
    pub detail: String,
}

/// How an attempt of `handle-event` ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Completed(Completion),
    Rejected(Rejection),
    Retry(Delay),
    NotYet(Problem),
    Invalid(Problem),
    /// A trap, a deadline, a memory stop, an uncaught error. `uncertain`: a call left the host, so the step may have
    /// happened.
    Unknown {
        crash: Crash,
        uncertain: bool,
    },
    /// No stored version of the plugin reads the data format of this saga's state or undo data.
    Unreadable {
        formats: Vec<u32>,
    },
    /// Nothing of the attempt left the host, for whoever would answer it is away: that costs no attempt.
    Unsent(Problem),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    pub emit: Vec<Emission>,
    pub state: StateChange,
    pub attributes: Attributes,
}

/// How an attempt of `compensate` ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UndoOutcome {
    Undone(Undone),
    NothingToUndo,
    Retry(Delay),
    Stuck(Problem),
    Unknown { crash: Crash },
    Unreadable { formats: Vec<u32> },
    Unsent(Problem),
}

/// What the host knows of a step that is to be compensated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    Done(Saved),
    Uncertain,
    NeverRan,
}

/// Why a saga compensates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// rejected, attempts-spent, failure-event, cancelled, saga-deadline, operator
    pub code: String,
    pub detail: String,
    pub participant: Option<Participant>,
    pub event_kind: Option<Kind>,
}

/// Which code ran: digest of the component and hash of its configuration, hex; version for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Behaviour {
    pub digest: Arc<str>,
    pub config: Arc<str>,
    pub version: Arc<str>,
}

/// One attempt that the core asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub participant: Participant,
    pub step_id: String,
    pub direction: Direction,
    /// 0 for the first compensation of a step, 1 after a late success; always 0 forward.
    pub ordinal: u32,
    /// 1, 2, …: of this step, in this direction, over all versions of the plugin.
    pub attempt: u32,
    pub idempotency_key: String,
    pub event: Event,
    pub state: Option<Saved>,
    /// For `compensate`.
    pub undo: Option<UndoCall>,
    /// When this attempt began.
    pub now: Time,
    pub runs: Runs,
    /// How many requests the attempt has sent; with what came back it is run again from its beginning.
    pub send: u32,
}

/// Where, and when, an attempt runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// In the chain that asks for it.
    Here,
    /// Outside of the host, once it is durable that it began: [`Input::Started`](crate::input::Input::Started) asks again.
    Later,
    /// Outside of the host, now: it is durable that it began. Its end comes as an input of its own.
    Outside,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndoCall {
    pub evidence: Evidence,
    pub cause: Cause,
    /// Version of the plugin that did the step; empty where none did.
    pub plugin_version: Arc<str>,
}

/// How an attempt ended, according to its direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Outcome(Outcome),
    Undo(UndoOutcome),
}

impl Outcome {
    /// As timelines and facts write it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Completed(_) => "completed",
            Self::Rejected(_) => "rejected",
            Self::Retry(_) => "retry",
            Self::NotYet(_) => "not-yet",
            Self::Invalid(_) => "invalid",
            Self::Unknown { uncertain: false, .. } => "unknown",
            // The step may have happened: whoever reads it may have to look outside.
            Self::Unknown { uncertain: true, .. } => "uncertain",
            Self::Unreadable { .. } => "unreadable",
            Self::Unsent(_) => "unsent",
        }
    }

    /// Code and detail of what it ended with.
    pub fn why(&self) -> Option<(&str, &str)> {
        match self {
            Self::Rejected(Rejection { problem, .. })
            | Self::Retry(Delay { problem, .. })
            | Self::NotYet(problem)
            | Self::Invalid(problem)
            | Self::Unsent(problem) => Some((&problem.code, &problem.detail)),
            Self::Unknown { crash, .. } => Some((&crash.code, &crash.detail)),
            Self::Completed(_) | Self::Unreadable { .. } => None,
        }
    }
}

impl UndoOutcome {
    /// As timelines and facts write it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Undone(_) => "undone",
            Self::NothingToUndo => "nothing-to-undo",
            Self::Retry(_) => "retry",
            Self::Stuck(_) => "stuck",
            Self::Unknown { .. } => "unknown",
            Self::Unreadable { .. } => "unreadable",
            Self::Unsent(_) => "unsent",
        }
    }

    /// Code and detail of what it ended with.
    pub fn why(&self) -> Option<(&str, &str)> {
        match self {
            Self::Retry(Delay { problem, .. }) | Self::Stuck(problem) | Self::Unsent(problem) => {
                Some((&problem.code, &problem.detail))
            }
            Self::Unknown { crash } => Some((&crash.code, &crash.detail)),
            Self::Undone(_) | Self::NothingToUndo | Self::Unreadable { .. } => None,
        }
    }
}

impl End {
    /// As timelines and facts write it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Outcome(outcome) => outcome.name(),
            Self::Undo(outcome) => outcome.name(),
        }
    }

    /// Code and detail of what it ended with.
    pub fn why(&self) -> Option<(&str, &str)> {
        match self {
            Self::Outcome(outcome) => outcome.why(),
            Self::Undo(outcome) => outcome.why(),
        }
    }

    /// Of the problem that it ended with.
    pub fn code(&self) -> Option<&str> {
        self.why().map(|(code, _)| code)
    }

    /// Nothing of the call happened, and it costs no attempt.
    pub fn unsent(call: &Call, problem: Problem) -> Self {
        match call.direction {
            Direction::Forward => Self::Outcome(Outcome::Unsent(problem)),
            Direction::Undo => Self::Undo(UndoOutcome::Unsent(problem)),
        }
    }

    /// No code that could take this call reads its data.
    pub fn unreadable(call: &Call) -> Self {
        let formats = call.formats();
        match call.direction {
            Direction::Forward => Self::Outcome(Outcome::Unreadable { formats }),
            Direction::Undo => Self::Undo(UndoOutcome::Unreadable { formats }),
        }
    }
}

impl Call {
    /// Data formats that the code which takes this call must be able to read.
    pub fn formats(&self) -> Vec<u32> {
        let undo = match &self.undo {
            Some(UndoCall { evidence: Evidence::Done(saved), .. }) => Some(saved.format),
            _ => None,
        };
        let mut formats: Vec<u32> = self.state.iter().map(|saved| saved.format).chain(undo).collect();
        formats.sort_unstable();
        formats.dedup();
        formats
    }
}
