//! What may be asked, one JSON object a line, and how it is answered: `{"ok": …}` or `{"refused": …}`. Invariant: a
//! request names no table and no file of the host's.

use std::error::Error;

use sagahost_journal::JournalError;
use sagahost_processor::reply::Declined;
use sagahost_saga::{
    id::{Participant, SagaId},
    input::{Command, Status},
    notation::with_causes,
};
use sagahost_serving::ChangeError;
use sagahost_transport::TransportError;
use sagahost_wire::{Outgoing, Partition};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{OutboxAction, PluginAction, ResumeFrom};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Request {
    Status,
    Sagas {
        status: Option<Status>,
        notes: Vec<(String, String)>,
        before: Option<i64>,
        limit: usize,
    },
    Saga {
        id: SagaId,
    },
    Command {
        saga: SagaId,
        #[serde(flatten)]
        command: Command,
    },
    LetterGroups,
    Letters {
        #[serde(flatten)]
        of: LetterSelection,
        /// Closed ones too.
        closed: bool,
    },
    Letter {
        key: String,
    },
    Redrive {
        #[serde(flatten)]
        of: LetterSelection,
        by: String,
        dry_run: bool,
    },
    Discard {
        #[serde(flatten)]
        of: LetterSelection,
        by: String,
        reason: String,
    },
    Outbox {
        limit: usize,
    },
    OutboxChange {
        action: OutboxAction,
    },
    Topics,
    CreateTopics {
        names: Vec<String>,
        partitions: i32,
    },
    Resume {
        partition: Partition,
        from: Option<ResumeFrom>,
    },
    Plugins,
    /// Who reads and emits what.
    Graph,
    Plugin {
        plugin: Participant,
    },
    ReloadConfig,
    ChangePlugin {
        plugin: Participant,
        action: PluginAction,
    },
    Counters {
        participant: Option<Participant>,
    },
    Store {
        participant: Participant,
        prefix: String,
        after: Option<String>,
        limit: usize,
    },
    Emit {
        record: Outgoing,
        /// What it is meant to be.
        #[serde(default)]
        kind: Option<String>,
    },
    /// The example event of a kind.
    Example {
        kind: String,
    },
}

/// Open dead letters: one by its key, or all that fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LetterSelection {
    pub key: Option<String>,
    pub saga: Option<SagaId>,
    pub code: Option<String>,
    pub participant: Option<Participant>,
    pub limit: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Ok(Value),
    Refused(Refusal),
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
#[error("{text}")]
pub struct Refusal {
    pub why: Why,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// There is no such saga, letter, plugin.
    NotFound,
    /// It cannot be asked like this.
    Invalid,
    /// What it is about does not allow it.
    Refused,
    /// A host must run for it.
    NeedsHost,
    /// Not at the moment: nothing was changed, and the same may be asked again.
    Unavailable,
    /// Not answered in time: it may still be carried out.
    TimedOut,
    /// The broker, or the embedded topics, did not answer or refused.
    Transport,
    /// The journal could not be read or written.
    Journal,
    /// Anything else; also what a newer host says and this version does not know.
    #[serde(other)]
    Failed,
}

impl Why {
    /// What an error is at heart: the outermost of its causes that says.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(why) = Self::said_by(error) {
                return why;
            }
            cause = error.source();
        }
        Self::Failed
    }

    fn said_by(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return Some(refusal.why);
        }
        if let Some(declined) = error.downcast_ref::<Declined>() {
            return Some(Self::of_declined(declined));
        }
        if let Some(change) = error.downcast_ref::<ChangeError>() {
            return Self::of_change(change);
        }
        let journal = error.is::<JournalError>().then_some(Self::Journal);
        journal.or_else(|| error.is::<TransportError>().then_some(Self::Transport))
    }

    fn of_declined(declined: &Declined) -> Self {
        match declined {
            Declined::Quarantined { .. } | Declined::Undecided { .. } => Self::Refused,
            Declined::BeganAgain | Declined::Conflict { .. } => Self::Unavailable,
            Declined::NotWritten { .. } | Declined::Unknown { .. } => Self::Journal,
        }
    }

    /// None: its cause says.
    fn of_change(change: &ChangeError) -> Option<Self> {
        match change {
            ChangeError::NeverAdmitted { .. }
            | ChangeError::NotServing { .. }
            | ChangeError::NotPaused { .. }
            | ChangeError::NoneQuarantined { .. }
            | ChangeError::NoOtherVersion { .. }
            | ChangeError::Retired { .. }
            | ChangeError::RetiredAlready { .. } => Some(Self::NotFound),
            ChangeError::QuarantinedFileGone { .. } | ChangeError::FileThere { .. } | ChangeError::Needed { .. } => {
                Some(Self::Refused)
            }
            ChangeError::NoConfiguration | ChangeError::Configuration { .. } | ChangeError::NotAdmitted { .. } => {
                Some(Self::Invalid)
            }
            ChangeError::DirectoryChanging => Some(Self::Unavailable),
            ChangeError::Directory { .. }
            | ChangeError::Unchanged { .. }
            | ChangeError::Plugins(_)
            | ChangeError::Topics { .. }
            | ChangeError::Positions { .. }
            | ChangeError::Journal { .. } => None,
        }
    }
}

impl Refusal {
    pub fn new(why: Why, text: impl Into<String>) -> Self {
        Self { why, text: text.into() }
    }
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(Why::NotFound, text)
    }
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(Why::Invalid, text)
    }
    pub fn refused(text: impl Into<String>) -> Self {
        Self::new(Why::Refused, text)
    }
    /// By the kind of the error, with its causes.
    pub fn failed(error: impl Error + 'static) -> Self {
        Self::new(Why::of(&error), with_causes(&error))
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Self {
        Self::failed(error)
    }
}

impl From<Declined> for Refusal {
    fn from(why: Declined) -> Self {
        Self::failed(why)
    }
}

impl From<TransportError> for Refusal {
    fn from(error: TransportError) -> Self {
        Self::failed(error)
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        Self::failed(error)
    }
}

/// How many of anything one answer lists at most.
pub const LIST_MAX: usize = 10_000;
/// Keys and values of a store in one answer.
pub const STORE_BYTES_MAX: usize = 4 << 20;
