//! What goes with a version's bytes when nobody needs them any more. Invariant: what the journal says of batches and
//! kinds stays the same, whichever of its rows go.

use std::{collections::BTreeSet, sync::Arc};

use sagahost_journal::{AdmittedRow, Journal, PluginWrite};
use sagahost_manifest::Manifest;
use sagahost_saga::id::{Kind, Time};
use tracing::info;

use super::{Plugins, PluginsError, kinds_read};

impl Plugins {
    /// Of versions whose bytes are gone: compiled code from before `since`, and rows of the journal. `needed`: digests
    /// that are kept.
    pub(super) fn forget(
        &self,
        needed: &BTreeSet<Arc<str>>,
        since: Time,
        journal: &dyn Journal,
    ) -> Result<(), PluginsError> {
        let kept = |digest: &str| needed.contains(digest) || self.archive.has(digest);
        let removed =
            self.admission.forget_compiled(&kept, since).map_err(|source| PluginsError::Compiled { source })?;
        let rows = forgettable(&self.rows, kept);
        if removed > 0 || !rows.is_empty() {
            info!(files = removed, versions = rows.len(), "forgotten: compiled code and versions that are not kept");
        }
        if rows.is_empty() {
            return Ok(());
        }
        let forgotten = rows.into_iter().map(|row| (row.participant.clone(), row.digest.clone())).collect();
        let write = PluginWrite { forgotten, ..PluginWrite::default() };
        Ok(journal.change_plugins(journal.identity().epoch, &write)?)
    }
}

/// Rows that neither serve nor are in quarantine nor are `kept`, and that say nothing which another row of their
/// participant does not say: from which batch on it takes which kinds (`Plugins::since`), and that it was here.
fn forgettable(rows: &[AdmittedRow], kept: impl Fn(&str) -> bool) -> Vec<&AdmittedRow> {
    let idle = |row: &&AdmittedRow| !row.serving && row.quarantined.is_none() && !kept(&row.digest);
    let (mut idle, mut stay): (Vec<&AdmittedRow>, Vec<&AdmittedRow>) = rows.iter().partition(idle);
    idle.sort_by_key(|row| row.since);
    let mut forgotten = Vec::new();
    for row in idle {
        let known = if said_by(row, &stay) { &mut forgotten } else { &mut stay };
        known.push(row);
    }
    forgotten
}

/// Does each of its kinds stand in a row that is at least as old? What cannot be read is not judged.
fn said_by(row: &AdmittedRow, others: &[&AdmittedRow]) -> bool {
    let Some(of_row) = row.manifest() else { return false };
    let older = others.iter().filter(|other| other.participant == row.participant && other.since <= row.since);
    let older: Vec<Manifest> = older.filter_map(|other| other.manifest()).collect();
    let said = |kind: Kind| older.iter().any(|manifest| kinds_read(manifest).any(|known| known == kind));
    !older.is_empty() && kinds_read(&of_row).all(said)
}

#[cfg(test)]
mod tests {
    use sagahost_saga::id::{Participant, Time};

    use super::*;
    use sagahost_wire::Generation;

    fn row(participant: &str, digest: &str, since: u64, kinds: &[&str]) -> AdmittedRow {
        let subscriptions: Vec<_> = kinds.iter().map(|kind| serde_json::json!({ "kind": kind })).collect();
        let manifest = serde_json::json!({
            "name": participant, "version": digest, "contract": "0.1.0", "subscriptions": subscriptions,
        });
        AdmittedRow {
            participant: Participant::from(participant),
            digest: Arc::from(digest),
            manifest: manifest.to_string(),
            admitted: Time(1),
            since: Generation(since),
            serving: false,
            quarantined: None,
            file: String::new(),
            config: Arc::from("c"),
        }
    }

    fn forgotten(rows: &[AdmittedRow]) -> Vec<&str> {
        forgettable(rows, |digest| digest.starts_with("kept")).into_iter().map(|row| &*row.digest).collect()
    }

    #[test]
    fn the_oldest_row_of_each_kind_is_not_forgotten() {
        let serving = AdmittedRow { serving: true, ..row("a", "serving", 90, &["A"]) };
        let rows = [
            row("a", "first", 0, &["A"]),
            row("a", "second", 5, &["A"]),
            row("a", "with-b", 7, &["A", "B"]),
            row("a", "with-b-again", 8, &["B"]),
            row("a", "kept", 9, &["A"]),
            AdmittedRow { quarantined: Some("it fails".to_owned()), ..row("a", "bad", 20, &["A"]) },
            serving,
        ];
        assert_eq!(forgotten(&rows), ["second", "with-b-again"]);
    }

    #[test]
    fn a_participant_and_its_batches_are_its_own() {
        assert_eq!(forgotten(&[row("a", "first", 3, &["A"]), row("b", "other", 0, &["A"])]), Vec::<&str>::new());
        assert_eq!(forgotten(&[row("a", "first", 3, &[]), row("a", "second", 3, &[])]), ["second"]);
        let unreadable = AdmittedRow { manifest: "?".to_owned(), ..row("a", "second", 5, &["A"]) };
        assert_eq!(forgotten(&[row("a", "first", 0, &["A"]), unreadable]), Vec::<&str>::new());
    }
}
