//! What must hold of every record (SEMANTICS.md, invariants). Invariant: the check reads only the record; it holds for
//! records that an older topology made, too.

use std::collections::HashSet;

use crate::{
    compensation::{Known, UndoState},
    input::{Broken, Wake},
    on::broken,
    saga::{Phase, Saga},
    step::{Stage, Step},
    topology::Topology,
};

impl Saga {
    /// Asked after a load and before a commit; what fails is quarantined. (Between the inputs of a chain a call may be
    /// out; in a durable record only one that was journaled first.)
    pub fn check(&self, topology: &Topology) -> Result<(), Broken> {
        self.check_references()
            .and_then(|()| self.check_states(&self.wake(topology)))
            .map_err(|what| broken(&self.id, what))
    }

    /// Nothing points outside the record: what `decode` makes is safe to work on.
    pub(crate) fn check_references(&self) -> Result<(), String> {
        for (index, step) in self.steps.iter().enumerate() {
            if step.cause.is_some_and(|cause| cause as usize >= index) {
                return Err(format!("step {index} is caused by a later one"));
            }
            if step.start.is_some_and(|start| start >= self.starts) {
                return Err(format!("step {index} has a start out of order"));
            }
        }
        let mut undone = HashSet::new();
        for undoing in &self.plan {
            if undoing.step as usize >= self.steps.len() {
                return Err(format!("the plan names step {}, which does not exist", undoing.step));
            }
            if !undone.insert((undoing.step, undoing.ordinal)) {
                return Err(format!("step {} is in the plan twice under one key", undoing.step));
            }
        }
        let steps = self.delayed.iter().map(|delayed| delayed.step).chain(self.expected.iter().map(|it| it.step));
        for step in steps {
            if step as usize >= self.steps.len() {
                return Err(format!("an emission names step {step}, which does not exist"));
            }
        }
        if !self.plan.is_empty() && self.cause.is_none() {
            return Err("a plan without a cause".to_owned());
        }
        Ok(())
    }

    fn check_states(&self, wake: &Wake) -> Result<(), String> {
        if self.steps.iter().any(|step| step.started() && !step.outside) {
            return Err("a call is out that was not journaled first".to_owned());
        }
        if self.plan.iter().any(|undoing| undoing.state == UndoState::Running) {
            return Err("a compensating call is out".to_owned());
        }
        let fenced = matches!(self.phase, Phase::Compensating | Phase::Compensated);
        if fenced == self.cause.is_none() {
            return Err("the cause and the phase disagree".to_owned());
        }
        match self.phase {
            Phase::Completed | Phase::Compensated => self.check_end(),
            Phase::Compensating => self.check_compensating(wake),
            Phase::Open | Phase::Finishing if !self.plan.is_empty() => Err("a plan without a fence".to_owned()),
            Phase::Open | Phase::Finishing => Ok(()),
        }
    }

    fn check_end(&self) -> Result<(), String> {
        if self.pending() || !self.expected.is_empty() || !self.delayed.is_empty() || self.needs_operator() {
            return Err("the saga has ended with something under way".to_owned());
        }
        if self.ended.is_none() {
            return Err("the saga has ended without a time".to_owned());
        }
        if self.phase == Phase::Compensated {
            if !self.plan.iter().all(|undoing| undoing.finished()) {
                return Err("compensated, with a plan that is not finished".to_owned());
            }
            return self.check_planned();
        }
        Ok(())
    }

    /// A done step is compensated, or listed.
    fn check_planned(&self) -> Result<(), String> {
        let forgotten =
            |(index, step): &(usize, &Step)| step.undoable() && !step.compensating && self.undoing_of(*index).is_none();
        match self.steps.iter().enumerate().find(forgotten) {
            Some((index, step)) => Err(format!("step {index} of {} is done and not in the plan", step.participant)),
            None => Ok(()),
        }
    }

    /// A saga that compensates has a next action: a retry, a plugin, an operator, or a call in doubt.
    fn check_compensating(&self, wake: &Wake) -> Result<(), String> {
        self.check_planned()?;
        let ready = self.steps.iter().any(|step| matches!(step.stage, Stage::Ready | Stage::Early(_)));
        let awaited = self.plan.iter().any(|undoing| undoing.known == Known::Awaited && !undoing.finished());
        let out = self.steps.iter().any(|step| step.outside && step.started());
        if awaited && !out {
            return Err("the plan awaits a call that is not out".to_owned());
        }
        let waits = self.tombstone() || ready || wake.at.is_some() || wake.in_doubt || self.needs_operator();
        if waits || !self.expected.is_empty() {
            return Ok(());
        }
        Err("the saga compensates and has no next action".to_owned())
    }
}
