//! A version that replaced another is compared with it for a while, and taken back where it fails more often. Invariant:
//! what changed together is taken back together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use sagahost_journal::{PluginHistoryEntry, PluginWrite};
use sagahost_processor::{
    planted::{self, Planted},
    stats::Stats,
    step::Steady,
};
use sagahost_saga::{id::Participant, notation::with_causes};
use tracing::error;

use super::{ChangeError, Keeper};
use crate::{admission::Admitted, plugins::short};

/// A version that replaced `before`, and what it had done until then.
pub(super) struct Probation {
    pub(super) before: Admitted,
    digest: Arc<str>,
    calls: u64,
    failures: u64,
    /// None: it begins with the next look.
    began: Option<Steady>,
    /// Set where it could not be taken back: when that is tried again.
    again_at: Option<Steady>,
}

/// After a roll-back that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How often it is looked at while a version is on probation.
pub(super) const LOOK: Duration = Duration::from_millis(100);

impl Keeper {
    pub(super) fn begin_probation(
        &mut self,
        was: &BTreeMap<Participant, Admitted>,
        is: &BTreeMap<Participant, Admitted>,
    ) {
        self.on_probation.retain(|name, _| is.contains_key(name));
        if self.plugins.settings.watch.probation.is_zero() {
            return;
        }
        let stats = &self.switch.stats;
        for (name, admitted) in is {
            let Some(before) = was.get(name).filter(|before| before.plugin.digest() != admitted.plugin.digest()) else {
                continue;
            };
            let digest = admitted.plugin.digest().clone();
            // The version before it may not have proved itself either: then the one before that is the measure.
            let before = self.on_probation.remove(name).map_or_else(|| before.clone(), |earlier| earlier.before);
            // What is in quarantine is nothing to go back to.
            if *before.plugin.digest() == digest || self.plugins.quarantined(name, before.plugin.digest()) {
                continue;
            }
            let (calls, failures) = counts(stats, &digest);
            self.on_probation
                .insert(name.clone(), Probation { before, digest, calls, failures, began: None, again_at: None });
        }
    }

    /// Versions that have proved themselves.
    pub(super) fn end_probations(&mut self) {
        let (window, now) = (self.plugins.settings.watch.probation, self.at.steady);
        let on_probation = self.on_probation.len();
        self.on_probation.retain(|_, probation| {
            let began = *probation.began.get_or_insert(now);
            probation.again_at.is_some() || now.since(began) < window
        });
        if self.on_probation.len() != on_probation {
            self.show();
        }
    }

    pub(super) fn take_back_failing(&mut self, name: Participant, why: &str) {
        let why = format!("rolled back by itself: {why}");
        if let Err(error) = self.take_back(&name, &why) {
            error!(plugin = %name, error = with_causes(&error), why, "failed to roll a version back; trying again");
            // None of those that go together leaves its probation meanwhile.
            let began = self.on_probation.get(&name).map(|probation| probation.began);
            let together = self.on_probation.values_mut().filter(|probation| Some(probation.began) == began);
            together.for_each(|probation| probation.again_at = Some(self.at.steady.after(AGAIN_AFTER)));
        }
        self.show();
    }

    /// The first that fails more often than the version before it.
    pub(super) fn failing(&self) -> Option<(Participant, String)> {
        let settings = &self.plugins.settings.watch;
        let (min, more) = (settings.failures_min, settings.failures_percent_more);
        let stats = &self.switch.stats;
        let now = self.at.steady;
        let due = self.on_probation.iter().filter(|(_, probation)| probation.again_at.is_none_or(|at| at <= now));
        due.into_iter().find_map(|(name, probation)| {
            let (calls, failures) = counts(stats, &probation.digest);
            let (calls, failures) = (calls - probation.calls, failures - probation.failures);
            let (known, known_failures) = counts(stats, probation.before.plugin.digest());
            let usual = (100 * known_failures).checked_div(known).unwrap_or(0);
            let too_often = failures >= min && 100 * failures > calls * (usual + more);
            let why =
                || format!("{failures} of {calls} calls failed, against {usual} % of those of the version before");
            too_often.then(|| (name.clone(), why()))
        })
    }

    /// With it goes what changed together with it.
    fn take_back(&mut self, name: &Participant, why: &str) -> Result<(), ChangeError> {
        self.finish_journaled()?;
        let Some(failing) = self.on_probation.get(name) else { return Ok(()) };
        let began = failing.began;
        let with = format!("rolled back with {name}, which changed together with it");
        let together = self.on_probation.iter().filter(|(_, probation)| probation.began == began);
        let back: Vec<TakenBack> = together
            .map(|(other, probation)| TakenBack {
                name: other.clone(),
                digest: probation.digest.clone(),
                before: probation.before.clone(),
                why: if other == name { why.to_owned() } else { with.clone() },
            })
            .collect();
        self.roll_back(back)
    }

    /// The versions before serve again, and these are in quarantine: until their files change, or somebody admits them.
    pub(super) fn roll_back(&mut self, back: Vec<TakenBack>) -> Result<(), ChangeError> {
        let journal = self.switch.journal.clone();
        let at = self.at.wall;
        let mut write = PluginWrite::default();
        let mut target = self.plugins.serving.clone();
        for TakenBack { name, digest, before, why } in &back {
            // Journaled already where the switch behind it failed.
            if !self.plugins.quarantined(name, digest) {
                write.quarantined.push((name.clone(), digest.clone(), Some(why.clone())));
                let config = before.plugin.behaviour().config;
                let (participant, digest, what) = (name.clone(), digest.clone(), why.clone());
                write.history.push(PluginHistoryEntry { participant, at, digest, config, what });
                // At once with the quarantine, so that a start in between knows which one is to serve.
                write.admitted.push(self.plugins.row(before, at)?);
            }
            let place = self.plugins.serving.iter().find(|(_, admitted)| admitted.plugin.name() == *name);
            let file = place.map_or_else(|| before.file.clone(), |(file, _)| file.clone());
            // With the configuration of today.
            let before = self.plugins.readmit(before).unwrap_or_else(|| before.clone());
            target.insert(file.clone(), Admitted { file, ..before });
        }
        if planted::on(Planted::ForgetQuarantine) {
            write.quarantined.clear();
        }
        journal.change_plugins(journal.identity().epoch, &write)?;
        self.plugins.refresh(&*journal)?;
        self.install(target)?;
        let names: BTreeSet<&Participant> = back.iter().map(|taken| &taken.name).collect();
        self.on_probation.retain(|name, _| !names.contains(name));
        self.report_refused_of_applied();
        for TakenBack { name, before, why, .. } in &back {
            let (version, digest) = (&before.plugin.manifest().version, short(before.plugin.digest()));
            error!(
                plugin = %name, version, digest, why,
                "the version before serves again; what the other one completed stays, its store writes too"
            );
        }
        Ok(())
    }
}

/// A version that goes out of service, and the one that serves in its place.
pub(super) struct TakenBack {
    pub(super) name: Participant,
    pub(super) digest: Arc<str>,
    pub(super) before: Admitted,
    pub(super) why: String,
}

/// Calls and failures of a version since the start.
fn counts(stats: &Stats, digest: &str) -> (u64, u64) {
    stats.of_plugin(digest).map_or((0, 0), |calls| (calls.calls, calls.failures))
}
