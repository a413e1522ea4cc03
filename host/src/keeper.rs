//! Keeps what serves in step with the plugin directory while the host runs. Invariant: a change is admitted as a whole
//! before anything is replaced; what cannot be admitted changes nothing, and says why.
//!
//! The switch is one pointer: a chain keeps the plugins, topology and names that it began with.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use crossbeam_channel::{Receiver, bounded};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use sagahost_saga::id::Participant;
use sagahost_sandbox::{
    Report,
    admission::Admitted,
    directory::{Looks, Reading},
};
use tracing::{debug, error, info, warn};

use crate::{
    admin::view::PluginsView,
    config::WatchSettings,
    intake::{Intake, assignment},
    journal::{BatchNo, Position},
    pipeline::Pipeline,
    plugins::{Plugins, Serving},
    stats::Stats,
    transport::{Assignment, Partition, Transport},
};

/// What serves and what does not, for operators.
#[derive(Debug, Default)]
pub struct Board {
    view: Mutex<PluginsView>,
}

impl Board {
    pub fn view(&self, stats: &Stats) -> PluginsView {
        let mut view = self.view.lock().clone();
        for line in &mut view.plugins {
            let Some(calls) = stats.of_plugin(&line.digest) else { continue };
            (line.calls, line.failures) = (calls.calls, calls.failures);
            (line.p50_us, line.p99_us) = (calls.took.value_at_quantile(0.5), calls.took.value_at_quantile(0.99));
        }
        view
    }
}

pub struct Keeper {
    pub plugins: Plugins,
    pub pipeline: Arc<Pipeline>,
    pub intake: Arc<Intake>,
    pub transport: Arc<dyn Transport>,
    pub stop: Arc<AtomicBool>,
    pub board: Arc<Board>,
    /// What the operator was told last of each file.
    pub told: BTreeMap<PathBuf, Report>,
    /// Files that changed together, and of which one cannot be admitted: none of them is, until that is mended.
    pub stuck: Vec<BTreeSet<PathBuf>>,
}

impl Keeper {
    pub fn new(
        plugins: Plugins,
        refused: Vec<Report>,
        pipeline: Arc<Pipeline>,
        intake: Arc<Intake>,
        transport: Arc<dyn Transport>,
        stop: Arc<AtomicBool>,
        board: Arc<Board>,
    ) -> Self {
        let told = refused.into_iter().map(|report| (report.file.clone(), report)).collect();
        let keeper = Self { plugins, pipeline, intake, transport, stop, board, told, stuck: Vec::new() };
        keeper.show();
        keeper
    }

    fn show(&self) {
        let refused = self.told.values().cloned().collect();
        let waits = |file: &Path| self.stuck.iter().any(|group| group.contains(file));
        *self.board.view.lock() = self.plugins.view(refused, &waits);
    }

