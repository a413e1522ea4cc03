//! The record of one saga in one app, and what may be asked of it. Invariant: only `on` changes it.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    compensation::Undoing,
    event::Event,
    history::{Entry, What},
    id::{Direction, EventKey, Kind, Participant, SagaId, Time},
    input::{CallRef, Notes, Status},
    outcome::{Cause, Saved},
    step::{Stage, Step},
};

/// One run, as one app sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saga {
    pub(crate) id: SagaId,
    pub(crate) version: u64,
    pub(crate) created: Time,
    pub(crate) touched: Time,
    pub(crate) phase: Phase,
    pub(crate) ended: Option<Time>,
    pub(crate) cause: Option<Cause>,
    /// The announcement of this app's own failure.
    pub(crate) announced: Option<EventKey>,
    pub(crate) result: Option<Arc<[u8]>>,
    /// Kind of the first event that was taken in.
    pub(crate) start: Option<Kind>,
    /// In order of taking in; forward steps run in this order.
    pub(crate) steps: Vec<Step>,
    /// How many steps have started.
    pub(crate) starts: u32,
    pub(crate) plan: Vec<Undoing>,
    pub(crate) expected: Vec<Expected>,
    pub(crate) delayed: Vec<Delayed>,
    pub(crate) states: Vec<(Participant, Saved)>,
    /// Participants whose `finish-on` event came.
    pub(crate) asked: Vec<Participant>,
    pub(crate) needs: Vec<Need>,
    pub(crate) letters: Vec<OpenLetter>,
    /// Open letters beyond the bound, known to the journal alone.
    pub(crate) untracked: u32,
    pub(crate) deadline: Option<Time>,
    /// Known events: hash of the key, hash of the data.
    pub(crate) seen: Vec<([u8; 16], [u8; 16])>,
    pub(crate) spilled_events: u64,
    /// Data hashes of events that came under an id of another event.
    pub(crate) quarantined: Vec<[u8; 16]>,
    pub(crate) history: Vec<Entry>,
    pub(crate) spilled_history: u64,
    pub(crate) notes: Notes,
    /// Events and results that came too late.
    pub(crate) late: u32,
    /// The key of the saga's records, where the saga id is not its text.
    pub(crate) record_key: Option<Arc<[u8]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    Open,
    /// `finished` was said; what was taken in before or with it is still under way.
    Finishing,
    Completed,
    /// The fence is up. With nothing taken in yet: a tombstone.
    Compensating,
    Compensated,
}

/// An event that was emitted for this app's own subscribers and has not come in yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Expected {
    pub key: [u8; 16],
    pub step: u32,
    /// Emitted by a compensation (SEMANTICS.md, rule 15).
    pub undoing: bool,
}

/// An emission whose time has not come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delayed {
    pub event: Event,
    pub due: Time,
    pub step: u32,
}

/// Why a person must act, beside stuck and blocked steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    pub code: Arc<str>,
    pub detail: Arc<str>,
    pub participant: Option<Participant>,
    /// The dead letter that settles it when it is redriven or discarded.
    pub letter: Option<Arc<str>>,
}

/// A dead letter that keeps this saga's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenLetter {
    pub key: Arc<str>,
    pub participant: Option<Participant>,
    pub code: Arc<str>,
    pub at: Time,
}

impl Saga {
    pub fn new(id: SagaId, now: Time) -> Self {
        Self {
            id,
            version: 0,
            created: now,
            touched: now,
            phase: Phase::Open,
            ended: None,
            cause: None,
            announced: None,
            result: None,
            start: None,
            steps: Vec::new(),
            starts: 0,
            plan: Vec::new(),
            expected: Vec::new(),
            delayed: Vec::new(),
            states: Vec::new(),
            asked: Vec::new(),
            needs: Vec::new(),
            letters: Vec::new(),
            untracked: 0,
            deadline: None,
            seen: Vec::new(),
            spilled_events: 0,
            quarantined: Vec::new(),
            history: Vec::new(),
            spilled_history: 0,
            notes: Vec::new(),
            late: 0,
            record_key: None,
        }
    }

    pub fn id(&self) -> &SagaId {
        &self.id
    }
    /// One more with every input that changed something.
    pub fn version(&self) -> u64 {
        self.version
    }
    pub fn created(&self) -> Time {
        self.created
    }
    /// Time of the last change.
    pub fn touched(&self) -> Time {
        self.touched
    }
    /// When it came to a terminal state.
    pub fn ended(&self) -> Option<Time> {
        self.ended
    }

