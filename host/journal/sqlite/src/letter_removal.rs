//! Dead letters leave the journal: closed ones after their time, and those of records that could not be decoded beyond
//! their bounds. Invariant: what goes open is counted in the transaction that removes it, and none goes that a saga may need.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use sagahost_journal::{LetterRemoval, LetterRetention, RemovedLetters};
use sagahost_saga::id::{SagaId, Time};

use super::{
    fault::Outcome,
    format::{self, int, number},
};

pub(super) const CLOSED: &str = "SELECT seq FROM letter WHERE closed_at < ?1 ORDER BY closed_at LIMIT ?2";
pub(super) const UNDECODABLE: &str = "
    SELECT seq, at, bytes, code, saga FROM letter WHERE kind IS NULL AND closed IS NULL ORDER BY at";
pub(super) const UNDECODABLE_TOTAL: &str = "
    SELECT count(*), coalesce(sum(bytes), 0) FROM letter WHERE kind IS NULL AND closed IS NULL";

pub(super) fn remove(
    conn: &Connection,
    now: Time,
    may_go: &LetterRetention,
    limit: usize,
    hash: fn(&SagaId) -> i64,
) -> Outcome<LetterRemoval> {
    let mut statement = conn.prepare_cached(&format!("DELETE FROM letter WHERE seq IN ({CLOSED})"))?;
    let closed = statement.execute([int(may_go.closed_before.0), int(limit as u64)])?;
    let (rows, undecodable) = going(conn, now, may_go, limit, hash)?;
    for seq in rows {
        conn.prepare_cached("DELETE FROM letter WHERE seq = ?1")?.execute([seq])?;
    }
    undecodable.iter().try_for_each(|removed| count(conn, removed))?;
    Ok(LetterRemoval { closed, undecodable })
}

/// Their rows, and what they come to by code.
fn going(
    conn: &Connection,
    now: Time,
    may_go: &LetterRetention,
    limit: usize,
    hash: fn(&SagaId) -> i64,
) -> Outcome<(Vec<i64>, Vec<RemovedLetters>)> {
    let (mut letters, mut total) = conn.prepare_cached(UNDECODABLE_TOTAL)?.query_row([], |row| {
        let totals: (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok((totals.0.unsigned_abs(), totals.1.unsigned_abs()))
    })?;
    let mut by_code: BTreeMap<String, RemovedLetters> = BTreeMap::new();
    let mut going = Vec::new();
    let mut statement = conn.prepare_cached(UNDECODABLE)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (at, bytes) = (format::time(row, 1)?, number(row, 2)?);
        let within = letters <= may_go.undecodable_max && total <= may_go.undecodable_bytes_max;
        if going.len() == limit || (within && at >= may_go.undecodable_before) {
            break;
        }
        let saga: Option<String> = row.get(4)?;
        if let Some(saga) = saga.map(SagaId::from)
            && is_open(conn, &saga, hash(&saga))?
        {
            continue;
        }
        going.push(row.get(0)?);
        (letters, total) = (letters.saturating_sub(1), total.saturating_sub(bytes));
        let code: String = row.get(3)?;
        let none = RemovedLetters { code: code.clone(), letters: 0, bytes: 0, last: now };
        let removed = by_code.entry(code).or_insert(none);
        (removed.letters, removed.bytes) = (removed.letters + 1, removed.bytes + bytes);
    }
    Ok((going, by_code.into_values().collect()))
}

/// It is in the journal, and has not ended.
fn is_open(conn: &Connection, id: &SagaId, hash: i64) -> Outcome<bool> {
    let mut statement =
        conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM saga WHERE hash = ?1 AND id = ?2 AND remove_at IS NULL)")?;
    Ok(statement.query_row(params![hash, id.as_str()], |row| row.get(0))?)
}

fn count(conn: &Connection, removed: &RemovedLetters) -> Outcome<()> {
    conn.prepare_cached(
        "INSERT INTO letter_removed (code, letters, bytes, last) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (code) DO UPDATE SET letters = letters + excluded.letters, bytes = bytes + excluded.bytes,
                                          last = excluded.last",
    )?
    .execute(params![removed.code, int(removed.letters), int(removed.bytes), int(removed.last.0)])?;
    Ok(())
}

pub(super) fn so_far(conn: &Connection) -> Outcome<Vec<RemovedLetters>> {
    let mut statement = conn.prepare_cached("SELECT code, letters, bytes, last FROM letter_removed ORDER BY code")?;
    let mut rows = statement.query([])?;
    let mut removed = Vec::new();
    while let Some(row) = rows.next()? {
        let (letters, bytes) = (number(row, 1)?, number(row, 2)?);
        removed.push(RemovedLetters { code: row.get(0)?, letters, bytes, last: format::time(row, 3)? });
    }
    Ok(removed)
}
