//! Everything that is known in memory: what open and sealed batches wrote, and a cache of what the journal holds.
//! Invariant: a value that the journal does not hold yet is never dropped; a value read from the journal never
//! replaces a newer one.
//!
//! The journal is read without the latch. Between that read and the insertion somebody may have staged, committed and
//! dropped a newer value; so every drop counts, and who sees the count changed reads again.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    ops::Bound,
    sync::Arc,
};

use sagahost_journal::{Name, SagaKey, StoreValue, Version, requests};
use sagahost_saga::{
    Saga,
    id::{Participant, SagaId},
};
use sagahost_wire::{BatchNo, StreamNo};

use crate::planted::{self, Planted};

/// `written`: the batch that wrote it last; 0 when it came from the journal.
#[derive(Clone, Debug)]
struct Cell<T> {
    value: T,
    written: BatchNo,
    used: BatchNo,
}

/// A saga in memory. None: the journal has no record of it.
#[derive(Clone, Debug, Default)]
pub struct SagaCell {
    pub saga: Option<Arc<Saga>>,
    /// Of its record; it takes a few times that in memory.
    pub bytes: usize,
    pub kept: Kept,
}

/// A saga as memory holds it.
#[derive(Clone, Debug, Default)]
struct Held {
    what: What,
    /// Of its record.
    bytes: usize,
    kept: Kept,
}

#[derive(Clone, Debug, Default)]
enum What {
    #[default]
    Nothing,
    Saga(Arc<Saga>),
    /// The record of one that has ended, which takes a fifth of it in memory: hardly anything comes for it.
    Ended(Arc<[u8]>),
}

impl Held {
    fn cell(&self) -> SagaCell {
        let saga = match &self.what {
            What::Nothing => None,
            What::Saga(saga) => Some(saga.clone()),
            What::Ended(record) => Some(Arc::new(Saga::decode(record).expect("this very host made the record"))),
        };
        SagaCell { saga, bytes: self.bytes, kept: self.kept.clone() }
    }
}

/// Where those known events of a saga are kept that its record no longer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Its row in the journal. None: it has none, or it is not known yet.
    pub key: Option<SagaKey>,
    /// Event and data of those that spill with a batch not yet journaled, or whose row is not known yet.
    pub spilling: Vec<([u8; 16], [u8; 16])>,
}

#[derive(Debug, Default)]
pub struct Values {
    sagas: HashMap<SagaId, Cell<Held>>,
    store: BTreeMap<Name, Cell<Option<StoreValue>>>,
    counters: HashMap<Name, Cell<Option<i64>>>,
    /// Highest batch journaled: what it and earlier ones wrote may be dropped.
    journaled: BatchNo,
    current: BatchNo,
    bytes: usize,
    bytes_max: usize,
    /// There was no room for something that was read.
    crowded: bool,
    drops: u64,
    saga_drops: u64,
    /// Sagas that ended with a batch, until the journal holds it.
    ended: VecDeque<(BatchNo, SagaId)>,
    /// Which writes here.
    stream: StreamNo,
}

/// What memory holds no longer, to be freed where nobody waits for that.
#[derive(Debug, Default)]
pub struct Dropped(Vec<Cell<Held>>);

/// Rough cost of an entry beside its own bytes.
const ENTRY_BYTES: usize = 160;
const SAGA_BYTES: usize = 512;
/// How much more a saga takes in memory than its record.
const SAGA_FACTOR: usize = 3;

fn saga_bytes(record: usize) -> usize {
    SAGA_BYTES + SAGA_FACTOR * record
}

impl Values {
    pub fn new(bytes_max: usize, stream: StreamNo, journaled: BatchNo) -> Self {
        Self { bytes_max, stream, journaled, current: journaled, ..Self::default() }
    }

    /// Grows whenever something of stores and counters was dropped.
    pub fn drops(&self) -> u64 {
        self.drops
    }

