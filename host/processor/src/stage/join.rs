//! How a chain becomes part of the open batch. Invariant: what it read is compared with what is so now, under the mutex of
//! the stage; nothing is written before all of it holds.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use sagahost_journal::{LetterWrite, Name, SagaWrite, Stale, StoreEntry, StoreValue};
use sagahost_saga::id::{Participant, SagaId, Time};

use super::{Conflict, Forgotten, Inner, SagaChange, Staging};
use crate::{
    counter::{CounterBounds, CounterTrace},
    overlay::{Overlay, Page, Scan},
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
        for (name, seen) in &overlay.reads {
            match self.values.store(name) {
                Some(now) if same(&now, seen) => {}
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

    /// What the journal said of the page, with what memory knows laid over it: memory has all that was written since,
    /// unless something was dropped. None: something was, or more was deleted than the page has rows to spare.
    fn scan_holds(&self, scan: &Scan) -> Option<bool> {
        if self.values.drops() != scan.page.drops {
            return None;
        }
        let now = merged(&self.values, &scan.participant, &scan.prefix, scan.after.as_deref(), scan.limit, &scan.page);
        if now.len() < scan.limit && !scan.page.complete {
            return None;
        }
        let same = |((key, value), (seen_key, seen)): (&StoreEntry, &StoreEntry)| key == seen_key && value == seen;
        Some(now.len() == scan.found.len() && now.iter().zip(&scan.found).all(same))
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
        reads.into_keys().for_each(|name| self.join_read(name));
        for (name, value) in writes {
            self.open.bytes += name.1.len() + value.as_ref().map_or(0, |v| v.len());
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
    fn join_read(&mut self, name: Name) {
        if !self.open.store.contains_key(&name) {
            let version = self.values.store(&name).flatten().map(|known| known.version);
            self.open.store_read.entry(name).or_insert(version);
        }
    }

    fn join_counter(&mut self, name: Name, trace: &CounterTrace) {
        let found = self.values.counter(&name).flatten();
        if let Some(value) = trace.replay(found).unwrap_or(found).filter(|_| trace.writes()) {
            self.values.write_counter(name.clone(), value, self.number);
        }
        self.open.counters.entry(name).or_insert_with(|| CounterBounds::new(found)).add(trace);
    }

    fn join_saga(&mut self, id: SagaId, change: SagaChange, now: Time) {
        let saga = (change.saga.clone(), change.bytes.len());
        // Memory may have dropped the saga since the chain found it.
        let key = self.values.write_saga(&id, saga, change.key, &change.spilled_events, self.number);
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

/// A page of the journal with what memory knows laid over it. Where the journal may hold more behind its last row, what
/// memory knows there belongs to a later page.
pub(super) fn merged(
    values: &Values,
    participant: &Participant,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
    page: &Page,
) -> Vec<StoreEntry> {
    let cut_off = (!page.complete).then(|| page.rows.last().map(|(key, _)| key.as_str())).flatten();
    let mut all: BTreeMap<&str, Option<Arc<[u8]>>> =
        page.rows.iter().map(|(key, value)| (key.as_str(), Some(value.clone()))).collect();
    for (key, value) in values.store_range(participant, prefix, after) {
        if cut_off.is_none_or(|last| key <= last) {
            all.insert(key, value.cloned());
        }
    }
    all.into_iter().filter_map(|(key, value)| value.map(|v| (key.to_owned(), v))).take(limit).collect()
}

fn letter_bytes(letter: &LetterWrite) -> usize {
    match letter {
        LetterWrite::Open(letter) => letter.record.size_bytes(),
        LetterWrite::Close { .. } => 0,
    }
}

fn same(now: &Option<StoreValue>, seen: &Option<Arc<[u8]>>) -> bool {
    match (now.as_ref().map(|now| &now.value), seen) {
        (None, None) => true,
        (Some(now), Some(seen)) => Arc::ptr_eq(now, seen) || now == seen,
        (None, Some(_)) | (Some(_), None) => false,
    }
}
