//! One input, one transition. Invariant: what an input causes is complete when `on` returns: every step that may run
//! has been asked for, and every end that is reached has been said.

use std::sync::Arc;

use crate::{
    forward::Ended,
    history::What,
    id::{Direction, SagaId, Time},
    input::{Answer, Broken, CallRef, Disposition, Effect, Input, Status, Transition},
    mutation::{self, Mutation},
    outcome::Call,
    saga::Saga,
    topology::Topology,
};

/// What is gathered while one input is worked on.
pub(crate) struct Turn<'t> {
    pub now: Time,
    pub topology: &'t Topology,
    pub effects: Vec<Effect>,
    pub answer: Option<Answer>,
    pub keep_writes: bool,
}

impl Turn<'_> {
    pub fn call(&mut self, call: Call) {
        self.effects.push(Effect::Call(call));
    }
    pub fn answer(&mut self, done: bool, text: impl Into<String>) {
        self.answer = Some(Answer { done, text: text.into() });
    }
    /// Says it to the operator; nothing has changed.
    pub fn refuse(&mut self, text: impl Into<String>) -> Disposition {
        self.answer(false, text);
        Disposition::Nothing("the operator was answered")
    }
}

impl Saga {
    /// Works on a private copy of the caller's: after `Err` the copy is thrown away.
    pub fn on(&mut self, input: Input, topology: &Topology, now: Time) -> Result<Transition, Broken> {
        let mut turn = Turn { now, topology, effects: Vec::new(), answer: None, keep_writes: false };
        let disposition = self.dispatch(input, &mut turn)?;
        if disposition == Disposition::Changed {
            self.advance(&mut turn);
            self.settle(&mut turn);
            self.spill(&mut turn);
            self.version += u64::from(!mutation::on(Mutation::SameVersion));
            self.touched = now;
        }
        let Turn { effects, answer, keep_writes, .. } = turn;
        Ok(Transition { effects, disposition, answer, keep_writes })
    }

    fn dispatch(&mut self, input: Input, turn: &mut Turn<'_>) -> Result<Disposition, Broken> {
        match input {
            Input::Received { event, spilled } => self.receive(event, spilled, turn),
            Input::Requested { event, spilled, to } => self.requested(event, spilled, to.as_ref(), turn),
            Input::Returned { call, by, outcome, left, took } => {
                let step = self.step_of(&call)?;
                Ok(self.returned(step, &call, Ended { by, outcome, left, took }, turn))
            }
            Input::Undone { call, by, outcome, took } => {
                self.step_of(&call)?;
                Ok(self.undone(&call, &by, outcome, took, turn))
            }
            Input::Sends { call, by } => {
                let step = self.step_of(&call)?;
                Ok(match call.direction {
                    Direction::Forward => self.sends(step, &call, by, turn),
                    Direction::Undo => self.undo_sends(&call, &by, turn),
                })
            }
            Input::Resumed { call, left, what, took } => {
                let step = self.step_of(&call)?;
                Ok(self.resumed(step, &call, left, (what, took), turn))
            }
            Input::Started { call, interrupted } => {
                let step = self.step_of(&call)?;
                Ok(match call.direction {
                    Direction::Forward => self.started(step, &call, interrupted, turn),
                    Direction::Undo => self.undo_started(&call, interrupted, turn),
                })
            }
            Input::Due { deadlines } => Ok(self.due(deadlines, turn)),
            Input::TopologyChanged => Ok(self.topology_changed(turn)),
            Input::Operator(command) => Ok(self.operate(command, turn)),
        }
    }

    fn step_of(&self, call: &CallRef) -> Result<usize, Broken> {
        let mine = |step: &crate::step::Step| step.participant == call.participant && step.id() == call.step_id;
        self.steps.iter().position(mine).ok_or_else(|| broken(&self.id, format!("no step {}", call.step_id)))
    }

    /// Starts what may run now: one call at a time, so that a durable record has no more than one call in doubt.
    pub(crate) fn advance(&mut self, turn: &mut Turn<'_>) {
        if self.terminal() || self.calling() {
            return;
        }
        if let Some(undoing) = self.next_undo() {
            self.start_undo(undoing, turn);
        } else if let Some(step) = self.next_forward(turn) {
            self.start_forward(step, turn);
        }
    }

    fn topology_changed(&mut self, turn: &mut Turn<'_>) -> Disposition {
        let before = self.clone();
        self.recheck_early(turn);
        self.advance(turn);
        if *self == before { Disposition::Nothing("nothing waited for it") } else { Disposition::Changed }
    }

    /// Keeps the record small, however long the saga: the oldest go to rows of their own.
    fn spill(&mut self, turn: &mut Turn<'_>) {
        let bounds = &turn.topology.bounds;
        if mutation::on(Mutation::NeverSpill) {
            return;
        }
        let ids_max = match mutation::on(Mutation::KeepIds) {
            true => usize::MAX,
            false => bounds.inline_events_max,
        };
        let events = oldest(&mut self.seen, ids_max);
        let history = oldest(&mut self.history, bounds.inline_history_max);
        if !events.is_empty() || !history.is_empty() {
            self.spilled_events += events.len() as u64;
            self.spilled_history += history.len() as u64;
            turn.effects.push(Effect::Spill { events, history });
        }
    }

    pub(crate) fn note_status(&mut self, at: Time, to: Status, cause: &str, detail: &str) {
        self.note(at, What::Status { to, cause: cause.into(), detail: short(detail) });
    }
}

/// Above the bound half of it stays, so that spilling is rare.
fn oldest<T>(all: &mut Vec<T>, max: usize) -> Vec<T> {
    if all.len() <= max { Vec::new() } else { all.drain(..all.len() - max / 2).collect() }
}

pub(crate) fn broken(id: &SagaId, what: impl std::fmt::Display) -> Broken {
    Broken { what: format!("{id}: {what}") }
}

/// For the timeline: a guest's text may be long.
pub(crate) fn short(text: &str) -> Arc<str> {
    const BYTES_MAX: usize = 600;
    if text.len() <= BYTES_MAX {
        return text.into();
    }
    let mut end = BYTES_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end]).into()
}
