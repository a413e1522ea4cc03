//! Keeps what serves in step with the plugin directory while the host runs. Invariant: a change is admitted as a whole
//! before anything is replaced; what cannot be admitted changes nothing, and says why.
//!
//! The switch is one pointer: a chain keeps the plugins, topology and names that it began with.

mod board;
mod configuration;
mod error;
mod orders;
mod probation;
mod switch;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sagahost_manifest::Report;
use sagahost_processor::{
    planted::{self, Planted},
    serving::Switch,
    step::{Next, Now, Part, Steady, Wait},
};
use sagahost_saga::{id::Participant, notation::with_causes};
use sagahost_transport::Transport;
use tracing::{error, info, warn};

use self::{board::Waiting, probation::Probation, switch::by_name};
pub use self::{
    board::{Board, Order, PluginAction},
    configuration::{Configuration, NewValues},
    error::ChangeError,
};
use crate::{
    admission::{Admitted, Compiling, DirectorySnapshot, Watch},
    plugins::{Plugins, Reading, Serving, Started, short},
    settings::WatchSettings,
};

/// The shortest pause while the directory changes.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(1);

/// What the keeper works with.
pub struct Reach {
    pub switch: Switch,
    pub transport: Arc<dyn Transport>,
    pub board: Arc<Board>,
    /// None: the host runs without a configuration that could be read again.
    pub configuration: Option<Box<dyn Configuration>>,
    /// None: no service takes part.
    pub services: Option<Arc<dyn Services>>,
}

/// Services that take part. Whoever has them raises the board's signal when something of this changes.
pub trait Services: Send + Sync {
    /// Those that do not answer at the moment, and why: their events park.
    fn unreachable(&self) -> BTreeMap<Participant, String>;
}

/// A part of the host. Its calls of the file system, of admission (which compiles), of journal and broker take their time;
/// each is the last act of its step.
pub struct Keeper {
    plugins: Plugins,
    switch: Switch,
    transport: Arc<dyn Transport>,
    board: Arc<Board>,
    services: Option<Arc<dyn Services>>,
    watch: Box<dyn Watch>,
    /// When the step that is under way began.
    at: Now,
    /// None: the host runs without a configuration that could be read again.
    configuration: Option<Box<dyn Configuration>>,
    /// The last report of each file that is refused.
    reported: BTreeMap<PathBuf, Report>,
    /// Files of which it was not known at the last look whether they are admitted.
    compiling: BTreeMap<PathBuf, Compiling>,
    on_probation: BTreeMap<Participant, Probation>,
    /// Files that changed together, and of which one cannot be admitted (yet): none of them is, until it can.
    stuck: Vec<BTreeSet<PathBuf>>,
    /// The listing in the data directory could not be written; said once.
    listing_failed: bool,
    /// The directory as it was applied last.
    applied: DirectorySnapshot,
    /// A change other than a file requires a full rescan.
    rescan_due: bool,
    /// The directory at the last look, and since when it stands still.
    seen: Result<DirectorySnapshot, Report>,
    since: Steady,
    /// The directory of the last change that is in force.
    handled: Result<DirectorySnapshot, Report>,
    /// Other plugins serve since the last step: what nobody needs any more goes.
    switched: bool,
    /// After a change that failed.
    not_before: Steady,
    /// What was to serve when a change failed: it may be journaled.
    unfinished: Option<Serving>,
    /// When refusals were last compared with what would be refused now.
    reconsidered: Steady,
    /// Orders about the files as they are, which wait until these stand still.
    later: Vec<Waiting>,
    /// Orders that no longer wait for that.
    ready: VecDeque<Waiting>,
}

impl Part for Keeper {
    /// Until the host stops.
    fn step(&mut self, now: Now) -> Next {
        if self.switch.stop.asked() {
            return Next::Ended(Ok(()));
        }
        let signal = self.board.changed.clone();
        let seen = signal.seen();
        self.at = now;
        match self.work() {
            None => Next::Again,
            until @ Some(_) => Next::Wait(Wait { signal, seen, until }),
        }
    }
}

