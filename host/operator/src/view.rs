//! What operators see, as plain data: tables and timelines are printed from it, and `--json` prints it as it is.
//! Invariant: it carries no type of the journal's or the core's format, so that those may change.

use std::collections::BTreeMap;

use sagahost_journal::{OutboxBatch, SagaListRow};
use sagahost_processor::unhandled::{Sort, UnhandledKind};
use sagahost_saga::{
    Saga,
    history::{Entry, What},
    id::Time,
    outcome::Cause,
};
use sagahost_wire::{Stamp, StoredLetter};
use serde::{Deserialize, Serialize};

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

/// One entry of the timeline; only the fields that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct TimelineLine {
    pub at: Stamp,
    /// event, attempt, emitted, parked, status, operator, dead-letter
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
pub struct LetterGroup {
    pub code: String,
    pub participant: Option<String>,
    pub open: u64,
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
pub struct TopicLine {
    pub name: String,
    /// Kinds that it carries for this app.
    pub kinds: Vec<String>,
    pub read: bool,
    pub written: bool,
    /// None: it does not exist.
    pub partitions: Option<i32>,
    /// Records kept now.
    pub records: Option<i64>,
    /// Records that this app has yet to handle; none where it never read it.
    pub lag: Option<i64>,
    /// What makes it, where it is missing.
    pub create: Option<String>,
    /// Partitions that another producer's open transaction holds up, and where.
    pub held_up: Vec<String>,
    /// Kinds in it that no plugin here handles, since the host's start.
    pub unhandled: Vec<UnhandledLine>,
}

/// Events of one kind in one topic that no plugin here handles, since the host's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct UnhandledLine {
    pub topic: String,
    pub kind: String,
    pub events: u64,
    /// Where the last one is: `order-created[2]@17`.
    pub last: Option<String>,
    /// It is known to be for others: the configuration says so, or this app emitted it.
    pub ignored: bool,
    /// The kind that is handled here and was probably meant.
    pub meant: Option<String>,
}

impl From<UnhandledKind> for UnhandledLine {
    fn from(kind: UnhandledKind) -> Self {
        let UnhandledKind { topic, kind, events, last, sort, meant } = kind;
        Self { topic, kind, events, last, ignored: sort == Sort::Ignored, meant }
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

/// For sorting and for tests.
pub fn at(ms: u64) -> Stamp {
    Stamp(Time(ms))
}
