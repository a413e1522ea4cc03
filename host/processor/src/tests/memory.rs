//! A scripted journal in memory: it fails, lies, and reports what is due as a test says. Invariant: batches, rows, store,
//! counters, the outbox and positions are as the contract of journals has them; the promises that it keeps are named
//! below, in `contract`.
//!
//! What is due, parked or in quarantine is what a test puts there. It has one owner for ever, no letters but those that
//! were opened, and neither commands, notes, plugins nor retention.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use sagahost_journal::{
    AdmittedRow, BatchWrite, CommitAnswer, Contended, Identity, Journal, JournalError, LeftOut, LetterFilter,
    LetterRemoval, LetterRetention, LetterWrite, Name, OutboxBatch, PageBounds, PluginHistoryEntry, PluginWrite,
    PublicationNotes, QueuedCommand, RemovedLetters, SagaFilter, SagaKey, SagaListRow, SagaRow, SagaWrite, StorePage,
    StoreValue, Version,
};
use sagahost_saga::{
    history::Entry,
    id::{Participant, SagaId, Time},
    input::{Command, Status},
};
use sagahost_wire::{BatchNo, Epoch, Outgoing, Partition, Position, StoredLetter, StreamNo};

/// How the next commit ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    Fails,
    /// It goes through and says that it failed.
    Lies,
    /// Somebody else wrote what was read.
    Conflict,
    /// Another owner has taken the journal over.
    Stale,
}

#[derive(Default)]
pub struct Held {
    pub commits: VecDeque<Commit>,
    pub batches: Vec<BatchWrite>,
    pub sagas: BTreeMap<SagaId, (SagaKey, Arc<[u8]>)>,
    pub store: BTreeMap<Name, StoreValue>,
    pub counters: BTreeMap<Name, i64>,
    pub letters: Vec<StoredLetter>,
    pub positions: BTreeMap<Partition, Position>,
    pub quarantined: BTreeMap<SagaId, String>,
    pub parked: Vec<(SagaKey, SagaId)>,
    pub in_doubt: BTreeMap<SagaKey, SagaId>,
    pub due: Vec<(Time, SagaId)>,
    pub deadlines: Vec<(Time, SagaId)>,
    pub confirmed: BatchNo,
    /// The limit of each removal of letters that was asked for.
    pub letter_removals: Vec<usize>,
}

#[derive(Clone, Default)]
pub struct Memory {
    pub held: Arc<Mutex<Held>>,
}

impl Held {
    /// What the batch was built on and is no longer so.
    fn contended(&self, batch: &BatchWrite) -> Vec<Contended> {
        let version = |name: &Name| self.store.get(name).map(|known| known.version);
        let reads = batch.store_read.iter().filter(|(name, seen)| version(name) != **seen);
        let counters =
            batch.counters.iter().filter(|(name, write)| write.apply(self.counters.get(*name).copied()).is_err());
        let keys = reads.map(|(name, _)| Contended::Key(name.clone()));
        keys.chain(counters.map(|(name, _)| Contended::Counter(name.clone()))).collect()
    }

    fn last_batch(&self) -> BatchNo {
        self.batches.last().map_or(BatchNo(0), |batch| batch.number)
    }

    /// A batch that no host may send.
    fn refused(&self, batch: &BatchWrite) -> Option<String> {
        let last = self.last_batch();
        if batch.number.0 != last.0 + 1 || batch.confirmed > last {
            return Some(format!("batch {} behind {}, confirmed {}", batch.number.0, last.0, batch.confirmed.0));
        }
        let known = |saga: &&SagaWrite| self.sagas.get(&saga.id).map(|(key, _)| *key);
        let wrong = |saga: &&SagaWrite| saga.key.is_some() && saga.key != known(saga);
        batch.sagas.iter().find(wrong).map(|saga| format!("{} has another key", saga.id))
    }

