//! What became of each input, by the state that its saga was in: a table that the simulation holds against what must be
//! covered. Invariant: without the feature `simulation`, which no host is built with, nothing is counted.

use sagahost_saga::{
    Saga,
    input::{Disposition, Input},
};

#[cfg(feature = "simulation")]
pub use counted::{Cell, DISPOSITIONS, INPUTS, PHASES, take};

/// An input that is about to be asked about.
pub(crate) struct Asked {
    #[cfg(feature = "simulation")]
    phase: &'static str,
    #[cfg(feature = "simulation")]
    input: &'static str,
}

#[cfg(not(feature = "simulation"))]
impl Asked {
    pub const fn new(_: &Saga, _: &Input) -> Self {
        Self {}
    }
    pub const fn answered(self, _: &Disposition) {}
}

#[cfg(feature = "simulation")]
impl Asked {
    pub fn new(saga: &Saga, input: &Input) -> Self {
        Self { phase: saga.status().name(), input: counted::input(input) }
    }
    pub fn answered(self, disposition: &Disposition) {
        counted::count((self.phase, self.input, counted::disposition(disposition)));
    }
}

#[cfg(feature = "simulation")]
mod counted {
    use std::{cell::RefCell, collections::BTreeMap};

    use sagahost_saga::{
        input::{Command, Disposition, Input},
        outcome::Outcome,
    };

    /// Phase of the saga, input, disposition.
    pub type Cell = (&'static str, &'static str, &'static str);

    /// A saga whose record is in quarantine is asked nothing.
    pub const PHASES: [&str; 7] =
        ["waiting", "running", "finishing", "completed", "compensating", "compensated", "needs-operator"];
    pub const INPUTS: [&str; 29] = [
        "received",
        "received-spilled",
        "requested",
        "asked",
        "completed",
        "rejected",
        "retry",
        "not-yet",
        "invalid",
        "unknown",
        "unreadable",
        "unsent",
        "undone",
        "nothing-to-undo",
        "undo-retry",
        "undo-stuck",
        "undo-unknown",
        "undo-unreadable",
        "undo-unsent",
        "due",
        "started",
        "sends",
        "resumed",
        "topology-changed",
        "cancel",
        "retry-command",
        "resolve",
        "redrive",
        "discard",
    ];
    pub const DISPOSITIONS: [&str; 5] = ["changed", "known", "unhandled", "refused", "nothing"];

    thread_local! {
        static TABLE: RefCell<BTreeMap<Cell, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    pub(super) fn count(cell: Cell) {
        TABLE.with_borrow_mut(|table| *table.entry(cell).or_default() += 1);
    }

    /// What this thread has counted since the last time.
    pub fn take() -> BTreeMap<Cell, u64> {
        TABLE.take()
    }

    pub(super) fn input(input: &Input) -> &'static str {
        match input {
            Input::Received { spilled: None, .. } => "received",
            Input::Received { spilled: Some(_), .. } => "received-spilled",
            Input::Requested { to: None, .. } => "requested",
            Input::Requested { to: Some(_), .. } => "asked",
            // To the saga's phases both are one.
            Input::Returned { outcome: Outcome::Unknown { .. }, .. } => "unknown",
            Input::Returned { outcome, .. } => outcome.name(),
            Input::Undone { outcome, .. } => undone(outcome.name()),
            Input::Due { .. } => "due",
            Input::Started { .. } => "started",
            Input::Sends { .. } => "sends",
            Input::Resumed { .. } => "resumed",
            Input::TopologyChanged => "topology-changed",
            Input::Operator(Command::Cancel { .. }) => "cancel",
            Input::Operator(Command::Retry { .. }) => "retry-command",
            Input::Operator(Command::Resolve { .. }) => "resolve",
            Input::Operator(Command::Redrive { .. }) => "redrive",
            Input::Operator(Command::Discard { .. }) => "discard",
        }
    }

    /// Outcomes that exist in both directions have a prefix here.
    fn undone(name: &'static str) -> &'static str {
        let own = |input: &&str| input.strip_prefix("undo-") == Some(name);
        INPUTS.into_iter().find(own).unwrap_or(name)
    }

    pub(super) fn disposition(disposition: &Disposition) -> &'static str {
        match disposition {
            Disposition::Changed => "changed",
            Disposition::Known => "known",
            Disposition::Unhandled => "unhandled",
            Disposition::Refused(_) => "refused",
            Disposition::Nothing(_) => "nothing",
        }
    }
}