    /// … and a saga.
    pub fn saga_drops(&self) -> u64 {
        self.saga_drops
    }

    pub fn saga(&mut self, id: &SagaId) -> Option<SagaCell> {
        let current = self.current;
        self.sagas.get_mut(id).map(|cell| {
            cell.used = current;
            cell.value.cell()
        })
    }

    /// Its row in the journal, where it is known.
    pub fn saga_key(&self, id: &SagaId) -> Option<SagaKey> {
        self.sagas.get(id).and_then(|cell| cell.value.kept.key)
    }

    pub fn store(&mut self, name: &Name) -> Option<Option<StoreValue>> {
        let current = self.current;
        self.store.get_mut(name).map(|cell| {
            cell.used = current;
            cell.value.clone()
        })
    }

    pub fn counter(&mut self, name: &Name) -> Option<Option<i64>> {
        let current = self.current;
        self.counters.get_mut(name).map(|cell| {
            cell.used = current;
            cell.value
        })
    }

    pub fn knows_store(&self, participant: &Participant, key: &str) -> bool {
        self.store.contains_key(&(participant.clone(), key.to_owned()))
    }

    /// What is known in memory of the keys above `after` (or from `prefix` on) that begin with `prefix`.
    pub fn store_range<'a>(
        &'a self,
        participant: &'a Participant,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, Option<&'a Arc<[u8]>>)> {
        let cells = self.cells(participant, prefix, after);
        cells.map(|(key, cell)| (key, cell.value.as_ref().map(|known| &known.value)))
    }

    fn cells<'a>(
        &'a self,
        participant: &'a Participant,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, &'a Cell<Option<StoreValue>>)> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded((participant.clone(), after.to_owned())),
            _ => Bound::Included((participant.clone(), prefix.to_owned())),
        };
        self.store
            .range((from, Bound::Unbounded))
            .take_while(move |((owner, key), _)| owner == participant && key.starts_with(prefix))
            .map(|((_, key), cell)| (key.as_str(), cell))
    }

    /// Does the journal hold what is known of all of these?
    pub fn is_journaled<'a>(&self, saga: &SagaId, mut rows: impl Iterator<Item = &'a Name>) -> bool {
        let journaled = |written| written <= self.journaled;
        self.sagas.get(saga).is_none_or(|cell| journaled(cell.written))
            && rows.all(|name| self.store.get(name).is_none_or(|cell| journaled(cell.written)))
    }

    /// … and of all keys that begin so?
    pub fn is_range_journaled(&self, participant: &Participant, prefix: &str) -> bool {
        self.cells(participant, prefix, None).all(|(_, cell)| cell.written <= self.journaled)
    }

    /// From the journal: only where nothing is known yet.
    pub fn learn_saga(&mut self, id: &SagaId, value: SagaCell) -> SagaCell {
        let SagaCell { saga, bytes, kept } = value;
        let held = Held { what: saga.map_or(What::Nothing, What::Saga), bytes, kept };
        if !self.sagas.contains_key(id) {
            self.bytes += saga_bytes(bytes);
        }
        let cell = Cell { value: held, written: BatchNo(0), used: self.current };
        self.sagas.entry(id.clone()).or_insert(cell).value.cell()
    }

    /// Where there is room: a guest that reads all of a large store must not fill memory with it.
    pub fn learn_store(&mut self, name: &Name, value: Option<StoreValue>) -> Option<StoreValue> {
        if let Some(known) = self.store(name) {
            return known;
        }
        let bytes = ENTRY_BYTES + name.1.len() + value.as_ref().map_or(0, |row| row.value.len());
        if self.bytes + bytes > self.bytes_max {
            self.crowded = true;
            return value;
        }
        self.bytes += bytes;
        let cell = Cell { value, written: BatchNo(0), used: self.current };
        self.store.entry(name.clone()).or_insert(cell).value.clone()
    }

    pub fn learn_counter(&mut self, name: &Name, value: Option<i64>) -> Option<i64> {
        if let Some(known) = self.counter(name) {
            return known;
        }
        self.bytes += ENTRY_BYTES + name.1.len();
        self.counters.insert(name.clone(), Cell { value, written: BatchNo(0), used: self.current });
        value
    }

    /// With its record. `found`: as whoever wrote it found it; memory may have dropped the saga since. Returns its row, where
    /// it has one.
    pub fn write_saga(
        &mut self,
        id: &SagaId,
        (saga, record): (Arc<Saga>, &[u8]),
        found: Kept,
        spill: &[([u8; 16], [u8; 16])],
        batch: BatchNo,
    ) -> Option<SagaKey> {
        let (journaled, bytes) = (self.journaled, record.len());
        self.bytes += saga_bytes(bytes);
        let key = found.key;
        let fresh = || Cell { value: Held { kept: found, ..Held::default() }, written: batch, used: batch };
        let cell = self.sagas.entry(id.clone()).or_insert_with(fresh);
        if !matches!(cell.value.what, What::Nothing) {
            self.bytes = self.bytes.saturating_sub(saga_bytes(cell.value.bytes));
        }
        cell.value.bytes = bytes;
        if cell.written <= journaled {
            cell.value.kept.spilling.clear();
        }
        cell.value.what = if saga.status().terminal() {
            self.ended.push_back((batch, id.clone()));
            What::Ended(record.into())
        } else {
            What::Saga(saga)
        };
        cell.written = batch;
        cell.used = batch;
        let kept = &mut cell.value.kept;
        kept.spilling.extend_from_slice(spill);
        kept.key = kept.key.or(key);
        kept.key
    }

    pub fn write_store(&mut self, name: Name, value: Option<Arc<[u8]>>, batch: BatchNo) {
        self.bytes += ENTRY_BYTES + name.1.len() + value.as_ref().map_or(0, |v| v.len());
        let version = Version { stream: self.stream, batch };
        let value = value.map(|value| StoreValue { value, version });
        self.store.insert(name, Cell { value, written: batch, used: batch });
    }

    pub fn write_counter(&mut self, name: Name, value: i64, batch: BatchNo) {
        self.counters.insert(name, Cell { value: Some(value), written: batch, used: batch });
    }

    /// The row key of a saga that the journal has just stored for the first time.
    pub fn key_known(&mut self, id: &SagaId, key: SagaKey) {
        if let Some(cell) = self.sagas.get_mut(id) {
            cell.value.kept.key = Some(key);
        }
    }

    /// The journal forgot a saga, and what it was asked: its retention is over. Nothing is dropped that it does not hold.
    pub fn forget_clean_sagas(&mut self) {
        let journaled = self.journaled;
        self.drops += 1;
        self.saga_drops += 1;
        self.sagas.retain(|_, cell| cell.written > journaled);
        self.store.retain(|(owner, _), cell| cell.written > journaled || !requests::is_owner(owner));
    }

    /// `batch` is in the journal: what it and earlier ones wrote may be dropped when room is needed; sagas that have ended are
    /// dropped at once, for hardly anything comes for them.
    pub fn journaled(&mut self, batch: BatchNo) -> Dropped {
        self.journaled = self.journaled.max(batch);
        self.current = BatchNo(batch.0 + 1);
        let mut dropped = Dropped::default();
        self.drop_ended(&mut dropped);
        let crowded = std::mem::take(&mut self.crowded);
        if crowded || self.bytes > self.bytes_max {
            self.sweep(BatchNo(self.current.0.saturating_sub(8)), &mut dropped);
        }
        // So much room that it is not made again with every batch.
        let enough = if crowded { self.bytes_max / 2 } else { self.bytes_max };
        if self.bytes > enough {
            self.sweep(BatchNo(u64::MAX), &mut dropped);
        }
        dropped
    }

    fn drop_ended(&mut self, dropped: &mut Dropped) {
        while let Some((batch, _)) = self.ended.front()
            && *batch <= self.journaled
            && let Some((_, id)) = self.ended.pop_front()
        {
            if let Entry::Occupied(entry) = self.sagas.entry(id)
                && entry.get().written <= self.journaled
            {
                let cell = entry.remove();
                self.bytes = self.bytes.saturating_sub(saga_bytes(cell.value.bytes));
                self.saga_drops += 1;
                dropped.0.push(cell);
            }
        }
    }

    /// Drops everything: all that was built on a batch that failed.
    pub fn clear(&mut self, journaled: BatchNo) {
        let (drops, saga_drops) = (self.drops + 1, self.saga_drops + 1);
        *self = Self { drops, saga_drops, ..Self::new(self.bytes_max, self.stream, journaled) };
    }

    fn sweep(&mut self, unused_since: BatchNo, dropped: &mut Dropped) {
        let journaled = self.journaled;
        self.drops += 1;
        self.saga_drops += 1;
        let journaled = if planted::on(Planted::DropUnjournaled) { BatchNo(u64::MAX) } else { journaled };
        let of_sagas = self.sagas.extract_if(|_, cell| cell.written <= journaled && cell.used < unused_since);
        dropped.0.extend(of_sagas.map(|(_, cell)| cell));
        self.store.retain(|_, cell| cell.written > journaled || cell.used >= unused_since);
        self.counters.retain(|_, cell| cell.written > journaled || cell.used >= unused_since);
        let store: usize = self
            .store
            .iter()
            .map(|((_, key), cell)| ENTRY_BYTES + key.len() + cell.value.as_ref().map_or(0, |row| row.value.len()))
            .sum();
        let sagas: usize = self.sagas.values().map(|cell| saga_bytes(cell.value.bytes)).sum();
        self.bytes = sagas + store + self.counters.len() * ENTRY_BYTES;
    }
}

