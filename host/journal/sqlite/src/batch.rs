//! One batch, in one transaction. Invariant: the numbers have no gaps, and nothing here is done by halves: the caller
//! commits all of it or nothing.

use std::sync::Arc;

use rusqlite::{Connection, params};
use sagahost_journal::{BatchWrite, SagaKey};
use sagahost_saga::id::{Participant, SagaId};
use sagahost_wire::{BatchNo, Partition, Position};

use super::{
    fault::{Outcome, failed},
    format::int,
    head::Head,
    letter, outbox, saga_row,
};

/// Returns the keys of sagas that came without one.
pub(super) fn write(
    conn: &Connection,
    head: &mut Head,
    batch: &BatchWrite,
    hash: fn(&SagaId) -> i64,
) -> Outcome<Vec<(SagaId, SagaKey)>> {
    check_number(head, batch)?;
    outbox::add(conn, batch)?;
    write_values(conn, batch)?;
    write_positions(conn, batch)?;
    letter::write(conn, &batch.letters)?;
    let keys = write_sagas(conn, head, batch, hash)?;
    for id in &batch.commands_done {
        conn.prepare_cached("DELETE FROM command WHERE id = ?1")?.execute([id])?;
    }
    head.last_batch = batch.number;
    outbox::confirm(conn, head, batch.confirmed)?;
    Ok(keys)
}

fn check_number(head: &Head, batch: &BatchWrite) -> Outcome<()> {
    let BatchNo(last) = head.last_batch;
    if batch.number.0 != last + 1 {
        return Err(failed(format!(
            "batch {} cannot be journaled: the last one is {last}, so the next must be {}",
            batch.number.0,
            last + 1
        )));
    }
    if batch.confirmed > head.last_batch {
        return Err(failed(format!(
            "batch {} says that {} is published, which is not journaled yet",
            batch.number.0, batch.confirmed.0
        )));
    }
    Ok(())
}

fn write_sagas(
    conn: &Connection,
    head: &mut Head,
    batch: &BatchWrite,
    hash: fn(&SagaId) -> i64,
) -> Outcome<Vec<(SagaId, SagaKey)>> {
    let mut writer = saga_row::Writer::new(conn)?;
    let mut keys = Vec::new();
    for write in &batch.sagas {
        let key = writer.write(write, hash(&write.id), &mut head.next_saga)?;
        if write.key.is_none() {
            keys.push((write.id.clone(), key));
        }
    }
    writer.finish()?;
    Ok(keys)
}

fn write_values(conn: &Connection, batch: &BatchWrite) -> Outcome<()> {
    for ((participant, key), value) in &batch.store {
        write_value(conn, participant, key, value.as_ref())?;
    }
    let mut set = conn.prepare_cached(
        "INSERT INTO counter (participant, name, value) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET value = excluded.value",
    )?;
    for ((participant, name), value) in &batch.counters {
        set.execute(params![participant.as_str(), name, value])?;
    }
    Ok(())
}

fn write_value(conn: &Connection, participant: &Participant, key: &str, value: Option<&Arc<[u8]>>) -> Outcome<()> {
    match value {
        Some(value) => conn
            .prepare_cached(
                "INSERT INTO store (participant, key, value) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET value = excluded.value",
            )?
            .execute(params![participant.as_str(), key, &**value])?,
        None => conn
            .prepare_cached("DELETE FROM store WHERE participant = ?1 AND key = ?2")?
            .execute([participant.as_str(), key])?,
    };
    Ok(())
}

fn write_positions(conn: &Connection, batch: &BatchWrite) -> Outcome<()> {
    batch.positions.iter().try_for_each(|(partition, position)| write_position(conn, partition, position))
}

pub(super) fn write_position(conn: &Connection, partition: &Partition, position: &Position) -> Outcome<()> {
    let mut set = conn.prepare_cached(
        "INSERT INTO position (topic, number, next, last_offset, last_timestamp, topic_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET next = excluded.next, last_offset = excluded.last_offset,
                                   last_timestamp = excluded.last_timestamp, topic_id = excluded.topic_id",
    )?;
    let (offset, timestamp) = position.last.map(|(offset, timestamp)| (offset, int(timestamp))).unzip();
    let topic_id = position.topic_id.as_ref().map(|id| &*id.0);
    set.execute(params![partition.topic, partition.number, position.next, offset, timestamp, topic_id])?;
    Ok(())
}
