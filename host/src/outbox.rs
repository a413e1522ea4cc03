//! Where the publisher stands, for operators, and what they decide. Invariant: a decision is taken only while a row is
//! refused.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use sagahost_wire::BatchNo;

/// A publication that takes longer is said to wait: the transport may be in the middle of its own patience.
const SLOW: Duration = Duration::from_secs(2);

/// Where the publisher stands, for operators; and what it waits for.
#[derive(Default)]
pub struct Outbox {
    state: Mutex<OutboxState>,
    changed: Condvar,
}

#[derive(Default)]
struct OutboxState {
    waiting: Option<String>,
    /// The batch that is being published, and since when.
    under_way: Option<(BatchNo, Instant)>,
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
    pub fn waiting(&self) -> Option<String> {
        let state = self.state.lock();
        match &state.refused {
            Some(row) => Some(format!(
                "row {} of batch {} for topic {} was refused ({}); sagahost outbox retry | skip {} {} --reason TEXT",
                row.index, row.batch.0, row.topic, row.why, row.batch.0, row.index
            )),
            None => state.waiting.clone().or_else(|| {
                let (batch, since) = state.under_way?;
                let waited = since.elapsed();
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
        self.changed.notify_all();
        true
    }

    pub(crate) fn begins(&self, batch: BatchNo) {
        self.state.lock().under_way = Some((batch, Instant::now()));
    }

    pub(crate) fn published(&self) {
        let mut state = self.state.lock();
        state.under_way = None;
        state.waiting = None;
    }

    pub(crate) fn waits(&self, why: String) {
        self.state.lock().waiting = Some(why);
    }

    /// A row is refused: waits for an operator's decision about it. None: `stop` was set first.
    pub(crate) fn await_decision(&self, row: RefusedRow, stop: &AtomicBool) -> Option<Decision> {
        let mut state = self.state.lock();
        state.refused = Some(row);
        while !stop.load(Ordering::Relaxed) {
            if let Some(decision) = state.decision.take() {
                state.refused = None;
                return Some(decision);
            }
            self.changed.wait_for(&mut state, Duration::from_millis(200));
        }
        None
    }
}
