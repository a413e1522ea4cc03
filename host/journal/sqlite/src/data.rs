//! What participants keep (store, counters), how far topics are read, and the durable mailbox.
//! Invariant: a participant's keys are kept apart from every other's.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sagahost_journal::{Name, PageBounds, PageFill, QueuedCommand, StorePage, StoreValue, Version, entry_bytes};
use sagahost_saga::{
    id::{Participant, SagaId},
    input::Command,
};
use sagahost_wire::{BatchNo, Partition, Position, StreamNo, TopicId};

use super::{
    fault::Outcome,
    format::{from_json, int, json, number, saga_id},
};

pub(super) fn get(conn: &Connection, participant: &Participant, key: &str) -> Outcome<Option<StoreValue>> {
    let mut statement =
        conn.prepare_cached("SELECT stream, batch, value FROM store WHERE participant = ?1 AND key = ?2")?;
    let mut rows = statement.query([participant.as_str(), key])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let value = Arc::from(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?);
    Ok(Some(StoreValue { value, version: version_of(row)? }))
}

pub(super) fn version(conn: &Connection, (participant, key): &Name) -> Outcome<Option<Version>> {
    let mut statement = conn.prepare_cached("SELECT stream, batch FROM store WHERE participant = ?1 AND key = ?2")?;
    let mut rows = statement.query([participant.as_str(), key])?;
    rows.next()?.map(version_of).transpose()
}

/// From the first two columns.
fn version_of(row: &Row<'_>) -> Outcome<Version> {
    Ok(Version { stream: StreamNo(row.get(0)?), batch: BatchNo(number(row, 1)?) })
}

/// In byte order, which is SQLite's for text. Keys with one prefix stand together: the first that lacks it is the end. A
/// row is read when it is stepped to, so the one that does not fit is the last one that is.
pub(super) fn scan(
    conn: &Connection,
    participant: &Participant,
    prefix: &str,
    after: Option<&str>,
    bounds: PageBounds,
) -> Outcome<StorePage> {
    let (sql, from) = match after {
        Some(after) if after >= prefix => (SCAN_ABOVE, after),
        _ => (SCAN_FROM, prefix),
    };
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![participant.as_str(), from, int(bounds.entries as u64)])?;
    let mut page = PageFill::new(bounds);
    while let Some(row) = rows.next()? {
        let key = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        if !key.starts_with(prefix) {
            break;
        }
        let value = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        if !page.has_room(entry_bytes(key, value)) {
            break;
        }
        page.add(key.to_owned(), Arc::from(value));
    }
    Ok(StorePage { complete: !page.is_full(), rows: page.into_entries() })
}

const SCAN_FROM: &str = "SELECT key, value FROM store WHERE participant = ?1 AND key >= ?2 ORDER BY key LIMIT ?3";
const SCAN_ABOVE: &str = "SELECT key, value FROM store WHERE participant = ?1 AND key > ?2 ORDER BY key LIMIT ?3";

pub(super) fn counter(conn: &Connection, participant: &Participant, name: &str) -> Outcome<Option<i64>> {
    let mut statement = conn.prepare_cached("SELECT value FROM counter WHERE participant = ?1 AND name = ?2")?;
    Ok(statement.query_row([participant.as_str(), name], |row| row.get(0)).optional()?)
}

pub(super) fn counters(
    conn: &Connection,
    participant: Option<&Participant>,
) -> Outcome<Vec<(Participant, String, i64)>> {
    let mut statement = conn.prepare_cached(
        "SELECT participant, name, value FROM counter WHERE ?1 IS NULL OR participant = ?1 ORDER BY participant, name",
    )?;
    let rows = statement.query_map([participant.map(Participant::as_str)], |row| {
        Ok((Participant::from(row.get::<_, String>(0)?), row.get(1)?, row.get(2)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn positions(conn: &Connection) -> Outcome<BTreeMap<Partition, Position>> {
    let mut statement =
        conn.prepare_cached("SELECT topic, number, next, last_offset, last_timestamp, topic_id FROM position")?;
    let mut rows = statement.query([])?;
    let mut positions = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let partition = Partition { topic: row.get(0)?, number: row.get(1)? };
        let last = match row.get(3)? {
            Some(offset) => Some((offset, number(row, 4)?)),
            None => None,
        };
        let topic_id = row.get::<_, Option<Arc<str>>>(5)?.map(TopicId);
        positions.insert(partition, Position { next: row.get(2)?, last, topic_id });
    }
    Ok(positions)
}

pub(super) fn queue(conn: &Connection, saga: &SagaId, command: &Command) -> Outcome<i64> {
    conn.execute("INSERT INTO command (saga, command) VALUES (?1, ?2)", params![saga.as_str(), json(command)?])?;
    Ok(conn.last_insert_rowid())
}

/// In the order in which they were queued.
pub(super) fn queued(conn: &Connection) -> Outcome<Vec<QueuedCommand>> {
    let mut statement = conn.prepare_cached("SELECT id, saga, command FROM command ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut queued = Vec::new();
    while let Some(row) = rows.next()? {
        let command = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
        queued.push(QueuedCommand {
            id: row.get(0)?,
            saga: saga_id(row, 1)?,
            command: from_json(command, "a queued command")?,
        });
    }
    Ok(queued)
}