impl Keeper {
    pub fn new(
        plugins: Plugins,
        started: Started,
        Reach { switch, transport, board, configuration, services }: Reach,
        at: Now,
    ) -> Self {
        let watch = plugins.watch(board.changed.clone());
        let (is, replaced) = (by_name(&plugins.serving), started.replaced);
        let reported = started.refused.into_iter().map(|report| (report.file.clone(), report)).collect();
        let stuck = if started.waiting.is_empty() { Vec::new() } else { vec![started.waiting] };
        let mut keeper = Self {
            plugins,
            switch,
            configuration,
            transport,
            board,
            services,
            watch,
            at,
            reported,
            compiling: started.compiling,
            on_probation: BTreeMap::new(),
            stuck,
            listing_failed: false,
            applied: started.looked.clone().unwrap_or_default(),
            rescan_due: false,
            seen: started.looked.clone(),
            since: at.steady,
            handled: started.looked,
            switched: false,
            not_before: Steady::default(),
            unfinished: None,
            reconsidered: at.steady,
            later: Vec::new(),
            ready: VecDeque::new(),
        };
        keeper.begin_probation(&replaced, &is);
        keeper.show();
        keeper
    }

    fn show(&mut self) {
        let refused = self.reported.values().cloned().collect();
        let waits = |file: &Path| self.stuck.iter().any(|group| group.contains(file));
        let mut view = self.plugins.view(refused, &waits);
        view.list_waiting(self.plugins.files_there(), &self.stuck);
        view.list_compiling(&self.compiling);
        for line in view.plugins.iter_mut().filter(|line| line.state == "serving") {
            if self.on_probation.contains_key(line.name.as_str()) {
                line.state = "probation".to_owned();
            }
        }
        let written = self.plugins.write_down(&view);
        if let Err(error) = &written
            && !self.listing_failed
        {
            warn!(%error, "failed to write plugins.json into the data directory; `sagahost plugins list` has it");
        }
        self.listing_failed = written.is_err();
        self.board.put(view);
    }

    /// What a switch leaves, then orders, versions on probation, the directory. One that takes its time ends the step.
    fn work(&mut self) -> Option<Steady> {
        if mem::take(&mut self.switched) {
            self.remove_unneeded();
            return None;
        }
        if let Some(waiting) = self.ready.pop_front().or_else(|| self.board.next_order()) {
            self.carry_out_or_wait(waiting);
            return None;
        }
        if let Some((name, why)) = self.failing() {
            self.take_back_failing(name, &why);
            return None;
        }
        if self.at.steady >= self.not_before && self.reach_changed() {
            self.park_unreachable();
            return None;
        }
        self.end_probations();
        if self.watch.is_elsewhere() {
            self.watch = self.plugins.watch(self.board.changed.clone());
        }
        if self.has_settled() {
            self.apply_seen();
            return None;
        }
        Some(self.at.steady.after(self.until_next_look()))
    }

    fn reach_changed(&self) -> bool {
        let unreachable = self.services.as_ref().map(|services| services.unreachable());
        unreachable.is_some_and(|unreachable| unreachable != self.plugins.unreachable)
    }

    /// Events for a service that does not answer park; they go on when it is to be asked again.
    fn park_unreachable(&mut self) {
        let Some(services) = &self.services else { return };
        let before = mem::replace(&mut self.plugins.unreachable, services.unreachable());
        let others = !before.keys().eq(self.plugins.unreachable.keys());
        let done = if others { self.finish_journaled().and_then(|()| self.switch()) } else { Ok(()) };
        if let Err(error) = done {
            warn!(
                error = with_causes(&error),
                "failed to park the events of services that do not answer; trying again"
            );
            self.plugins.unreachable = before;
            self.not_before = self.at.steady.after(Duration::from_secs(1));
        }
        self.show();
    }

    /// Looks at the directory. A change is applied when it has stood still for a moment: files are copied in place, and
    /// several of them belong together.
    fn has_settled(&mut self) -> bool {
        let WatchSettings { settle, rescan, .. } = self.plugins.settings.watch;
        let now = self.at.steady;
        let snapshot = self.plugins.look();
        if snapshot != self.seen {
            (self.seen, self.since) = (snapshot, now);
            return false;
        }
        self.rescan_due |= self.plugins.is_one_compiled(&self.compiling);
        let unchanged = self.seen == self.handled;
        if self.seen.is_ok() && unchanged && !self.rescan_due && now.since(self.reconsidered) >= rescan {
            self.reconsidered = now;
            self.rescan_due = self.refusals_changed();
        }
        (!unchanged || self.rescan_due) && now >= self.not_before && now.since(self.since) >= settle
    }

