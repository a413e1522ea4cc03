//! Dead letters. Invariant: one letter a key; a new failure opens the same one again.

use std::sync::Arc;

use rusqlite::{Connection, Row, ToSql, params, params_from_iter};
use sagahost_journal::{LeftOut, LetterFilter, LetterWrite};
use sagahost_saga::{
    id::{Participant, SagaId},
    input::Letter,
};
use sagahost_wire::{Partition, StoredLetter};

use super::{
    fault::Outcome,
    format::{self, from_json, int, json},
};

const COLUMNS: &str = "key, saga, participant, kind, code, detail, attempts, plugin_version, at, origin_topic, \
                       origin_number, origin_offset, closed, letter, data, record";

pub(super) fn write(conn: &Connection, writes: &[LetterWrite]) -> Outcome<()> {
    for write in writes {
        match write {
            LetterWrite::Open(letter) => open(conn, letter)?,
            LetterWrite::Close { key, how, at } => {
                conn.prepare_cached("UPDATE letter SET closed = ?2, closed_at = ?3 WHERE key = ?1 AND closed IS NULL")?
                    .execute(params![key, how, int(at.0)])?;
            }
        }
    }
    Ok(())
}

fn open(conn: &Connection, letter: &StoredLetter) -> Outcome<()> {
    let (topic, number, offset) = match &letter.origin {
        Some((partition, offset)) => (Some(&partition.topic), Some(partition.number), Some(*offset)),
        None => (None, None, None),
    };
    let (core, data) = core_cells(letter.letter.as_ref())?;
    let record = format::record_cell(&letter.record)?;
    conn.prepare_cached(
        "INSERT INTO letter (key, saga, participant, kind, code, detail, attempts, plugin_version, at, origin_topic,
                             origin_number, origin_offset, closed, letter, data, record, closed_at, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
         ON CONFLICT (key) DO UPDATE SET
            saga = excluded.saga, participant = excluded.participant, kind = excluded.kind, code = excluded.code,
            detail = excluded.detail, attempts = excluded.attempts, plugin_version = excluded.plugin_version,
            at = excluded.at, origin_topic = excluded.origin_topic, origin_number = excluded.origin_number,
            origin_offset = excluded.origin_offset, closed = excluded.closed, letter = excluded.letter,
            data = excluded.data, record = excluded.record, closed_at = excluded.closed_at,
            bytes = excluded.bytes",
    )?
    .execute(params![
        letter.key,
        letter.saga.as_ref().map(SagaId::as_str),
        letter.participant.as_ref().map(Participant::as_str),
        letter.kind,
        letter.code,
        letter.detail,
        letter.attempts,
        letter.plugin_version,
        int(letter.at.0),
        topic,
        number,
        offset,
        letter.closed,
        core,
        data,
        record,
        letter.closed.as_ref().map(|_| int(letter.at.0)),
        int(record.len() as u64),
    ])?;
    Ok(())
}

/// What its published copy lacks is said in the letter.
pub(super) fn note_copy(conn: &Connection, key: &str, what: LeftOut, why: &str) -> Outcome<()> {
    let note = match what {
        LeftOut::Value => format!(" [the copy in the topic has no value: {why}]"),
        LeftOut::Row => format!(" [there is no copy in the topic: {why}]"),
    };
    conn.execute("UPDATE letter SET detail = detail || ?2 WHERE key = ?1", params![key, note])?;
    Ok(())
}

/// JSON without the event's data, and the data.
type CoreCells = (Option<String>, Option<Arc<[u8]>>);

/// The core's letter as JSON; the event's data has a cell of its own, where it is not blown up.
fn core_cells(letter: Option<&Letter>) -> Outcome<CoreCells> {
    let Some(letter) = letter else {
        return Ok((None, None));
    };
    let mut bare = letter.clone();
    let data = std::mem::replace(&mut bare.event.data, Arc::from([]));
    Ok((Some(json(&bare)?), Some(data)))
}

fn stored(row: &Row<'_>) -> Outcome<StoredLetter> {
    let text = |column: usize| -> rusqlite::Result<Option<String>> { row.get(column) };
    let origin = match text(9)? {
        Some(topic) => Some((Partition::new(topic, row.get(10)?), row.get(11)?)),
        None => None,
    };
    let letter = match text(13)? {
        Some(json) => {
            let mut letter: Letter = from_json(&json, "a dead letter")?;
            letter.event.data = row.get::<_, Option<Vec<u8>>>(14)?.unwrap_or_default().into();
            Some(letter)
        }
        None => None,
    };
    Ok(StoredLetter {
        key: row.get(0)?,
        saga: text(1)?.map(SagaId::from),
        participant: text(2)?.map(Participant::from),
        kind: row.get(3)?,
        code: row.get(4)?,
        detail: row.get(5)?,
        attempts: row.get(6)?,
        plugin_version: row.get(7)?,
        at: format::time(row, 8)?,
        origin,
        record: format::record(row.get_ref(15)?.as_blob().map_err(rusqlite::Error::from)?)?,
        letter,
        closed: row.get(12)?,
    })
}

/// In the order in which they were first opened, so that paging stands still while new ones arrive.
pub(super) fn list(conn: &Connection, filter: &LetterFilter) -> Outcome<Vec<StoredLetter>> {
    let mut sql = format!("SELECT {COLUMNS} FROM letter WHERE true");
    let mut values: Vec<&dyn ToSql> = Vec::new();
    let saga = filter.saga.as_ref().map(SagaId::as_str);
    let participant = filter.participant.as_ref().map(Participant::as_str);
    if let Some(saga) = &saga {
        sql += " AND saga = ?";
        values.push(saga);
    }
    if let Some(code) = &filter.code {
        sql += " AND code = ?";
        values.push(code);
    }
    if let Some(participant) = &participant {
        sql += " AND participant = ?";
        values.push(participant);
    }
    if filter.open_only {
        sql += " AND closed IS NULL";
    }
    let (limit, offset) = (int(filter.limit as u64), int(filter.offset as u64));
    sql += " ORDER BY seq LIMIT ? OFFSET ?";
    values.extend([&limit as &dyn ToSql, &offset]);
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut letters = Vec::new();
    while let Some(row) = rows.next()? {
        letters.push(stored(row)?);
    }
    Ok(letters)
}

pub(super) fn find(conn: &Connection, key: &str) -> Outcome<Option<StoredLetter>> {
    let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM letter WHERE key = ?1"))?;
    let mut rows = statement.query([key])?;
    rows.next()?.map(stored).transpose()
}

/// Open ones by code and participant, most first.
pub(super) fn groups(conn: &Connection) -> Outcome<Vec<(String, Option<Participant>, u64)>> {
    let mut statement = conn.prepare_cached(
        "SELECT code, participant, count(*) AS open FROM letter WHERE closed IS NULL
         GROUP BY code, participant ORDER BY open DESC, code, participant",
    )?;
    let mut rows = statement.query([])?;
    let mut groups = Vec::new();
    while let Some(row) = rows.next()? {
        let participant: Option<String> = row.get(1)?;
        groups.push((row.get(0)?, participant.map(Participant::from), format::number(row, 2)?));
    }
    Ok(groups)
}
