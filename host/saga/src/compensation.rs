//! The fence and the plan of the undoing (SEMANTICS.md, rules 6, 7, 10). Invariant: a plan is made once; later items
//! are added to it, none is taken away.

use serde::{Deserialize, Serialize};

use crate::{
    history::What,
    id::{Direction, Participant, Time},
    input::{CallRef, Disposition, Letter, Status, undo_letter_key},
    mutation::{self, Mutation},
    on::{Turn, short},
    outcome::{Behaviour, Call, Cause, Crash, Evidence, Problem, Runs, UndoCall, UndoOutcome, Undone},
    saga::{Phase, Saga},
    step::{Budget, Stage, Step, backoff},
    topology::{Retry, Role},
};

/// So often in a row what is out may end unseen by the host, before that counts as a failure.
pub(crate) const INTERRUPTED_MAX: u32 = 3;

/// One compensation of one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Undoing {
    pub step: u32,
    /// 1 for a second compensation, after a late success (race 2).
    pub ordinal: u32,
    pub known: Known,
    pub state: UndoState,
    pub attempts: u32,
    pub budget: Budget,
    pub problem: Option<Problem>,
}

/// What is known of the step that is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Known {
    /// Its call left the host before the fence and has not ended.
    Awaited,
    Done,
    Uncertain,
    NeverRan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum UndoState {
    Waiting,
    Running,
    Retrying {
        at: Time,
    },
    Undone,
    NothingToUndo,
    Stuck,
    /// An operator undid it by hand.
    ByHand,
    /// An operator accepts that it stays done.
    Accepted,
    /// Its call is outside of the host. `interrupted`: how many attempts in a row ended unseen by the host.
    Out {
        interrupted: u32,
    },
    /// As [`Stage::Sending`].
    Sending {
        number: u32,
        interrupted: u32,
    },
}

/// Why the fence goes up. `own`: for a reason of this app's own, so that it is announced.
pub(crate) struct Failure {
    pub cause: Cause,
    pub problem: Problem,
    pub own: bool,
    /// Whose event's trace the announcement continues.
    pub step: Option<usize>,
}

impl Undoing {
    fn of(step: usize, known: Known) -> Self {
        Self {
            step: u32::try_from(step).expect("steps are bounded"),
            ordinal: 0,
            known,
            state: UndoState::Waiting,
            attempts: 0,
            budget: Budget::default(),
            problem: None,
        }
    }
    pub fn running(&self) -> bool {
        self.state == UndoState::Running || self.outside()
    }
    /// Something of it is outside of the host.
    pub fn outside(&self) -> bool {
        matches!(self.state, UndoState::Out { .. } | UndoState::Sending { .. })
    }
    /// As `Step::sent`.
    pub fn sent(&self) -> u32 {
        if let UndoState::Sending { number, .. } = self.state { number } else { 0 }
    }
    pub fn stuck(&self) -> bool {
        self.state == UndoState::Stuck
    }
    pub fn finished(&self) -> bool {
        match self.state {
            UndoState::Undone | UndoState::NothingToUndo | UndoState::ByHand | UndoState::Accepted => true,
            UndoState::Waiting
            | UndoState::Running
            | UndoState::Out { .. }
            | UndoState::Sending { .. }
            | UndoState::Retrying { .. }
            | UndoState::Stuck => false,
        }
    }
}

impl Saga {
    /// From here on forward results are late, and the plan decides what happens.
    pub(crate) fn fence(&mut self, failure: Failure, turn: &mut Turn<'_>) {
        let Failure { cause, problem, own, step } = failure;
        self.phase = Phase::Compensating;
        self.note_status(turn.now, Status::Compensating, &cause.code, &cause.detail);
        self.drop_delayed("dropped: the saga compensates", turn.now);
        self.needs.clear();
        self.deadline = None;
        for index in self.order_of_undoing() {
            self.plan_step(index);
        }
        if own {
            self.announce(&cause, &problem, step, turn);
        }
        self.cause = Some(cause);
    }

