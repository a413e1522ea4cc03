//! The forward direction: which step runs next, and what its end means (SEMANTICS.md, rules 2, 11). Invariant: one
//! call of a saga is out at a time, and a step behind one that is parked for a retry waits.

use std::time::Duration;

use crate::{
    compensation::{Failure, Known, Undoing, cause, too_many, unreadable},
    history::What,
    id::{Direction, Participant},
    input::{CallRef, Disposition},
    mutation::{self, Mutation},
    on::{Turn, short},
    outcome::{Behaviour, Call, Completion, Crash, Outcome, Problem, Progress, Rejection, Runs, StateChange, Undo},
    saga::{Phase, Saga},
    step::{Early, Stage, backoff},
    topology::{Retry, Subscription},
};

/// How a forward attempt ended.
pub(crate) struct Ended {
    pub by: Behaviour,
    pub outcome: Outcome,
    /// Something of it had left the host.
    pub left: bool,
    pub took: Duration,
}

impl Runs {
    /// An attempt that begins.
    pub(crate) fn begin(outside: bool) -> Self {
        if outside { Self::Later } else { Self::Here }
    }
}

impl Saga {
    pub(crate) fn calling(&self) -> bool {
        self.steps.iter().any(|step| step.started()) || self.plan.iter().any(Undoing::running)
    }

    /// The first step that may run; those that are early are parked on the way.
    pub(crate) fn next_forward(&mut self, turn: &Turn<'_>) -> Option<usize> {
        for index in 0..self.steps.len() {
            match self.steps[index].stage {
                Stage::Retrying { .. } | Stage::Blocked | Stage::Started { .. } | Stage::Sending { .. } => return None,
                Stage::Done
                | Stage::Rejected
                | Stage::GivenUp
                | Stage::Abandoned
                | Stage::Invalid
                | Stage::Early(_) => {}
                Stage::Ready if !self.serving(index, turn) => {}
                Stage::Ready => match self.predecessor_missing(index, turn) {
                    Some(kind) => self.park_after(index, &kind, turn),
                    None => return Some(index),
                },
            }
        }
        None
    }

    /// A participant that is paused, or not admitted at the moment, holds only its own steps (race 21).
    pub(crate) fn serving(&self, step: usize, turn: &Turn<'_>) -> bool {
        turn.topology.member(&self.steps[step].participant).is_some_and(|member| member.serving)
    }

    pub(crate) fn start_forward(&mut self, index: usize, turn: &mut Turn<'_>) {
        let starts = self.starts;
        let step = &mut self.steps[index];
        let outside = turn.topology.member(&step.participant).is_some_and(|member| member.outside_effects);
        if step.start.is_none() {
            step.start = Some(starts);
            self.starts += 1;
        }
        step.attempts += u32::from(!mutation::on(Mutation::SameAttempt) || step.attempts == 0);
        step.outside = outside;
        step.stage = Stage::Started { launched: !outside };
        turn.call(self.forward_call(index, Runs::begin(outside), turn));
    }

    pub(crate) fn forward_call(&self, index: usize, runs: Runs, turn: &Turn<'_>) -> Call {
        let step = &self.steps[index];
        Call {
            participant: step.participant.clone(),
            step_id: step.id(),
            direction: Direction::Forward,
            ordinal: 0,
            attempt: step.attempts,
            idempotency_key: step.key(&self.id, Direction::Forward, 0),
            event: step.event.clone(),
            state: self.state_of(&step.participant),
            undo: None,
            now: turn.now,
            runs,
            send: step.sent(),
        }
    }

    /// That the step began is durable: it may leave, which changes nothing of the record. Or the host came back and does
    /// not know how it ended.
    pub(crate) fn started(
        &mut self,
        index: usize,
        call: &CallRef,
        interrupted: bool,
        turn: &mut Turn<'_>,
    ) -> Disposition {
        let behind_fence = self.behind_fence(index);
        let step = &mut self.steps[index];
        if !step.started() || call.attempt != step.attempts || call.send != step.sent() {
            return Disposition::Nothing("not the current attempt of this step");
        }
        if interrupted && call.send > 0 {
            return self.send_interrupted(index, turn);
        }
        if interrupted {
            let crash = Crash { code: "interrupted".into(), detail: "the host stopped while the call was out".into() };
            let outcome = Outcome::Unknown { crash, uncertain: true };
            let by = Behaviour { digest: step.budget.digest.clone(), ..Behaviour::default() };
            return self.returned(index, call, Ended { by, outcome, left: true, took: Duration::ZERO }, turn);
        }
        if behind_fence {
            // It never left: what is known is what left before it.
            return self.abandon(index);
        }
        turn.call(self.forward_call(index, Runs::Outside, turn));
        Disposition::Nothing("the call leaves")
    }