#[cfg(test)]
mod tests {
    use sagahost_saga::id::Time;

    use super::*;

    /// Found by simulation: otherwise the next chain looks nowhere for ids that have spilled, and takes an event twice.
    #[test]
    fn a_saga_that_was_dropped_while_a_chain_ran_is_known_as_the_chain_found_it() {
        let id = SagaId::new("a");
        let saga = Arc::new(Saga::new(id.clone(), Time(1)));
        let of = |key: Option<u32>, spilling: &[u8]| Kept {
            key: key.map(|key| SagaKey(key.into())),
            spilling: spilling.iter().map(|n| ([*n; 16], [0; 16])).collect(),
        };
        let kept = |values: &mut Values, id: &SagaId| values.saga(id).map(|cell| cell.kept);
        let mut values = Values::new(0, StreamNo(0), BatchNo(0));
        let known = SagaCell { saga: Some(saga.clone()), bytes: 10, kept: of(Some(7), &[]) };
        let found = values.learn_saga(&id, known).kept;
        values.journaled(BatchNo(1));
        assert!(values.saga(&id).is_none(), "nothing fits into memory");
        assert_eq!(values.write_saga(&id, (saga.clone(), &[0; 10]), found, &[], BatchNo(2)), Some(SagaKey(7)));
        assert_eq!(kept(&mut values, &id), Some(of(Some(7), &[])));

        let b = SagaId::new("b");
        let spill = |n: u8| [([n; 16], [0; 16])];
        let none = values.write_saga(&b, (saga.clone(), &[0; 10]), Kept::default(), &spill(1), BatchNo(2));
        assert_eq!(none, None, "it has none yet");
        let found = kept(&mut values, &b).expect("it was written");
        values.key_known(&b, SagaKey(8));
        values.journaled(BatchNo(2));
        assert!(values.saga(&b).is_none(), "its row is forgotten");
        values.write_saga(&b, (saga.clone(), &[0; 10]), found, &spill(2), BatchNo(3));
        assert_eq!(kept(&mut values, &b), Some(of(None, &[1, 2])), "as long as its row is not known");
        values.key_known(&b, SagaKey(8));
        values.write_saga(&b, (saga, &[0; 10]), Kept::default(), &spill(3), BatchNo(4));
        assert_eq!(kept(&mut values, &b), Some(of(Some(8), &[1, 2, 3])), "found before it was known");
    }