    /// Until the host stops. A change is taken up when the directory has stood still for a moment: files are copied in
    /// place, and several of them belong together.
    pub fn run(mut self, handled: Result<Looks, Report>) {
        let WatchSettings { settle, rescan } = self.plugins.config.watch;
        let mut watch = Watch::new(&self.plugins.config.plugins_dir);
        let mut handled = handled;
        let mut seen = handled.clone();
        let mut since = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            watch.wait(if seen == handled { rescan } else { settle / 4 }, &self.stop);
            let now = self.plugins.look();
            if now != seen {
                if seen.is_err() {
                    watch = Watch::new(&self.plugins.config.plugins_dir);
                }
                (seen, since) = (now, Instant::now());
                continue;
            }
            if seen == handled || since.elapsed() < settle {
                continue;
            }
            let done = self.changed(&handled, &seen);
            self.show();
            match done {
                Ok(()) => handled = seen.clone(),
                Err(error) => {
                    warn!(error = format!("{error:#}"), "the plugins that changed are not served yet; trying again");
                    since = Instant::now() + Duration::from_secs(1);
                }
            }
        }
    }

    /// What the directory holds now, in force as far as it can be.
    fn changed(&mut self, before: &Result<Looks, Report>, now: &Result<Looks, Report>) -> Result<()> {
        let Ok(now) = now else {
            // A directory that is gone is an accident of a deployment, not the wish to stop everything.
            let report = now.as_ref().expect_err("it is no directory");
            error!("the plugins serve on as they are:\n{report}");
            return Ok(());
        };
        let nothing = Looks::new();
        let before = before.as_ref().unwrap_or(&nothing);
        let paths: BTreeSet<&PathBuf> = before.keys().chain(now.keys()).collect();
        let changed = paths.into_iter().filter(|path| before.get(*path) != now.get(*path)).cloned().collect();
        let reading = self.plugins.read();
        self.tell(&reading);
        self.group(changed, &reading);
        self.install(self.target(now, &reading))
    }

    /// Files that belong together: those that changed at once, and those that wait for one of them.
    fn group(&mut self, mut changed: BTreeSet<PathBuf>, reading: &Reading) {
        self.stuck.retain(|group| {
            let apart = group.is_disjoint(&changed);
            if !apart {
                changed.extend(group.iter().cloned());
            }
            apart
        });
        let bad = reading.refused.iter().filter(|report| changed.contains(&report.file)).count();
        if bad > 0 && changed.len() > bad {
            let files: Vec<String> = changed.iter().map(|file| file.display().to_string()).collect();
            warn!(
                files = files.join(", "),
                "these files changed together and not all of them are admitted: none is switched until that is mended"
            );
            self.stuck.push(changed);
        }
    }

    /// What is to serve: the files as they are, but the version that served before where the new one is refused or
    /// waits for another file.
    fn target(&self, now: &Looks, reading: &Reading) -> Serving {
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
        let kept: Vec<(PathBuf, Admitted)> = kept.map(|(file, admitted)| (file.clone(), admitted.clone())).collect();
        target.extend(kept);
        target
    }

    /// From here on events run on `target`. Whatever can fail comes before the switch.
    fn install(&mut self, target: Serving) -> Result<()> {
        let was = by_name(&self.plugins.serving);
        let is = by_name(&target);
        if was.iter().map(|(name, admitted)| (name, identity(admitted))).eq(is.iter().map(|(n, a)| (n, identity(a)))) {
            self.plugins.serving = target;
            return Ok(());
        }
        let wanted = self.plugins.wanted(&target);
        let fresh = self.fresh_positions(&wanted.partitions(&*self.transport)?, &wanted.inputs)?;
        let journal = self.pipeline.journal.clone();
        let epoch = journal.identity().epoch;
        for Assignment { partition, position, .. } in &fresh {
            journal.set_position(epoch, partition, *position)?;
        }
        let since = BatchNo(self.pipeline.stage.last_sealed().0 + 1);
        let admitted: Vec<Admitted> = target.values().cloned().collect();
        self.plugins.keep(&admitted, since, &*journal, &*self.pipeline.clock)?;
        let previous = std::mem::replace(&mut self.plugins.serving, target);
        match self.plugins.surroundings() {
            Ok(surroundings) => self.pipeline.surroundings.store(Arc::new(surroundings)),
            Err(error) => {
                self.plugins.serving = previous;
                return Err(error);
            }
        }
        self.intake.read_also(fresh, self.plugins.idle_topics());
        say(&was, &is);
        Ok(self.pipeline.wake_parked()?)
    }

    /// Partitions that this app has not read before: from their beginning, or from what comes now, as the
    /// subscription says.
    fn fresh_positions(&self, partitions: &[Partition], inputs: &BTreeMap<Arc<str>, bool>) -> Result<Vec<Assignment>> {
        let assigned = self.intake.assigned();
        let new: Vec<Partition> =
            partitions.iter().filter(|partition| !assigned.contains(*partition)).cloned().collect();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let journaled = self.pipeline.journal.positions()?;
        let bounds = self.transport.bounds(&new)?;
        let place = |partition: Partition| {
            if let Some(position) = journaled.get(&partition) {
                return assignment(partition, position);
            }
            let (first, end) = bounds.get(&partition).copied().unwrap_or((0, 0));
            let whole = inputs.get(&partition.topic).copied().unwrap_or(true);
            if !whole && end > first {
                info!(%partition, records = end - first, "what is in this topic has passed: the new subscription begins with what comes now");
            }
            assignment(partition, &Position { next: if whole { first } else { end }, last: None })
        };
        Ok(new.into_iter().map(place).collect())
    }

    /// Each report once.
    fn tell(&mut self, reading: &Reading) {
        for report in &reading.refused {
            if self.told.get(&report.file) != Some(report) {
                let serves = self.plugins.serving.contains_key(&report.file);
                let then = if serves { "the version before it serves on" } else { "nothing else changes" };
                error!("not admitted; {then}:\n{report}");
            }
        }
        self.told = reading.refused.iter().map(|report| (report.file.clone(), report.clone())).collect();
    }
}

fn by_name(serving: &Serving) -> BTreeMap<Participant, Admitted> {
    serving.values().map(|admitted| (admitted.plugin.name(), admitted.clone())).collect()
}

/// Code and configuration.
fn identity(admitted: &Admitted) -> (Arc<str>, Arc<str>) {
    let behaviour = admitted.plugin.behaviour();
    (behaviour.digest, behaviour.config)
}

fn say(was: &BTreeMap<Participant, Admitted>, is: &BTreeMap<Participant, Admitted>) {
    for (name, admitted) in is {
        let (version, digest) = (&admitted.plugin.manifest().version, &admitted.plugin.digest()[..12]);
        match was.get(name) {
            None => info!(plugin = %name, version, digest, "serves now"),
            Some(before) if identity(before) != identity(admitted) => {
                info!(plugin = %name, version, digest, before = before.plugin.manifest().version, "serves now; running calls end on the version before");
            }
            Some(_) => {}
        }
    }
    for name in was.keys().filter(|name| !is.contains_key(*name)) {
        warn!(plugin = %name, "its file is gone: its events park until one is back; what it did is still undone");
    }
}

/// Wakes up when the directory changes, as far as its file system says so.
struct Watch {
    _watcher: Option<RecommendedWatcher>,
    bell: Receiver<()>,
}

impl Watch {
    fn new(dir: &Path) -> Self {
        let (ring, bell) = bounded(1);
        let told = move |_: notify::Result<notify::Event>| {
            let _ = ring.try_send(());
        };
        let watcher = notify::recommended_watcher(told).and_then(|mut watcher| {
            watcher.watch(dir, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            debug!(%error, "the plugin directory is looked at now and then only");
        }
        Self { _watcher: watcher.ok(), bell }
    }

    fn wait(&self, timeout: Duration, stop: &AtomicBool) {
        const SLICE: Duration = Duration::from_millis(200);
        let until = Instant::now() + timeout;
        while !stop.load(Ordering::Relaxed) {
            let left = until.saturating_duration_since(Instant::now());
            match self.bell.recv_timeout(left.min(SLICE)) {
                Ok(()) => return,
                Err(_) if left.is_zero() => return,
                // Without a watcher the channel is closed, and says so at once.
                Err(error) if error.is_disconnected() => std::thread::sleep(left.min(SLICE)),
                Err(_) => {}
            }
        }
    }
}