    /// Nothing more of the step leaves.
    pub(crate) fn abandon(&mut self, index: usize) -> Disposition {
        let step = &mut self.steps[index];
        step.stage = Stage::Abandoned;
        let known = if step.uncertain { Known::Uncertain } else { Known::NeverRan };
        self.resolve_awaited(index, Some(known));
        Disposition::Changed
    }

    pub(crate) fn behind_fence(&self, index: usize) -> bool {
        self.phase == Phase::Compensating && !self.steps[index].compensating
    }

    /// A forward attempt ended.
    pub(crate) fn returned(&mut self, index: usize, call: &CallRef, ended: Ended, turn: &mut Turn<'_>) -> Disposition {
        let step = &mut self.steps[index];
        // A run that ended at a request has no other end.
        if !matches!(step.stage, Stage::Started { .. }) || step.attempts != call.attempt {
            return self.late_result(index, call, ended, turn);
        }
        let Ended { by, outcome, left, took } = ended;
        let doubt = self.doubt(index, call, left, turn);
        let step = &mut self.steps[index];
        step.uncertain |= left || matches!(outcome, Outcome::Unknown { uncertain: true, .. });
        let late = self.behind_fence(index);
        self.note_attempt(index, call, &by, &outcome, took, late, turn.now);
        self.steps[index].by = by;
        if late {
            self.awaited_result(index, outcome, doubt, turn);
        } else {
            self.attempt_ended(index, outcome, doubt, turn);
        }
        Disposition::Changed
    }

    fn attempt_ended(&mut self, index: usize, outcome: Outcome, doubt: bool, turn: &mut Turn<'_>) {
        match outcome {
            Outcome::Completed(completion) => self.completed(index, completion, turn),
            Outcome::Rejected(rejection) => self.rejected(index, rejection, doubt, turn),
            Outcome::Retry(delay) => self.attempt_failed(index, delay.problem, delay.after, turn),
            Outcome::Unknown { crash: Crash { code, detail }, .. } => {
                self.attempt_failed(index, Problem { code, detail }, None, turn);
            }
            Outcome::NotYet(problem) => self.park_not_yet(index, problem, turn),
            Outcome::Invalid(problem) => self.give_up_invalid(index, problem, turn),
            Outcome::Unreadable { formats } => self.block(index, unreadable(&formats), turn),
            Outcome::Unsent(problem) => self.unsent(index, problem, turn),
        }
    }

    /// Whoever would answer is away. That costs no attempt, and ends with the step's deadline.
    fn unsent(&mut self, index: usize, problem: Problem, turn: &mut Turn<'_>) {
        let retry = self.subscription(index, turn).map_or_else(Retry::default, |sub| sub.retry);
        let step = &mut self.steps[index];
        let key = step.key(&self.id, Direction::Forward, 0);
        let at = turn.now.after(backoff(&retry, step.attempts, &key, step.attempts));
        if step.deadline.is_some_and(|deadline| at >= deadline) {
            return self.give_up(index, problem, "step-deadline", true, turn);
        }
        step.stage = Stage::Retrying { at };
        let why = short(&format!("unsent: {}", problem.code));
        step.problem = Some(problem);
        self.note_parked(index, why, Some(at), turn.now);
    }

