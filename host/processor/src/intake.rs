//! What is known of the way in, for the parts that care and for operators: what is read, what is held, what is waited for,
//! and whether deadlines may fire.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use sagahost_transport::{Assignment, Transport};
use sagahost_wire::Partition;
use tracing::{info, warn};

use crate::{
    stage::Stage,
    step::{Now, Signal, Steady},
};

#[derive(Default)]
pub struct Intake {
    pub(crate) state: Mutex<State>,
    /// The reader has something else to do than to read; whoever tells it to stop raises it, too.
    pub stirred: Arc<Signal>,
}

#[derive(Default)]
pub(crate) struct State {
    pub rewind: Option<Vec<(Partition, i64)>>,
    /// Partitions are to be assigned anew: one that was held may go on.
    pub assign_again: bool,
    /// Topics that nobody handles at the moment.
    pub idle: BTreeSet<Arc<str>>,
    pub idle_changed: bool,
    /// Partitions to be read from now on.
    pub more: Vec<Assignment>,
    pub held: BTreeMap<Partition, String>,
    pub broker: Option<String>,
    pub reading: Option<String>,
    /// The source said that the broker is away, and not yet that it is back.
    pub reading_away: bool,
    pub journal: Option<String>,
    /// Partitions that another producer's open transaction holds up.
    pub held_up: Vec<String>,
    pub gate: Gate,
    pub assigned: Vec<Partition>,
}

/// After a stall deadlines wait until what was queued meanwhile is handled (SEMANTICS.md, rule 9).
#[derive(Default)]
pub(crate) enum Gate {
    Open,
    #[default]
    /// The host has just begun.
    New,
    Closed {
        since: Steady,
        /// Ends of the partitions when the stall was over.
        targets: Option<BTreeMap<Partition, i64>>,
    },
}

impl Intake {
    pub fn rewind(&self, positions: Vec<(Partition, i64)>) {
        self.state.lock().rewind = Some(positions);
        self.stirred.raise();
    }

    /// A partition that is held goes on, if it can.
    pub fn assign_again(&self, partition: &Partition) {
        let mut state = self.state.lock();
        state.held.remove(partition);
        state.assign_again = true;
        drop(state);
        self.stirred.raise();
    }

    /// Plugins have changed: these partitions are read too, and of these topics nothing until somebody handles it.
    pub fn read_also(&self, more: Vec<Assignment>, idle: BTreeSet<Arc<str>>) {
        let mut state = self.state.lock();
        state.assign_again |= !more.is_empty();
        state.idle_changed |= state.idle != idle;
        state.more.extend(more);
        state.idle = idle;
        drop(state);
        self.stirred.raise();
    }

    /// What is read, and what will be with the reader's next round.
    pub fn assigned(&self) -> Vec<Partition> {
        let state = self.state.lock();
        let more = state.more.iter().map(|assignment| &assignment.partition);
        state.assigned.iter().chain(more).cloned().collect()
    }

    pub fn is_held(&self, partition: &Partition) -> bool {
        self.state.lock().held.contains_key(partition)
    }

    /// The publisher cannot reach the broker, or can again.
    pub fn broker_trouble(&self, why: Option<String>, now: Now) {
        let mut state = self.state.lock();
        if why.is_none() && state.broker.is_some() {
            info!("the broker is back; going on");
        }
        if why.is_some() || state.broker.is_some() {
            close_gate(&mut state, now);
        }
        state.broker = why;
    }

    /// Why the journal takes nothing at the moment.
    pub fn journal_is_away(&self) -> Option<String> {
        self.state.lock().journal.clone()
    }

    /// The journal takes nothing, or again something. What is due meanwhile counts as stalled from the first on.
    pub fn journal_trouble(&self, why: Option<String>, now: Now) {
        let mut state = self.state.lock();
        if why.is_some() || state.journal.is_some() {
            close_gate(&mut state, now);
        }
        state.journal = why;
    }

    /// The clock jumped, or the host slept.
    pub fn stalled(&self, now: Now) {
        close_gate(&mut self.state.lock(), now);
    }

    pub fn set_held_up(&self, lines: Vec<String>) {
        self.state.lock().held_up = lines;
    }

    pub fn held_up(&self) -> Vec<String> {
        self.state.lock().held_up.clone()
    }

    pub fn held(&self) -> Vec<String> {
        self.state.lock().held.iter().map(|(partition, why)| format!("{partition}: {why}")).collect()
    }

    pub fn waiting(&self) -> Vec<String> {
        let state = self.state.lock();
        [&state.broker, &state.reading, &state.journal].into_iter().flatten().cloned().collect()
    }

    /// May deadlines fire? Opens the gate when everything that was queued at the end of the stall is handled, or
    /// after `wait_max`.
    pub fn deadlines_may_fire(&self, stage: &Stage, transport: &dyn Transport, wait_max: Duration, now: Now) -> bool {
        let (since, targets, assigned) = {
            let mut state = self.state.lock();
            // While nothing can come in, nothing that has not come is late.
            if state.broker.is_some() || state.reading_away || state.journal.is_some() {
                close_gate(&mut state, now);
                return false;
            }
            match &state.gate {
                Gate::Open => return true,
                Gate::New => {
                    close_gate(&mut state, now);
                    return false;
                }
                Gate::Closed { since, targets } => {
                    let readable = |partition: &&Partition| !state.held.contains_key(*partition);
                    (*since, targets.clone(), state.assigned.iter().filter(readable).cloned().collect::<Vec<_>>())
                }
            }
        };
        let targets = targets.or_else(|| {
            let bounds = transport.bounds(&assigned).ok()?;
            Some(bounds.into_iter().map(|(partition, (_, end))| (partition, end)).collect())
        });
        let waited = now.steady.since(since) >= wait_max;
        let mut state = self.state.lock();
        let handled = targets.as_ref().is_some_and(|targets| {
            let at = stage.positions();
            targets.iter().all(|(partition, end)| {
                let waits = state.held.contains_key(partition) || state.idle.contains(&partition.topic);
                waits || at.get(partition).is_some_and(|at| at.next >= *end)
            })
        });
        match &mut state.gate {
            // Another stall began meanwhile.
            Gate::Closed { since: again, .. } if *again != since => false,
            Gate::Closed { targets: known, .. } => {
                *known = targets;
                if waited && !handled {
                    warn!(
                        "queued records are not all handled after {} s; deadlines fire all the same",
                        wait_max.as_secs()
                    );
                }
                if waited || handled {
                    state.gate = Gate::Open;
                }
                waited || handled
            }
            Gate::Open | Gate::New => false,
        }
    }
}

pub(crate) fn close_gate(state: &mut State, now: Now) {
    state.gate = Gate::Closed { since: now.steady, targets: None };
}
