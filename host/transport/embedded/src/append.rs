//! One write transaction that appends records. Invariant: offsets of a partition follow each other without gaps, and a
//! record is refused before anything of it is written.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use sagahost_wire::{Outgoing, Partition};

use super::{
    Options, partitioner,
    tables::{self, OFFSET_MAX},
};

/// Old records that one transaction removes from a partition, at most.
const BITE_RECORDS: i64 = 1000;

/// The partitions of each topic, as far as asked for. Belongs to one connection.
#[derive(Default)]
pub(super) struct Directory {
    /// `PRAGMA data_version` at which `topics` was read; another one: another connection wrote since.
    version: Option<i64>,
    topics: HashMap<Arc<str>, Arc<[i64]>>,
}

impl Directory {
    /// Ids of the partitions, by number; empty: no such topic.
    pub fn partitions(&mut self, connection: &Connection, topic: &str) -> rusqlite::Result<Arc<[i64]>> {
        if let Some(ids) = self.topics.get(topic) {
            return Ok(ids.clone());
        }
        let mut statement = connection.prepare_cached(
            "SELECT p.id FROM partitions p JOIN topics t ON t.id = p.topic WHERE t.name = ?1 ORDER BY p.number",
        )?;
        let ids: Arc<[i64]> = statement.query_map([topic], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        if !ids.is_empty() {
            self.topics.insert(topic.into(), ids.clone());
        }
        Ok(ids)
    }

    /// The id of one partition; None: there is none.
    pub fn partition(&mut self, connection: &Connection, partition: &Partition) -> rusqlite::Result<Option<i64>> {
        let ids = self.partitions(connection, &partition.topic)?;
        Ok(usize::try_from(partition.number).ok().and_then(|number| ids.get(number).copied()))
    }

    fn refresh(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let version = data_version(connection)?;
        if self.version != Some(version) {
            self.topics.clear();
            self.version = Some(version);
        }
        Ok(())
    }
}

/// Changes whenever another connection, of any process, has committed.
pub(super) fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

pub(super) enum AppendError {
    Refused(String),
    Failed(rusqlite::Error),
}

impl From<rusqlite::Error> for AppendError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

/// A record as it is written.
pub(super) struct Row {
    topic: Arc<str>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Option<Vec<u8>>,
    size: usize,
}

impl Row {
    pub fn of(record: &Outgoing) -> Self {
        Self {
            topic: record.topic.clone(),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: tables::pack_headers(&record.headers),
            size: record.size_bytes(),
        }
    }
}

struct Head {
    first: i64,
    next: i64,
}

pub(super) struct Appender<'c> {
    pub transaction: Transaction<'c>,
    pub directory: &'c mut Directory,
    options: &'c Options,
    keyless: &'c AtomicUsize,
    timestamp_ms: i64,
    heads: BTreeMap<i64, Head>,
}

impl<'c> Appender<'c> {
    /// Takes the database's write lock. `keyless` counts records without a key, which go round robin.
    pub fn begin(
        connection: &'c mut Connection,
        directory: &'c mut Directory,
        options: &'c Options,
        keyless: &'c AtomicUsize,
        timestamp_ms: u64,
    ) -> rusqlite::Result<Self> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        directory.refresh(&transaction)?;
        let timestamp_ms = i64::try_from(timestamp_ms).unwrap_or(i64::MAX);
        Ok(Self { transaction, directory, options, keyless, timestamp_ms, heads: BTreeMap::new() })
    }

    pub fn append(&mut self, record: &Row) -> Result<(Partition, i64), AppendError> {
        let size = record.size;
        if size > self.options.record_bytes_max {
            return Err(AppendError::Refused(format!(
                "it has {size} bytes, more than the {} that a record may have",
                self.options.record_bytes_max
            )));
        }
        let ids = self.directory.partitions(&self.transaction, &record.topic)?;
        if ids.is_empty() {
            return Err(AppendError::Refused(format!(
                "there is no such topic; make it with `{}`",
                super::create_command(&record.topic)
            )));
        }
        let number = match &record.key {
            Some(key) => partitioner::partition_of(key, ids.len()),
            None => self.keyless.fetch_add(1, Ordering::Relaxed) % ids.len(),
        };
        let offset = self.insert(ids[number], record)?;
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        Ok((Partition { topic: record.topic.clone(), number }, offset))
    }

    fn insert(&mut self, partition_id: i64, record: &Row) -> Result<i64, AppendError> {
        let offset = self.head(partition_id)?.next;
        if offset >= OFFSET_MAX {
            return Err(AppendError::Refused("its partition is full".to_owned()));
        }
        self.transaction
            .prepare_cached("INSERT INTO records (id, timestamp_ms, key, value, headers) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                tables::record_id(partition_id, offset),
                self.timestamp_ms,
                record.key,
                record.value,
                record.headers,
            ])?;
        self.head(partition_id)?.next = offset + 1;
        Ok(offset)
    }

    fn head(&mut self, partition_id: i64) -> rusqlite::Result<&mut Head> {
        use std::collections::btree_map::Entry;
        match self.heads.entry(partition_id) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(vacant) => {
                let (first, next) = self
                    .transaction
                    .prepare_cached("SELECT first_offset, next_offset FROM partitions WHERE id = ?1")?
                    .query_row([partition_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(vacant.insert(Head { first, next }))
            }
        }
    }

    /// Ends the transaction: from now on the records are seen by everybody.
    pub fn commit(mut self) -> rusqlite::Result<()> {
        for (partition_id, head) in std::mem::take(&mut self.heads) {
            let first = self.trim(partition_id, &head)?;
            self.transaction
                .prepare_cached("UPDATE partitions SET first_offset = ?2, next_offset = ?3 WHERE id = ?1")?
                .execute([partition_id, first, head.next])?;
        }
        self.transaction.commit()
    }

    /// Removes records above the bound, though none that an app which reads this partition has not passed. Returns
    /// the first offset that is left.
    fn trim(&self, partition_id: i64, head: &Head) -> rusqlite::Result<i64> {
        let Some(kept_max) = self.options.kept_records_max else {
            return Ok(head.first);
        };
        let surplus = (head.next - head.first).saturating_sub(i64::try_from(kept_max).unwrap_or(i64::MAX));
        if surplus <= 0 {
            return Ok(head.first);
        }
        let passed: Option<i64> = self
            .transaction
            .prepare_cached("SELECT min(next_offset) FROM committed WHERE partition_id = ?1")?
            .query_row([partition_id], |row| row.get(0))
            .optional()?
            .flatten();
        let first = (head.first + surplus.min(BITE_RECORDS)).min(passed.unwrap_or(i64::MAX)).max(head.first);
        delete_between(&self.transaction, partition_id, head.first, first)?;
        Ok(first)
    }
}

/// Deletes the rows of `from..to`.
pub(super) fn delete_between(connection: &Connection, partition_id: i64, from: i64, to: i64) -> rusqlite::Result<()> {
    let range = [tables::record_id(partition_id, from), tables::record_id(partition_id, to)];
    connection.prepare_cached("DELETE FROM records WHERE id >= ?1 AND id < ?2")?.execute(range)?;
    Ok(())
}
