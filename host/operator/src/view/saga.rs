//! A saga as operators see it, and the lists that it is found in. Invariant: what `--json` prints has every field of the
//! page.

use sagahost_journal::SagaListRow;
use sagahost_saga::{Saga, history::Entry, outcome::Cause};
use sagahost_wire::Stamp;
use serde::{Deserialize, Serialize};

use super::{LetterLine, TimelineLine};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct SagaPage {
    pub sagas: Vec<SagaLine>,
    /// Of all sagas in the journal.
    pub counts: Vec<(String, u64)>,
    /// Where the next page begins; none: this was the last one.
    pub more_before: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct SagaLine {
    pub id: String,
    pub status: String,
    pub updated: Stamp,
    pub notes: Vec<(String, String)>,
}

impl From<&SagaListRow> for SagaLine {
    fn from(row: &SagaListRow) -> Self {
        Self {
            id: row.id.to_string(),
            status: row.status.name().to_owned(),
            updated: row.updated.into(),
            notes: row.notes.clone(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct SagaView {
    pub id: String,
    pub app: String,
    pub status: String,
    pub created: Stamp,
    pub updated: Stamp,
    pub ended: Option<Stamp>,
    /// Why it compensates.
    pub cause: Option<String>,
    /// What `finished` said, as text.
    pub result: Option<String>,
    pub notes: Vec<(String, String)>,
    pub events: u64,
    pub late: u32,
    pub steps: Vec<StepLine>,
    pub parked: Vec<ParkedLine>,
    /// Keys of its open dead letters.
    pub letters: Vec<LetterLine>,
    pub timeline: Vec<TimelineLine>,
    /// What to type next, each with the reason behind a `#`.
    pub next: Vec<String>,
    /// Why its record cannot be used.
    pub quarantined: Option<String>,
    /// Commands that wait for a host to run.
    pub queued: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct StepLine {
    pub participant: String,
    pub kind: String,
    pub event: String,
    pub role: String,
    pub state: String,
    pub attempts: u32,
    pub undo_attempts: u32,
    pub version: String,
    pub next_at: Option<Stamp>,
    pub why: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ParkedLine {
    pub participant: String,
    pub kind: String,
    pub why: String,
    pub until: Option<Stamp>,
}

impl SagaView {
    /// `history`: the whole timeline, what was spilled too.
    pub fn of(saga: &Saga, app: &str, history: &[Entry]) -> Self {
        let steps = saga.steps().map(|step| StepLine {
            participant: step.participant.to_string(),
            kind: step.kind.to_string(),
            event: step.event.to_string(),
            role: step.role.name().to_owned(),
            state: step.state.name().to_owned(),
            attempts: step.attempts,
            undo_attempts: step.undo_attempts,
            version: step.version.to_owned(),
            next_at: step.next_at.map(Stamp),
            why: step.problem.map(|problem| said(&problem.code, &problem.detail)),
        });
        let parked = saga.parked().map(|parked| ParkedLine {
            participant: parked.participant.to_string(),
            kind: parked.kind.to_string(),
            why: parked.why.to_owned(),
            until: parked.until.map(Stamp),
        });
        Self {
            id: saga.id().to_string(),
            app: app.to_owned(),
            status: saga.status().name().to_owned(),
            created: saga.created().into(),
            updated: saga.touched().into(),
            ended: saga.ended().map(Stamp),
            cause: saga.cause().map(cause_text),
            result: saga.result().map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
            notes: saga.notes().clone(),
            events: saga.events_seen(),
            late: saga.late(),
            steps: steps.collect(),
            parked: parked.collect(),
            letters: Vec::new(),
            timeline: history.iter().map(TimelineLine::from).collect(),
            next: saga.next_commands(),
            quarantined: None,
            queued: Vec::new(),
        }
    }
}

fn cause_text(cause: &Cause) -> String {
    let mut text = cause.code.clone();
    if let Some(participant) = &cause.participant {
        text += &format!(" by {participant}");
    }
    if let Some(kind) = &cause.event_kind {
        text += &format!(" on {kind}");
    }
    if cause.detail.is_empty() { text } else { format!("{text}: {}", cause.detail) }
}

fn said(code: &str, detail: &str) -> String {
    if detail.is_empty() { code.to_owned() } else { format!("{code}: {detail}") }
}
