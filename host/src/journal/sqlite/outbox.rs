//! Batches on their way out. Invariant: a batch's row goes only when a batch at or above it is known published.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Connection, params};

use super::{
    fault::{Outcome, failed},
    format::{self, int},
    head::{self, Head},
};
use crate::journal::{BatchNo, BatchWrite, OutboxBatch};

pub(super) fn add(conn: &Connection, batch: &BatchWrite) -> Outcome<()> {
    let body = format::outbox_cell(&batch.outbox, &batch.positions)?;
    conn.prepare_cached("INSERT INTO outbox (batch, body) VALUES (?1, ?2)")?
        .execute(params![int(batch.number.0), body])?;
    Ok(())
}

/// Never goes back: an older report is ignored.
pub(super) fn confirm(conn: &Connection, head: &mut Head, up_to: BatchNo) -> Outcome<()> {
    if up_to > head.last_batch {
        return Err(failed(format!(
            "batch {} cannot be confirmed: the last one journaled is {}",
            up_to.0, head.last_batch.0
        )));
    }
    if up_to > head.confirmed {
        head.confirmed = up_to;
        conn.prepare_cached("DELETE FROM outbox WHERE batch <= ?1")?.execute([int(up_to.0)])?;
        conn.prepare_cached("DELETE FROM outbox_skip WHERE batch <= ?1")?.execute([int(up_to.0)])?;
    }
    Ok(())
}

pub(super) fn skip(conn: &Connection, batch: BatchNo, record: usize, reason: &str) -> Outcome<()> {
    let body = conn.query_row("SELECT body FROM outbox WHERE batch = ?1", [int(batch.0)], |row| row.get(0));
    let body: Vec<u8> = match body {
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            return Err(failed(format!("batch {} is not in the outbox: it is published or was never there", batch.0)));
        }
        other => other?,
    };
    let records = format::outbox(&body)?.0.len();
    if record >= records {
        return Err(failed(format!("batch {} has {records} records, none has the index {record}", batch.0)));
    }
    conn.execute(
        "INSERT INTO outbox_skip (batch, record, reason) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET reason = excluded.reason",
        params![int(batch.0), int(record as u64), reason],
    )?;
    Ok(())
}

/// In order.
pub(super) fn list(conn: &Connection, above: BatchNo, limit: usize) -> Outcome<Vec<OutboxBatch>> {
    let mut statement =
        conn.prepare_cached("SELECT batch, body FROM outbox WHERE batch > ?1 ORDER BY batch LIMIT ?2")?;
    let mut rows = statement.query([int(above.0), int(limit as u64)])?;
    let mut batches = Vec::new();
    while let Some(row) = rows.next()? {
        let number = BatchNo(format::number(row, 0)?);
        let (records, positions) = format::outbox(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let incarnation = head::incarnation_of(conn, number)?.unwrap_or_else(|| Arc::from(""));
        batches.push(OutboxBatch { number, incarnation, records, positions, skipped: skipped(conn, number)? });
    }
    Ok(batches)
}

fn skipped(conn: &Connection, batch: BatchNo) -> Outcome<BTreeMap<usize, String>> {
    let mut statement = conn.prepare_cached("SELECT record, reason FROM outbox_skip WHERE batch = ?1")?;
    let mut rows = statement.query([int(batch.0)])?;
    let mut skipped = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let record = usize::try_from(format::number(row, 0)?).unwrap_or(usize::MAX);
        skipped.insert(record, row.get(1)?);
    }
    Ok(skipped)
}
