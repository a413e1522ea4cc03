//! What serves when a host begins. Invariant: the same set that would serve had the host been running all the time: a
//! file that went bad meanwhile takes nobody out of service, and what changed with it waits for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use sagahost_journal::{AdmittedRow, Journal};
use sagahost_manifest::{Fault, Report};
use sagahost_processor::planted::{self, Planted};
use sagahost_saga::id::{Participant, Time};
use tracing::{error, info, warn};

use super::{IN_PLACE_OF, Plugins, PluginsError, Serving, short};
use crate::admission::{Admitted, Compiling, DirectorySnapshot};

/// Can a host begin with the plugins that there are?
pub enum Readiness {
    Ready(Started),
    /// These are compiled before anything else is decided.
    Compiling(BTreeMap<PathBuf, Compiling>),
}

/// What the keeper starts with.
pub struct Started {
    /// The directory as all of this was read from it.
    pub looked: Result<DirectorySnapshot, Report>,
    pub refused: Vec<Report>,
    /// Files that are still being compiled.
    pub compiling: BTreeMap<PathBuf, Compiling>,
    /// Files that wait for one that is refused.
    pub waiting: BTreeSet<PathBuf>,
    /// What those replaced that have not proved themselves.
    pub replaced: BTreeMap<Participant, Admitted>,
}

impl Plugins {
    /// Reads the directory for the first time. Nothing is kept of it before the host has begun (`record_start`): a start that
    /// comes to nothing leaves no trace. `patient`: no version stands in for a file that is still being compiled; one that
    /// has no such version is always waited for.
    ///
    /// # Errors
    /// There is nothing to run, or a file is refused and the operator wants none to be.
    pub fn start(&mut self, journal: &dyn Journal, now: Time, patient: bool) -> Result<Readiness, PluginsError> {
        self.refresh(journal)?;
        // One look for all that follows: what cannot be read now may be there a moment later.
        let looked = self.look();
        let mut reading = self.read_as(looked.clone());
        let compiling = std::mem::take(&mut reading.compiling);
        let stands_in = |compiling: &Compiling| self.stands_in_for(compiling);
        if !compiling.is_empty() && (patient || self.settings.strict || !compiling.values().all(stands_in)) {
            return Ok(Readiness::Compiling(compiling));
        }
        if self.settings.strict && !reading.refused.is_empty() {
            return Err(PluginsError::Strict { refused: reading.refused });
        }
        let mut serving: Serving =
            reading.admitted.iter().map(|admitted| (admitted.file.clone(), admitted.clone())).collect();
        let unknown = compiling.iter().map(|(file, compiling)| not_known_yet(file, compiling));
        let waits_for: Vec<Report> = reading.refused.iter().cloned().chain(unknown).collect();
        let waiting = self.stand_in(&mut serving, &waits_for, looked.is_ok())?;
        self.serving = serving;
        let replaced = self.replaced(journal, now)?;
        if self.participants(&self.serving).is_empty() {
            let dir = self.settings.plugins_dir.clone();
            return Err(PluginsError::NothingToRun { dir, refused: reading.refused });
        }
        self.say_what_serves(&reading.refused, &compiling, &waiting);
        Ok(Readiness::Ready(Started { looked, refused: reading.refused, compiling, waiting, replaced }))
    }

    /// Is there another version that can serve meanwhile?
    fn stands_in_for(&self, compiling: &Compiling) -> bool {
        let Some(manifest) = &compiling.manifest else { return false };
        let mut rows = self.rows.iter().filter(|row| row.participant.as_str() == manifest.name);
        rows.any(|row| {
            row.serving && row.quarantined.is_none() && row.digest != compiling.digest && self.archive.has(&row.digest)
        })
    }

    /// Keeps and journals what serves from now on.
    pub fn record_start(&mut self, started: &Started, journal: &dyn Journal, now: Time) -> Result<(), PluginsError> {
        let admitted: Vec<_> = self.serving.values().cloned().collect();
        self.keep(&admitted, journal, now)?;
        let before = started.replaced.values().map(|before| before.plugin.digest().clone());
        self.remove_unneeded(journal, before.collect(), now)
    }

