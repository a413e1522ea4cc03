//! What one chain sees and writes of the plugins' store and counters: a private layer over everything else.
//! Invariant: what a chain read is still so when it is staged, or the chain is thrown away and run again.
//!
//! No latch is held while a guest runs. Each read is remembered with its answer (absent keys and scanned ranges too)
//! and checked under the stage's mutex. `take` and `give` remember only their answers, so that sagas which share a
//! counter do not conflict as long as the answer stays the same (escrow: O'Neil, "The Escrow Transactional Method",
//! 1986).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use sagahost_journal::{JournalError, Name, StoreEntry};
use sagahost_manifest::counter::{self as arithmetic, CounterFault};
use sagahost_saga::id::Participant;

use crate::{
    counter::{CounterCall, CounterTrace},
    planted::{self, Planted},
    stage::Stage,
};

/// Why the overlay could not answer.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The guest's own fault; it becomes a trap with this text.
    #[error(transparent)]
    Guest(#[from] CounterFault),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What the journal said of a page.
#[derive(Clone, Debug)]
pub struct Page {
    pub rows: Vec<StoreEntry>,
    /// There is nothing behind the last row.
    pub complete: bool,
    /// The drop counter of memory when it was read: while it is the same, memory knows all that was written since.
    pub drops: u64,
}

/// A page that was scanned, without the chain's own writes.
#[derive(Clone, Debug)]
pub struct Scan {
    pub participant: Participant,
    pub prefix: String,
    pub after: Option<String>,
    pub limit: usize,
    pub found: Vec<StoreEntry>,
    pub page: Page,
}

/// The private layer of one chain.
pub struct Overlay {
    stage: Arc<Stage>,
    /// What was read below this layer.
    pub reads: BTreeMap<Name, Option<Arc<[u8]>>>,
    pub scans: Vec<Scan>,
    /// Of attempts that completed.
    pub writes: BTreeMap<Name, Option<Arc<[u8]>>>,
    pub counters: BTreeMap<Name, CounterTrace>,
    /// Of the attempt that is running.
    attempt: BTreeMap<Name, Option<Arc<[u8]>>>,
    bases: HashMap<Name, Option<i64>>,
}

impl Overlay {
    pub fn new(stage: Arc<Stage>) -> Self {
        Self {
            stage,
            reads: BTreeMap::new(),
            scans: Vec::new(),
            writes: BTreeMap::new(),
            counters: BTreeMap::new(),
            attempt: BTreeMap::new(),
            bases: HashMap::new(),
        }
    }

    /// The running attempt is over: its writes count, or vanish. What it read stays read: its outcome hangs on it.
    pub fn end_attempt(&mut self, keep: bool) {
        let keep = keep || planted::on(Planted::KeepFailedWrites);
        let writes = std::mem::take(&mut self.attempt);
        if keep {
            self.writes.extend(writes);
        }
        self.counters.values_mut().for_each(|trace| trace.end_attempt(keep));
    }

    pub fn get(&mut self, participant: &Participant, key: &str) -> Result<Option<Arc<[u8]>>, OverlayError> {
        let name = (participant.clone(), key.to_owned());
        if let Some(own) = self.attempt.get(&name).or_else(|| self.writes.get(&name)) {
            return Ok(own.clone());
        }
        if let Some(read) = self.reads.get(&name) {
            return Ok(read.clone());
        }
        let value = self.stage.store(&name)?;
        self.reads.insert(name, value.clone());
        Ok(value)
    }

    pub fn put(&mut self, participant: &Participant, key: &str, value: Option<Arc<[u8]>>) {
        self.attempt.insert((participant.clone(), key.to_owned()), value);
    }

    pub fn scan(
        &mut self,
        participant: &Participant,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StoreEntry>, OverlayError> {
        let own = self.own_writes(participant, prefix, after);
        let deleted = own.values().filter(|value| value.is_none()).count();
        let below = limit + deleted;
        let (found, page_below) = self.stage.scan(participant, prefix, after, below)?;
        let complete = found.len() < below;
        let last = found.last().map(|(key, _)| key.clone());
        let mut page: BTreeMap<String, Option<Arc<[u8]>>> =
            found.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        // Own keys behind a page that is cut off belong to a later page.
        page.extend(own.into_iter().filter(|(key, _)| complete || last.as_ref().is_some_and(|last| key <= last)));
        self.scans.push(Scan {
            participant: participant.clone(),
            prefix: prefix.to_owned(),
            after: after.map(str::to_owned),
            limit: below,
            found,
            page: page_below,
        });
        Ok(page.into_iter().filter_map(|(key, value)| value.map(|v| (key, v))).take(limit).collect())
    }

    fn own_writes(
        &self,
        participant: &Participant,
        prefix: &str,
        after: Option<&str>,
    ) -> BTreeMap<String, Option<Arc<[u8]>>> {
        self.writes
            .iter()
            .chain(&self.attempt)
            .filter(|((owner, key), _)| {
                owner == participant && key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
            })
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Value as this chain sees it now, own changes included.
    fn counter_now(&mut self, name: &Name) -> Result<Option<i64>, OverlayError> {
        let base = match self.bases.get(name) {
            Some(base) => *base,
            None => {
                let base = self.stage.counter(name)?;
                self.bases.insert(name.clone(), base);
                base
            }
        };
        Ok(self.counters.get(name).map_or(base, |trace| trace.now(base)))
    }

    fn note(&mut self, name: Name, call: CounterCall) {
        self.counters.entry(name).or_default().note(call);
    }

    pub fn ensure(&mut self, participant: &Participant, counter: &str, initial: i64) -> Result<(), OverlayError> {
        let name = (participant.clone(), counter.to_owned());
        self.counter_now(&name)?;
        self.note(name, CounterCall::Ensure(initial));
        Ok(())
    }

    pub fn take(&mut self, participant: &Participant, counter: &str, amount: u64) -> Result<bool, OverlayError> {
        let name = (participant.clone(), counter.to_owned());
        let now = self.counter_now(&name)?;
        let (amount, answer) = self.or_read(&name, now, arithmetic::take(now, counter, amount))?;
        self.note(name, CounterCall::Take { amount, answer });
        Ok(answer)
    }

    pub fn give(&mut self, participant: &Participant, counter: &str, amount: u64) -> Result<(), OverlayError> {
        let name = (participant.clone(), counter.to_owned());
        let now = self.counter_now(&name)?;
        let (amount, _) = self.or_read(&name, now, arithmetic::give(now, counter, amount))?;
        self.note(name, CounterCall::Give(amount));
        Ok(())
    }

    /// A call that the counter cannot answer ends the attempt: that hangs on what the counter was.
    fn or_read<T>(
        &mut self,
        name: &Name,
        now: Option<i64>,
        answer: Result<T, CounterFault>,
    ) -> Result<T, CounterFault> {
        if answer.is_err() {
            self.note(name.clone(), CounterCall::Read(now));
        }
        answer
    }

    pub fn read(&mut self, participant: &Participant, counter: &str) -> Result<Option<i64>, OverlayError> {
        let name = (participant.clone(), counter.to_owned());
        let value = self.counter_now(&name)?;
        self.note(name, CounterCall::Read(value));
        Ok(value)
    }
}