    pub(crate) fn completed(&mut self, index: usize, completion: Completion, turn: &mut Turn<'_>) {
        if completion.emit.len() > turn.topology.bounds.emissions_per_outcome_max {
            self.steps[index].uncertain |= self.steps[index].outside;
            return self.give_up(index, too_many(completion.emit.len()), "invalid", false, turn);
        }
        turn.keep_writes = true;
        self.done(index, completion.undo);
        let participant = self.steps[index].participant.clone();
        self.change_state(&participant, completion.state);
        self.add_notes(completion.attributes, turn);
        if let (Progress::Finished(result), Phase::Open) = (completion.progress, self.phase) {
            self.finish(result, turn.now);
        }
        let key = self.steps[index].key(&self.id, Direction::Forward, 0);
        self.emit(index, &key, completion.emit, false, turn);
        self.wake_early(&participant);
    }

    fn done(&mut self, index: usize, undo: Undo) {
        let step = &mut self.steps[index];
        step.stage = Stage::Done;
        step.uncertain = false;
        step.problem = None;
        step.undo = match undo {
            Undo::Data(saved) => Some(saved),
            Undo::NothingToUndo => None,
        };
    }

    /// Nothing happened (SEMANTICS.md, rules 2, 8). Where it cannot compensate any more, its emissions are withheld:
    /// they would announce a failure that nobody decided.
    fn rejected(&mut self, index: usize, rejection: Rejection, doubt: bool, turn: &mut Turn<'_>) {
        let Rejection { problem, emit, attributes } = rejection;
        self.steps[index].uncertain &= doubt;
        if emit.len() > turn.topology.bounds.emissions_per_outcome_max {
            return self.give_up(index, too_many(emit.len()), "invalid", false, turn);
        }
        self.add_notes(attributes, turn);
        if self.closing(index) {
            self.letter_of(index, &problem, turn);
            self.steps[index].stage = Stage::GivenUp;
            return;
        }
        // A pivot that says no has not happened.
        self.steps[index].stage = Stage::Rejected;
        if self.phase == Phase::Open && self.pivoted() {
            self.letter_of(index, &problem, turn);
            return self.block(index, problem, turn);
        }
        let key = self.steps[index].key(&self.id, Direction::Forward, 0);
        self.steps[index].problem = Some(problem.clone());
        if self.phase == Phase::Open {
            let participant = self.steps[index].participant.clone();
            let mut cause = cause("rejected", &problem, Some(&participant));
            cause.event_kind = Some(self.steps[index].event.kind.clone());
            self.fence(Failure { cause, problem, own: true, step: Some(index) }, turn);
        }
        self.emit(index, &key, emit, false, turn);
    }

    /// Again later, unless the attempts or the time are spent.
    fn attempt_failed(&mut self, index: usize, problem: Problem, after: Option<Duration>, turn: &mut Turn<'_>) {
        let retry = self.subscription(index, turn).map_or_else(Retry::default, |sub| sub.retry);
        let step = &mut self.steps[index];
        let key = step.key(&self.id, Direction::Forward, 0);
        let spent = step.budget.spend(&step.by.digest, &retry);
        let wait = after.unwrap_or_else(|| backoff(&retry, step.budget.used, &key, step.attempts));
        let at = turn.now.after(wait);
        if spent || step.deadline.is_some_and(|deadline| at >= deadline) {
            return self.give_up(index, problem, "attempts-spent", false, turn);
        }
        step.stage = Stage::Retrying { at };
        let why = short(&format!("again: {}", problem.code));
        step.problem = Some(problem);
        self.note_parked(index, why, Some(at), turn.now);
    }

    /// A call that had left before the fence came back behind it (races 1, 2).
    fn awaited_result(&mut self, index: usize, outcome: Outcome, doubt: bool, turn: &mut Turn<'_>) {
        self.late = self.late.saturating_add(1);
        let uncertain = self.steps[index].uncertain;
        let unknown = if uncertain { Known::Uncertain } else { Known::NeverRan };
        let known = match outcome {
            Outcome::Completed(completion) => {
                let undo = completion.undo.clone();
                self.late_success(index, completion, turn);
                match undo {
                    Undo::Data(_) => return self.resolve_awaited(index, Some(Known::Done)),
                    Undo::NothingToUndo => return self.resolve_awaited(index, None),
                }
            }
            Outcome::Rejected(_) if !uncertain || !doubt => None,
            Outcome::Rejected(_)
            | Outcome::Unknown { .. }
            | Outcome::Unsent(_)
            | Outcome::Retry(_)
            | Outcome::NotYet(_)
            | Outcome::Invalid(_)
            | Outcome::Unreadable { .. } => Some(unknown),
        };
        self.steps[index].stage = if known.is_none() { Stage::Rejected } else { Stage::Abandoned };
        self.resolve_awaited(index, known);
    }

