//! What people ask for (SEMANTICS.md, rules 10, 12; races 11, 13, 19). Invariant: every command that changes something
//! stands in the timeline with who and why, and every command has an answer.

use crate::{
    compensation::{Failure, UndoState, cause},
    event::Event,
    history::What,
    id::Participant,
    input::{Command, Disposition, Status},
    mutation::{self, Mutation},
    on::{Turn, short},
    outcome::Problem,
    saga::{Phase, Saga},
    step::{Budget, Stage},
};

impl Saga {
    pub(crate) fn operate(&mut self, command: Command, turn: &mut Turn<'_>) -> Disposition {
        match command {
            Command::Cancel { by, reason } => self.cancel(&by, &reason, turn),
            Command::Retry { by } => self.retry(&by, turn),
            Command::Resolve { by, reason, accept, participant } => {
                self.resolve(&by, &reason, accept, participant.as_ref(), turn)
            }
            Command::Redrive { by, letter, participant, event } => {
                self.redrive(&by, &letter, &participant, &event.0, turn)
            }
            Command::Discard { by, letter, reason } => self.discard(&by, &letter, &reason, turn),
        }
    }

    fn cancel(&mut self, by: &str, reason: &str, turn: &mut Turn<'_>) -> Disposition {
        let now = format!("the saga is {}", self.status_name());
        match self.phase {
            Phase::Compensating | Phase::Compensated => {
                turn.answer(true, now);
                return Disposition::Nothing("it compensates already");
            }
            Phase::Completed | Phase::Finishing => return turn.refuse(format!("too late: {now}")),
            Phase::Open => {}
        }
        if let Some(pivot) = self.steps.iter().find(|step| step.pivoted()) {
            return turn.refuse(format!("too late: the pivot step of {} is done, or may be", pivot.participant));
        }
        self.note_operator(by, "cancel", reason, turn);
        let problem = Problem::new("cancelled", format!("by {by}: {reason}"));
        let cause = cause("cancelled", &problem, None);
        self.fence(Failure { cause, problem, own: true, step: None }, turn);
        turn.answer(true, "the saga is cancelled");
        Disposition::Changed
    }

    /// Tries again what is stuck, blocked or waits for its next attempt: one more attempt each, whatever a timer does
    /// later (race 19).
    fn retry(&mut self, by: &str, turn: &mut Turn<'_>) -> Disposition {
        let stuck = self.stuck_of(None);
        stuck.iter().for_each(|undoing| self.undo_from_the_start(*undoing));
        let mut count = stuck.len();
        let mut letters = Vec::new();
        for step in self.steps.iter_mut().filter(|step| step.stage == Stage::Blocked) {
            step.stage = Stage::Ready;
            step.budget = Budget::default();
            letters.push(crate::input::letter_key(&step.event.key, Some(&step.participant)));
            count += 1;
        }
        let waiting = self.fire_retries(turn.now, true);
        if count == 0 && !waiting {
            return turn.refuse("nothing is stuck, blocked or waiting for a retry");
        }
        self.note_operator(by, "retry", "", turn);
        for undoing in stuck {
            self.close_undo_letter(undoing, &format!("retried by {by}"), turn);
        }
        for letter in letters {
            self.close_letter(&letter, &format!("retried by {by}"), turn);
        }
        turn.answer(true, "it is tried again");
        Disposition::Changed
    }

    fn undo_from_the_start(&mut self, undoing: usize) {
        self.plan[undoing].state = UndoState::Waiting;
        self.plan[undoing].budget = Budget::default();
    }

    fn resolve(
        &mut self,
        by: &str,
        reason: &str,
        accept: bool,
        participant: Option<&Participant>,
        turn: &mut Turn<'_>,
    ) -> Disposition {
        let named = |of: Option<&Participant>| participant.is_none() || participant == of;
        let stuck = self.stuck_of(participant);
        let blocked = self.blocked_of(participant);
        let asked = self.needs.iter().any(|need| named(need.participant.as_ref()));
        let asked = asked && !mutation::on(Mutation::ResolveNothing);
        if stuck.is_empty() && blocked.is_empty() && !asked {
            return turn.refuse("nothing here waits to be resolved");
        }
        self.note_operator(by, if accept { "resolve --accept" } else { "resolve --undone" }, reason, turn);
        for index in stuck {
            self.plan[index].state = if accept { UndoState::Accepted } else { UndoState::ByHand };
            self.close_undo_letter(index, &format!("resolved by {by}: {reason}"), turn);
        }
        if accept || self.phase != Phase::Open {
            for index in blocked {
                self.steps[index].stage = Stage::GivenUp;
            }
            self.needs.retain(|need| !(participant.is_none() || participant == need.participant.as_ref()));
        } else if !blocked.is_empty() || asked {
            self.undone_by_hand(by, reason, &blocked, turn);
        }
        turn.answer(true, if accept { "accepted as it is" } else { "taken as undone" });
        Disposition::Changed
    }