    fn apply(&mut self, batch: &BatchWrite) -> Vec<(SagaId, SagaKey)> {
        let mut keys = Vec::new();
        for saga in &batch.sagas {
            let next = SagaKey(self.sagas.len() as i64 + 1);
            let row = self.sagas.entry(saga.id.clone()).or_insert_with(|| (next, Arc::default()));
            row.1 = saga.bytes.clone().into();
            if saga.key.is_none() {
                keys.push((saga.id.clone(), row.0));
            }
            match saga.wake.in_doubt {
                true => drop(self.in_doubt.insert(row.0, saga.id.clone())),
                false => drop(self.in_doubt.remove(&row.0)),
            }
        }
        for (name, value) in &batch.store {
            match value {
                Some(value) => {
                    let version = Version { stream: StreamNo(0), batch: batch.number };
                    self.store.insert(name.clone(), StoreValue { value: value.clone(), version });
                }
                None => drop(self.store.remove(name)),
            }
        }
        for (name, write) in &batch.counters {
            if let Ok(Some(value)) = write.apply(self.counters.get(name).copied()) {
                self.counters.insert(name.clone(), value);
            }
        }
        self.positions.extend(batch.positions.clone());
        self.letters.extend(batch.letters.iter().filter_map(|letter| match letter {
            LetterWrite::Open(letter) => Some(letter.clone()),
            LetterWrite::Close { .. } => None,
        }));
        self.confirmed = self.confirmed.max(batch.confirmed);
        self.batches.push(batch.clone());
        keys
    }
}

fn earliest(times: &[(Time, SagaId)]) -> Option<Time> {
    times.iter().map(|(at, _)| *at).min()
}

fn until(times: &[(Time, SagaId)], now: Time, limit: usize) -> Vec<(Time, SagaId)> {
    times.iter().filter(|(at, _)| *at <= now).take(limit).cloned().collect()
}

fn failed() -> JournalError {
    JournalError::Failed("as told".to_owned())
}

type Answer<T> = Result<T, JournalError>;