    fn name(key: &str) -> Name {
        ("till".into(), key.to_owned())
    }

    fn bytes(size: usize) -> Option<Arc<[u8]>> {
        Some(vec![0; size].into())
    }

    fn row(size: usize) -> Option<StoreValue> {
        let version = Version { stream: StreamNo(0), batch: BatchNo(1) };
        bytes(size).map(|value| StoreValue { value, version })
    }

    #[test]
    fn what_the_journal_does_not_hold_yet_is_never_dropped() {
        let mut values = Values::new(0, StreamNo(0), BatchNo(0));
        values.write_store(name("a"), bytes(1), BatchNo(1));
        values.write_counter(name("c"), 7, BatchNo(2));
        values.write_store(name("deleted"), None, BatchNo(2));
        values.journaled(BatchNo(1));
        assert_eq!(values.store(&name("a")), None, "that is in the journal");
        assert_eq!(values.counter(&name("c")), Some(Some(7)));
        assert_eq!(values.store(&name("deleted")), Some(None), "a deletion is as much a value");
        values.journaled(BatchNo(2));
        assert_eq!((values.counter(&name("c")), values.store(&name("deleted"))), (None, None));
    }

    #[test]
    fn what_was_not_used_for_eight_batches_goes_first_and_only_where_room_is_needed() {
        let mut values = Values::new(10_000, StreamNo(0), BatchNo(0));
        values.learn_store(&name("old"), row(4_000));
        values.learn_store(&name("used"), row(4_000));
        for batch in 1..=20 {
            values.journaled(BatchNo(batch));
            assert!(values.store(&name("used")).is_some());
        }
        assert_eq!(values.drops(), 0, "there is room for both");
        values.write_store(name("new"), bytes(4_000), BatchNo(21));
        values.journaled(BatchNo(21));
        assert!(values.store(&name("old")).is_none());
        assert!(values.store(&name("used")).is_some() && values.store(&name("new")).is_some());
        assert_eq!(values.drops(), 1, "whoever read the journal meanwhile reads it again");
    }

