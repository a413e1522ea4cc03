//! What people see of a saga: steps, what is parked, the next thing to type; and the timeline's entries of attempts.
//! Invariant: looking changes nothing.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    compensation::{UndoState, Undoing},
    history::What,
    id::{Direction, EventKey, Kind, Participant, Time},
    input::CallRef,
    mutation::{self, Mutation},
    notation,
    on::short,
    outcome::{Behaviour, Outcome, Problem, UndoOutcome},
    saga::{Phase, Saga},
    step::{Stage, Step},
    topology::Role,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepView<'s> {
    pub participant: &'s Participant,
    pub kind: &'s Kind,
    pub event: &'s EventKey,
    pub step_id: String,
    pub role: Role,
    pub state: StepState,
    /// Forward attempts so far.
    pub attempts: u32,
    /// Attempts of the latest compensation.
    pub undo_attempts: u32,
    /// Which code did it, or tried it last.
    pub by: &'s Behaviour,
    pub version: &'s str,
    /// A `finish-on` event came: it is not undone any more.
    pub released: bool,
    /// It is done, and should the saga fail, `compensate` is called for it.
    pub undoable: bool,
    /// The saga compensates, and of this step nothing is left to undo.
    pub undone: bool,
    /// Of the next attempt.
    pub next_at: Option<Time>,
    /// The participant says that the event is not one that it could handle.
    pub invalid: bool,
    /// Why it waits, or why it failed.
    pub problem: Option<&'s Problem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Its turn has not come, or its plugin is away.
    Waiting,
    /// Its predecessor is missing.
    Early,
    Started,
    Retrying,
    /// Waits for an operator.
    Blocked,
    Done,
    Rejected,
    /// Its attempts ended without an answer; it may have happened outside.
    Unknown,
    /// In a dead letter.
    GivenUp,
    /// The saga failed first.
    NeverRan,
    Compensating,
    Compensated,
    NothingToUndo,
    CompensationFailed,
    /// An operator undid it by hand.
    UndoneByHand,
    /// An operator accepts that it stays done.
    Accepted,
}

impl StepState {
    /// As pages, commands and JSON write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Early => "early",
            Self::Started => "started",
            Self::Retrying => "retrying",
            Self::Blocked => "blocked",
            Self::Done => "done",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
            Self::GivenUp => "given-up",
            Self::NeverRan => "never-ran",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
            Self::NothingToUndo => "nothing-to-undo",
            Self::CompensationFailed => "compensation-failed",
            Self::UndoneByHand => "undone-by-hand",
            Self::Accepted => "accepted",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked<'s> {
    pub participant: &'s Participant,
    pub kind: &'s Kind,
    pub event: &'s EventKey,
    pub why: &'static str,
    pub until: Option<Time>,
}

