//! What operators see, as plain data: tables and timelines are printed from it, and `--json` prints it as it is.
//! Invariant: it carries no type of the journal's or the core's format, so that those may change.

mod letters;
mod saga;
mod timeline;
mod topics;

use std::collections::BTreeMap;

use sagahost_journal::OutboxBatch;
use serde::{Deserialize, Serialize};

pub use letters::{LetterGroup, LetterLine, LetterResult, LetterView};
pub use saga::{ParkedLine, SagaLine, SagaPage, SagaView, StepLine};
pub use timeline::TimelineLine;
pub use topics::{TopicLine, UnhandledLine};

/// An example event, of a plugin's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExampleView {
    pub kind: String,
    /// Whose manifest it is from.
    pub plugin: String,
    pub data: serde_json::Value,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct OutboxLine {
    pub batch: u64,
    pub incarnation: String,
    pub records: usize,
    pub bytes: usize,
    /// Topic → records.
    pub topics: BTreeMap<String, usize>,
    /// Row → why it was skipped.
    pub skipped: BTreeMap<usize, String>,
}

impl From<&OutboxBatch> for OutboxLine {
    fn from(batch: &OutboxBatch) -> Self {
        let mut topics = BTreeMap::new();
        for record in &batch.records {
            *topics.entry(record.topic.to_string()).or_insert(0) += 1;
        }
        Self {
            batch: batch.number.0,
            incarnation: batch.incarnation.to_string(),
            records: batch.records.len(),
            bytes: batch.records.iter().map(sagahost_wire::Outgoing::size_bytes).sum(),
            topics,
            skipped: batch.skipped.clone(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct CounterLine {
    pub participant: String,
    pub name: String,
    pub value: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct StoreLine {
    pub key: String,
    pub bytes: usize,
    /// As text where it is text, else hexadecimal.
    pub value: String,
}

/// What a command did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Done {
    pub done: bool,
    /// No host runs: it is journaled and takes effect when one does.
    pub queued: bool,
    pub text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Placed {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Plugins of this app that handle it, or end or compensate on it.
    pub handled_by: Vec<String>,
    /// Why none of them will.
    pub note: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct StatusView {
    pub app: String,
    pub running: bool,
    pub transport: String,
    pub journal: String,
    pub incarnation: String,
    pub batch: u64,
    pub published: u64,
    pub sagas: Vec<(String, u64)>,
    pub open_letters: u64,
    /// Dead letters that went without being closed.
    pub removed_letters: u64,
    pub queued_commands: usize,
    pub counters: BTreeMap<String, u64>,
    pub waiting_for: Vec<String>,
    pub held: Vec<String>,
    /// Kinds that no plugin here handles.
    pub unhandled: Vec<UnhandledLine>,
}

/// Text where it is text.
pub fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("0x{}", sagahost_saga::id::hex(bytes)),
    }
}