    /// It happened; nothing follows from it but its undoing.
    fn late_success(&mut self, index: usize, completion: Completion, turn: &mut Turn<'_>) {
        turn.keep_writes = true;
        let participant = self.steps[index].participant.clone();
        self.done(index, completion.undo);
        self.change_state(&participant, completion.state);
    }

    /// The end of an attempt that is not the current one.
    fn late_result(
        &mut self,
        index: usize,
        call: &CallRef,
        Ended { by, outcome, took, .. }: Ended,
        turn: &mut Turn<'_>,
    ) -> Disposition {
        let step = &self.steps[index];
        let known = match step.stage {
            Stage::Done => !mutation::on(Mutation::AcceptAgain),
            Stage::Rejected | Stage::Started { .. } | Stage::Sending { .. } => true,
            Stage::Ready
            | Stage::Early(_)
            | Stage::Retrying { .. }
            | Stage::Blocked
            | Stage::GivenUp
            | Stage::Abandoned
            | Stage::Invalid => false,
        };
        if known || call.attempt > step.attempts {
            return Disposition::Nothing("not the current attempt of this step");
        }
        let outside = step.outside && self.is_of_service(index, turn);
        let open = matches!(self.phase, Phase::Open | Phase::Finishing);
        self.note_attempt(index, call, &by, &outcome, took, !open, turn.now);
        self.late = self.late.saturating_add(1);
        let Outcome::Completed(completion) = outcome else {
            return Disposition::Changed;
        };
        if !outside {
            // Nothing left the host: the attempt is thrown away.
            turn.keep_writes = mutation::on(Mutation::KeepLateWrites);
            return Disposition::Changed;
        }
        self.steps[index].by = by;
        if open {
            self.completed(index, completion, turn);
        } else if self.terminal() {
            let problem = Problem::new("late-success", "the step succeeded outside after the saga had ended");
            self.letter_of(index, &problem, turn);
        } else {
            let undoable = matches!(completion.undo, Undo::Data(_));
            self.late_success(index, completion, turn);
            if undoable && self.steps[index].undoable() {
                self.undo_again(index, turn);
            }
        }
        Disposition::Changed
    }

    pub(crate) fn subscription<'t>(&self, index: usize, turn: &Turn<'t>) -> Option<&'t Subscription> {
        let step = &self.steps[index];
        turn.topology.member(&step.participant).and_then(|member| member.subscription(&step.event.kind))
    }

    pub(crate) fn change_state(&mut self, participant: &Participant, change: StateChange) {
        match change {
            StateChange::Keep => {}
            StateChange::Put(saved) => match self.states.iter_mut().find(|(of, _)| of == participant) {
                Some((_, state)) => *state = saved,
                None => self.states.push((participant.clone(), saved)),
            },
            StateChange::Delete => self.states.retain(|(of, _)| of != participant),
        }
    }

    /// A note of the same name replaces the older one.
    pub(crate) fn add_notes(&mut self, notes: crate::input::Notes, turn: &Turn<'_>) {
        for (name, value) in notes {
            if let Some((_, old)) = self.notes.iter_mut().find(|(known, _)| *known == name) {
                *old = value;
            } else if self.notes.len() < turn.topology.bounds.notes_max {
                self.notes.push((name, value));
            }
        }
    }

    pub(crate) fn note_parked(
        &mut self,
        index: usize,
        why: std::sync::Arc<str>,
        until: Option<crate::id::Time>,
        now: crate::id::Time,
    ) {
        let step = &self.steps[index];
        let (participant, kind) = (step.participant.clone(), step.event.kind.clone());
        self.note(now, What::Parked { participant, kind, why, until });
    }

    /// What a step of this participant being done may have changed for the others.
    fn wake_early(&mut self, participant: &Participant) {
        for step in self.steps.iter_mut().filter(|step| step.participant == *participant) {
            if let Stage::Early(Early::After | Early::NotYet) = step.stage {
                step.stage = Stage::Ready;
            }
        }
    }
}
