//! The timeline of a saga. Invariant: each entry of the history is one line, with no more fields than it has.

use sagahost_saga::history::{Entry, What};
use sagahost_wire::Stamp;
use serde::{Deserialize, Serialize};

/// One entry of the timeline; only the fields that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct TimelineLine {
    pub at: Stamp,
    /// event, attempt, request, emitted, parked, status, operator, dead-letter
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Of the event, or key of the dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What became of the event: taken-in, fused, late, duplicate, failure, ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// handle or compensate
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How the dead letter was closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
}

impl From<&Entry> for TimelineLine {
    fn from(entry: &Entry) -> Self {
        let empty = Self { at: entry.at.into(), ..Self::default() };
        let text = |text: &dyn ToString| Some(text.to_string());
        let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        match &entry.what {
            What::Event { kind, key, note } => {
                Self { what: "event".into(), kind: text(kind), id: text(key), note: Some(note.name().into()), ..empty }
            }
            What::Attempt { participant, kind, direction, attempt, outcome, code, detail, took, version } => Self {
                what: "attempt".into(),
                participant: text(participant),
                kind: text(kind),
                direction: Some(direction.name().into()),
                attempt: Some(*attempt),
                outcome: text(outcome),
                code: filled(code),
                detail: filled(detail),
                took_us: Some(u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
                version: filled(version),
                ..empty
            },
            What::Emitted { participant, kind, id } => Self {
                what: "emitted".into(),
                participant: participant.as_ref().map(ToString::to_string),
                kind: text(kind),
                id: text(id),
                ..empty
            },
            What::Parked { participant, kind, why, until } => Self {
                what: "parked".into(),
                participant: text(participant),
                kind: text(kind),
                reason: filled(why),
                until: until.map(Stamp),
                ..empty
            },
            What::Status { to, cause, detail } => Self {
                what: "status".into(),
                status: Some(to.name().into()),
                code: filled(cause),
                detail: filled(detail),
                ..empty
            },
            What::Operator { by, did, reason } => {
                Self { what: "operator".into(), by: text(by), outcome: text(did), reason: filled(reason), ..empty }
            }
            What::Sent { participant, direction, attempt, what: said, took } => Self {
                what: "request".into(),
                participant: text(participant),
                direction: Some(direction.name().into()),
                attempt: Some(*attempt),
                outcome: text(said),
                took_us: Some(u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
                ..empty
            },
            What::DeadLetter { key, code, closed } => Self {
                what: "dead-letter".into(),
                id: text(key),
                code: filled(code),
                closed: closed.as_ref().map(ToString::to_string),
                ..empty
            },
        }
    }
}
