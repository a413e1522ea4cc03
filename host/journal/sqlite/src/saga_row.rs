//! The rows of sagas, as a batch writes them. Invariant: a key is given once and never to another saga, also after the
//! row was removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};
use sagahost_journal::{SagaKey, SagaWrite};
use sagahost_saga::{
    id::{SagaId, Time},
    input::{Status, Wake},
};

use super::{
    fault::{Outcome, failed},
    format::{self, int, json, note_hash, notes_cell, saga_id, status_code},
    packed::pack,
};

/// Statements and counts of one batch, so that a thousand sagas prepare nothing twice.
pub(super) struct Writer<'c> {
    conn: &'c Connection,
    known_by_key: CachedStatement<'c>,
    known_by_hash: CachedStatement<'c>,
    insert: CachedStatement<'c>,
    update: CachedStatement<'c>,
    /// Digest sets of this batch, and by how many sagas each is needed more or less.
    sets: BTreeMap<BTreeSet<Arc<str>>, i64>,
    set_changes: BTreeMap<i64, i64>,
}

/// Status, `wake_at`, `deadline_at`, `remove_at`, `waits_for_plugin`, `in_doubt`.
type Schedule = (i64, Option<i64>, Option<i64>, Option<i64>, bool, bool);

/// What a row says of its saga, as far as it is kept elsewhere too.
struct Known {
    key: i64,
    id: SagaId,
    notes: Option<String>,
    set: Option<i64>,
    quarantined: bool,
}

impl<'c> Writer<'c> {
    pub(super) fn new(conn: &'c Connection) -> Outcome<Self> {
        Ok(Self {
            conn,
            known_by_key: conn.prepare_cached("SELECT key, id, notes, digests, status FROM saga WHERE key = ?1")?,
            known_by_hash: conn
                .prepare_cached("SELECT key, id, notes, digests, status FROM saga WHERE hash = ?1 AND id = ?2")?,
            insert: conn.prepare_cached(
                "INSERT INTO saga (key, status, updated, wake_at, deadline_at, remove_at, waits_for_plugin, in_doubt,
                                   digests, notes, bytes, hash, id)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?,
            update: conn.prepare_cached(
                "UPDATE saga SET status = ?2, updated = ?3, wake_at = ?4, deadline_at = ?5, remove_at = ?6,
                                 waits_for_plugin = ?7, in_doubt = ?8, digests = ?9, notes = ?10, bytes = ?11
                 WHERE key = ?1",
            )?,
            sets: BTreeMap::new(),
            set_changes: BTreeMap::new(),
        })
    }

    /// Returns the row's key. A row that was removed meanwhile comes back under the key that it had.
    pub(super) fn write(&mut self, saga: &SagaWrite, hash: i64, next_key: &mut i64) -> Outcome<SagaKey> {
        let known = self.known(saga, hash)?;
        let notes = notes_cell(&saga.notes)?;
        let set = self.set(&saga.digests)?;
        let key = match (&known, saga.key) {
            (Some(known), _) => known.key,
            (None, Some(removed)) => removed.0,
            (None, None) => {
                *next_key += 1;
                *next_key - 1
            }
        };
        let Wake { at, deadline, remove_at, waits_for_plugin, in_doubt } = saga.wake;
        let cell = |time: Option<Time>| time.map(|time| int(time.0));
        let (at, deadline, remove_at) = (cell(at), cell(deadline), cell(remove_at));
        let (status, updated) = (status_code(saga.status), int(saga.updated.0));
        let bytes = pack(&saga.bytes);
        let row = (status, at, deadline, remove_at, waits_for_plugin, in_doubt);
        // It was staged before the saga went into quarantine: that stays, and the way back leads to what is written now.
        let (status, at, deadline, remove_at, waits_for_plugin, in_doubt) = match &known {
            Some(known) if known.quarantined => {
                self.keep_for_release(&saga.id, row)?;
                (status_code(Status::Quarantined), None, None, None, false, false)
            }
            Some(_) | None => row,
        };
        if let Some(known) = &known {
            self.update.execute(params![
                key,
                status,
                updated,
                at,
                deadline,
                remove_at,
                waits_for_plugin,
                in_doubt,
                set,
                notes,
                bytes
            ])?;
            if known.notes != notes {
                remove_notes(self.conn, key, known.notes.as_deref())?;
                self.index_notes(key, &saga.notes)?;
            }
        } else {
            let id = saga.id.as_str();
            self.insert.execute(params![
                key,
                status,
                updated,
                at,
                deadline,
                remove_at,
                waits_for_plugin,
                in_doubt,
                set,
                notes,
                bytes,
                hash,
                id
            ])?;
            self.index_notes(key, &saga.notes)?;
        }
        self.count_set(known.and_then(|known| known.set), set);
        self.spill(key, saga)?;
        Ok(SagaKey(key))
    }

