//! What serves when a host begins. Invariant: the same set that would serve had the host been running all the time: a
//! file that went bad meanwhile takes nobody out of service, and what changed with it waits for it.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Result, bail};
use sagahost_saga::id::Participant;
use sagahost_sandbox::{Report, directory::Reading};
use tracing::{error, info, warn};

use super::{Plugins, Serving};
use crate::{
    clock::Clock,
    journal::{AdmittedRow, BatchNo, Journal},
};

/// What the host goes on with.
pub struct Beginning {
    pub refused: Vec<Report>,
    /// Files that wait for one that is refused.
    pub waiting: BTreeSet<PathBuf>,
}

impl Plugins {
    /// Reads the directory for the first time, and keeps and journals what is admitted.
    pub fn start(&mut self, journal: &dyn Journal, clock: &dyn Clock) -> Result<Beginning> {
        self.refresh(journal)?;
        let reading = self.read();
        if self.config.strict && !reading.refused.is_empty() {
            let reports = lines(&reading.refused);
            bail!("not started, as `strict` asks: not every file of the plugin directory is admitted{reports}");
        }
        let mut serving: Serving =
            reading.admitted.iter().map(|admitted| (admitted.file.clone(), admitted.clone())).collect();
        let waiting = self.stand_in(&mut serving, &reading);
        let since = BatchNo(journal.identity().last_batch.0 + 1);
        let admitted: Vec<_> = serving.values().cloned().collect();
        self.keep(&admitted, since, journal, clock)?;
        self.serving = serving;
        self.remove_unneeded(journal)?;
        if self.participants(&self.serving).is_empty() {
            let dir = self.config.plugins_dir.display();
            bail!("nothing to run: no plugin in {dir} is admitted{}", lines(&reading.refused));
        }
        self.say_what_serves(&reading.refused, &waiting);
        Ok(Beginning { refused: reading.refused, waiting })
    }

    /// Where a file is refused, the version that served last stands in for it. If the file went bad while no host ran,
    /// all others that changed since then wait with it, for they may belong together. Returns these files.
    fn stand_in(&self, serving: &mut Serving, reading: &Reading) -> BTreeSet<PathBuf> {
        let names: BTreeSet<Participant> = serving.values().map(|admitted| admitted.plugin.name()).collect();
        let mut bad = BTreeSet::new();
        // A directory that is gone is an accident of a deployment, not the wish to stop everything.
        if self.look().is_err() {
            for row in self.rows.iter().filter(|row| row.serving) {
                let file = PathBuf::from(&row.file);
                serving.extend(self.stored(&row.participant, None, &file).map(|stored| (file, stored)));
            }
            return bad;
        }
        for row in self.rows.iter().filter(|row| row.serving && !names.contains(&row.participant)) {
            let name = row.participant.as_str();
            let of = |report: &&Report| report.plugin.as_deref() == Some(name) || report.file.as_os_str() == &*row.file;
            let Some(report) = reading.refused.iter().find(of) else { continue };
            // The same code, refused for what the configuration says: it would run on something else than that.
            let is_of =
                |digest: &str| self.directory.is_of(&report.file, digest, self.config.limits.component_bytes_max);
            if row.quarantined.is_none() && is_of(&row.digest) {
                continue;
            }
            let Some(stored) = self.stored(&row.participant, None, &report.file) else { continue };
            serving.insert(report.file.clone(), stored);
            // A file in quarantine is an old story: what came later did not come with it.
            let quarantined =
                |row: &AdmittedRow| row.participant.as_str() == name && row.quarantined.is_some() && is_of(&row.digest);
            if !self.rows.iter().any(quarantined) {
                bad.insert(report.file.clone());
            }
        }
        if bad.is_empty() {
            return bad;
        }
        for (file, admitted) in serving.iter_mut() {
            let name = admitted.plugin.name();
            let before = self.rows.iter().find(|row| row.serving && row.participant == name);
            if let Some(before) = before.filter(|row| row.digest != *admitted.plugin.digest())
                && let Some(stored) = self.stored_as(before, file)
            {
                *admitted = stored;
                bad.insert(file.clone());
            }
        }
        bad
    }

    fn say_what_serves(&self, refused: &[Report], waiting: &BTreeSet<PathBuf>) {
        for admitted in self.serving.values() {
            let plugin = &admitted.plugin;
            info!(plugin = %plugin.name(), version = plugin.manifest().version, digest = &plugin.digest()[..12], "admitted");
        }
        for (name, why) in &self.paused {
            warn!(plugin = %name, why, "paused: its events park until `sagahost plugins resume {name}`");
        }
        for away in self.participants(&self.serving).iter().filter(|participating| !participating.serving) {
            if !self.paused.contains_key(away.manifest.name.as_str()) {
                warn!(
                    participant = away.manifest.name,
                    "no plugin in the directory serves it; its events park until one does"
                );
            }
        }
        self.warn_of_cycles();
        for report in refused {
            let serves = self.serving.contains_key(&report.file);
            let then = if serves { "the version before it serves on" } else { "the others serve without it" };
            error!("not admitted, and {then}:\n{report}");
        }
        if waiting.len() > 1 {
            let files: Vec<String> = waiting.iter().map(|file| file.display().to_string()).collect();
            warn!(
                files = files.join(", "),
                "these files changed while no host ran and not all of them are admitted: the versions before them \
                 serve until that is mended"
            );
        }
    }
}

fn lines(reports: &[Report]) -> String {
    reports.iter().map(|report| format!("\n{report}")).collect()
}
