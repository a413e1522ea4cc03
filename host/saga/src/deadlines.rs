//! What time does to a saga: retries, delayed emissions, deadlines, expiry (SEMANTICS.md, rule 9). Invariant: every
//! time is absolute and in the record; a timer that no longer fits is ignored.

use crate::{
    compensation::{Failure, UndoState, cause},
    ending::DEADLINE_AFTER_PIVOT,
    id::Time,
    input::{Disposition, Wake},
    mutation::{self, Mutation},
    on::Turn,
    outcome::Problem,
    parked::orphan,
    saga::{Phase, Saga},
    step::{Early, Stage, Step},
    topology::{Member, Topology},
};

impl Saga {
    pub(crate) fn due(&mut self, deadlines: bool, turn: &mut Turn<'_>) -> Disposition {
        let mut fired = deadlines && self.fire_deadlines(turn);
        fired |= self.fire_retries(turn.now, false);
        fired |= self.publish_due(turn);
        if fired { Disposition::Changed } else { Disposition::Nothing("nothing is due") }
    }

    /// Runs attempts whose time has come; with `all` also those whose time has not.
    pub(crate) fn fire_retries(&mut self, now: Time, all: bool) -> bool {
        let mut fired = false;
        for step in &mut self.steps {
            if matches!(step.stage, Stage::Retrying { at } if all || at <= now) {
                step.stage = Stage::Ready;
                fired = true;
            }
        }
        for undoing in &mut self.plan {
            if matches!(undoing.state, UndoState::Retrying { at } if all || at <= now) {
                undoing.state = UndoState::Waiting;
                fired = true;
            }
        }
        fired
    }

    fn fire_deadlines(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.held() || self.terminal() {
            return false;
        }
        let mut fired = false;
        for index in 0..self.steps.len() {
            let member = turn.topology.member(&self.steps[index].participant);
            if !member.is_some_and(Member::hears_of_time) || self.held() {
                continue;
            }
            let step = &self.steps[index];
            let over = |time: Option<Time>| time.is_some_and(|time| time <= turn.now);
            if step.expires() && over(step.park_until) {
                let said = step.problem.as_ref().map(|problem| problem.code.clone());
                let missing = || self.predecessor_missing(index, turn).map(|kind| kind.to_string());
                let waited_for = said.or_else(missing).unwrap_or_else(|| "its predecessor".to_owned());
                let problem = orphan(&waited_for);
                self.give_up(index, problem, "orphan", true, turn);
                fired = true;
            } else if step.runs_out() && over(step.deadline) {
                let problem = Problem::new("step-deadline", "no attempt succeeded in time");
                self.give_up(index, problem, "step-deadline", true, turn);
                fired = true;
            }
        }
        fired | self.fire_saga_deadline(turn)
    }

    fn fire_saga_deadline(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.phase != Phase::Open || self.held() || !turn.topology.finishes() {
            return false;
        }
        let Some(deadline) = self.deadline.filter(|deadline| *deadline <= turn.now) else {
            return false;
        };
        self.deadline = None;
        let after = deadline.since(self.created);
        let problem = Problem::new("saga-deadline", format!("not finished within {} ms", after.as_millis()));
        if self.pivoted() {
            self.need(DEADLINE_AFTER_PIVOT, &problem, None, None, turn.now);
        } else {
            let cause = cause("saga-deadline", &problem, None);
            self.fence(Failure { cause, problem, own: true, step: None }, turn);
        }
        true
    }

    /// For the journal's indexes: when this saga wants to hear of the time.
    pub fn wake(&self, topology: &Topology) -> Wake {
        let away = |step: &Step| !topology.member(&step.participant).is_some_and(|member| member.serving);
        Wake {
            at: self.next_retry(),
            deadline: self.next_deadline(topology),
            remove_at: self.remove_at(topology),
            waits_for_plugin: self.steps.iter().any(|step| step.parked() && step.stage != Stage::Blocked && away(step)),
            in_doubt: !self.in_doubt().is_empty(),
        }
    }

    fn next_retry(&self) -> Option<Time> {
        if mutation::on(Mutation::LoseRetry) {
            return None;
        }
        let forward = self.steps.iter().filter_map(|step| match step.stage {
            Stage::Retrying { at } => Some(at),
            Stage::Ready
            | Stage::Early(_)
            | Stage::Started { .. }
            | Stage::Sending { .. }
            | Stage::Blocked
            | Stage::Done
            | Stage::Rejected
            | Stage::GivenUp
            | Stage::Abandoned
            | Stage::Invalid => None,
        });
        let undo = self.plan.iter().filter_map(|undoing| match undoing.state {
            UndoState::Retrying { at } => Some(at),
            UndoState::Waiting
            | UndoState::Running
            | UndoState::Out { .. }
            | UndoState::Sending { .. }
            | UndoState::Undone
            | UndoState::NothingToUndo
            | UndoState::Stuck
            | UndoState::ByHand
            | UndoState::Accepted => None,
        });
        forward.chain(undo).chain(self.delayed.iter().map(|delayed| delayed.due)).min()
    }

    fn next_deadline(&self, topology: &Topology) -> Option<Time> {
        let held = self.held() && !mutation::on(Mutation::HotTimer);
        if held || self.terminal() {
            return None;
        }
        let forgotten = self.phase == Phase::Open && mutation::on(Mutation::ForgetEarly);
        let timed = |step: &&Step| topology.member(&step.participant).is_some_and(Member::hears_of_time);
        let steps = self.steps.iter().filter(timed).flat_map(|step| {
            let park = step.park_until.filter(|_| step.expires() && !forgotten);
            let deadline = step.deadline.filter(|_| step.runs_out());
            [park, deadline].into_iter().flatten()
        });
        let saga = self.deadline.filter(|_| self.phase == Phase::Open && topology.finishes());
        steps.chain(saga).min()
    }

    /// A finished saga goes after the retention, and so does one that waits for nothing which this app could know of:
    /// a tombstone without its saga, and a part that no manifest here can end.
    fn remove_at(&self, topology: &Topology) -> Option<Time> {
        let open = (!self.letters.is_empty() || self.untracked > 0) && !mutation::on(Mutation::ForgetOpenLetters);
        if open {
            return None;
        }
        let from = match self.phase {
            Phase::Completed | Phase::Compensated => self.ended?,
            Phase::Open | Phase::Compensating if self.idle_for_good(topology) => self.touched,
            Phase::Open | Phase::Compensating | Phase::Finishing => return None,
        };
        Some(from.after(topology.bounds.retention))
    }

    fn idle_for_good(&self, topology: &Topology) -> bool {
        let quiet = !self.pending()
            && self.delayed.is_empty()
            && self.expected.is_empty()
            && !self.needs_operator()
            && self.deadline.is_none();
        let waiting = self.steps.is_empty() || self.tombstone();
        let finishes = topology.finishes() && !self.is_all_asked(topology);
        let endless = self.states.is_empty() && !finishes && !self.steps.iter().any(Step::undoable);
        quiet && (waiting || (self.phase == Phase::Open && endless))
    }
}

impl Step {
    /// Does its time to live run?
    fn expires(&self) -> bool {
        matches!(self.stage, Stage::Early(Early::After | Early::NotYet))
    }
    /// Does its deadline run? A call that is out has the sandbox's own.
    fn runs_out(&self) -> bool {
        matches!(self.stage, Stage::Ready | Stage::Early(_) | Stage::Retrying { .. })
    }
}
