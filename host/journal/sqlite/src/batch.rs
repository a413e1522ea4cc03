//! One batch, in one transaction. Invariant: the numbers have no gaps, and nothing here is done by halves: the caller
//! commits all of it or nothing.

use std::sync::Arc;

use rusqlite::{Connection, params};
use sagahost_journal::{BatchWrite, Contended, Name, SagaKey, Stale, Version};
use sagahost_saga::id::SagaId;
use sagahost_wire::{BatchNo, Partition, Position};

use super::{
    data,
    fault::{Fault, Outcome, failed},
    format::int,
    head::{self, Head},
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
    let mut contended = stale_reads(conn, batch)?;
    write_counters(conn, batch, &mut contended)?;
    if !contended.is_empty() {
        return Err(Fault::Conflict(contended));
    }
    outbox::add(conn, batch)?;
    write_store(conn, batch)?;
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

/// Keys that another writer changed since they were read.
fn stale_reads(conn: &Connection, batch: &BatchWrite) -> Outcome<Vec<Contended>> {
    let mut stale = Vec::new();
    for (name, seen) in &batch.store_read {
        if data::version(conn, name)? != *seen {
            stale.push(Contended::Key(name.clone()));
        }
    }
    Ok(stale)
}

fn write_counters(conn: &Connection, batch: &BatchWrite, contended: &mut Vec<Contended>) -> Outcome<()> {
    let mut set = conn.prepare_cached(
        "INSERT INTO counter (participant, name, value) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET value = excluded.value",
    )?;
    for (counter, write) in &batch.counters {
        let (participant, name) = counter;
        let there = data::counter(conn, participant, name)?;
        match write.apply(there) {
            Ok(Some(value)) if there != Some(value) => {
                set.execute(params![participant.as_str(), name, value])?;
            }
            Ok(_) => {}
            Err(Stale) => contended.push(Contended::Counter(counter.clone())),
        }
    }
    Ok(())
}

fn write_store(conn: &Connection, batch: &BatchWrite) -> Outcome<()> {
    let version = Version { stream: head::STREAM, batch: batch.number };
    batch.store.iter().try_for_each(|(name, value)| write_key(conn, name, value.as_ref(), version))
}

fn write_key(conn: &Connection, (participant, key): &Name, value: Option<&Arc<[u8]>>, at: Version) -> Outcome<()> {
    match value {
        Some(value) => conn
            .prepare_cached(
                "INSERT INTO store (participant, key, value, stream, batch) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET value = excluded.value, stream = excluded.stream, batch = excluded.batch",
            )?
            .execute(params![participant.as_str(), key, &**value, at.stream.0, int(at.batch.0)])?,
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
