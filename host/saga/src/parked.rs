//! Events that came before what they need (SEMANTICS.md, race 8), and what is parked at all. Invariant: an early event
//! blocks nothing, and its time to live counts from the first time it was parked.

use crate::{
    history::What,
    id::{Kind, Time},
    input::Status,
    on::{Turn, short},
    outcome::Problem,
    saga::Saga,
    step::{Early, Stage},
    topology::Member,
};

impl Saga {
    /// The first `after` kind that this participant has not done yet.
    pub(crate) fn predecessor_missing(&self, index: usize, turn: &Turn<'_>) -> Option<Kind> {
        let participant = &self.steps[index].participant;
        let done = |kind: &Kind| {
            let of = |step: &&crate::step::Step| step.participant == *participant && step.event.kind == *kind;
            self.steps.iter().filter(of).any(|step| step.stage == Stage::Done)
        };
        let after = &self.subscription(index, turn)?.after;
        after.iter().find(|kind| !done(kind)).cloned()
    }

    pub(crate) fn park_after(&mut self, index: usize, missing: &Kind, turn: &Turn<'_>) {
        self.park(index, Early::After, &format!("waits for {missing}"), turn);
    }

    /// New manifests may ask for less.
    pub(crate) fn recheck_early(&mut self, turn: &Turn<'_>) {
        for index in 0..self.steps.len() {
            let early = self.steps[index].stage == Stage::Early(Early::After);
            if early && self.serving(index, turn) && self.predecessor_missing(index, turn).is_none() {
                self.steps[index].stage = Stage::Ready;
            }
        }
    }

    /// `not-yet`: the participant wants another event first.
    pub(crate) fn park_not_yet(&mut self, index: usize, problem: Problem, turn: &mut Turn<'_>) {
        let over = self.steps[index].park_until.is_some_and(|until| until <= turn.now);
        if over && !self.held() {
            return self.give_up(index, orphan(&problem.code), "orphan", true, turn);
        }
        self.park(index, Early::NotYet, &format!("not yet: {}", problem.code), turn);
        self.steps[index].problem = Some(problem);
    }

    fn park(&mut self, index: usize, early: Early, why: &str, turn: &Turn<'_>) {
        let ttl = self.subscription(index, turn).map(|sub| sub.park_ttl).unwrap_or_default();
        let step = &mut self.steps[index];
        step.stage = Stage::Early(early);
        let until = *step.park_until.get_or_insert(turn.now.after(ttl));
        self.note_parked(index, short(why), Some(until), turn.now);
    }

    /// Waits for an operator; in the order of the saga's events nothing passes it.
    pub(crate) fn block(&mut self, index: usize, problem: Problem, turn: &Turn<'_>) {
        self.steps[index].stage = Stage::Blocked;
        let detail = format!("{}: {}", problem.code, problem.detail);
        self.note_status(turn.now, Status::NeedsOperator, "blocked", &detail);
        self.steps[index].problem = Some(problem);
    }

    /// An open saga that waits for an operator: no deadline of it runs.
    pub(crate) fn held(&self) -> bool {
        self.phase == crate::saga::Phase::Open && self.needs_operator()
    }

    pub(crate) fn note_away(&mut self, member: &Member, kind: &Kind, now: Time) {
        if !member.serving {
            let why = short("its plugin is away");
            self.note(now, What::Parked { participant: member.name.clone(), kind: kind.clone(), why, until: None });
        }
    }
}

pub(crate) fn orphan(waited_for: &str) -> Problem {
    Problem::new("orphan", format!("what it waits for did not come: {waited_for}"))
}
