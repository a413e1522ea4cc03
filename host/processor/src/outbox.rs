//! What is journaled and not yet out: batches on their way to the publisher, where it stands, and what operators decide.
//! Invariant: a decision is taken only while a row is refused.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use sagahost_journal::OutboxBatch;
use sagahost_wire::BatchNo;

use crate::step::{Now, Signal, Steady};

/// A publication that takes longer is said to wait: the transport may be in the middle of its own patience.
const SLOW: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Outbox {
    state: Mutex<State>,
    /// A batch was handed over, a decision made; whoever tells the publisher to stop raises it, too.
    pub stirred: Arc<Signal>,
}

#[derive(Default)]
struct State {
    batches: VecDeque<OutboxBatch>,
    waiting: Option<String>,
    /// The batch that is being published, and since when.
    under_way: Option<(BatchNo, Steady)>,
    /// A row that the broker refuses: publication is halted until an operator decides.
    refused: Option<RefusedRow>,
    decision: Option<Decision>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    pub batch: BatchNo,
    pub index: usize,
    pub topic: Arc<str>,
    pub why: String,
}

pub(crate) enum Decision {
    Retry,
    Skip { batch: BatchNo, index: usize, reason: String },
}

impl Outbox {
    /// A journaled batch, to be published behind those before it. How many there are the stage bounds.
    pub fn hand_over(&self, batch: OutboxBatch) {
        self.state.lock().batches.push_back(batch);
        self.stirred.raise();
    }

    pub(crate) fn next(&self, now: Now) -> Option<OutboxBatch> {
        let mut state = self.state.lock();
        let batch = state.batches.pop_front()?;
        state.under_way = Some((batch.number, now.steady));
        Some(batch)
    }

    /// What the publisher waits for.
    pub fn waiting(&self, now: Now) -> Option<String> {
        let state = self.state.lock();
        match &state.refused {
            Some(row) => Some(format!(
                "row {} of batch {} for topic {} was refused ({}); sagahost outbox retry | skip {} {} --reason TEXT",
                row.index, row.batch.0, row.topic, row.why, row.batch.0, row.index
            )),
            None => state.waiting.clone().or_else(|| {
                let (batch, since) = state.under_way?;
                let waited = now.steady.since(since);
                (waited >= SLOW)
                    .then(|| format!("batch {} waits for publication: no answer for {} s", batch.0, waited.as_secs()))
            }),
        }
    }

    pub fn refused(&self) -> Option<RefusedRow> {
        self.state.lock().refused.clone()
    }

    /// Try the refused row again. False: nothing is refused.
    pub fn retry(&self) -> bool {
        self.decide(Decision::Retry)
    }

    /// Leave out the refused row. The caller has journaled it.
    pub fn skip(&self, batch: BatchNo, index: usize, reason: &str) -> bool {
        self.decide(Decision::Skip { batch, index, reason: reason.to_owned() })
    }

    fn decide(&self, decision: Decision) -> bool {
        let mut state = self.state.lock();
        if state.refused.is_none() {
            return false;
        }
        state.decision = Some(decision);
        drop(state);
        self.stirred.raise();
        true
    }

    pub(crate) fn published(&self) {
        let mut state = self.state.lock();
        state.under_way = None;
        state.waiting = None;
    }

    pub(crate) fn waits(&self, why: String) {
        self.state.lock().waiting = Some(why);
    }

    pub(crate) fn refuse(&self, row: RefusedRow) {
        self.state.lock().refused = Some(row);
    }

    /// What an operator decided about the row that is refused.
    pub(crate) fn decision(&self) -> Option<Decision> {
        let mut state = self.state.lock();
        let decision = state.decision.take()?;
        state.refused = None;
        Some(decision)
    }
}
