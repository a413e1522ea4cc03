//! What may be asked, one JSON object a line, and how it is answered: `{"ok": …}` or `{"refused": …}`. Invariant: a
//! request names no table and no file of the host's.

use sagahost_journal::JournalError;
use sagahost_processor::reply::Declined;
use sagahost_saga::{
    id::{Participant, SagaId},
    input::{Command, Status},
};
use sagahost_sandbox::digests::DigestError;
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

/// Why a request has no answer.
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
    /// A host must run for it.
    NeedsHost,
    /// The broker, or the embedded topics, did not answer or refused.
    Transport,
    /// The journal could not be read or written.
    Journal,
    /// Anything else.
    Failed,
}

impl Why {
    /// What an error is at heart.
    pub fn of(error: &anyhow::Error) -> Self {
        let cause = |cause: &(dyn std::error::Error + 'static)| {
            if let Some(refusal) = cause.downcast_ref::<Refusal>() {
                return Some(refusal.why);
            }
            let journal = cause.is::<JournalError>().then_some(Self::Journal);
            journal.or_else(|| cause.is::<TransportError>().then_some(Self::Transport))
        };
        error.chain().find_map(cause).unwrap_or(Self::Failed)
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
    /// By the kind of the error.
    pub fn failed(error: impl Into<Self>) -> Self {
        error.into()
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Self {
        Self::new(Why::Journal, error.to_string())
    }
}

impl From<Declined> for Refusal {
    fn from(why: Declined) -> Self {
        let text = why.to_string();
        Self::new(if matches!(why, Declined::Journal(_)) { Why::Journal } else { Why::Failed }, text)
    }
}

impl From<TransportError> for Refusal {
    fn from(error: TransportError) -> Self {
        Self::new(Why::Transport, error.to_string())
    }
}

impl From<DigestError> for Refusal {
    fn from(error: DigestError) -> Self {
        Self::new(Why::Failed, error.to_string())
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Why::of(&error), format!("{error:#}"))
    }
}

/// How many of anything one answer lists at most.
pub const LIST_MAX: usize = 10_000;