impl Journal for Memory {
    fn identity(&self) -> Identity {
        let held = self.held.lock();
        Identity {
            journal: "journal".into(),
            app: "shop".into(),
            stream: StreamNo(0),
            incarnation: "incarnation".into(),
            epoch: Epoch(1),
            last_batch: held.last_batch(),
            confirmed: held.confirmed,
            anchor: None,
        }
    }
    fn reread(&self) -> Answer<Identity> {
        Ok(self.identity())
    }
    fn saga(&self, id: &SagaId) -> Answer<Option<SagaRow>> {
        Ok(self.held.lock().sagas.get(id).map(|(key, bytes)| SagaRow { key: *key, bytes: bytes.clone() }))
    }
    fn store_get(&self, participant: &Participant, key: &str) -> Answer<Option<StoreValue>> {
        Ok(self.held.lock().store.get(&(participant.clone(), key.to_owned())).cloned())
    }
    fn store_scan(
        &self,
        participant: &Participant,
        prefix: &str,
        after: Option<&str>,
        bounds: PageBounds,
    ) -> Answer<StorePage> {
        let held = self.held.lock();
        let of = held.store.iter().filter(|((owner, key), _)| {
            owner == participant && key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
        });
        let page = bounds.fill(of.map(|((_, key), value)| (key.as_str(), &value.value)));
        Ok(StorePage { complete: !page.is_full(), rows: page.into_entries() })
    }
    fn counter(&self, participant: &Participant, name: &str) -> Answer<Option<i64>> {
        Ok(self.held.lock().counters.get(&(participant.clone(), name.to_owned())).copied())
    }
    fn counters(&self, of: Option<&Participant>) -> Answer<Vec<(Participant, String, i64)>> {
        let held = self.held.lock();
        let counters = held.counters.iter().filter(|((owner, _), _)| of.is_none_or(|of| of == owner));
        Ok(counters.map(|((owner, name), value)| (owner.clone(), name.clone(), *value)).collect())
    }
    fn due(&self, now: Time, limit: usize) -> Answer<Vec<(Time, SagaId)>> {
        Ok(until(&self.held.lock().due, now, limit))
    }
    fn deadlines(&self, now: Time, limit: usize) -> Answer<Vec<(Time, SagaId)>> {
        Ok(until(&self.held.lock().deadlines, now, limit))
    }
    fn next_due(&self) -> Answer<(Option<Time>, Option<Time>)> {
        let held = self.held.lock();
        Ok((earliest(&held.due), earliest(&held.deadlines)))
    }
    fn parked_sagas(&self, after: SagaKey, limit: usize) -> Answer<Vec<(SagaKey, SagaId)>> {
        Ok(self.held.lock().parked.iter().filter(|(key, _)| *key > after).take(limit).cloned().collect())
    }
    fn in_doubt(&self, after: SagaKey, limit: usize) -> Answer<Vec<(SagaKey, SagaId)>> {
        let held = self.held.lock();
        Ok(held.in_doubt.iter().filter(|(key, _)| **key > after).take(limit).map(|(k, id)| (*k, id.clone())).collect())
    }
    fn positions(&self) -> Answer<BTreeMap<Partition, Position>> {
        Ok(self.held.lock().positions.clone())
    }
    fn outbox(&self, above: BatchNo, limit: usize) -> Answer<Vec<OutboxBatch>> {
        let held = self.held.lock();
        let of = |batch: &BatchWrite| OutboxBatch {
            number: batch.number,
            incarnation: "incarnation".into(),
            records: batch.outbox.clone(),
            positions: batch.positions.clone(),
            skipped: BTreeMap::new(),
            valueless: BTreeMap::new(),
            at: batch.at,
        };
        let above = above.max(held.confirmed);
        Ok(held.batches.iter().filter(|batch| batch.number > above).take(limit).map(of).collect())
    }
    fn quarantined(&self, id: &SagaId) -> Answer<Option<String>> {
        Ok(self.held.lock().quarantined.get(id).cloned())
    }
    fn commit(&self, _: Epoch, batch: &BatchWrite) -> Answer<CommitAnswer> {
        let mut held = self.held.lock();
        if let Some(why) = held.refused(batch) {
            return Err(JournalError::Failed(why));
        }
        let contended = held.contended(batch);
        if !contended.is_empty() {
            return Ok(CommitAnswer::Conflict(contended));
        }
        match held.commits.pop_front() {
            None => Ok(CommitAnswer::Done(held.apply(batch))),
            Some(Commit::Fails) => Err(failed()),
            Some(Commit::Lies) => {
                held.apply(batch);
                Ok(CommitAnswer::Unknown(failed()))
            }
            Some(Commit::Conflict) => {
                let lost = batch.store.keys().next().expect("it writes something").clone();
                Ok(CommitAnswer::Conflict(vec![Contended::Key(lost)]))
            }
            Some(Commit::Stale) => Err(JournalError::StaleEpoch { newest: Epoch(2), ours: Epoch(1) }),
        }
    }
    fn confirm(&self, _: Epoch, up_to: BatchNo) -> Answer<()> {
        let mut held = self.held.lock();
        if up_to > held.last_batch() {
            return Err(JournalError::Failed(format!("batch {} is not journaled yet", up_to.0)));
        }
        held.confirmed = held.confirmed.max(up_to);
        Ok(())
    }
    fn quarantine(&self, _: Epoch, id: &SagaId, why: &str) -> Answer<()> {
        self.held.lock().quarantined.insert(id.clone(), why.to_owned());
        Ok(())
    }

    // ---- nothing of this is there, or asked for

