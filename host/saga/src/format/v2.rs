//! The record as format 2 wrote it. Invariant: these shapes never change; what became of them is said in `From`.
//!
//! Format 3 knows null header values, and the key of a saga's records.

use std::sync::Arc;

use serde::Deserialize;

use crate::{
    compensation::Undoing,
    event::{self, Attributes},
    history::Entry,
    id::{EventKey, Kind, Participant, SagaId, Time},
    input::Notes,
    outcome::{Behaviour, Cause, Problem, Saved},
    saga::{self, Expected, Need, OpenLetter, Phase},
    step::{self, Budget, Stage},
    topology::Role,
};

#[derive(Deserialize)]
pub(super) struct Saga {
    id: SagaId,
    version: u64,
    created: Time,
    touched: Time,
    phase: Phase,
    ended: Option<Time>,
    cause: Option<Cause>,
    announced: Option<EventKey>,
    result: Option<Arc<[u8]>>,
    start: Option<Kind>,
    steps: Vec<Step>,
    starts: u32,
    plan: Vec<Undoing>,
    expected: Vec<Expected>,
    delayed: Vec<Delayed>,
    states: Vec<(Participant, Saved)>,
    asked: Vec<Participant>,
    needs: Vec<Need>,
    letters: Vec<OpenLetter>,
    untracked: u32,
    deadline: Option<Time>,
    seen: Vec<([u8; 16], [u8; 16])>,
    spilled_events: u64,
    quarantined: Vec<[u8; 16]>,
    history: Vec<Entry>,
    spilled_history: u64,
    notes: Notes,
    late: u32,
}

#[derive(Deserialize)]
struct Step {
    participant: Participant,
    event: Event,
    role: Role,
    cause: Option<u32>,
    stage: Stage,
    start: Option<u32>,
    attempts: u32,
    budget: Budget,
    uncertain: bool,
    outside: bool,
    undo: Option<Saved>,
    by: Behaviour,
    deadline: Option<Time>,
    park_until: Option<Time>,
    released: bool,
    compensating: bool,
    problem: Option<Problem>,
}

#[derive(Deserialize)]
struct Delayed {
    event: Event,
    due: Time,
    step: u32,
}

#[derive(Deserialize)]
struct Event {
    key: EventKey,
    saga: SagaId,
    kind: Kind,
    time: Time,
    content_type: Arc<str>,
    data: Arc<[u8]>,
    attributes: Attributes,
    hops: u32,
    origin: Option<Origin>,
}

#[derive(Deserialize)]
struct Origin {
    topic: Arc<str>,
    partition: i32,
    offset: i64,
    record: Option<Arc<AsItCame>>,
}

#[derive(Clone, Deserialize)]
struct AsItCame {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
}

impl From<Saga> for saga::Saga {
    fn from(old: Saga) -> Self {
        Self {
            id: old.id,
            version: old.version,
            created: old.created,
            touched: old.touched,
            phase: old.phase,
            ended: old.ended,
            cause: old.cause,
            announced: old.announced,
            result: old.result,
            start: old.start,
            steps: old.steps.into_iter().map(step::Step::from).collect(),
            starts: old.starts,
            plan: old.plan,
            expected: old.expected,
            delayed: old.delayed.into_iter().map(saga::Delayed::from).collect(),
            states: old.states,
            asked: old.asked,
            needs: old.needs,
            letters: old.letters,
            untracked: old.untracked,
            deadline: old.deadline,
            seen: old.seen,
            spilled_events: old.spilled_events,
            quarantined: old.quarantined,
            history: old.history,
            spilled_history: old.spilled_history,
            notes: old.notes,
            late: old.late,
            record_key: None,
        }
    }
}

impl From<Step> for step::Step {
    fn from(old: Step) -> Self {
        Self {
            participant: old.participant,
            event: old.event.into(),
            role: old.role,
            cause: old.cause,
            stage: old.stage,
            start: old.start,
            attempts: old.attempts,
            budget: old.budget,
            uncertain: old.uncertain,
            outside: old.outside,
            undo: old.undo,
            by: old.by,
            deadline: old.deadline,
            park_until: old.park_until,
            released: old.released,
            compensating: old.compensating,
            problem: old.problem,
        }
    }
}

impl From<Delayed> for saga::Delayed {
    fn from(old: Delayed) -> Self {
        Self { event: old.event.into(), due: old.due, step: old.step }
    }
}

impl From<Event> for event::Event {
    fn from(old: Event) -> Self {
        let Event { key, saga, kind, time, content_type, data, attributes, hops, origin } = old;
        let origin = origin.map(event::Origin::from);
        Self { key, saga, kind, time, content_type, data, attributes, hops, origin, record_key: None }
    }
}

impl From<Origin> for event::Origin {
    fn from(Origin { topic, partition, offset, record }: Origin) -> Self {
        let record = record.map(|record| Arc::new(Arc::unwrap_or_clone(record).into()));
        Self { topic, partition, offset, record }
    }
}

impl From<AsItCame> for event::AsItCame {
    fn from(AsItCame { key, value, headers }: AsItCame) -> Self {
        Self { key, value, headers: headers.into_iter().map(|(name, value)| (name, Some(value))).collect() }
    }
}
