//! How an app's part of a saga ends (SEMANTICS.md, rule 5). Invariant: a terminal state is entered with nothing under
//! way, and never left, but for a compensated saga that was overtaken: it calls off what comes late, and ends again.

use std::sync::Arc;

use crate::{
    id::Time,
    input::Status,
    mutation::{self, Mutation},
    on::Turn,
    saga::{Phase, Saga},
    step::{Stage, Step},
    topology::{Member, Topology},
};

/// Settled by itself when the saga finishes after all.
pub(crate) const DEADLINE_AFTER_PIVOT: &str = "deadline-after-pivot";

impl Saga {
    /// `progress.finished`: what was taken in before or with it is still worked on.
    pub(crate) fn finish(&mut self, result: Arc<[u8]>, now: Time) {
        self.phase = Phase::Finishing;
        self.result = Some(result);
        self.deadline = None;
        self.needs.retain(|need| &*need.code != DEADLINE_AFTER_PIVOT);
        self.note_status(now, Status::Finishing, "finished", "");
    }

    /// A `finish-on` event came: the member's steps are to be released.
    pub(crate) fn ask_to_finish(&mut self, member: &Member) {
        if !self.asked.contains(&member.name) {
            self.asked.push(member.name.clone());
        }
    }

    /// Would a failure of this step come too late to compensate?
    pub(crate) fn closing(&self, index: usize) -> bool {
        self.phase == Phase::Finishing || self.asked.contains(&self.steps[index].participant)
    }

    /// Says every end that is reached.
    pub(crate) fn settle(&mut self, turn: &mut Turn<'_>) {
        match self.phase {
            Phase::Open => {
                self.release();
                if self.released(turn.topology) && self.idle() {
                    self.end(Phase::Completed, Status::Completed, "released", turn.now);
                }
            }
            Phase::Finishing if self.idle() => self.end(Phase::Completed, Status::Completed, "finished", turn.now),
            Phase::Compensating if !self.tombstone() && self.idle() && self.undoing_over() => {
                self.end(Phase::Compensated, Status::Compensated, "compensated", turn.now);
            }
            Phase::Finishing | Phase::Compensating | Phase::Completed | Phase::Compensated => {}
        }
    }

    /// Nothing is under way, and nobody is asked for anything.
    fn idle(&self) -> bool {
        !self.pending() && self.expected.is_empty() && self.needs.is_empty()
    }

    /// Participants that were asked to finish let go of their steps when none of theirs is under way.
    fn release(&mut self) {
        let busy: Vec<_> =
            self.steps.iter().filter(|step| step.pending()).map(|step| step.participant.clone()).collect();
        for step in &mut self.steps {
            if self.asked.contains(&step.participant) && !busy.contains(&step.participant) {
                step.released = true;
            }
        }
    }

    /// Does nothing hold this app's part open any more? A step that could be undone does, and one of a participant
    /// that finishes sagas itself.
    fn released(&self, topology: &Topology) -> bool {
        let finishes = |step: &Step| topology.member(&step.participant).is_some_and(|member| member.finishes);
        let holds = |step: &Step| step.stage == Stage::Done && !step.released && (step.undoable() || finishes(step));
        self.steps.iter().any(|step| step.released) && !self.steps.iter().any(holds)
    }

    /// Of a compensated saga only: something more is to be called off, and then it ends again.
    pub(crate) fn reopen(&mut self, now: Time) {
        self.phase = Phase::Compensating;
        self.ended = None;
        self.note_status(now, Status::Compensating, "overtaken", "an event of it came behind its compensation");
    }

    fn end(&mut self, phase: Phase, status: Status, why: &str, now: Time) {
        self.drop_delayed("dropped: the saga has ended", now);
        self.phase = phase;
        self.ended = Some(now);
        self.deadline = None;
        self.note_status(now, status, why, "");
        self.slim();
    }

    /// A tombstone needs no payloads: no call is made for them again.
    fn slim(&mut self) {
        // Whoever calls off what overtakes a compensation sees what it did before.
        if self.phase == Phase::Completed || mutation::on(Mutation::ForgetStates) {
            self.states.clear();
        }
        for step in &mut self.steps {
            step.event.data = Arc::from([]);
            step.event.attributes.clear();
            // That there was something to undo stays known.
            if let Some(undo) = &mut step.undo {
                undo.data = Arc::from([]);
            }
        }
    }
}