    fn spilled_event(&self, _: SagaKey, _: [u8; 16]) -> Answer<Option<[u8; 16]>> {
        Ok(None)
    }
    fn spilled_history(&self, _: SagaKey, _: u64, _: usize) -> Answer<Vec<Entry>> {
        Ok(Vec::new())
    }
    fn sagas(&self, _: &SagaFilter) -> Answer<Vec<SagaListRow>> {
        Ok(Vec::new())
    }
    fn count_by_status(&self) -> Answer<Vec<(Status, u64)>> {
        Ok(Vec::new())
    }
    fn letters(&self, _: &LetterFilter) -> Answer<Vec<StoredLetter>> {
        Ok(Vec::new())
    }
    fn letter(&self, _: &str) -> Answer<Option<StoredLetter>> {
        Ok(None)
    }
    fn letter_groups(&self) -> Answer<Vec<(String, Option<Participant>, u64)>> {
        Ok(Vec::new())
    }
    fn removed_letters(&self) -> Answer<Vec<RemovedLetters>> {
        Ok(Vec::new())
    }
    fn publication_notes(&self) -> Answer<PublicationNotes> {
        Ok(PublicationNotes::default())
    }
    fn batch_incarnation(&self, _: BatchNo) -> Answer<Option<Arc<str>>> {
        Ok(None)
    }
    fn admitted(&self) -> Answer<Vec<AdmittedRow>> {
        Ok(Vec::new())
    }
    fn paused(&self) -> Answer<BTreeMap<Participant, String>> {
        Ok(BTreeMap::new())
    }
    fn plugin_history(&self, _: &Participant, _: usize) -> Answer<Vec<PluginHistoryEntry>> {
        Ok(Vec::new())
    }
    fn queued_commands(&self) -> Answer<Vec<QueuedCommand>> {
        Ok(Vec::new())
    }
    fn referenced_digests(&self) -> Answer<BTreeMap<Arc<str>, u64>> {
        Ok(BTreeMap::new())
    }
    fn set_anchor(&self, _: Epoch, _: &Partition) -> Answer<()> {
        Ok(())
    }
    fn set_position(&self, _: Epoch, partition: &Partition, position: &Position) -> Answer<()> {
        self.held.lock().positions.insert(partition.clone(), position.clone());
        Ok(())
    }
    fn new_lineage(&self, _: Epoch) -> Answer<Identity> {
        Ok(self.identity())
    }
    fn change_plugins(&self, _: Epoch, _: &PluginWrite) -> Answer<()> {
        Ok(())
    }
    fn leave_out(&self, _: Epoch, _: BatchNo, _: usize, _: LeftOut, _: &str) -> Answer<()> {
        Ok(())
    }
    fn set_not_out(&self, _: Epoch, _: Option<BatchNo>) -> Answer<()> {
        Ok(())
    }
    fn set_touch_due(&self, _: Epoch, _: Time) -> Answer<()> {
        Ok(())
    }
    fn queue_command(&self, _: &SagaId, _: &Command) -> Answer<i64> {
        Ok(1)
    }
    fn release(&self, _: Epoch, _: &SagaId) -> Answer<()> {
        Ok(())
    }
    fn remove_finished(&self, _: Epoch, _: Time, _: usize) -> Answer<usize> {
        Ok(0)
    }
    fn remove_letters(&self, _: Epoch, _: Time, _: &LetterRetention, limit: usize) -> Answer<LetterRemoval> {
        self.held.lock().letter_removals.push(limit);
        Ok(LetterRemoval::default())
    }
    fn close(&self) -> Answer<()> {
        Ok(())
    }
}

/// What went into the outbox, by topic.
pub fn topics(records: &[Outgoing]) -> Vec<&str> {
    records.iter().map(|record| &*record.topic).collect()
}

/// A key that some batch wrote long ago.
pub fn kept(value: &[u8]) -> StoreValue {
    StoreValue { value: value.into(), version: Version { stream: StreamNo(0), batch: BatchNo(0) } }
}

mod contract {
    use sagahost_journal::{contract::Place, journal_contract};

    use super::*;

    impl Place for Memory {
        fn open(&self) -> Box<dyn Journal> {
            Box::new(self.clone())
        }
    }

    journal_contract! {
        Memory::default;
        arrival: gap_is_refused, outbox_in_order, confirmation_removes_and_never_goes_back, positions_are_replaced;
        ownership: moved_position;
        sagas: keys_in_order_of_arrival, wrong_key_is_refused;
        values: store_scan_by_prefix, store_scan_edges, store_scan_by_bytes, store_of_participants_apart, versions_of_keys,
                stale_read_is_a_conflict, counters_come_back, counters_change_by_differences,
                counter_out_of_bounds_is_a_conflict;
    }
}
