//! The one row that says whose journal this is and how far it is. Invariant: every write begins by comparing epochs
//! with it, in the transaction that writes.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};
use sagahost_journal::{Identity, JournalError, PublicationNotes};
use sagahost_saga::id::{Time, hex};
use sagahost_wire::{BatchNo, Epoch, Partition, StreamNo};

use super::{
    Random,
    fault::{Fault, Outcome, failed},
    format::{int, number},
};

/// A journal has one stream.
pub(super) const STREAM: StreamNo = StreamNo(0);

/// The row, without what never changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) epoch: Epoch,
    pub(super) last_batch: BatchNo,
    pub(super) confirmed: BatchNo,
    pub(super) next_saga: i64,
}

pub(super) fn read(conn: &Connection) -> Outcome<Head> {
    let mut statement =
        conn.prepare_cached("SELECT epoch, last_batch, confirmed, next_saga FROM journal WHERE one = 1")?;
    let mut rows = statement.query([])?;
    let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    Ok(Head {
        epoch: Epoch(number(row, 0)?),
        last_batch: BatchNo(number(row, 1)?),
        confirmed: BatchNo(number(row, 2)?),
        next_saga: row.get(3)?,
    })
}

/// Refuses an owner that has been replaced.
pub(super) fn owned(conn: &Connection, ours: Epoch) -> Outcome<Head> {
    let head = read(conn)?;
    if head.epoch == ours { Ok(head) } else { Err(JournalError::StaleEpoch { newest: head.epoch, ours }.into()) }
}

pub(super) fn write(conn: &Connection, head: &Head) -> Outcome<()> {
    conn.prepare_cached("UPDATE journal SET last_batch = ?1, confirmed = ?2, next_saga = ?3 WHERE one = 1")?
        .execute(params![int(head.last_batch.0), int(head.confirmed.0), head.next_saga])?;
    Ok(())
}

/// A new owner: the next epoch and a new incarnation, whose first batch is the next one. Makes the row of a new journal.
pub(super) fn claim(conn: &Connection, app: &str, file: &str, random: Random) -> Outcome<Identity> {
    let known: Option<String> =
        conn.query_row("SELECT app FROM journal WHERE one = 1", [], |row| row.get(0)).optional()?;
    match known {
        None => {
            conn.execute(
                "INSERT INTO journal (one, id, app, epoch, last_batch, confirmed, next_saga)
                 VALUES (1, ?1, ?2, 0, 0, 0, 1)",
                params![random_hex::<16>(random)?, app],
            )?;
        }
        Some(known) if known == app => {}
        Some(known) => {
            return Err(JournalError::Unusable(format!(
                "{file} belongs to the app {known:?}, this host is the app {app:?}: set `app = {known:?}`, or give \
                 {app:?} a data directory of its own"
            ))
            .into());
        }
    }
    // Owners that journaled no batch leave no trace.
    conn.execute("DELETE FROM incarnation WHERE first_batch > (SELECT last_batch FROM journal)", [])?;
    conn.execute("UPDATE journal SET epoch = epoch + 1 WHERE one = 1", [])?;
    conn.execute(
        "INSERT INTO incarnation (epoch, name, first_batch) SELECT epoch, ?1, last_batch + 1 FROM journal",
        [random_hex::<8>(random)?],
    )?;
    conn.execute("DELETE FROM digest_set WHERE sagas <= 0", [])?;
    identity(conn)
}

pub(super) fn identity(conn: &Connection) -> Outcome<Identity> {
    let head = read(conn)?;
    let row = conn.query_row(
        "SELECT j.id, j.app, i.name, j.anchor_topic, j.anchor_number
         FROM journal j JOIN incarnation i ON i.epoch = j.epoch WHERE j.one = 1",
        [],
        |row| {
            let topic: Option<String> = row.get(3)?;
            let anchor = match topic {
                Some(topic) => Some(Partition::new(topic, row.get(4)?)),
                None => None,
            };
            Ok((row.get::<_, Arc<str>>(0)?, row.get::<_, Arc<str>>(1)?, row.get::<_, Arc<str>>(2)?, anchor))
        },
    )?;
    let (journal, app, incarnation, anchor) = row;
    let Head { epoch, last_batch, confirmed, .. } = head;
    Ok(Identity { journal, app, stream: STREAM, incarnation, epoch, last_batch, confirmed, anchor })
}

/// Who journaled a batch: the newest owner that began at or below it.
pub(super) fn incarnation_of(conn: &Connection, batch: BatchNo) -> Outcome<Option<Arc<str>>> {
    if batch.0 == 0 || batch > read(conn)?.last_batch {
        return Ok(None);
    }
    let mut statement =
        conn.prepare_cached("SELECT name FROM incarnation WHERE first_batch <= ?1 ORDER BY epoch DESC LIMIT 1")?;
    Ok(statement.query_row([int(batch.0)], |row| row.get(0)).optional()?)
}

pub(super) fn set_anchor(conn: &Connection, anchor: &Partition) -> Outcome<()> {
    conn.execute(
        "UPDATE journal SET anchor_topic = ?1, anchor_number = ?2 WHERE one = 1",
        params![anchor.topic, anchor.number],
    )?;
    Ok(())
}

pub(super) fn notes(conn: &Connection) -> Outcome<PublicationNotes> {
    let row = conn.query_row("SELECT not_out, touch_due FROM journal WHERE one = 1", [], |row| {
        Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
    })?;
    let known = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    Ok(PublicationNotes { not_out: known(row.0).map(BatchNo), touch_due: known(row.1).map(Time) })
}

pub(super) fn set_not_out(conn: &Connection, batch: Option<BatchNo>) -> Outcome<()> {
    conn.execute("UPDATE journal SET not_out = ?1 WHERE one = 1", [batch.map(|batch| int(batch.0))])?;
    Ok(())
}

pub(super) fn set_touch_due(conn: &Connection, due: Time) -> Outcome<()> {
    conn.execute("UPDATE journal SET touch_due = ?1 WHERE one = 1", [int(due.0)])?;
    Ok(())
}

/// Returns the journal's new id.
pub(super) fn new_lineage(conn: &Connection, random: Random) -> Outcome<Arc<str>> {
    let id = random_hex::<16>(random)?;
    conn.execute("UPDATE journal SET id = ?1 WHERE one = 1", [&id])?;
    Ok(Arc::from(id))
}

fn random_hex<const BYTES: usize>(random: Random) -> Outcome<String> {
    let mut bytes = [0; BYTES];
    random(&mut bytes).map_err(|error| -> Fault { failed(format!("failed to read random bytes: {error}")) })?;
    Ok(hex(&bytes))
}
