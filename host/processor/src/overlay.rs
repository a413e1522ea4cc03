//! What one chain sees and writes of the plugins' store and counters: a private layer over everything else.
//! Invariant: what a chain read is still so when it is staged, or the chain is thrown away and run again.
//!
//! No latch is held while a guest runs. Each read is remembered with its answer (absent keys and scanned ranges too)
//! and checked under the stage's mutex. `take` and `give` remember only their answers, so that sagas which share a
//! counter do not conflict as long as the answer stays the same (escrow: O'Neil, "The Escrow Transactional Method",
//! 1986). What is remembered is counted: it stays in memory until the chain is staged.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use sagahost_journal::{JournalError, Name, PageBounds, StoreEntry, StoreValue, entry_bytes};
use sagahost_manifest::{
    allowance::Refused,
    counter::{self as arithmetic, CounterFault},
    host_calls::PageFill,
    limits::ENTRY_BYTES,
};
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
    Refused(#[from] Refused),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A key that was read.
#[derive(Clone, Debug)]
pub struct Read {
    pub seen: Option<StoreValue>,
    /// The drop counter of memory when it was read: while it is the same, memory knows all that was written since.
    pub drops: u64,
    /// It was read again, and had another value.
    pub changed: bool,
}

/// What the journal said of a range of keys.
#[derive(Clone, Debug)]
pub struct Range {
    /// Those that memory knew nothing of.
    pub rows: Vec<StoreEntry>,
    /// As of a [`Read`].
    pub drops: u64,
}

/// A page that was scanned, without the chain's own writes: between `after` and `until` there is what was found.
#[derive(Clone, Debug)]
pub struct Scan {
    pub participant: Participant,
    pub prefix: String,
    pub after: Option<String>,
    /// The last key of the page. None: it goes to the end.
    pub until: Option<String>,
    pub found: Vec<StoreEntry>,
    pub range: Range,
}

impl Scan {
    /// The values are the same in both lists, keys are not.
    fn bytes(&self) -> usize {
        let found: usize = self.found.iter().map(|(key, value)| entry_bytes(key, value)).sum();
        let rows: usize = self.range.rows.iter().map(|(key, _)| key.len() + ENTRY_BYTES).sum();
        2 * ENTRY_BYTES + found + rows
    }
}

/// The private layer of one chain.
pub struct Overlay {
    stage: Arc<Stage>,
    /// What was read below this layer.
    pub reads: BTreeMap<Name, Read>,
    pub scans: Vec<Scan>,
    /// Of attempts that completed.
    pub writes: BTreeMap<Name, Option<Arc<[u8]>>>,
    pub counters: BTreeMap<Name, CounterTrace>,
    /// Of the attempt that is running.
    attempt: BTreeMap<Name, Option<Arc<[u8]>>>,
    bases: HashMap<Name, Option<i64>>,
    /// What all of it weighs, without what the running attempt wrote …
    kept_bytes: usize,
    /// … that …
    attempt_bytes: usize,
    /// … and of pages that the running attempt was not shown.
    hidden_bytes: usize,
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
            kept_bytes: 0,
            attempt_bytes: 0,
            hidden_bytes: 0,
        }
    }

    /// What it keeps in memory until the chain is staged.
    pub fn bytes(&self) -> usize {
        self.kept_bytes + self.attempt_bytes
    }

    /// The running attempt is over: its writes count, or vanish. What it read stays read: its outcome hangs on it.
    pub fn end_attempt(&mut self, keep: bool) {
        let keep = keep || planted::on(Planted::KeepFailedWrites);
        let writes = std::mem::take(&mut self.attempt);
        let written = std::mem::take(&mut self.attempt_bytes);
        if keep {
            self.writes.extend(writes);
            self.kept_bytes += written;
        }
        self.hidden_bytes = 0;
        self.counters.values_mut().for_each(|trace| trace.end_attempt(keep));
    }

    pub fn get(&mut self, participant: &Participant, key: &str) -> Result<Option<Arc<[u8]>>, OverlayError> {
        let name = (participant.clone(), key.to_owned());
        if let Some(own) = self.attempt.get(&name).or_else(|| self.writes.get(&name)) {
            return Ok(own.clone());
        }
        if let Some(read) = self.reads.get(&name) {
            return Ok(read.seen.as_ref().map(|row| row.value.clone()));
        }
        let read = self.stage.store(&name)?;
        let value = read.seen.as_ref().map(|row| row.value.clone());
        self.kept_bytes += entry_bytes(key, value.as_deref().unwrap_or_default());
        self.reads.insert(name, read);
        Ok(value)
    }

    pub fn put(&mut self, participant: &Participant, key: &str, value: Option<Arc<[u8]>>) {
        self.attempt_bytes += entry_bytes(key, value.as_deref().unwrap_or_default());
        self.attempt.insert((participant.clone(), key.to_owned()), value);
    }

    /// What the host itself keeps, whatever becomes of attempts.
    pub(crate) fn keep(&mut self, name: Name, value: Arc<[u8]>) {
        self.kept_bytes += entry_bytes(&name.1, &value);
        self.writes.insert(name, Some(value));
    }

    /// What the host itself keeps no longer.
    pub(crate) fn forget(&mut self, name: Name) {
        self.kept_bytes += entry_bytes(&name.1, &[]);
        self.writes.insert(name, None);
    }

    /// A page whose keys the chain has all deleted itself is kept and not shown: an empty one would be the end. `bytes_max`:
    /// what the attempt may hide in this way, since whoever counts what it is shown does not see that.
    pub fn scan(
        &mut self,
        participant: &Participant,
        prefix: &str,
        after: Option<&str>,
        bounds: PageBounds,
        bytes_max: usize,
    ) -> Result<Vec<StoreEntry>, OverlayError> {
        if bounds.entries == 0 {
            return Ok(Vec::new());
        }
        let mut after = after.map(str::to_owned);
        loop {
            let (page, until) = self.page(participant, prefix, after.as_deref(), bounds)?;
            let page = page.into_entries();
            if !page.is_empty() || until.is_none() {
                return Ok(page);
            }
            self.hidden_bytes += self.scans.last().map_or(0, Scan::bytes);
            if self.hidden_bytes > bytes_max {
                return Err(Refused::CallBytes { max: bytes_max }.into());
            }
            after = until;
        }
    }

    /// The page as the chain sees it, and up to which key; None: to the end.
    fn page(
        &mut self,
        participant: &Participant,
        prefix: &str,
        after: Option<&str>,
        bounds: PageBounds,
    ) -> Result<(PageFill, Option<String>), OverlayError> {
        let own = self.own_writes(participant, prefix, after);
        let deleted = own.values().filter(|value| value.is_none()).count();
        let below = PageBounds { entries: bounds.entries.saturating_add(deleted), ..bounds };
        let scan = self.stage.scan(participant, prefix, after, below)?;
        let mut all: BTreeMap<&str, Option<&Arc<[u8]>>> =
            scan.found.iter().map(|(key, value)| (key.as_str(), Some(value))).collect();
        // Own keys behind a page that is cut off belong to a later page.
        let of_page = |key: &str| scan.until.as_ref().is_none_or(|until| key <= until.as_str());
        all.extend(own.iter().filter(|(key, _)| of_page(key)).map(|(key, value)| (key.as_str(), value.as_ref())));
        let page = bounds.fill(all.into_iter().filter_map(|(key, value)| Some((key, value?))));
        let until = scan.until.clone();
        self.kept_bytes += scan.bytes();
        self.scans.push(scan);
        Ok((page, until))
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
        let known = self.counters.contains_key(&name);
        self.kept_bytes += ENTRY_BYTES + if known { 0 } else { 2 * (ENTRY_BYTES + name.1.len()) };
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
