//! The rows of sagas, as they are found and listed. Invariant: a hash only leads to a row, the id or the note in it
//! decides.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sagahost_journal::{SagaFilter, SagaKey, SagaListRow, SagaRow};
use sagahost_saga::{
    history::Entry,
    id::{SagaId, Time},
    input::Status,
};

use super::{
    fault::Outcome,
    format::{self, from_json, int, note_hash, saga_id, status_code},
    packed::unpack,
};

/// Rows looked at in one go when a list is filtered.
const LIST_CHUNK: usize = 500;

pub(super) fn find(conn: &Connection, id: &SagaId, hash: i64) -> Outcome<Option<SagaRow>> {
    let mut statement = conn.prepare_cached("SELECT key, bytes FROM saga WHERE hash = ?1 AND id = ?2")?;
    let row = statement.query_row(params![hash, id.as_str()], |row| {
        Ok((SagaKey(row.get(0)?), unpack(row.get_ref(1)?.as_blob()?, "the record of a saga").map(Arc::from)))
    });
    row.optional()?.map(|(key, bytes)| Ok(SagaRow { key, bytes: bytes? })).transpose()
}

pub(super) fn spilled_event(conn: &Connection, saga: SagaKey, event: [u8; 16]) -> Outcome<Option<[u8; 16]>> {
    let mut statement = conn.prepare_cached("SELECT data FROM spilled_event WHERE saga = ?1 AND event = ?2")?;
    Ok(statement.query_row(params![saga.0, event], |row| row.get(0)).optional()?)
}

/// Their numbers begin with 1, and none is left out.
pub(super) fn spilled_history(conn: &Connection, saga: SagaKey, from: u64, limit: usize) -> Outcome<Vec<Entry>> {
    let sql = "SELECT entry FROM spilled_history WHERE saga = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([saga.0, int(from), int(limit as u64)])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries
            .push(from_json(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?, "an entry of a saga's history")?);
    }
    Ok(entries)
}

/// Which of a saga's durable times.
#[derive(Clone, Copy)]
pub(super) enum Timer {
    Wake,
    Deadline,
}

pub(super) const DUE: [&str; 2] = [
    "SELECT wake_at, id FROM saga WHERE wake_at <= ?1 ORDER BY wake_at LIMIT ?2",
    "SELECT deadline_at, id FROM saga WHERE deadline_at <= ?1 ORDER BY deadline_at LIMIT ?2",
];

pub(super) fn due(conn: &Connection, timer: Timer, now: Time, limit: usize) -> Outcome<Vec<(Time, SagaId)>> {
    let sql = match timer {
        Timer::Wake => DUE[0],
        Timer::Deadline => DUE[1],
    };
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([int(now.0), int(limit as u64)])?;
    let mut due = Vec::new();
    while let Some(row) = rows.next()? {
        due.push((format::time(row, 0)?, saga_id(row, 1)?));
    }
    Ok(due)
}

pub(super) fn next_due(conn: &Connection) -> Outcome<(Option<Time>, Option<Time>)> {
    let earliest = |sql: &str| -> Outcome<Option<Time>> {
        let time: Option<i64> = conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok(time.map(|time| Time(u64::try_from(time).unwrap_or(0))))
    };
    Ok((
        earliest("SELECT min(wake_at) FROM saga WHERE wake_at IS NOT NULL")?,
        earliest("SELECT min(deadline_at) FROM saga WHERE deadline_at IS NOT NULL")?,
    ))
}

/// Which mark of a saga.
#[derive(Clone, Copy)]
pub(super) enum Mark {
    Parked,
    InDoubt,
}

pub(super) const MARKED: [&str; 2] = [
    "SELECT key, id FROM saga WHERE waits_for_plugin = 1 AND key > ?1 ORDER BY key LIMIT ?2",
    "SELECT key, id FROM saga WHERE in_doubt = 1 AND key > ?1 ORDER BY key LIMIT ?2",
];

pub(super) fn marked(conn: &Connection, mark: Mark, after: SagaKey, limit: usize) -> Outcome<Vec<(SagaKey, SagaId)>> {
    let sql = match mark {
        Mark::Parked => MARKED[0],
        Mark::InDoubt => MARKED[1],
    };
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map([after.0, int(limit as u64)], |row| Ok((SagaKey(row.get(0)?), saga_id(row, 1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Newest first.
pub(super) fn list(conn: &Connection, filter: &SagaFilter) -> Outcome<Vec<SagaListRow>> {
    let mut sql = "SELECT key, id, status, updated, notes FROM saga WHERE key < ?1".to_owned();
    if let Some(status) = filter.status {
        sql += &format!(" AND status = {}", status_code(status));
    }
    for (name, value) in &filter.notes {
        sql += &format!(" AND key IN (SELECT saga FROM note WHERE hash = {})", note_hash(name, value));
    }
    sql += " ORDER BY key DESC LIMIT ?2";
    let mut statement = conn.prepare(&sql)?;
    let mut before = filter.before.map_or(i64::MAX, |key| key.0);
    let mut list = Vec::new();
    while list.len() < filter.limit {
        let chunk = (filter.limit - list.len()).min(LIST_CHUNK);
        let mut rows = statement.query([before, int(chunk as u64)])?;
        let mut read = 0;
        while let Some(row) = rows.next()? {
            let entry = list_row(row)?;
            (before, read) = (entry.key.0, read + 1);
            // Hashes lead to the row, the notes themselves decide.
            if filter.notes.iter().all(|note| entry.notes.contains(note)) {
                list.push(entry);
            }
        }
        if read < chunk {
            break;
        }
    }
    Ok(list)
}

fn list_row(row: &Row<'_>) -> Outcome<SagaListRow> {
    Ok(SagaListRow {
        key: SagaKey(row.get(0)?),
        id: saga_id(row, 1)?,
        status: format::status(row, 2)?,
        updated: format::time(row, 3)?,
        notes: format::notes(row.get_ref(4)?.as_str_or_null().map_err(rusqlite::Error::from)?)?,
    })
}

pub(super) fn count_by_status(conn: &Connection) -> Outcome<Vec<(Status, u64)>> {
    let mut statement = conn.prepare_cached("SELECT status, count(*) FROM saga GROUP BY status ORDER BY status")?;
    let mut rows = statement.query([])?;
    let mut counts = Vec::new();
    while let Some(row) = rows.next()? {
        counts.push((format::status(row, 0)?, format::number(row, 1)?));
    }
    Ok(counts)
}