    /// What served before the versions that are new with this start, or were when the host before this one ended.
    fn replaced(&self, journal: &dyn Journal, now: Time) -> Result<BTreeMap<Participant, Admitted>, PluginsError> {
        let window = self.settings.watch.probation;
        let mut replaced = BTreeMap::new();
        if planted::on(Planted::ForgetProbation) {
            return Ok(replaced);
        }
        for (file, admitted) in &self.serving {
            let (name, digest) = (admitted.plugin.name(), admitted.plugin.digest());
            let Some(row) = self.rows.iter().find(|row| row.serving && row.participant == name) else { continue };
            let before = if row.digest != *digest {
                self.stored_as(row, file)?.filter(|_| row.quarantined.is_none())
            } else {
                let newest = journal.plugin_history(&name, 1)?.pop();
                let young = newest.is_some_and(|deed| {
                    deed.digest == *digest && deed.what.starts_with(IN_PLACE_OF) && deed.at.after(window) > now
                });
                if young { self.stored(&name, Some(digest), file)? } else { None }
            };
            replaced.extend(before.map(|before| (name, before)));
        }
        Ok(replaced)
    }

    /// Where a file is refused, the version that served last stands in for it. If the file went bad while no host ran,
    /// all others that changed or came since then wait with it, for they may belong together. Returns these files.
    fn stand_in(
        &self,
        serving: &mut Serving,
        refused: &[Report],
        is_there: bool,
    ) -> Result<BTreeSet<PathBuf>, PluginsError> {
        let names: BTreeSet<Participant> = serving.values().map(|admitted| admitted.plugin.name()).collect();
        let mut bad = BTreeSet::new();
        // A directory that is gone is an accident of a deployment, not the wish to stop everything.
        if !is_there {
            for row in self.rows.iter().filter(|row| row.serving && !row.away()) {
                let file = PathBuf::from(&row.file);
                serving.extend(self.stored(&row.participant, None, &file)?.map(|stored| (file, stored)));
            }
            return Ok(bad);
        }
        for row in self.rows.iter().filter(|row| row.serving && !names.contains(&row.participant)) {
            let name = row.participant.as_str();
            // A file that says no name may be the next version of one that is gone.
            let gone = !row.away() && !self.admission.is_there(Path::new(&row.file));
            let of = |report: &&Report| match &report.plugin {
                Some(named) => named == name,
                None => gone || report.file.display().to_string() == row.file,
            };
            let Some(report) = refused.iter().find(of) else { continue };
            // The same code, refused for what the configuration says: it would run on something else than that.
            let is_of = |digest: &str| self.admission.is_of(&report.file, digest);
            if row.quarantined.is_none() && is_of(&row.digest) {
                continue;
            }
            let place = if gone && report.plugin.is_none() { PathBuf::from(&row.file) } else { report.file.clone() };
            let Some(stored) = self.stored(&row.participant, None, &place)? else { continue };
            if place != report.file {
                bad.insert(place.clone());
            }
            serving.insert(place, stored);
            // A file in quarantine is an old story: what came later did not come with it.
            let quarantined =
                |row: &AdmittedRow| row.participant.as_str() == name && row.quarantined.is_some() && is_of(&row.digest);
            if !self.rows.iter().any(quarantined) {
                bad.insert(report.file.clone());
            }
        }
        if bad.is_empty() {
            return Ok(bad);
        }
        let known = |admitted: &Admitted| self.rows.iter().any(|row| row.participant == admitted.plugin.name());
        serving.retain(|file, admitted| known(admitted) || !bad.insert(file.clone()));
        for (file, admitted) in serving.iter_mut() {
            let name = admitted.plugin.name();
            let before = self.rows.iter().find(|row| row.serving && row.participant == name);
            if let Some(before) = before.filter(|row| row.digest != *admitted.plugin.digest())
                && let Some(stored) = self.stored_as(before, file)?
            {
                *admitted = stored;
                bad.insert(file.clone());
            }
        }
        Ok(bad)
    }

    fn say_what_serves(
        &self,
        refused: &[Report],
        compiling: &BTreeMap<PathBuf, Compiling>,
        waiting: &BTreeSet<PathBuf>,
    ) {
        for admitted in self.serving.values() {
            let plugin = &admitted.plugin;
            info!(plugin = %plugin.name(), version = plugin.manifest().version, digest = short(plugin.digest()), "admitted");
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
            let then = if serves { "the previous version keeps serving" } else { "the others serve without it" };
            error!("not admitted, and {then}:\n{report}");
        }
        for file in compiling.keys() {
            info!(file = %file.display(), "is still being compiled: the version before it serves until then");
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

/// Until it is: as if it were refused, so that the version before it stands in.
fn not_known_yet(file: &Path, compiling: &Compiling) -> Report {
    let plugin = compiling.manifest.as_ref().map(|manifest| manifest.name.clone());
    let faults = vec![Fault::new("it is being compiled", "the file", "wait")];
    Report { plugin, faults, ..Report::new(file) }
}
