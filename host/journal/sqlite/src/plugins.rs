//! Which versions of plugins were admitted, what became of them, and what was done to them. Invariant: one version of a
//! participant serves at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rusqlite::{Connection, params};
use sagahost_journal::{AdmittedRow, PluginHistoryEntry, PluginWrite};
use sagahost_saga::id::Participant;
use sagahost_wire::Generation;

use super::{
    fault::Outcome,
    format::{from_json, int, number, time},
};

/// Deeds that are kept of each participant.
const DEEDS_KEPT: i64 = 200;

pub(super) fn admitted(conn: &Connection) -> Outcome<Vec<AdmittedRow>> {
    let mut statement = conn.prepare_cached(
        "SELECT participant, digest, manifest, admitted, since, serving, quarantined, file, config FROM admitted
         ORDER BY participant, rowid",
    )?;
    let mut rows = statement.query([])?;
    let mut admitted = Vec::new();
    while let Some(row) = rows.next()? {
        admitted.push(AdmittedRow {
            participant: Participant::from(row.get::<_, String>(0)?),
            digest: row.get(1)?,
            manifest: row.get(2)?,
            admitted: time(row, 3)?,
            since: Generation(number(row, 4)?),
            serving: row.get(5)?,
            quarantined: row.get(6)?,
            file: row.get(7)?,
            config: row.get(8)?,
        });
    }
    Ok(admitted)
}

pub(super) fn paused(conn: &Connection) -> Outcome<BTreeMap<Participant, String>> {
    let mut statement = conn.prepare_cached("SELECT participant, why FROM paused")?;
    let rows = statement.query_map([], |row| Ok((Participant::from(row.get::<_, String>(0)?), row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The newest first.
pub(super) fn history(conn: &Connection, participant: &Participant, limit: usize) -> Outcome<Vec<PluginHistoryEntry>> {
    let mut statement = conn.prepare_cached(
        "SELECT at, digest, config, what FROM plugin_deed WHERE participant = ?1 ORDER BY id DESC LIMIT ?2",
    )?;
    let mut rows = statement.query(params![participant.as_str(), int(limit as u64)])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(PluginHistoryEntry {
            participant: participant.clone(),
            at: time(row, 0)?,
            digest: row.get(1)?,
            config: row.get(2)?,
            what: row.get(3)?,
        });
    }
    Ok(entries)
}

/// Digests that unfinished sagas refer to, and how many of them do.
pub(super) fn referenced(conn: &Connection) -> Outcome<BTreeMap<Arc<str>, u64>> {
    let mut statement = conn.prepare_cached("SELECT digests, sagas FROM digest_set WHERE sagas > 0")?;
    let mut rows = statement.query([])?;
    let mut all = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let digests = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let digests: BTreeSet<Arc<str>> = from_json(digests, "a set of digests")?;
        let sagas = number(row, 1)?;
        for digest in digests {
            *all.entry(digest).or_default() += sagas;
        }
    }
    Ok(all)
}

pub(super) fn write(conn: &Connection, write: &PluginWrite) -> Outcome<()> {
    for row in &write.admitted {
        admit(conn, row)?;
    }
    for (participant, digest, why) in &write.quarantined {
        conn.execute(
            "UPDATE admitted SET quarantined = ?3 WHERE participant = ?1 AND digest = ?2",
            params![participant.as_str(), digest, why],
        )?;
    }
    for (participant, digest) in &write.forgotten {
        conn.execute(
            "DELETE FROM admitted WHERE participant = ?1 AND digest = ?2 AND serving = 0 AND quarantined IS NULL",
            params![participant.as_str(), digest],
        )?;
    }
    for (participant, why) in &write.paused {
        match why {
            Some(why) => conn.execute("INSERT OR REPLACE INTO paused VALUES (?1, ?2)", [participant.as_str(), why])?,
            None => conn.execute("DELETE FROM paused WHERE participant = ?1", [participant.as_str()])?,
        };
    }
    write.history.iter().try_for_each(|entry| note(conn, entry))
}

fn admit(conn: &Connection, row: &AdmittedRow) -> Outcome<()> {
    let participant = row.participant.as_str();
    if row.serving {
        conn.execute("UPDATE admitted SET serving = 0 WHERE participant = ?1", [participant])?;
    }
    conn.execute(
        "INSERT INTO admitted (participant, digest, manifest, admitted, since, serving, file, config)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT DO UPDATE SET manifest = excluded.manifest, admitted = excluded.admitted, since = excluded.since,
                                   serving = excluded.serving, file = excluded.file, config = excluded.config",
        params![
            participant,
            row.digest,
            row.manifest,
            int(row.admitted.0),
            int(row.since.0),
            row.serving,
            row.file,
            row.config
        ],
    )?;
    Ok(())
}

fn note(conn: &Connection, entry: &PluginHistoryEntry) -> Outcome<()> {
    let participant = entry.participant.as_str();
    conn.execute(
        "INSERT INTO plugin_deed (participant, at, digest, config, what) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![participant, int(entry.at.0), entry.digest, entry.config, entry.what],
    )?;
    conn.execute(
        "DELETE FROM plugin_deed WHERE participant = ?1 AND id <=
             (SELECT id FROM plugin_deed WHERE participant = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        params![participant, DEEDS_KEPT],
    )?;
    Ok(())
}
