//! Dead letters, and what was done with them. Invariant: the record is shown as it came.

use sagahost_wire::{Stamp, StoredLetter};
use serde::{Deserialize, Serialize};

use super::readable;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LetterGroup {
    pub code: String,
    pub participant: Option<String>,
    pub open: u64,
    /// Went without being closed, since the bounds of `[dead-letters]` do not allow more. None has a participant.
    pub removed: u64,
    /// When the last one went.
    pub removed_at: Option<Stamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LetterLine {
    pub key: String,
    pub saga: Option<String>,
    pub participant: Option<String>,
    pub kind: Option<String>,
    pub code: String,
    pub detail: String,
    pub attempts: u32,
    pub version: String,
    pub at: Stamp,
    /// `order-created[2]@17`
    pub origin: Option<String>,
    /// How it was closed; none: open.
    pub closed: Option<String>,
}

impl From<&StoredLetter> for LetterLine {
    fn from(letter: &StoredLetter) -> Self {
        Self {
            key: letter.key.clone(),
            saga: letter.saga.as_ref().map(ToString::to_string),
            participant: letter.participant.as_ref().map(ToString::to_string),
            kind: letter.kind.as_ref().map(ToString::to_string),
            code: letter.code.clone(),
            detail: letter.detail.clone(),
            attempts: letter.attempts,
            version: letter.plugin_version.to_string(),
            at: letter.at.into(),
            origin: letter.origin.as_ref().map(|(partition, offset)| format!("{partition}@{offset}")),
            closed: letter.closed.clone(),
        }
    }
}

/// A dead letter with its record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LetterView {
    #[serde(flatten)]
    pub line: LetterLine,
    pub topic: String,
    pub record_key: Option<String>,
    /// None: a tombstone.
    pub value: Option<String>,
    /// A value of None is Kafka's null.
    pub headers: Vec<(String, Option<String>)>,
}

impl From<&StoredLetter> for LetterView {
    fn from(letter: &StoredLetter) -> Self {
        let record = &letter.record;
        Self {
            line: letter.into(),
            topic: record.topic.to_string(),
            record_key: record.key.as_deref().map(readable),
            value: record.value.as_deref().map(readable),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), value.as_deref().map(readable)))
                .collect(),
        }
    }
}

/// What a redrive or discard did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LetterResult {
    pub key: String,
    pub saga: Option<String>,
    pub participant: Option<String>,
    pub kind: Option<String>,
    pub code: String,
    /// Of the saga, now.
    pub saga_status: Option<String>,
    pub done: bool,
    /// What was done, or why not; in a dry run what would be.
    pub text: String,
}
