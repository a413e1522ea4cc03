//! What may be asked, one JSON object a line, and how it is answered: `{"ok": …}` or `{"refused": …}`. Invariant: a
//! request names no table and no file of the host's.

use sagahost_saga::{
    id::{Participant, SagaId},
    input::{Command, Status},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{OutboxAction, PluginAction, ResumeFrom};
use crate::transport::{Outgoing, Partition};

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
    /// Journal or transport failed.
    Failed,
}

impl Refusal {
    pub fn new(why: Why, text: impl Into<String>) -> Self {
        Self { why, text: text.into() }
    }
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(Why::NotFound, text)
    }
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Self::new(Why::Failed, error.to_string())
    }
}

/// How many of anything one answer lists at most.
pub const LIST_MAX: usize = 10_000;
