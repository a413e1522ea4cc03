//! Batches on their way out. Invariant: a batch's row is removed only when a batch at or above it is known published.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Connection, params};
use sagahost_codec::copied_letter;
use sagahost_journal::{BatchWrite, LeftOut, OutboxBatch};
use sagahost_wire::BatchNo;

use super::{
    fault::{Outcome, failed},
    format::{self, int},
    head::{self, Head},
    letter,
};

pub(super) fn add(conn: &Connection, batch: &BatchWrite) -> Outcome<()> {
    let body = format::outbox_cell(&batch.outbox, &batch.positions)?;
    conn.prepare_cached("INSERT INTO outbox (batch, body, at) VALUES (?1, ?2, ?3)")?.execute(params![
        int(batch.number.0),
        body,
        int(batch.at.0)
    ])?;
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

pub(super) fn leave_out(conn: &Connection, batch: BatchNo, record: usize, what: LeftOut, reason: &str) -> Outcome<()> {
    let body = conn.query_row("SELECT body FROM outbox WHERE batch = ?1", [int(batch.0)], |row| row.get(0));
    let body: Vec<u8> = match body {
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            return Err(failed(format!("batch {} is not in the outbox: it is published or was never there", batch.0)));
        }
        other => other?,
    };
    let records = format::outbox(&body)?.0;
    let Some(left_out) = records.get(record) else {
        let count = records.len();
        return Err(failed(format!("batch {} has {count} records, none has the index {record}", batch.0)));
    };
    if let Some(letter) = copied_letter(left_out) {
        letter::note_copy(conn, letter, what, reason)?;
    }
    conn.execute(
        "INSERT INTO outbox_skip (batch, record, reason, what) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET reason = excluded.reason, what = excluded.what",
        params![int(batch.0), int(record as u64), reason, what == LeftOut::Value],
    )?;
    Ok(())
}

/// In order.
pub(super) fn list(conn: &Connection, above: BatchNo, limit: usize) -> Outcome<Vec<OutboxBatch>> {
    let mut statement =
        conn.prepare_cached("SELECT batch, body, at FROM outbox WHERE batch > ?1 ORDER BY batch LIMIT ?2")?;
    let mut rows = statement.query([int(above.0), int(limit as u64)])?;
    let mut batches = Vec::new();
    while let Some(row) = rows.next()? {
        let number = BatchNo(format::number(row, 0)?);
        let (records, positions) = format::outbox(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let incarnation = head::incarnation_of(conn, number)?.unwrap_or_else(|| Arc::from(""));
        let at = format::time(row, 2)?;
        let (skipped, valueless) = (left_out(conn, number, LeftOut::Row)?, left_out(conn, number, LeftOut::Value)?);
        batches.push(OutboxBatch { number, incarnation, records, positions, skipped, valueless, at });
    }
    Ok(batches)
}

fn left_out(conn: &Connection, batch: BatchNo, what: LeftOut) -> Outcome<BTreeMap<usize, String>> {
    let mut statement = conn.prepare_cached("SELECT record, reason FROM outbox_skip WHERE batch = ?1 AND what = ?2")?;
    let mut rows = statement.query(params![int(batch.0), what == LeftOut::Value])?;
    let mut skipped = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let record = usize::try_from(format::number(row, 0)?).unwrap_or(usize::MAX);
        skipped.insert(record, row.get(1)?);
    }
    Ok(skipped)
}