    /// Until the next look, where nothing is reported before.
    fn until_next_look(&self) -> Duration {
        let WatchSettings { settle, rescan, .. } = self.plugins.settings.watch;
        if self.seen != self.handled {
            (settle / 4).max(LOOK_AGAIN_MIN)
        } else if self.on_probation.is_empty() && !self.rescan_due {
            rescan
        } else {
            rescan.min(probation::LOOK)
        }
    }

    fn apply_seen(&mut self) {
        let seen = self.seen.clone();
        let done = self.changed(&seen);
        if !self.switched {
            self.show();
        }
        match done {
            Ok(()) => {
                (self.handled, self.rescan_due) = (seen, false);
                self.ready.extend(self.later.drain(..));
            }
            Err(error) => {
                warn!(error = with_causes(&error), "the plugins that changed are not served yet; trying again");
                self.not_before = self.at.steady.after(Duration::from_secs(1));
            }
        }
    }

    /// Applies what the directory holds now, as far as it can be.
    fn changed(&mut self, now: &Result<DirectorySnapshot, Report>) -> Result<(), ChangeError> {
        let now = match now {
            Ok(now) => now,
            // A directory that is gone is an accident of a deployment, not the wish to stop everything.
            Err(report) => {
                error!("the plugins keep serving as they are:\n{report}");
                self.reported.insert(report.file.clone(), report.clone());
                return Ok(());
            }
        };
        let before = std::mem::take(&mut self.applied);
        let paths: BTreeSet<&PathBuf> = before.keys().chain(now.keys()).collect();
        let changed = paths.into_iter().filter(|path| before.get(*path) != now.get(*path)).cloned().collect();
        let done = self.apply_changed(changed, now);
        self.applied = if done.is_ok() { now.clone() } else { before };
        done
    }

    fn apply_changed(&mut self, changed: BTreeSet<PathBuf>, now: &DirectorySnapshot) -> Result<(), ChangeError> {
        self.finish_journaled()?;
        self.plugins.refresh(&*self.switch.journal)?;
        let reading = self.plugins.read_as(Ok(now.clone()));
        self.group(changed, &reading);
        self.report_refused(&reading);
        self.install(self.target(now, &reading)?)
    }

    /// Files that are on their way in are judged when they stand still: as news, for which others may have to wait.
    fn report_refused_of_applied(&mut self) {
        let now = self.plugins.look();
        let mut reading = self.plugins.read_as(now.clone());
        if let Ok(now) = now {
            reading.refused.retain(|report| self.applied.get(&report.file) == now.get(&report.file));
        }
        self.report_refused(&reading);
    }

    /// What was refused for something else than the file may be all right by now: sagas have ended, a disk is back.
    fn refusals_changed(&mut self) -> bool {
        if self.reported.is_empty() || self.plugins.refresh(&*self.switch.journal).is_err() {
            return false;
        }
        let refused = self.plugins.read().refused;
        refused.len() != self.reported.len()
            || refused.iter().any(|report| self.reported.get(&report.file) != Some(report))
    }

    /// Files that belong together: those that changed at once, and those that wait for one of them.
    fn group(&mut self, mut changed: BTreeSet<PathBuf>, reading: &Reading) {
        let mut stuck = BTreeSet::new();
        self.stuck.retain(|group| {
            let apart = group.is_disjoint(&changed);
            if !apart {
                stuck.extend(group.iter().cloned());
            }
            apart
        });
        changed.extend(stuck.iter().cloned());
        // What was refused before, for the same reasons, is no news that others would have to wait for; but those that
        // waited for it wait on.
        let news = |report: &&Report| {
            stuck.contains(&report.file)
                || changed.contains(&report.file) && self.reported.get(&report.file) != Some(*report)
        };
        let refused = reading.refused.iter().filter(news).count();
        let compiling = reading.compiling.keys().filter(|file| changed.contains(*file)).count();
        // What is being compiled may turn out to be the good one that waits for the others.
        let parts = refused + compiling > 0 && changed.len() > refused.max(1);
        if parts && !planted::on(Planted::SplitGroups) {
            let files: Vec<String> = changed.iter().map(|file| file.display().to_string()).collect();
            let files = files.join(", ");
            match refused {
                0 => info!(files, "these files changed together: they are switched when all of them are compiled"),
                _ => warn!(
                    files,
                    "these files changed together and not all of them are admitted: none is switched until that is \
                     mended"
                ),
            }
            self.stuck.push(changed);
        }
        self.dissolve(reading);
    }