    /// What is read takes no more than there is, and is not kept out for ever by what was read before.
    #[test]
    fn what_has_no_room_when_it_is_read_has_some_behind_the_next_batch() {
        let mut values = Values::new(10_000, StreamNo(0), BatchNo(0));
        let learn = |values: &mut Values, key: &str| {
            values.learn_store(&name(key), row(4_000));
            values.store(&name(key)).is_some()
        };
        assert_eq!(["a", "b", "c"].map(|key| learn(&mut values, key)), [true, true, false]);
        assert_eq!(values.drops(), 0, "nothing goes while chains are under way");
        values.journaled(BatchNo(1));
        assert!(learn(&mut values, "c"));
        let drops = values.drops();
        values.journaled(BatchNo(2));
        assert_eq!(values.drops(), drops, "there is room");
    }

    #[test]
    fn what_comes_from_the_journal_replaces_nothing_that_is_known() {
        let mut values = Values::new(10_000, StreamNo(0), BatchNo(0));
        values.write_counter(name("c"), 7, BatchNo(1));
        assert_eq!(values.learn_counter(&name("c"), Some(3)), Some(7));
        values.write_store(name("k"), None, BatchNo(1));
        assert_eq!(values.learn_store(&name("k"), row(1)), None, "it was deleted meanwhile");
        values.clear(BatchNo(0));
        assert_eq!(values.learn_counter(&name("c"), Some(3)), Some(3), "the batch failed");
    }
}
