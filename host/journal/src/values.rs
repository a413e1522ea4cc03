//! What plugins keep, as a batch changes it: keys of a store with the version that was read, counters as bounds and a
//! difference. Invariant: a batch whose answers would be others now is refused whole, with the names that it lost over.
//!
//! With one owner at a time a batch is compared before it is sealed, and never refused here. The bounds are those of
//! escrow (O'Neil, "The Escrow Transactional Method", 1986): several batches may change one counter as long as each
//! answer stays true.

use std::{fmt, sync::Arc};

use sagahost_saga::id::{Participant, SagaId};
use sagahost_wire::{BatchNo, StreamNo};

use crate::{JournalError, SagaKey};

/// A key or a counter, and whose it is.
pub type Name = (Participant, String);

/// A key of a participant's store, with its value.
pub type StoreEntry = (String, Arc<[u8]>);

/// Keys of a store in byte order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorePage {
    pub rows: Vec<StoreEntry>,
    /// There is nothing behind the last row.
    pub complete: bool,
}

/// Which batch of which stream wrote a key last. A key that is deleted has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub stream: StreamNo,
    pub batch: BatchNo,
}

/// A key's value, and when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreValue {
    pub value: Arc<[u8]>,
    pub version: Version,
}

/// What a batch took for granted of whether a counter exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Absent,
    Present,
    /// It ensured the counter before anything else, and every answer is the same both ways.
    Either,
}

/// What a batch does to a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterWrite {
    /// All answers stay as they were while the counter is within these, both included.
    pub lo: i64,
    pub hi: i64,
    pub delta: i64,
    /// Where the counter does not exist: what it begins with. None: it is not made.
    pub initial: Option<i64>,
    pub seen: Seen,
}

/// An answer that the batch was given would be another one now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

impl CounterWrite {
    /// A counter that begins with `value`.
    pub const fn new(value: i64) -> Self {
        Self { lo: value, hi: value, delta: 0, initial: Some(value), seen: Seen::Absent }
    }

    /// The counter behind the batch.
    ///
    /// # Errors
    /// An answer would be another one.
    pub fn apply(&self, there: Option<i64>) -> Result<Option<i64>, Stale> {
        let exists = match self.seen {
            Seen::Absent => Some(false),
            Seen::Present => Some(true),
            Seen::Either => None,
        };
        if exists.is_some_and(|exists| exists != there.is_some()) {
            return Err(Stale);
        }
        match there.or(self.initial) {
            // Their difference may be more than there are numbers; the sum is one.
            Some(value) if (self.lo..=self.hi).contains(&value) => Ok(Some(value.wrapping_add(self.delta))),
            Some(_) => Err(Stale),
            None => Ok(None),
        }
    }
}

/// What became of a batch that was to be journaled.
#[derive(Debug)]
#[must_use]
pub enum CommitAnswer {
    /// It is durable; and these are the keys of sagas that had none.
    Done(Vec<(SagaId, SagaKey)>),
    /// Nothing is written: others changed these meanwhile, and answers that were given would be others now.
    Conflict(Vec<Contended>),
    /// It was sent to be made durable, and whether it is, is not known: `Journal::reread` says.
    Unknown(JournalError),
}

/// What a batch lost a conflict over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contended {
    Key(Name),
    Counter(Name),
}

impl fmt::Display for Contended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key((participant, key)) => write!(f, "key {key:?} of {participant}"),
            Self::Counter((participant, name)) => write!(f, "counter {name:?} of {participant}"),
        }
    }
}

impl Contended {
    /// Why a batch was not journaled, as logs and operators read it.
    pub fn text(all: &[Self]) -> String {
        let names: Vec<String> = all.iter().map(ToString::to_string).collect();
        format!("another writer changed {} in the meantime", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEN: CounterWrite = CounterWrite { lo: 3, hi: 9, delta: -3, initial: None, seen: Seen::Present };

    #[test]
    fn a_counter_changes_by_the_difference_while_it_is_within_bounds() {
        for (there, then) in [(3, Ok(Some(0))), (9, Ok(Some(6))), (2, Err(Stale)), (10, Err(Stale))] {
            assert_eq!(TAKEN.apply(Some(there)), then, "{there}");
        }
    }

    #[test]
    fn whether_it_exists_is_an_answer_too() {
        let ensured = |seen| CounterWrite { initial: Some(5), seen, ..TAKEN };
        assert_eq!(TAKEN.apply(None), Err(Stale));
        assert_eq!(ensured(Seen::Either).apply(None), Ok(Some(2)), "it begins with five");
        assert_eq!(ensured(Seen::Either).apply(Some(4)), Ok(Some(1)), "another writer made it in the meantime");
        assert_eq!(ensured(Seen::Absent).apply(Some(5)), Err(Stale), "it was read as absent");
        assert_eq!(CounterWrite { initial: None, ..ensured(Seen::Absent) }.apply(None), Ok(None), "it was only read");
        assert_eq!(CounterWrite { initial: Some(2), ..ensured(Seen::Either) }.apply(None), Err(Stale), "out of bounds");
    }

    #[test]
    fn a_difference_above_all_numbers_wraps_to_the_sum() {
        let all = CounterWrite { lo: i64::MIN, hi: i64::MIN, delta: -1, initial: None, seen: Seen::Present };
        assert_eq!(all.apply(Some(i64::MIN)), Ok(Some(i64::MAX)), "2^64 - 1 was given, in several calls");
    }
}