impl Saga {
    pub fn steps(&self) -> impl Iterator<Item = StepView<'_>> {
        self.steps.iter().enumerate().map(|(index, step)| self.step_view(index, step))
    }

    fn step_view<'s>(&'s self, index: usize, step: &'s Step) -> StepView<'s> {
        let undoing = self.undoing_of(index);
        let next_at = match (step.stage, undoing.map(|undoing| undoing.state)) {
            (Stage::Retrying { at }, _) | (_, Some(UndoState::Retrying { at })) => Some(at),
            (
                Stage::Ready
                | Stage::Early(_)
                | Stage::Started { .. }
                | Stage::Sending { .. }
                | Stage::Blocked
                | Stage::Done
                | Stage::Rejected
                | Stage::GivenUp
                | Stage::Abandoned
                | Stage::Invalid,
                _,
            ) => None,
        };
        StepView {
            participant: &step.participant,
            kind: &step.event.kind,
            event: &step.event.key,
            step_id: step.id(),
            role: step.role,
            state: self.step_state(step, undoing),
            attempts: step.attempts,
            undo_attempts: undoing.map_or(0, |undoing| undoing.attempts),
            by: &step.by,
            version: &step.by.version,
            released: step.released,
            undoable: step.undoable(),
            undone: matches!(self.phase, Phase::Compensating | Phase::Compensated)
                && !step.pending()
                && undoing.is_none_or(Undoing::finished),
            next_at,
            invalid: step.stage == Stage::Invalid,
            problem: undoing.and_then(|undoing| undoing.problem.as_ref()).or(step.problem.as_ref()),
        }
    }

    fn step_state(&self, step: &Step, undoing: Option<&Undoing>) -> StepState {
        match undoing.map(|undoing| undoing.state) {
            Some(
                UndoState::Running | UndoState::Out { .. } | UndoState::Sending { .. } | UndoState::Retrying { .. },
            ) => {
                return StepState::Compensating;
            }
            Some(UndoState::Undone) => return StepState::Compensated,
            Some(UndoState::NothingToUndo) => return StepState::NothingToUndo,
            Some(UndoState::Stuck) => return StepState::CompensationFailed,
            Some(UndoState::ByHand) => return StepState::UndoneByHand,
            Some(UndoState::Accepted) => return StepState::Accepted,
            Some(UndoState::Waiting) | None => {}
        }
        let undone = matches!(self.phase, Phase::Compensating | Phase::Compensated);
        match step.stage {
            Stage::Ready => StepState::Waiting,
            Stage::Early(_) => StepState::Early,
            Stage::Started { .. } | Stage::Sending { .. } => StepState::Started,
            Stage::Retrying { .. } => StepState::Retrying,
            Stage::Blocked => StepState::Blocked,
            Stage::Done if undone && undoing.is_none() && !step.compensating && !step.released => {
                StepState::NothingToUndo
            }
            Stage::Done => StepState::Done,
            Stage::Rejected => StepState::Rejected,
            Stage::GivenUp | Stage::Abandoned | Stage::Invalid if step.uncertain => StepState::Unknown,
            Stage::Invalid if undone => StepState::NeverRan,
            Stage::GivenUp | Stage::Invalid => StepState::GivenUp,
            Stage::Abandoned => StepState::NeverRan,
        }
    }

    /// Events that were taken in and whose step does not run at the moment.
    pub fn parked(&self) -> impl Iterator<Item = Parked<'_>> {
        let holds = |step: &Step| matches!(step.stage, Stage::Retrying { .. } | Stage::Blocked) || step.started();
        let first = self.steps.iter().position(holds).unwrap_or(self.steps.len());
        self.steps.iter().enumerate().filter(|(_, step)| step.parked()).map(move |(index, step)| {
            let (why, until) = match step.stage {
                Stage::Retrying { at } => ("waits for its next attempt", Some(at)),
                Stage::Early(_) => ("its predecessor is missing", step.park_until),
                Stage::Blocked => ("waits for an operator", None),
                Stage::Ready if index < first => ("its plugin is away", None),
                Stage::Ready
                | Stage::Started { .. }
                | Stage::Sending { .. }
                | Stage::Done
                | Stage::Rejected
                | Stage::GivenUp
                | Stage::Abandoned
                | Stage::Invalid => ("waits behind an earlier event of the saga", None),
            };
            Parked { participant: &step.participant, kind: &step.event.kind, event: &step.event.key, why, until }
        })
    }

    /// Beside `needs-operator`: what to type, and why.
    pub fn next_commands(&self) -> Vec<String> {
        let id = notation::id_word(self.id.as_str());
        let mut commands = Vec::new();
        if mutation::on(Mutation::SayNoCommand) {
            return commands;
        }
        let mut say = |command: String, why: String| commands.push(format!("{command}  # {}", notation::line(&why)));
        for undoing in self.plan.iter().filter(|undoing| undoing.stuck()) {
            let step = &self.steps[undoing.step as usize];
            let who = &step.participant;
            say(
                format!("sagahost sagas retry {id}"),
                format!("{who} could not undo {}: {}", step.event.kind, why(&undoing.problem)),
            );
            say(
                format!("sagahost sagas resolve {id} --undone --participant {who} --reason TEXT"),
                "it was undone by hand".to_owned(),
            );
        }
        for step in self.steps.iter().filter(|step| step.stage == Stage::Blocked) {
            let who = &step.participant;
            say(
                format!("sagahost sagas retry {id}"),
                format!("{who} could not handle {}: {}", step.event.kind, why(&step.problem)),
            );
            say(
                format!("sagahost sagas resolve {id} --accept --participant {who} --reason TEXT"),
                "continue without this step".to_owned(),
            );
        }
        for need in &self.needs {
            match (&need.letter, &need.participant) {
                (Some(letter), Some(who)) => say(
                    format!("sagahost dead-letters redrive {} --participant {who}", notation::id_word(letter)),
                    format!("{}: {}", need.code, need.detail),
                ),
                (_, _) => say(
                    format!("sagahost sagas resolve {id} --accept --reason TEXT"),
                    format!("{}: {}; or --undone when everything is undone by hand", need.code, need.detail),
                ),
            }
        }
        commands.dedup();
        commands
    }

    /// Why a person must act, beside stuck and blocked steps.
    pub fn needs(&self) -> &[crate::saga::Need] {
        &self.needs
    }

    #[expect(clippy::too_many_arguments, reason = "an entry has as many facts")]
    pub(crate) fn note_attempt(
        &mut self,
        index: usize,
        call: &CallRef,
        by: &Behaviour,
        outcome: &Outcome,
        took: Duration,
        late: bool,
        now: Time,
    ) {
        let name = outcome.name();
        let (code, detail) = outcome.why().unwrap_or_default();
        let name = if late { format!("late {name}") } else { name.to_owned() };
        let (code, detail) = (code.into(), short(detail));
        let what = self.attempt(index, call, by, (Direction::Forward, name.into(), code, detail), took);
        self.note(now, what);
    }

    pub(crate) fn note_undo(
        &mut self,
        index: usize,
        call: &CallRef,
        by: &Behaviour,
        outcome: &UndoOutcome,
        took: Duration,
        now: Time,
    ) {
        let (code, detail) = outcome.why().unwrap_or_default();
        let said = (Direction::Undo, outcome.name().into(), code.into(), short(detail));
        let what = self.attempt(index, call, by, said, took);
        self.note(now, what);
    }

    fn attempt(
        &self,
        index: usize,
        call: &CallRef,
        by: &Behaviour,
        (direction, outcome, code, detail): (Direction, Arc<str>, Arc<str>, Arc<str>),
        took: Duration,
    ) -> What {
        What::Attempt {
            participant: call.participant.clone(),
            kind: self.steps[index].event.kind.clone(),
            direction,
            attempt: call.attempt,
            outcome,
            code,
            detail,
            took,
            version: by.version.clone(),
        }
    }
}

fn why(problem: &Option<Problem>) -> String {
    problem
        .as_ref()
        .map_or_else(|| "no reason known".to_owned(), |problem| format!("{}: {}", problem.code, problem.detail))
}
