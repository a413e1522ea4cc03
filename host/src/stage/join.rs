//! How a chain becomes part of the open batch. Invariant: what it read is compared with what is so now, under the mutex of
//! the stage; nothing is written before all of it holds.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use sagahost_codec::Codec;
use sagahost_journal::{Journal, SagaWrite, StoreEntry};
use sagahost_saga::id::{Participant, SagaId, Time};

use super::{Conflict, Inner, NotStaged, SagaChange, Staging};
use crate::{
    overlay::{Overlay, Scan, Stale},
    values::{Name, Values},
};

impl Inner {
    pub(super) fn reserved_by_other(&self, staging: &Staging) -> bool {
        !self.reserved.is_empty()
            && staging
                .overlay
                .writes
                .keys()
                .chain(staging.overlay.counters.iter().filter(|(_, trace)| trace.writes()).map(|(name, _)| name))
                .any(|name| self.is_reserved(name, staging.chain))
    }

    fn is_reserved(&self, name: &Name, chain: u64) -> bool {
        self.reserved.iter().any(|(conflict, (owner, _))| *owner != chain && conflict.covers(name))
    }

    /// Values come from memory; one that was dropped since the chain read it is read again, under the mutex: rare.
    fn store_now(&mut self, name: &Name, journal: &dyn Journal) -> Result<Option<Arc<[u8]>>, NotStaged> {
        match self.values.store(name) {
            Some(value) => Ok(value),
            None => {
                let read = journal.store_get(&name.0, &name.1).map_err(NotStaged::Journal)?;
                Ok(self.values.learn_store(name, read))
            }
        }
    }

    fn counter_now(&mut self, name: &Name, journal: &dyn Journal) -> Result<Option<i64>, NotStaged> {
        match self.values.counter(name) {
            Some(value) => Ok(value),
            None => {
                let read = journal.counter(&name.0, &name.1).map_err(NotStaged::Journal)?;
                Ok(self.values.learn_counter(name, read))
            }
        }
    }

    /// Is everything that the chain read still so? Returns what its counters become.
    pub(super) fn check(&mut self, overlay: &Overlay, journal: &dyn Journal) -> Result<Vec<(Name, i64)>, NotStaged> {
        let mut stale = Vec::new();
        for (name, seen) in &overlay.reads {
            if !same(&self.store_now(name, journal)?, seen) {
                stale.push(Conflict::Key(name.clone()));
            }
        }
        for scan in &overlay.scans {
            if !self.scan_holds(scan, journal)? {
                stale.push(Conflict::Prefix((scan.participant.clone(), scan.prefix.clone())));
            }
        }
        let mut counters = Vec::new();
        for (name, trace) in &overlay.counters {
            match trace.replay(self.counter_now(name, journal)?) {
                Ok(Some(value)) if trace.writes() => counters.push((name.clone(), value)),
                Ok(_) => {}
                Err(Stale) => stale.push(Conflict::Key(name.clone())),
            }
        }
        if stale.is_empty() { Ok(counters) } else { Err(NotStaged::Stale(stale)) }
    }

    fn scan_holds(&mut self, scan: &Scan, journal: &dyn Journal) -> Result<bool, NotStaged> {
        let after = scan.after.as_deref();
        let known = &self.values;
        let hidden =
            known.store_range(&scan.participant, &scan.prefix, after).filter(|(_, value)| value.is_none()).count();
        let asked = scan.limit + hidden;
        let read = journal.store_scan(&scan.participant, &scan.prefix, after, asked).map_err(NotStaged::Journal)?;
        let page = merged(known, &scan.participant, &scan.prefix, after, scan.limit, &read, asked);
        Ok(page.len() == scan.found.len()
            && page.iter().zip(&scan.found).all(|((key, value), (seen_key, seen))| key == seen_key && value == seen))
    }

    pub(super) fn join(&mut self, staging: Staging, counters: Vec<(Name, i64)>, codec: &Codec) {
        let number = self.number;
        let prefix: OnceLock<String> = OnceLock::new();
        self.open.chains += 1;
        self.open.at = staging.now;
        if let (Some(id), Some(change)) = (staging.id, staging.change) {
            self.join_saga(id, change, staging.now);
        }
        for (name, value) in staging.overlay.writes {
            self.open.bytes += name.1.len() + value.as_ref().map_or(0, |v| v.len());
            self.values.write_store(name.clone(), value.clone(), number);
            self.open.store.insert(name, value);
        }
        for (name, value) in counters {
            self.values.write_counter(name.clone(), value, number);
            self.open.counters.insert(name, value);
        }
        for departure in staging.departures {
            let mut outgoing = departure.outgoing;
            if let Some(event_id) = departure.handled {
                let prefix = prefix.get_or_init(|| format!("{}/{}", self.handled_prefix, number.0));
                codec.mark_handled(&mut outgoing, prefix, &event_id);
            }
            self.open.bytes += outgoing.size_bytes();
            self.open.outbox.push(outgoing);
        }
        self.open.letters.extend(staging.letters);
        self.open.commands_done.extend(staging.command_done);
        self.open.replies.extend(staging.reply);
        if let Some(receipt) = &staging.receipt {
            self.positions.accounted(receipt);
        }
        self.reserved.retain(|_, (owner, _)| *owner != staging.chain);
    }

    fn join_saga(&mut self, id: SagaId, change: SagaChange, now: Time) {
        let key = self.values.saga(&id).and_then(|cell| cell.key);
        let saga = (change.saga.clone(), change.bytes.len());
        self.values.write_saga(&id, saga, &change.spilled_events, self.number);
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

/// A page of the journal with what memory knows laid over it. `asked`: how many rows the journal was asked for.
pub(super) fn merged(
    values: &Values,
    participant: &Participant,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
    read: &[(String, Arc<[u8]>)],
    asked: usize,
) -> Vec<StoreEntry> {
    let cut_off = (read.len() >= asked).then(|| read.last().map(|(key, _)| key.as_str())).flatten();
    let mut page: BTreeMap<&str, Option<Arc<[u8]>>> =
        read.iter().map(|(key, value)| (key.as_str(), Some(value.clone()))).collect();
    for (key, value) in values.store_range(participant, prefix, after) {
        if cut_off.is_none_or(|last| key <= last) {
            page.insert(key, value.clone());
        }
    }
    page.into_iter().filter_map(|(key, value)| value.map(|v| (key.to_owned(), v))).take(limit).collect()
}

fn same(now: &Option<Arc<[u8]>>, seen: &Option<Arc<[u8]>>) -> bool {
    match (now, seen) {
        (None, None) => true,
        (Some(now), Some(seen)) => Arc::ptr_eq(now, seen) || now == seen,
        (None, Some(_)) | (Some(_), None) => false,
    }
}
