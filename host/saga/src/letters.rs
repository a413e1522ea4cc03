//! Dead letters: what the saga gave up on, and what else happens then (SEMANTICS.md, rule 12). Invariant: a saga knows
//! each open letter of its own, and is kept while one is open.

use crate::{
    compensation::{Failure, cause},
    event::Event,
    history::What,
    id::Participant,
    input::{Effect, Letter, letter_key},
    mutation::{self, Mutation},
    on::Turn,
    outcome::{Behaviour, Problem},
    saga::{OpenLetter, Phase, Saga},
    step::Stage,
    topology::OnDeadLetter,
};

impl Saga {
    pub(crate) fn letter(&self, key: &str) -> Option<&OpenLetter> {
        self.letters.iter().find(|letter| *letter.key == *key)
    }

    pub(crate) fn open_letter(
        &mut self,
        event: &Event,
        participant: Option<&Participant>,
        problem: &Problem,
        attempts: u32,
        turn: &mut Turn<'_>,
    ) {
        let letter = Letter {
            key: letter_key(&event.key, participant),
            participant: participant.cloned(),
            event: event.clone(),
            problem: problem.clone(),
            attempts,
            by: Behaviour::default(),
            at: turn.now,
        };
        self.open(letter, turn);
    }

    pub(crate) fn open(&mut self, letter: Letter, turn: &mut Turn<'_>) {
        let (key, code): (std::sync::Arc<str>, _) = (letter.key.as_str().into(), letter.problem.code.as_str().into());
        self.letters.retain(|known| known.key != key);
        // Beyond the bound the journal alone keeps the letter, and the saga counts it.
        if self.letters.len() < turn.topology.bounds.steps_per_saga_max && !mutation::on(Mutation::ForgetLetter) {
            let participant = letter.participant.clone();
            self.letters.push(OpenLetter { key: key.clone(), participant, code, at: turn.now });
        } else {
            self.untracked = self.untracked.saturating_add(1);
        }
        let code = letter.problem.code.as_str().into();
        self.note(turn.now, What::DeadLetter { key, code, closed: None });
        turn.effects.push(Effect::OpenLetter(letter));
    }

    /// The letter of a step that ended in failure.
    pub(crate) fn letter_of(&mut self, index: usize, problem: &Problem, turn: &mut Turn<'_>) {
        let step = &self.steps[index];
        let letter = Letter {
            key: letter_key(&step.event.key, Some(&step.participant)),
            participant: Some(step.participant.clone()),
            event: step.event.clone(),
            problem: problem.clone(),
            attempts: step.attempts,
            by: step.by.clone(),
            at: turn.now,
        };
        self.open(letter, turn);
    }

    /// Is it open, as far as this record can say?
    pub(crate) fn may_be_open(&self, key: &str) -> bool {
        self.letter(key).is_some() || self.untracked > 0
    }

    /// The letter that a person named, tracked or not.
    pub(crate) fn close_named(&mut self, key: &str, how: &str, turn: &mut Turn<'_>) {
        if !self.close_letter(key, how, turn) {
            self.untracked = self.untracked.saturating_sub(1);
            let (key, how) = (key.to_owned(), how.to_owned());
            turn.effects.push(Effect::CloseLetter { key, how });
        }
    }

    /// Closes it if it is open, and settles what waited for it.
    pub(crate) fn close_letter(&mut self, key: &str, how: &str, turn: &mut Turn<'_>) -> bool {
        let Some(place) = self.letters.iter().position(|letter| *letter.key == *key) else {
            return false;
        };
        let letter = self.letters.remove(place);
        self.needs.retain(|need| need.letter.as_deref() != Some(key));
        self.note(turn.now, What::DeadLetter { key: letter.key, code: letter.code, closed: Some(how.into()) });
        turn.effects.push(Effect::CloseLetter { key: key.to_owned(), how: how.to_owned() });
        true
    }

    /// No further attempt: a dead letter, and the subscription's policy. `timer`: time ran out, nobody answered; where
    /// nobody `finishes`, no timer compensates (SEMANTICS.md, rule 5).
    pub(crate) fn give_up(&mut self, index: usize, problem: Problem, code: &str, timer: bool, turn: &mut Turn<'_>) {
        self.give_up_as(Stage::GivenUp, index, problem, (code, timer), turn);
    }

    /// The participant says that it cannot handle the event, whenever it is asked.
    pub(crate) fn give_up_invalid(&mut self, index: usize, problem: Problem, turn: &mut Turn<'_>) {
        self.give_up_as(Stage::Invalid, index, problem, ("invalid", false), turn);
    }

    fn give_up_as(
        &mut self,
        stage: Stage,
        index: usize,
        problem: Problem,
        (code, timer): (&str, bool),
        turn: &mut Turn<'_>,
    ) {
        self.letter_of(index, &problem, turn);
        self.steps[index].problem = Some(problem.clone());
        let policy = self.subscription(index, turn).map_or(OnDeadLetter::Compensate, |sub| sub.on_dead_letter);
        self.steps[index].stage = stage;
        if self.phase != Phase::Open || self.closing(index) {
            return;
        }
        match policy {
            OnDeadLetter::Skip => {}
            OnDeadLetter::Block => self.block(index, problem, turn),
            OnDeadLetter::Compensate if self.pivoted() => self.block(index, problem, turn),
            OnDeadLetter::Compensate if timer && !turn.topology.finishes() => {}
            OnDeadLetter::Compensate => {
                let step = &self.steps[index];
                let mut cause = cause(code, &problem, Some(&step.participant));
                cause.event_kind = Some(step.event.kind.clone());
                self.fence(Failure { cause, problem, own: true, step: Some(index) }, turn);
            }
        }
    }
}
