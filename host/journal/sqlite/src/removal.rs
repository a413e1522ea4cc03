//! Sagas leave the journal: after their retention, or into quarantine. Invariant: a saga goes with everything that
//! belongs to it, and never while one of its letters is open.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, params};
use sagahost_journal::{PageBounds, requests};
use sagahost_saga::{
    id::{SagaId, Time},
    input::Status,
};

use super::{
    data,
    fault::{Outcome, failed},
    format::{int, status_code},
    head::Head,
    saga_row,
};

pub(super) const FINISHED: &str = "
    SELECT key, id, notes, digests FROM saga WHERE remove_at <= ?1
       AND NOT EXISTS (SELECT 1 FROM letter WHERE letter.saga = saga.id AND letter.closed IS NULL)
    ORDER BY remove_at LIMIT ?2";

/// The children of a saga's row.
const CHILDREN: [&str; 2] =
    ["DELETE FROM spilled_event WHERE saga = ?1", "DELETE FROM spilled_history WHERE saga = ?1"];

struct Finished {
    key: i64,
    id: String,
    notes: Option<String>,
    set: Option<i64>,
}

/// Rows of requests that go at once; the rest of a bite waits for the next one.
const REQUEST_ROWS_MAX: usize = 10_000;

/// At most `limit`; returns how many.
pub(super) fn remove_finished(conn: &Connection, now: Time, limit: usize) -> Outcome<usize> {
    let mut statement = conn.prepare_cached(FINISHED)?;
    let finished = statement
        .query_map([int(now.0), int(limit as u64)], |row| {
            Ok(Finished { key: row.get(0)?, id: row.get(1)?, notes: row.get(2)?, set: row.get(3)? })
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let mut sets = BTreeMap::new();
    let (mut removed, mut rows) = (0, 0);
    for saga in &finished {
        if rows >= REQUEST_ROWS_MAX {
            break;
        }
        rows += remove(conn, saga)?;
        removed += 1;
        saga.set.into_iter().for_each(|id| *sets.entry(id).or_default() -= 1);
    }
    saga_row::apply_set_changes(conn, &sets)?;
    Ok(removed)
}

/// Returns how many rows of requests went with it.
fn remove(conn: &Connection, saga: &Finished) -> Outcome<usize> {
    saga_row::remove_notes(conn, saga.key, saga.notes.as_deref())?;
    for sql in CHILDREN {
        conn.prepare_cached(sql)?.execute([saga.key])?;
    }
    let rows = remove_requests(conn, &SagaId::new(&saga.id))?;
    conn.prepare_cached("DELETE FROM letter WHERE saga = ?1")?.execute([&saga.id])?;
    conn.prepare_cached("DELETE FROM quarantine WHERE id = ?1")?.execute([&saga.id])?;
    conn.prepare_cached("DELETE FROM saga WHERE key = ?1")?.execute([saga.key])?;
    Ok(rows)
}

/// What a saga was asked over HTTP: its keys may be used for something else from now on.
fn remove_requests(conn: &Connection, saga: &SagaId) -> Outcome<usize> {
    const PAGE: PageBounds = PageBounds { entries: 100, bytes: 1 << 20 };
    let (owner, prefix) = (requests::owner(), requests::saga_prefix(saga));
    let mut rows_gone = 0;
    let mut delete = conn.prepare_cached("DELETE FROM store WHERE participant = ?1 AND key = ?2")?;
    loop {
        let page = data::scan(conn, &owner, &prefix, None, PAGE)?;
        for (key, _) in &page.rows {
            let request = Some(&key[prefix.len()..]).filter(|rest| !rest.contains('/'));
            let rows = |request| [requests::key(request), requests::answer(request), requests::undone(request)];
            let rows = request.into_iter().flat_map(rows);
            for (_, key) in rows.chain([(owner.clone(), key.clone())]) {
                rows_gone += delete.execute([owner.as_str(), &key])?;
            }
        }
        if page.complete {
            return Ok(rows_gone);
        }
    }
}

/// The saga's timers stop; its bytes stay as they are. A saga without a row gets one without bytes, so that it is
/// listed. Again: only the reason changes.
pub(super) fn quarantine(conn: &Connection, head: &mut Head, id: &SagaId, hash: i64, why: &str) -> Outcome<()> {
    let name = id.as_str();
    if conn.execute("UPDATE quarantine SET why = ?2 WHERE id = ?1", [name, why])? > 0 {
        return Ok(());
    }
    let key: Option<i64> = conn
        .query_row("SELECT key FROM saga WHERE hash = ?1 AND id = ?2", params![hash, name], |row| row.get(0))
        .optional()?;
    let had_row = key.is_some();
    let key = key.unwrap_or(head.next_saga);
    if !had_row {
        head.next_saga += 1;
        conn.execute(
            "INSERT INTO saga (key, hash, status, updated, waits_for_plugin, in_doubt, id, bytes)
             VALUES (?1, ?2, ?3, 0, 0, 0, ?4, x'')",
            params![key, hash, status_code(Status::Waiting), name],
        )?;
    }
    conn.execute(
        "INSERT INTO quarantine (id, why, had_row, status, wake_at, deadline_at, remove_at, waits_for_plugin, in_doubt)
         SELECT id, ?2, ?3, status, wake_at, deadline_at, remove_at, waits_for_plugin, in_doubt
         FROM saga WHERE key = ?1",
        params![key, why, had_row],
    )?;
    conn.execute(
        "UPDATE saga SET status = ?2, wake_at = NULL, deadline_at = NULL, remove_at = NULL, waits_for_plugin = 0,
                         in_doubt = 0
         WHERE key = ?1",
        params![key, status_code(Status::Quarantined)],
    )?;
    Ok(())
}

/// The way back: the row says again what it said before.
pub(super) fn release(conn: &Connection, id: &SagaId, hash: i64) -> Outcome<()> {
    let name = id.as_str();
    let had_row: Option<bool> =
        conn.query_row("SELECT had_row FROM quarantine WHERE id = ?1", [name], |row| row.get(0)).optional()?;
    let quarantined = status_code(Status::Quarantined);
    match had_row {
        None => return Err(failed(format!("saga {id} is not in quarantine"))),
        Some(true) => conn.execute(
            "UPDATE saga SET status = q.status, wake_at = q.wake_at, deadline_at = q.deadline_at,
                             remove_at = q.remove_at, waits_for_plugin = q.waits_for_plugin, in_doubt = q.in_doubt
             FROM quarantine q WHERE q.id = ?2 AND saga.hash = ?1 AND saga.id = ?2 AND saga.status = ?3",
            params![hash, name, quarantined],
        )?,
        Some(false) => conn.execute(
            "DELETE FROM saga WHERE hash = ?1 AND id = ?2 AND status = ?3",
            params![hash, name, quarantined],
        )?,
    };
    conn.execute("DELETE FROM quarantine WHERE id = ?1", [name])?;
    Ok(())
}

pub(super) fn quarantined(conn: &Connection, id: &SagaId) -> Outcome<Option<String>> {
    let mut statement = conn.prepare_cached("SELECT why FROM quarantine WHERE id = ?1")?;
    Ok(statement.query_row([id.as_str()], |row| row.get(0)).optional()?)
}
