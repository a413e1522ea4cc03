//! The boundary between operators' commands and the host: one JSON request a line through a socket in the data
//! directory. Invariant: a command changes a saga through its mailbox only, never through the journal's tables.
//!
//! In reading order: `settings`, `protocol` (what may be asked), `desk` (who answers it, with a running host or without), `view`
//! (what the answers look like), then the way there: `socket`, `server`, `connections`, `conversation`, `client`.

pub mod protocol;
pub mod settings;

mod dead_letters;
pub mod desk;
pub mod examples;
mod outlook;
mod plugins;
mod sagas;
pub mod topics;
pub mod view;

pub mod client;
mod connections;
mod conversation;
pub mod server;
pub mod socket;

#[cfg(test)]
mod tests;

use std::str::FromStr;

use sagahost_saga::{
    id::{Participant, SagaId},
    input::{Answer, Command},
};
use sagahost_wire::{BatchNo, Partition, StoredLetter};
use serde::{Deserialize, Serialize};

pub use sagahost_serving::{keeper::PluginAction, view as plugin_view};
pub use sagahost_wire::stamp;

use self::protocol::Refusal;
pub use self::settings::{AdminSettings, Settings};

/// What a running host does for an operator. Blocks until it is journaled.
pub trait Live: Send + Sync {
    /// Enters the saga's mailbox.
    fn command(&self, saga: &SagaId, command: Command) -> Result<Answer, Refusal>;
    fn outbox(&self, action: OutboxAction) -> Result<Answer, Refusal>;
    /// A dead letter without a saga (its record could not be decoded): decode it again, take it in.
    fn redrive_record(&self, letter: StoredLetter) -> Result<Answer, Refusal>;
    fn discard_record(&self, letter: StoredLetter, by: String, reason: String) -> Result<Answer, Refusal>;
    /// Resumes a partition that is held: from its position, or from elsewhere.
    fn resume(&self, partition: &Partition, from: Option<ResumeFrom>) -> Result<Answer, Refusal>;
    fn change_plugin(&self, plugin: &Participant, action: PluginAction) -> Result<Answer, Refusal>;
    /// The configuration file is read again: other values for plugins.
    fn reload_config(&self) -> Result<Answer, Refusal>;
    /// What serves, and what does not.
    fn plugins(&self) -> plugin_view::PluginsView;
    fn status(&self) -> LiveStatus;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutboxAction {
    /// Try the refused row again.
    Retry,
    Skip {
        batch: BatchNo,
        index: usize,
        by: String,
        reason: String,
    },
}

/// Where a partition that was held is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResumeFrom {
    Earliest,
    Latest,
    Offset(i64),
}

impl FromStr for ResumeFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            offset => match offset.parse() {
                Ok(offset) if offset >= 0 => Ok(Self::Offset(offset)),
                Ok(_) | Err(_) => Err("not earliest, latest or an offset".to_owned()),
            },
        }
    }
}

/// A look at the running host, for people and machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LiveStatus {
    pub app: String,
    pub transport: String,
    pub journal: String,
    pub incarnation: String,
    pub batch: u64,
    pub published: u64,
    /// Records read, skipped unread, events taken in, events taken in before, plugin calls, chains run again.
    pub records: u64,
    pub records_skipped: u64,
    pub events: u64,
    pub duplicates: u64,
    pub calls: u64,
    pub chains_rerun: u64,
    pub journal_commits: u64,
    pub publications: u64,
    /// Why nothing moves, where something waits: broker away, refused outbox row, partitions held.
    pub waiting_for: Vec<String>,
    pub held: Vec<String>,
    /// Events of kinds that no plugin here handles: those that need a look, and those that are known to be for others.
    pub events_unhandled: u64,
    pub events_ignored: u64,
    pub unhandled: Vec<view::UnhandledLine>,
}