    pub fn status(&self) -> Status {
        match self.phase {
            Phase::Completed => Status::Completed,
            Phase::Compensated => Status::Compensated,
            Phase::Open | Phase::Finishing | Phase::Compensating if self.needs_operator() => Status::NeedsOperator,
            Phase::Finishing => Status::Finishing,
            Phase::Compensating if self.tombstone() && !self.pending() => Status::Waiting,
            Phase::Compensating => Status::Compensating,
            Phase::Open if self.starts == 0 => Status::Waiting,
            Phase::Open => Status::Running,
        }
    }

    /// Is the event among the ids in the record itself? (More may have been spilled.)
    pub fn knows(&self, key: &EventKey) -> bool {
        self.seen_data(key).is_some()
    }
    /// Are there known ids in rows of their own?
    pub fn has_spilled(&self) -> bool {
        self.spilled_events > 0
    }
    pub fn events_seen(&self) -> u64 {
        self.spilled_events + self.seen.len() as u64
    }
    /// Events and results that came after the fence or the end.
    pub fn late(&self) -> u32 {
        self.late
    }
    /// The latest part of the timeline; what is older was spilled.
    pub fn history(&self) -> &[Entry] {
        &self.history
    }
    pub fn spilled_history(&self) -> u64 {
        self.spilled_history
    }
    pub fn notes(&self) -> &Notes {
        &self.notes
    }
    pub fn result(&self) -> Option<&[u8]> {
        self.result.as_deref()
    }
    pub fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }
    pub fn open_letters(&self) -> &[OpenLetter] {
        &self.letters
    }

    /// Calls outside that began and whose end is not known.
    pub fn in_doubt(&self) -> Vec<CallRef> {
        let name = |step: &Step, direction, attempt, ordinal, send| CallRef {
            participant: step.participant.clone(),
            step_id: step.id(),
            direction,
            attempt,
            ordinal,
            send,
        };
        let steps = self.steps.iter().filter(|step| step.outside && step.started());
        let undoings = self.plan.iter().filter(|undoing| undoing.outside());
        let undone = |undoing: &Undoing| {
            let step = &self.steps[undoing.step as usize];
            name(step, Direction::Undo, undoing.attempts, undoing.ordinal, undoing.sent())
        };
        let forward = |step: &Step| name(step, Direction::Forward, step.attempts, 0, step.sent());
        steps.map(forward).chain(undoings.map(undone)).collect()
    }

    /// Digests of plugins that an unfinished saga may still need.
    pub fn referenced_digests(&self) -> BTreeSet<Arc<str>> {
        if self.terminal() {
            return BTreeSet::new();
        }
        let steps = self.steps.iter().flat_map(|step| [&step.by.digest, &step.budget.digest]);
        let plan = self.plan.iter().map(|undoing| &undoing.budget.digest);
        steps.chain(plan).filter(|digest| !digest.is_empty()).cloned().collect()
    }

    pub(crate) fn terminal(&self) -> bool {
        matches!(self.phase, Phase::Completed | Phase::Compensated)
    }
    /// The fence came before the first event.
    pub(crate) fn tombstone(&self) -> bool {
        self.phase == Phase::Compensating && self.steps.iter().all(|step| step.compensating)
    }
    pub(crate) fn pending(&self) -> bool {
        self.steps.iter().any(Step::pending)
    }
    pub(crate) fn blocked(&self) -> bool {
        self.steps.iter().any(|step| step.stage == Stage::Blocked)
    }
    pub(crate) fn needs_operator(&self) -> bool {
        !self.needs.is_empty() || self.blocked() || self.plan.iter().any(Undoing::stuck)
    }
    pub(crate) fn seen_data(&self, key: &EventKey) -> Option<[u8; 16]> {
        let key = key.hash128();
        self.seen.iter().find(|(known, _)| *known == key).map(|(_, data)| *data)
    }
    /// What a participant keeps in this saga.
    pub fn state_of(&self, participant: &Participant) -> Option<Saved> {
        self.states.iter().find(|(of, _)| of == participant).map(|(_, saved)| saved.clone())
    }
    pub(crate) fn note(&mut self, at: Time, what: What) {
        self.history.push(Entry { at, what });
    }
}
