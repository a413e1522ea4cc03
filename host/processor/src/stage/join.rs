//! How a chain becomes part of the open batch. Invariant: what it read is compared with what is so now, under the mutex of
//! the stage; nothing is written before all of it holds.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use sagahost_journal::{LetterWrite, Name, SagaWrite, Stale, StoreEntry, StoreValue, entry_bytes};
use sagahost_manifest::limits::ENTRY_BYTES;
use sagahost_saga::id::{Participant, SagaId, Time};

use super::{Conflict, Forgotten, Inner, SagaChange, Staging};
use crate::{
    counter::{CounterBounds, CounterTrace},
    overlay::{Overlay, Range, Read, Scan},
    planted::{self, Planted},
    step::Steady,
    values::Values,
};

/// Is what a chain read still so?
pub(super) enum Checked {
    Holds,
    Stale(Vec<Conflict>),
    /// Memory cannot tell: the journal is to be asked, and not here.
    Forgotten(Forgotten),
}

impl Inner {
    /// When what another chain holds of this one's writes is free again.
    pub(super) fn reserved_by_other(&self, staging: &Staging) -> Option<Steady> {
        if self.reserved.is_empty() {
            return None;
        }
        let overlay = &staging.overlay;
        let counters = overlay.counters.iter().filter(|(_, trace)| trace.writes()).map(|(name, _)| name);
        overlay.writes.keys().chain(counters).filter_map(|name| self.is_reserved(name, staging.chain)).min()
    }

    fn is_reserved(&self, name: &Name, chain: u64) -> Option<Steady> {
        let others = self.reserved.iter().filter(|(conflict, (owner, _))| *owner != chain && conflict.covers(name));
        others.map(|(_, (_, until))| *until).max()
    }

    pub(super) fn check(&mut self, overlay: &Overlay) -> Checked {
        let (mut stale, mut forgotten) = (Vec::new(), Forgotten::default());
        for (name, read) in &overlay.reads {
            match self.now(name, read) {
                Some(now) if same(&now, &read.seen) && !read.changed => {}
                Some(_) if planted::on(Planted::TrustReads) => {}
                Some(_) => stale.push(Conflict::Key(name.clone())),
                None => forgotten.store.push(name.clone()),
            }
        }
        for (at, scan) in overlay.scans.iter().enumerate() {
            match self.scan_holds(scan) {
                Some(true) => {}
                Some(false) => stale.push(Conflict::Prefix((scan.participant.clone(), scan.prefix.clone()))),
                None => forgotten.scans.push(at),
            }
        }
        for (name, trace) in &overlay.counters {
            let Some(now) = self.values.counter(name) else {
                forgotten.counters.push(name.clone());
                continue;
            };
            match trace.replay(now) {
                Ok(_) => {}
                Err(Stale) if planted::on(Planted::TrustCounters) => {}
                Err(Stale) => stale.push(Conflict::Key(name.clone())),
            }
        }
        match (stale.is_empty(), forgotten.is_empty()) {
            (false, _) => Checked::Stale(stale),
            (true, false) => Checked::Forgotten(forgotten),
            (true, true) => Checked::Holds,
        }
    }

    /// What memory knows of a key; or what was read of it, if memory would know of anything newer. None: it would not,
    /// since something was dropped.
    fn now(&mut self, name: &Name, read: &Read) -> Option<Option<StoreValue>> {
        let known = self.values.store(name);
        known.or_else(|| (self.values.drops() == read.drops).then(|| read.seen.clone()))
    }

    /// What the journal said of the page, with what memory knows laid over it: memory has all that was written since,
    /// unless something was dropped. None: something was.
    fn scan_holds(&self, scan: &Scan) -> Option<bool> {
        let Scan { participant, prefix, after, until, found, range } = scan;
        if self.values.drops() != range.drops {
            return None;
        }
        let now = live(&self.values, participant, prefix, (after.as_deref(), until.as_deref()), range);
        let same =
            |((key, value), (seen_key, seen)): (&(&str, &Arc<[u8]>), &StoreEntry)| key == seen_key && *value == seen;
        Some(now.len() == found.len() && now.iter().zip(found).all(same))
    }