    /// Reverse order of start; what never started would have come last.
    fn order_of_undoing(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.steps.len()).collect();
        order.sort_by_key(|index| (self.steps[*index].start.unwrap_or(u32::MAX), *index));
        if !mutation::on(Mutation::UndoInOrder) {
            order.reverse();
        }
        order
    }

    fn plan_step(&mut self, index: usize) {
        let step = &mut self.steps[index];
        let known = match step.stage {
            Stage::Done if step.undoable() && !mutation::on(Mutation::ForgetDone) => Known::Done,
            Stage::Rejected if step.uncertain => Known::Uncertain,
            Stage::Done | Stage::Rejected | Stage::Abandoned => return,
            Stage::Started { .. } | Stage::Sending { .. } if step.outside => Known::Awaited,
            Stage::Started { .. }
            | Stage::Sending { .. }
            | Stage::Ready
            | Stage::Early(_)
            | Stage::Retrying { .. }
            | Stage::Blocked
            | Stage::GivenUp
            | Stage::Invalid => {
                if step.stage != Stage::Invalid {
                    step.stage = Stage::Abandoned;
                }
                if step.uncertain { Known::Uncertain } else { Known::NeverRan }
            }
        };
        if step.role == Role::Compensable {
            self.plan.push(Undoing::of(index, known));
        }
    }

    /// An event that came behind the fence: its step never runs, and `compensate` hears of it (race 3).
    pub(crate) fn plan_never_ran(&mut self, step: Step) {
        let index = self.steps.len();
        self.steps.push(Step { stage: Stage::Abandoned, ..step });
        self.insert_undoing(Undoing::of(index, Known::NeverRan));
    }

    /// What is added later is undone next: it started last.
    fn insert_undoing(&mut self, undoing: Undoing) {
        let waiting = |other: &Undoing| other.state == UndoState::Waiting;
        let place = self.plan.iter().position(waiting).unwrap_or(self.plan.len());
        self.plan.insert(place, undoing);
    }

    /// The next item of the plan that may run now.
    pub(crate) fn next_undo(&self) -> Option<usize> {
        for (index, undoing) in self.plan.iter().enumerate() {
            match undoing.state {
                UndoState::Undone
                | UndoState::NothingToUndo
                | UndoState::Stuck
                | UndoState::ByHand
                | UndoState::Accepted => {}
                UndoState::Running | UndoState::Out { .. } | UndoState::Sending { .. } | UndoState::Retrying { .. } => {
                    return None;
                }
                UndoState::Waiting if undoing.known == Known::Awaited => return None,
                UndoState::Waiting if self.held_back(undoing.step) => {}
                UndoState::Waiting => return Some(index),
            }
        }
        None
    }

    /// A step waits while one that it caused cannot be undone.
    pub(crate) fn held_back(&self, step: u32) -> bool {
        self.plan.iter().filter(|undoing| undoing.stuck()).any(|undoing| self.caused(step, undoing.step))
    }

    /// Did `cause` lead to `step`, through emissions of this app's own steps?
    fn caused(&self, cause: u32, step: u32) -> bool {
        let mut at = step;
        // An emission's step is always older than the step that it starts: this ends.
        while let Some(parent) = self.steps[at as usize].cause {
            if parent == cause {
                return true;
            }
            at = parent;
        }
        false
    }

    pub(crate) fn start_undo(&mut self, index: usize, turn: &mut Turn<'_>) {
        let participant = &self.steps[self.plan[index].step as usize].participant;
        let outside = turn.topology.member(participant).is_some_and(|member| member.outside_effects);
        self.start_undo_again(index, outside.then_some(0), turn);
    }

    /// `interrupted`: it runs outside, and this many attempts before it were interrupted.
    fn start_undo_again(&mut self, index: usize, interrupted: Option<u32>, turn: &mut Turn<'_>) {
        let undoing = &mut self.plan[index];
        undoing.attempts += u32::from(!mutation::on(Mutation::SameAttempt) || undoing.attempts == 0);
        undoing.state = interrupted.map_or(UndoState::Running, |interrupted| UndoState::Out { interrupted });
        let call = self.undo_call(index, Runs::begin(interrupted.is_some()), turn.now);
        turn.call(call);
    }

    /// That an undoing began is durable: it may leave. Or the host came back and does not know how it ended: then it is
    /// begun again at once, and the third time in a row that counts as an attempt that failed.
    pub(crate) fn undo_started(&mut self, call: &CallRef, interrupted: bool, turn: &mut Turn<'_>) -> Disposition {
        let running = self.undoing_out(call).map(|index| (index, self.plan[index].state));
        let (index, before) = match running {
            Some((index, UndoState::Out { interrupted })) => (index, interrupted),
            Some((index, UndoState::Sending { number, .. })) if interrupted && number == call.send => {
                return self.undo_send_interrupted(index, turn);
            }
            Some((index, UndoState::Sending { number, .. })) if number == call.send => (index, 0),
            _ => return Disposition::Nothing("not the current attempt of this compensation"),
        };
        if !interrupted {
            turn.call(self.undo_call(index, Runs::Outside, turn.now));
            return Disposition::Nothing("the call leaves");
        }
        let crash = Crash { code: "interrupted".into(), detail: "the host stopped while the call was out".into() };
        let by = Behaviour { digest: self.plan[index].budget.digest.clone(), ..Behaviour::default() };
        if before + 1 >= INTERRUPTED_MAX {
            return self.undone(call, &by, UndoOutcome::Unknown { crash }, std::time::Duration::ZERO, turn);
        }
        let (step, outcome) = (self.plan[index].step as usize, UndoOutcome::Unknown { crash });
        self.note_undo(step, call, &by, &outcome, std::time::Duration::ZERO, turn.now);
        self.start_undo_again(index, Some(before + 1), turn);
        Disposition::Changed
    }

    /// The place in the plan of an undoing that is under way.
    pub(crate) fn undoing_out(&self, call: &CallRef) -> Option<usize> {
        self.plan.iter().position(|undoing| {
            let step = &self.steps[undoing.step as usize];
            undoing.running()
                && undoing.ordinal == call.ordinal
                && undoing.attempts == call.attempt
                && step.participant == call.participant
                && step.id() == call.step_id
        })
    }

    pub(crate) fn undo_call(&self, index: usize, runs: Runs, now: Time) -> Call {
        let undoing = &self.plan[index];
        let step = &self.steps[undoing.step as usize];
        let evidence = match (undoing.known, &step.undo) {
            (Known::Done, Some(_)) if mutation::on(Mutation::SwapUndoData) => {
                let first = self.steps.iter().find_map(|step| step.undo.clone());
                first.map_or(Evidence::Uncertain, Evidence::Done)
            }
            (Known::Done, Some(undo)) => Evidence::Done(undo.clone()),
            (Known::NeverRan, _) => Evidence::NeverRan,
            (Known::Uncertain | Known::Awaited | Known::Done, _) => Evidence::Uncertain,
        };
        Call {
            participant: step.participant.clone(),
            step_id: step.id(),
            direction: Direction::Undo,
            ordinal: undoing.ordinal,
            attempt: undoing.attempts,
            idempotency_key: step.key(&self.id, Direction::Undo, undoing.ordinal),
            event: step.event.clone(),
            state: self.state_of(&step.participant),
            undo: Some(UndoCall {
                evidence,
                cause: self.cause.clone().expect("a saga with a plan has a cause"),
                plugin_version: step.by.version.clone(),
            }),
            now,
            runs,
            send: undoing.sent(),
        }
    }

    /// A compensating attempt ended.
    pub(crate) fn undone(
        &mut self,
        call: &CallRef,
        by: &Behaviour,
        outcome: UndoOutcome,
        took: std::time::Duration,
        turn: &mut Turn<'_>,
    ) -> Disposition {
        // A run that ended at a request has no other end.
        let Some(index) = self.undoing_out(call).filter(|index| self.plan[*index].sent() == 0) else {
            return Disposition::Nothing("not the current attempt of this compensation");
        };
        self.note_undo(self.plan[index].step as usize, call, by, &outcome, took, turn.now);
        match outcome {
            UndoOutcome::Undone(undone) => self.undo_done(index, by, undone, turn),
            UndoOutcome::NothingToUndo => self.plan[index].state = UndoState::NothingToUndo,
            UndoOutcome::Retry(delay) => self.undo_failed(index, by, delay.problem, delay.after, turn),
            UndoOutcome::Unknown { crash: Crash { code, detail } } => {
                self.undo_failed(index, by, Problem { code, detail }, None, turn);
            }
            UndoOutcome::Stuck(problem) => self.undo_stuck(index, by, problem, turn),
            UndoOutcome::Unreadable { formats } => self.undo_stuck(index, by, unreadable(&formats), turn),
            UndoOutcome::Unsent(problem) => self.undo_unsent(index, problem, turn),
        }
        Disposition::Changed
    }

    fn undo_done(&mut self, index: usize, by: &Behaviour, undone: Undone, turn: &mut Turn<'_>) {
        if undone.emit.len() > turn.topology.bounds.emissions_per_outcome_max {
            return self.undo_stuck(index, by, too_many(undone.emit.len()), turn);
        }
        let step = self.plan[index].step as usize;
        let participant = self.steps[step].participant.clone();
        turn.keep_writes = true;
        self.change_state(&participant, undone.state);
        self.add_notes(undone.attributes, turn);
        let again = mutation::on(Mutation::UndoTwice) && self.plan[index].attempts == 1;
        self.plan[index].state = if again { UndoState::Waiting } else { UndoState::Undone };
        let key = self.steps[step].key(&self.id, Direction::Undo, self.plan[index].ordinal);
        self.emit(step, &key, undone.emit, true, turn);
    }

    fn undo_failed(
        &mut self,
        index: usize,
        by: &Behaviour,
        problem: Problem,
        after: Option<std::time::Duration>,
        turn: &mut Turn<'_>,
    ) {
        let undoing = &mut self.plan[index];
        let step = &self.steps[undoing.step as usize];
        let retry = undo_retry(step, turn);
        if undoing.budget.spend(&by.digest, &retry) {
            return self.undo_stuck(index, by, problem, turn);
        }
        let key = step.key(&self.id, Direction::Undo, undoing.ordinal);
        let wait = after.unwrap_or_else(|| backoff(&retry, undoing.budget.used, &key, undoing.attempts));
        self.undo_waits(index, turn.now.after(wait), "undo again", problem, turn.now);
    }

    /// Whoever would undo it is away, which costs no attempt.
    fn undo_unsent(&mut self, index: usize, problem: Problem, turn: &Turn<'_>) {
        let undoing = &self.plan[index];
        let step = &self.steps[undoing.step as usize];
        let key = step.key(&self.id, Direction::Undo, undoing.ordinal);
        let wait = backoff(&undo_retry(step, turn), undoing.attempts, &key, undoing.attempts);
        self.undo_waits(index, turn.now.after(wait), "undo unsent", problem, turn.now);
    }

    fn undo_waits(&mut self, index: usize, at: Time, why: &str, problem: Problem, now: Time) {
        let undoing = &mut self.plan[index];
        let step = &self.steps[undoing.step as usize];
        undoing.state = UndoState::Retrying { at };
        let what = What::Parked {
            participant: step.participant.clone(),
            kind: step.event.kind.clone(),
            why: short(&format!("{why}: {}", problem.code)),
            until: Some(at),
        };
        undoing.problem = Some(problem);
        self.note(now, what);
    }

    /// It is a dead letter until it is tried again, or settled by hand (SEMANTICS.md, rule 10).
    fn undo_stuck(&mut self, index: usize, by: &Behaviour, problem: Problem, turn: &mut Turn<'_>) {
        let undoing = &mut self.plan[index];
        undoing.state = UndoState::Stuck;
        let detail = if problem.detail.is_empty() {
            problem.code.clone()
        } else {
            format!("{}: {}", problem.code, problem.detail)
        };
        undoing.problem = Some(problem);
        let (step, attempts) = (&self.steps[undoing.step as usize], undoing.attempts);
        let letter = Letter {
            key: undo_letter_key(&step.event.key, &step.participant),
            participant: Some(step.participant.clone()),
            event: step.event.clone(),
            problem: Problem::new("compensation-failed", detail),
            attempts,
            by: by.clone(),
            at: turn.now,
        };
        self.open(letter, turn);
    }

    /// Is the dead letter about a compensation that failed, and is stuck?
    pub fn fails_to_undo(&self, letter: &str) -> bool {
        self.stuck_under(letter).is_some()
    }

    /// The stuck compensation that a dead letter is about.
    pub(crate) fn stuck_under(&self, letter: &str) -> Option<usize> {
        let about = |undoing: &&Undoing| {
            let step = &self.steps[undoing.step as usize];
            undoing.stuck() && undo_letter_key(&step.event.key, &step.participant) == letter
        };
        self.plan.iter().rposition(|undoing| about(&undoing))
    }

    /// It is not stuck any more.
    pub(crate) fn close_undo_letter(&mut self, undoing: usize, how: &str, turn: &mut Turn<'_>) {
        let step = &self.steps[self.plan[undoing].step as usize];
        let key = undo_letter_key(&step.event.key, &step.participant);
        if self.may_be_open(&key) {
            self.close_named(&key, how, turn);
        }
    }

    /// The end of a call that had left the host before the fence is known now (race 1).
    pub(crate) fn resolve_awaited(&mut self, step: usize, known: Option<Known>) {
        let awaited = |undoing: &&mut Undoing| undoing.step as usize == step && undoing.known == Known::Awaited;
        if let Some(undoing) = self.plan.iter_mut().find(awaited) {
            match known {
                Some(known) => undoing.known = known,
                None => (undoing.known, undoing.state) = (Known::NeverRan, UndoState::NothingToUndo),
            }
        }
    }

    /// The success of a step that is being, or was, compensated as uncertain: again, with the real data (race 2).
    pub(crate) fn undo_again(&mut self, step: usize, turn: &mut Turn<'_>) {
        let Some(last) = self.plan.iter().rposition(|undoing| undoing.step as usize == step) else {
            return self.insert_undoing(Undoing::of(step, Known::Done));
        };
        let undoing = &mut self.plan[last];
        match undoing.state {
            UndoState::Waiting => return undoing.known = Known::Done,
            UndoState::Retrying { .. } => undoing.state = UndoState::NothingToUndo,
            UndoState::Stuck => {
                undoing.state = UndoState::NothingToUndo;
                self.close_undo_letter(last, "the step succeeded after all, and is undone with what it did", turn);
            }
            UndoState::Running
            | UndoState::Out { .. }
            | UndoState::Sending { .. }
            | UndoState::Undone
            | UndoState::NothingToUndo
            | UndoState::ByHand
            | UndoState::Accepted => {}
        }
        let ordinal = self.plan[last].ordinal + 1;
        let again = Undoing { ordinal, ..Undoing::of(step, Known::Done) };
        self.plan.insert(last + 1, again);
    }

    /// Is there nothing left to undo, and nothing for an operator to do about it?
    pub(crate) fn undoing_over(&self) -> bool {
        if mutation::on(Mutation::NeverSettle) {
            return false;
        }
        self.plan.iter().all(|undoing| undoing.finished() || (mutation::on(Mutation::EndWhileStuck) && undoing.stuck()))
    }

    /// The latest compensation of a step.
    pub(crate) fn undoing_of(&self, step: usize) -> Option<&Undoing> {
        self.plan.iter().filter(|undoing| undoing.step as usize == step).max_by_key(|undoing| undoing.ordinal)
    }
}

pub(crate) fn cause(code: &str, problem: &Problem, participant: Option<&Participant>) -> Cause {
    let detail = match (problem.code.as_str(), problem.detail.as_str()) {
        (own, detail) if own == code => detail.to_owned(),
        (own, "") => own.to_owned(),
        (own, detail) => format!("{own}: {detail}"),
    };
    Cause { code: code.to_owned(), detail, participant: participant.cloned(), event_kind: None }
}

pub(crate) fn unreadable(formats: &[u32]) -> Problem {
    let formats = formats.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    Problem::new("unreadable", format!("no stored version of the plugin reads data format {formats}"))
}

pub(crate) fn too_many(emissions: usize) -> Problem {
    Problem::new("too-many-emissions", format!("{emissions} events in one outcome"))
}

fn undo_retry(step: &Step, turn: &Turn<'_>) -> Retry {
    let member = turn.topology.member(&step.participant);
    member.and_then(|member| member.subscription(&step.event.kind)).map_or_else(Retry::default, |sub| sub.undo_retry)
}