    fn keep_for_release(&self, id: &SagaId, row: Schedule) -> Outcome<()> {
        let (status, at, deadline, remove_at, waits_for_plugin, in_doubt) = row;
        self.conn.execute(
            "UPDATE quarantine SET had_row = 1, status = ?2, wake_at = ?3, deadline_at = ?4, remove_at = ?5,
                                   waits_for_plugin = ?6, in_doubt = ?7
             WHERE id = ?1",
            params![id.as_str(), status, at, deadline, remove_at, waits_for_plugin, in_doubt],
        )?;
        Ok(())
    }

    /// To be called when all sagas of the batch are written.
    pub(super) fn finish(self) -> Outcome<()> {
        apply_set_changes(self.conn, &self.set_changes)
    }

    fn known(&mut self, saga: &SagaWrite, hash: i64) -> Outcome<Option<Known>> {
        let read = |row: &Row<'_>| {
            let quarantined = row.get::<_, i64>(4)? == status_code(Status::Quarantined);
            Ok(Known { key: row.get(0)?, id: saga_id(row, 1)?, notes: row.get(2)?, set: row.get(3)?, quarantined })
        };
        let known = match saga.key {
            Some(key) => self.known_by_key.query_row([key.0], read).optional()?,
            None => self.known_by_hash.query_row(params![hash, saga.id.as_str()], read).optional()?,
        };
        match known {
            Some(known) if known.id != saga.id => Err(failed(format!(
                "saga {} was to be written under the key {} of saga {}",
                saga.id, known.key, known.id
            ))),
            other => Ok(other),
        }
    }

    fn index_notes(&self, key: i64, notes: &[(String, String)]) -> Outcome<()> {
        for (name, value) in notes {
            self.conn
                .prepare_cached("INSERT INTO note (hash, saga) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
                .execute([note_hash(name, value), key])?;
        }
        Ok(())
    }

    fn spill(&self, key: i64, saga: &SagaWrite) -> Outcome<()> {
        for (event, data) in &saga.spilled_events {
            self.conn
                .prepare_cached(
                    "INSERT INTO spilled_event (saga, event, data) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                )?
                .execute(params![key, event, data])?;
        }
        for entry in &saga.spilled_history {
            self.conn
                .prepare_cached(
                    "INSERT INTO spilled_history (saga, seq, entry) VALUES
                     (?1, (SELECT ifnull(max(seq), 0) + 1 FROM spilled_history WHERE saga = ?1), ?2)",
                )?
                .execute(params![key, json(entry)?])?;
        }
        Ok(())
    }

    fn set(&mut self, digests: &BTreeSet<Arc<str>>) -> Outcome<Option<i64>> {
        if digests.is_empty() {
            return Ok(None);
        }
        if let Some(id) = self.sets.get(digests) {
            return Ok(Some(*id));
        }
        let text = json(digests)?;
        let known: Option<i64> = self
            .conn
            .prepare_cached("SELECT id FROM digest_set WHERE digests = ?1")?
            .query_row([&text], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                self.conn.prepare_cached("INSERT INTO digest_set (digests, sagas) VALUES (?1, 0)")?.execute([&text])?;
                self.conn.last_insert_rowid()
            }
        };
        self.sets.insert(digests.clone(), id);
        Ok(Some(id))
    }

    fn count_set(&mut self, before: Option<i64>, after: Option<i64>) {
        if before != after {
            before.into_iter().for_each(|id| *self.set_changes.entry(id).or_default() -= 1);
            after.into_iter().for_each(|id| *self.set_changes.entry(id).or_default() += 1);
        }
    }
}

pub(super) fn apply_set_changes(conn: &Connection, changes: &BTreeMap<i64, i64>) -> Outcome<()> {
    let mut statement = conn.prepare_cached("UPDATE digest_set SET sagas = sagas + ?2 WHERE id = ?1")?;
    for (id, change) in changes.iter().filter(|(_, change)| **change != 0) {
        statement.execute([id, change])?;
    }
    Ok(())
}

pub(super) fn remove_notes(conn: &Connection, key: i64, cell: Option<&str>) -> Outcome<()> {
    for (name, value) in format::notes(cell)? {
        conn.prepare_cached("DELETE FROM note WHERE hash = ?1 AND saga = ?2")?
            .execute([note_hash(&name, &value), key])?;
    }
    Ok(())
}