    pub(super) fn join(&mut self, staging: Staging) {
        let number = self.number;
        let prefix: OnceLock<String> = OnceLock::new();
        self.open.chains += 1;
        self.open.at = staging.now;
        if let Some(id) = &staging.id {
            self.open.launches.extend(staging.launches.into_iter().map(|call| (id.clone(), call)));
            self.open.settled.extend(staging.settled.map(|call| (id.clone(), call)));
        }
        if let (Some(id), Some(change)) = (staging.id, staging.change) {
            self.join_saga(id, change, staging.now);
        }
        let Overlay { reads, writes, counters, .. } = staging.overlay;
        reads.into_iter().for_each(|(name, read)| self.join_read(name, &read));
        for (name, value) in writes {
            self.open.bytes += entry_bytes(&name.1, value.as_deref().unwrap_or_default());
            self.values.write_store(name.clone(), value.clone(), number);
            self.open.store.insert(name, value);
        }
        counters.into_iter().for_each(|(name, trace)| self.join_counter(name, &trace));
        for departure in staging.departures {
            let mut outgoing = departure.outgoing;
            if let Some(event_id) = departure.handled {
                let generation = staging.serving.generation.0;
                let prefix = prefix.get_or_init(|| format!("{}/{}.{generation}", self.handled_prefix, number.0));
                staging.serving.codec.mark_handled(&mut outgoing, prefix, &event_id);
            }
            self.open.bytes += outgoing.size_bytes();
            self.open.outbox.push(outgoing);
        }
        self.open.bytes += staging.letters.iter().map(letter_bytes).sum::<usize>();
        self.open.letters.extend(staging.letters);
        self.open.facts.extend(staging.facts.map(|facts| *facts));
        self.open.commands_done.extend(staging.command_done);
        self.open.replies.extend(staging.reply);
        if let Some(receipt) = &staging.receipt {
            self.positions.accounted(receipt);
            self.open.partitions.insert(receipt.partition.clone());
        }
        self.reserved.retain(|_, (owner, _)| *owner != staging.chain);
    }

    /// What is written with this batch itself needs no comparison with the journal.
    fn join_read(&mut self, name: Name, read: &Read) {
        if !self.open.store.contains_key(&name) {
            let version = self.now(&name, read).flatten().map(|known| known.version);
            self.open.bytes += name.1.len() + ENTRY_BYTES;
            self.open.store_read.entry(name).or_insert(version);
        }
    }

    fn join_counter(&mut self, name: Name, trace: &CounterTrace) {
        let found = self.values.counter(&name).flatten();
        if let Some(value) = trace.replay(found).unwrap_or(found).filter(|_| trace.writes()) {
            self.values.write_counter(name.clone(), value, self.number);
        }
        self.open.bytes += name.1.len() + 2 * ENTRY_BYTES;
        self.open.counters.entry(name).or_insert_with(|| CounterBounds::new(found)).add(trace);
    }

    fn join_saga(&mut self, id: SagaId, change: SagaChange, now: Time) {
        let saga = (change.saga.clone(), &*change.bytes);
        let key = self.values.write_saga(&id, saga, change.found, &change.spilled_events, self.number);
        self.open.bytes += change.bytes.len();
        let (mut spilled_events, mut spilled_history) = (change.spilled_events, change.spilled_history);
        match self.open.sagas.remove(&id) {
            // Spilled rows of an earlier chain of this batch stay.
            Some(earlier) => {
                spilled_events.splice(0..0, earlier.spilled_events);
                spilled_history.splice(0..0, earlier.spilled_history);
            }
            None => self.open.order.push(id.clone()),
        }
        let write = SagaWrite {
            id: id.clone(),
            key,
            bytes: change.bytes,
            status: change.status,
            wake: change.wake,
            notes: change.saga.notes().to_vec(),
            updated: now,
            spilled_events,
            spilled_history,
            digests: change.digests,
        };
        self.open.sagas.insert(id, write);
    }
}

/// The keys between two, the second included, with what memory knows laid over what the journal said.
pub(super) fn live<'a>(
    values: &'a Values,
    participant: &'a Participant,
    prefix: &'a str,
    (after, until): (Option<&'a str>, Option<&'a str>),
    range: &'a Range,
) -> Vec<(&'a str, &'a Arc<[u8]>)> {
    let mut all: BTreeMap<&str, Option<&Arc<[u8]>>> =
        range.rows.iter().map(|(key, value)| (key.as_str(), Some(value))).collect();
    let known = values.store_range(participant, prefix, after);
    all.extend(known.take_while(|(key, _)| until.is_none_or(|until| *key <= until)));
    all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

fn letter_bytes(letter: &LetterWrite) -> usize {
    match letter {
        LetterWrite::Open(letter) => letter.record.size_bytes(),
        LetterWrite::Close { .. } => 0,
    }
}

fn same(now: &Option<StoreValue>, seen: &Option<StoreValue>) -> bool {
    match (now.as_ref().map(|now| &now.value), seen.as_ref().map(|seen| &seen.value)) {
        (None, None) => true,
        (Some(now), Some(seen)) => Arc::ptr_eq(now, seen) || now == seen,
        (None, Some(_)) | (Some(_), None) => false,
    }
}
