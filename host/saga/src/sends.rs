//! Requests of plugins: an attempt stops at one, and once what became of it is known it is run again from its beginning with
//! that (send by replay). Invariant: no request leaves before it is durable that it does, and none behind the fence.
//!
//! What a request says, and what came back, is kept by the host: the core knows only that one is out.

use std::{sync::Arc, time::Duration};

use crate::{
    compensation::{INTERRUPTED_MAX, UndoState},
    history::What,
    id::Direction,
    input::{CallRef, Disposition},
    mutation::{self, Mutation},
    on::{Turn, short},
    outcome::{Behaviour, Runs},
    saga::Saga,
    step::{Budget, Stage},
    topology::Role,
};

const STALE: Disposition = Disposition::Nothing("not the current request of this attempt");

impl Saga {
    /// A forward attempt stopped at a request.
    pub(crate) fn sends(&mut self, index: usize, call: &CallRef, by: Behaviour, turn: &mut Turn<'_>) -> Disposition {
        let step = &self.steps[index];
        if !matches!(step.stage, Stage::Started { .. }) || step.attempts != call.attempt {
            return STALE;
        }
        if self.behind_fence(index) {
            self.late = self.late.saturating_add(1);
            return self.abandon(index);
        }
        if !self.serving(index, turn) {
            // It was paused meanwhile: its events park, and this one begins its next attempt when it is back.
            self.steps[index].stage = Stage::Ready;
            return Disposition::Changed;
        }
        let step = &mut self.steps[index];
        (step.outside, step.by) = (true, by);
        step.stage = Stage::Sending { number: call.send + 1, interrupted: 0 };
        turn.call(self.forward_call(index, Runs::Later, turn));
        Disposition::Changed
    }

    /// A compensating one did.
    pub(crate) fn undo_sends(&mut self, call: &CallRef, by: &Behaviour, turn: &mut Turn<'_>) -> Disposition {
        let Some(index) = self.undoing_out(call).filter(|index| self.plan[*index].state == UndoState::Running) else {
            return STALE;
        };
        let undoing = &mut self.plan[index];
        // It is needed until that ends. New code begins with a full budget.
        if undoing.budget.digest != by.digest {
            undoing.budget = Budget { digest: by.digest.clone(), used: 0 };
        }
        undoing.state = UndoState::Sending { number: call.send + 1, interrupted: 0 };
        turn.call(self.undo_call(index, Runs::Later, turn.now));
        Disposition::Changed
    }

    pub(crate) fn resumed(
        &mut self,
        index: usize,
        call: &CallRef,
        left: bool,
        (what, took): (Arc<str>, Duration),
        turn: &mut Turn<'_>,
    ) -> Disposition {
        let call_on = match call.direction {
            Direction::Forward => {
                let step = &mut self.steps[index];
                if step.attempts != call.attempt || call.send == 0 || step.sent() != call.send {
                    return STALE;
                }
                step.uncertain |= left;
                self.forward_again(index, turn)
            }
            Direction::Undo => {
                let Some(undoing) = self.undoing_out(call).filter(|undoing| self.plan[*undoing].sent() == call.send)
                else {
                    return STALE;
                };
                self.undo_again_with(undoing, turn)
            }
        };
        let participant = self.steps[index].participant.clone();
        let (direction, attempt) = (call.direction, call.attempt);
        self.note(turn.now, What::Sent { participant, direction, attempt, what: short(&what), took });
        call_on
    }

    fn forward_again(&mut self, index: usize, turn: &mut Turn<'_>) -> Disposition {
        let call = self.forward_call(index, Runs::Here, turn);
        self.steps[index].stage = Stage::Started { launched: true };
        turn.call(call);
        Disposition::Changed
    }

    fn undo_again_with(&mut self, index: usize, turn: &mut Turn<'_>) -> Disposition {
        let call = self.undo_call(index, Runs::Here, turn.now);
        self.plan[index].state = UndoState::Running;
        turn.call(call);
        Disposition::Changed
    }

    /// The host stopped while the request was out: it leaves again, under its key. The third time in a row the attempt hears
    /// of it, as of a request whose answer was lost.
    pub(crate) fn send_interrupted(&mut self, index: usize, turn: &mut Turn<'_>) -> Disposition {
        let behind_fence = self.behind_fence(index);
        let step = &mut self.steps[index];
        step.uncertain = true;
        let Stage::Sending { number, interrupted } = step.stage else { return STALE };
        if behind_fence {
            return self.abandon(index);
        }
        if interrupted + 1 >= INTERRUPTED_MAX {
            return self.forward_again(index, turn);
        }
        let number = number + u32::from(!mutation::on(Mutation::SendTwice));
        step.stage = Stage::Sending { number, interrupted: interrupted + 1 };
        turn.call(self.forward_call(index, Runs::Later, turn));
        Disposition::Changed
    }

    pub(crate) fn undo_send_interrupted(&mut self, index: usize, turn: &mut Turn<'_>) -> Disposition {
        let UndoState::Sending { number, interrupted } = self.plan[index].state else { return STALE };
        if interrupted + 1 >= INTERRUPTED_MAX {
            return self.undo_again_with(index, turn);
        }
        self.plan[index].state = UndoState::Sending { number: number + 1, interrupted: interrupted + 1 };
        turn.call(self.undo_call(index, Runs::Later, turn.now));
        Disposition::Changed
    }

    /// Does its participant run outside of the host, or did so when it was here last?
    pub(crate) fn is_of_service(&self, index: usize, turn: &Turn<'_>) -> bool {
        turn.topology.member(&self.steps[index].participant).is_none_or(|member| member.outside_effects)
    }

    /// Does a "no" leave open what requests did? A service's settles its step. A plugin speaks for others: it may have been told
    /// "no" by one after another had said "yes". Of what it cannot take back its "no" counts, unless there is a request to which
    /// nobody knows the answer (`open`).
    pub(crate) fn doubt(&self, index: usize, call: &CallRef, open: bool, turn: &Turn<'_>) -> bool {
        if mutation::on(Mutation::BelieveNo) || (call.send == 0 && self.is_of_service(index, turn)) {
            return false;
        }
        open || self.steps[index].role == Role::Compensable
    }
}