    fn stuck_of(&self, participant: Option<&Participant>) -> Vec<usize> {
        let of = |undoing: &crate::compensation::Undoing| &self.steps[undoing.step as usize].participant;
        let fits = |index: &usize| {
            let undoing = &self.plan[*index];
            undoing.stuck() && participant.is_none_or(|participant| participant == of(undoing))
        };
        (0..self.plan.len()).filter(fits).collect()
    }

    fn blocked_of(&self, participant: Option<&Participant>) -> Vec<usize> {
        let fits = |index: &usize| {
            let step = &self.steps[*index];
            step.stage == Stage::Blocked && participant.is_none_or(|participant| *participant == step.participant)
        };
        (0..self.steps.len()).filter(fits).collect()
    }

    /// An open saga whose trouble was undone by hand: before the pivot the host undoes the rest, behind it the
    /// operator has undone everything.
    fn undone_by_hand(&mut self, by: &str, reason: &str, blocked: &[usize], turn: &mut Turn<'_>) {
        let everything = self.pivoted();
        let foreign = self.needs.iter().any(|need| &*need.code == "failed-after-pivot");
        let problem = Problem::new("operator", format!("undone by hand by {by}: {reason}"));
        let cause = cause("operator", &problem, None);
        self.fence(Failure { cause, problem, own: !foreign, step: None }, turn);
        for undoing in &mut self.plan {
            if everything || blocked.contains(&(undoing.step as usize)) {
                undoing.state = UndoState::ByHand;
            }
        }
    }

    fn redrive(
        &mut self,
        by: &str,
        letter: &str,
        participant: &Participant,
        event: &Event,
        turn: &mut Turn<'_>,
    ) -> Disposition {
        if !self.may_be_open(letter) {
            return turn.refuse(format!("no open dead letter {letter}"));
        }
        if let Some(undoing) = self.stuck_under(letter) {
            self.note_operator(by, &format!("redrive {letter}"), "", turn);
            self.undo_from_the_start(undoing);
            self.close_named(letter, &format!("redriven by {by}"), turn);
            turn.answer(true, format!("{participant} undoes {} again", event.kind));
            return Disposition::Changed;
        }
        let topology = turn.topology;
        let Some(member) = topology.member(participant) else {
            return turn.refuse(format!("no participant {participant}"));
        };
        let Some(subscription) = member.subscription(&event.kind) else {
            return turn.refuse(format!("{participant} does not subscribe to {}", event.kind));
        };
        if self.phase != Phase::Open {
            return self.redriven_late(by, letter, event, turn);
        }
        let mine = |step: &crate::step::Step| step.participant == *participant && step.event.key == event.key;
        let step = self.steps.iter().position(mine);
        if step.is_some_and(|step| self.steps[step].event.data_hash() != event.data_hash()) {
            return turn.refuse("another event has this id: discard the letter");
        }
        if step.is_some_and(|step| !matches!(self.steps[step].stage, Stage::Blocked | Stage::GivenUp | Stage::Invalid))
        {
            return turn.refuse("its step is done or under way: discard the letter");
        }
        self.note_operator(by, &format!("redrive {letter}"), "", turn);
        self.close_named(letter, &format!("redriven by {by}"), turn);
        match step {
            Some(step) => {
                let step = &mut self.steps[step];
                step.stage = Stage::Ready;
                step.budget = Budget::default();
                (step.deadline, step.park_until) =
                    (subscription.deadline.map(|deadline| turn.now.after(deadline)), None);
            }
            None => self.take_redriven(event, member, subscription, turn),
        }
        turn.answer(true, format!("{participant} handles {} again", event.kind));
        Disposition::Changed
    }

    /// The saga is past it (race 13): recorded, without effect; the letter stays for a person to discard.
    fn redriven_late(&mut self, by: &str, letter: &str, event: &Event, turn: &mut Turn<'_>) -> Disposition {
        self.late = self.late.saturating_add(1);
        self.note_operator(by, &format!("redrive {letter}"), "late", turn);
        let (kind, key) = (event.kind.clone(), event.key.clone());
        self.note(turn.now, What::Event { kind, key, note: crate::history::EventNote::Late });
        turn.answer(
            false,
            format!("too late: the saga is {}; discard the letter when it is settled", self.status_name()),
        );
        Disposition::Changed
    }

    fn discard(&mut self, by: &str, letter: &str, reason: &str, turn: &mut Turn<'_>) -> Disposition {
        if !self.may_be_open(letter) {
            return turn.refuse(format!("no open dead letter {letter}"));
        }
        self.note_operator(by, &format!("discard {letter}"), reason, turn);
        self.close_named(letter, &format!("discarded by {by}: {reason}"), turn);
        turn.answer(true, if self.needs_operator() { "discarded; the saga still waits" } else { "discarded" });
        Disposition::Changed
    }

    fn note_operator(&mut self, by: &str, did: &str, reason: &str, turn: &Turn<'_>) {
        self.note(turn.now, What::Operator { by: by.into(), did: did.into(), reason: short(reason) });
    }

    fn status_name(&self) -> &'static str {
        match self.status() {
            Status::NeedsOperator => "waiting for an operator",
            status => status.name(),
        }
    }
}