    /// Groups of which all is admitted, or nothing: then none waits for another.
    fn dissolve(&mut self, reading: &Reading) {
        self.stuck.retain(|group| {
            let compiling = group.iter().any(|file| reading.compiling.contains_key(file));
            let refused = reading.refused.iter().filter(|report| group.contains(&report.file)).count();
            compiling || (1..group.len()).contains(&refused)
        });
    }

    /// What is to serve: the files as they are, but the version that served before where the new one is refused or
    /// waits for another file.
    fn target(&self, now: &DirectorySnapshot, reading: &Reading) -> Result<Serving, ChangeError> {
        let waits = |file: &PathBuf| self.stuck.iter().any(|group| group.contains(file));
        let serving = &self.plugins.serving;
        let mut target: Serving = reading
            .admitted
            .iter()
            .filter(|admitted| !waits(&admitted.file))
            .map(|admitted| (admitted.file.clone(), admitted.clone()))
            .collect();
        let names: BTreeSet<Participant> = target.values().map(|admitted| admitted.plugin.name()).collect();
        let kept = serving.iter().filter(|(file, admitted)| {
            let stays = now.contains_key(*file) || waits(file);
            stays && !target.contains_key(*file) && !names.contains(&admitted.plugin.name())
        });
        // What was taken out of service does not stay for lack of another file.
        let in_service = |(file, admitted): (&PathBuf, &Admitted)| {
            let name = admitted.plugin.name();
            let quarantined = self.plugins.quarantined(&name, admitted.plugin.digest());
            let stored = if quarantined { self.plugins.stored(&name, None, file)? } else { None };
            Ok::<_, ChangeError>((file.clone(), stored.unwrap_or_else(|| admitted.clone())))
        };
        let kept = kept.map(in_service).collect::<Result<Vec<_>, _>>()?;
        target.extend(kept);
        Ok(target)
    }

    /// Applies the directory as far as it can be, after a change other than a file.
    fn apply_directory(&mut self) -> Result<(), ChangeError> {
        let now = self.settled()?;
        let reading = self.plugins.read_as(Ok(now.clone()));
        self.dissolve(&reading);
        self.report_refused(&reading);
        self.install(self.target(&now, &reading)?)
    }

    /// The directory, unless files are on their way in: those are applied when they stand still, all together.
    fn settled(&self) -> Result<DirectorySnapshot, ChangeError> {
        let now = self.plugins.look().map_err(|source| ChangeError::Directory { source })?;
        if now == self.applied { Ok(now) } else { Err(ChangeError::DirectoryChanging) }
    }

    /// Each report once.
    fn report_refused(&mut self, reading: &Reading) {
        for (file, compiling) in &reading.compiling {
            if self.compiling.get(file).is_none_or(|known| known.digest != compiling.digest) {
                info!(file = %file.display(), digest = short(&compiling.digest), "is being compiled");
            }
        }
        self.compiling.clone_from(&reading.compiling);
        for report in &reading.refused {
            if self.reported.get(&report.file) != Some(report) {
                let serves = self.plugins.serving.contains_key(&report.file);
                let then = match serves {
                    true => "the previous version keeps serving",
                    false if report.file == self.plugins.settings.plugins_dir => "what was in it is paused",
                    false => "nothing else changes",
                };
                error!("not admitted; {then}:\n{report}");
            }
        }
        self.reported = reading.refused.iter().map(|report| (report.file.clone(), report.clone())).collect();
    }
}
