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

use sagahost_journal::{JournalError, StoreEntry};
use sagahost_manifest::counter::{self, CounterFault};
use sagahost_saga::id::Participant;

use crate::{
    planted::{self, Planted},
    stage::Stage,
    values::Name,
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

#[derive(Clone, Debug, PartialEq, Eq)]
enum CounterCall {
    Ensure(i64),
    Take { amount: i64, answer: bool },
    Give(i64),
    Read(Option<i64>),
}

/// The calls of one attempt on one counter. `kept`: the attempt completed, so they count.
#[derive(Clone, Debug, Default)]
struct CounterRun {
    calls: Vec<CounterCall>,
    kept: bool,
}

/// What the chain did with one counter, in order.
#[derive(Clone, Debug, Default)]
pub struct CounterTrace {
    runs: Vec<CounterRun>,
}

/// A counter is not what the chain saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

impl CounterTrace {
    /// Plays the calls over `value`: the new value, or `Stale` when an answer would be another one.
    pub fn replay(&self, mut value: Option<i64>) -> Result<Option<i64>, Stale> {
        for run in &self.runs {
            let after = run.calls.iter().try_fold(value, |value, call| call.replay(value))?;
            if run.kept {
                value = after;
            }
        }
        Ok(value)
    }

    pub fn writes(&self) -> bool {
        self.runs.iter().any(|run| run.kept && run.calls.iter().any(|call| !matches!(call, CounterCall::Read(_))))
    }
}

impl CounterCall {
    fn replay(&self, value: Option<i64>) -> Result<Option<i64>, Stale> {
        match (self, value) {
            (Self::Ensure(initial), None) => Ok(Some(*initial)),
            (Self::Ensure(_), Some(_)) => Ok(value),
            (Self::Take { amount, answer }, Some(there)) => match (there >= *amount, answer) {
                (true, true) => Ok(Some(there - amount)),
                (false, false) => Ok(value),
                (true, false) | (false, true) => Err(Stale),
            },
            (Self::Give(amount), Some(there)) => there.checked_add(*amount).map(Some).ok_or(Stale),
            (Self::Take { .. } | Self::Give(_), None) => Err(Stale),
            (Self::Read(answer), _) if *answer == value => Ok(value),
            (Self::Read(_), _) => Err(Stale),
        }
    }
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
        for trace in self.counters.values_mut() {
            if let Some(run) = trace.runs.last_mut().filter(|run| !run.calls.is_empty()) {
                run.kept = keep;
                trace.runs.push(CounterRun::default());
            }
        }
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
        let Some(trace) = self.counters.get(name) else { return Ok(base) };
        let mut value = base;
        for (index, run) in trace.runs.iter().enumerate() {
            let current = index + 1 == trace.runs.len();
            let after = run
                .calls
                .iter()
                .try_fold(value, |value, call| call.replay(value))
                .expect("a trace replays over the value that it was made on");
            if run.kept || current {
                value = after;
            }
        }
        Ok(value)
    }

    fn note(&mut self, name: Name, call: CounterCall) {
        let trace = self.counters.entry(name).or_default();
        if trace.runs.is_empty() {
            trace.runs.push(CounterRun::default());
        }
        trace.runs.last_mut().expect("one run is open").calls.push(call);
    }

    pub fn ensure(&mut self, participant: &Participant, counter: &str, initial: i64) -> Result<(), OverlayError> {
        let name = (participant.clone(), counter.to_owned());
        self.counter_now(&name)?;
        self.note(name, CounterCall::Ensure(initial));
        Ok(())
    }

    pub fn take(&mut self, participant: &Participant, counter: &str, amount: u64) -> Result<bool, OverlayError> {
        let name = (participant.clone(), counter.to_owned());
        let (amount, answer) = counter::take(self.counter_now(&name)?, counter, amount)?;
        self.note(name, CounterCall::Take { amount, answer });
        Ok(answer)
    }

    pub fn give(&mut self, participant: &Participant, counter: &str, amount: u64) -> Result<(), OverlayError> {
        let name = (participant.clone(), counter.to_owned());
        let (amount, _) = counter::give(self.counter_now(&name)?, counter, amount)?;
        self.note(name, CounterCall::Give(amount));
        Ok(())
    }

    pub fn read(&mut self, participant: &Participant, counter: &str) -> Result<Option<i64>, OverlayError> {
        let name = (participant.clone(), counter.to_owned());
        let value = self.counter_now(&name)?;
        self.note(name, CounterCall::Read(value));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of calls; `false`: the attempt did not complete.
    fn trace(runs: &[(&[CounterCall], bool)]) -> CounterTrace {
        let run = |(calls, kept): &(&[CounterCall], bool)| CounterRun { calls: calls.to_vec(), kept: *kept };
        CounterTrace { runs: runs.iter().map(run).collect() }
    }

    fn take(amount: i64, answer: bool) -> CounterCall {
        CounterCall::Take { amount, answer }
    }

    #[test]
    fn what_changes_no_answer_is_no_conflict() {
        let sold = trace(&[(&[CounterCall::Ensure(10), take(3, true)], true)]);
        assert_eq!(sold.replay(None), Ok(Some(7)), "nobody made the counter");
        for there in [3, 4, 1_000] {
            assert_eq!(sold.replay(Some(there)), Ok(Some(there - 3)), "others took and gave");
        }
        let refused = trace(&[(&[take(3, false)], true)]);
        for there in [0, 2] {
            assert_eq!(refused.replay(Some(there)), Ok(Some(there)));
        }
        let given = trace(&[(&[CounterCall::Give(5)], true)]);
        assert_eq!(given.replay(Some(-2)), Ok(Some(3)));
    }

    #[test]
    fn an_answer_that_would_be_another_one_is_stale() {
        let sold = trace(&[(&[take(3, true)], true)]);
        assert_eq!(sold.replay(Some(2)), Err(Stale), "sold out meanwhile");
        assert_eq!(sold.replay(None), Err(Stale), "it is gone");
        let refused = trace(&[(&[take(3, false)], true)]);
        assert_eq!(refused.replay(Some(3)), Err(Stale), "stock was given back: it would be sold now");
        assert_eq!(trace(&[(&[CounterCall::Give(1)], true)]).replay(Some(i64::MAX)), Err(Stale));
        let read = trace(&[(&[CounterCall::Read(Some(7))], true)]);
        assert_eq!(read.replay(Some(7)), Ok(Some(7)));
        assert_eq!(read.replay(Some(8)), Err(Stale));
        assert_eq!(read.replay(None), Err(Stale));
        assert_eq!(trace(&[(&[CounterCall::Read(None)], true)]).replay(Some(0)), Err(Stale), "absent is not zero");
    }

    /// An attempt that failed wrote nothing, but its outcome hangs on what it was told.
    #[test]
    fn an_attempt_that_does_not_count_is_checked_and_changes_nothing() {
        let failed = trace(&[(&[take(3, true)], false), (&[take(4, true)], true)]);
        assert_eq!(failed.replay(Some(4)), Ok(Some(0)), "the three are not taken");
        assert_eq!(trace(&[(&[take(3, true)], false)]).replay(Some(2)), Err(Stale));
        assert!(!trace(&[(&[take(3, true)], false)]).writes());
        assert!(!trace(&[(&[CounterCall::Read(None)], true)]).writes());
        assert!(failed.writes());
    }

    #[test]
    fn calls_of_one_attempt_see_each_other() {
        let twice =
            trace(&[(&[take(3, true), take(3, false), CounterCall::Give(1), CounterCall::Read(Some(3))], true)]);
        assert_eq!(twice.replay(Some(5)), Ok(Some(3)));
        assert_eq!(twice.replay(Some(6)), Err(Stale), "the second would have been sold, too");
    }
}
