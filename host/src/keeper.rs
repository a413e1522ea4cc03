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

use anyhow::{Result, anyhow, ensure};
use crossbeam_channel::{Receiver, Sender, bounded};
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use parking_lot::Mutex;
use sagahost_saga::{id::Participant, input::Answer};
use sagahost_sandbox::{
    Report,
    admission::Admitted,
    directory::{Looks, Reading},
};
use tracing::{debug, error, info, warn};

use crate::{
    admin::{PluginAction, view::PluginsView},
    config::WatchSettings,
    intake::{Intake, assignment},
    journal::{BatchNo, Position},
    pipeline::Pipeline,
    plugins::{Plugins, Serving},
    stage::Reply,
    stats::Stats,
    transport::{Assignment, Partition, Transport},
};

/// Where operators see what serves and what does not, and leave their orders.
pub struct Board {
    view: Mutex<PluginsView>,
    orders: (Sender<Order>, Receiver<Order>),
}

impl Default for Board {
    fn default() -> Self {
        const ORDERS_MAX: usize = 16;
        Self { view: Mutex::default(), orders: bounded(ORDERS_MAX) }
    }
}

impl Board {
    /// Answered when it is carried out.
    pub fn order(&self, plugin: &Participant, action: PluginAction) -> Receiver<Result<Answer, String>> {
        let (reply, answer) = bounded(1);
        // Where too many wait, the reply goes down with the order, which tells whoever asked.
        let _ = self.orders.0.try_send(Order { plugin: plugin.clone(), action, reply });
        answer
    }

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

/// A version that replaced `before`, and what it had done until then.
struct Probation {
    before: Admitted,
    digest: Arc<str>,
    calls: u64,
    failures: u64,
    began: Instant,
}

/// From an operator.
struct Order {
    plugin: Participant,
    action: PluginAction,
    reply: Reply,
}

/// How often it is looked at while a version is on probation.
const PROBATION_LOOK: Duration = Duration::from_millis(100);

pub struct Keeper {
    pub plugins: Plugins,
    pub pipeline: Arc<Pipeline>,
    pub intake: Arc<Intake>,
    pub transport: Arc<dyn Transport>,
    pub stop: Arc<AtomicBool>,
    pub board: Arc<Board>,
    /// What the operator was told last of each file.
    told: BTreeMap<PathBuf, Report>,
    on_probation: BTreeMap<Participant, Probation>,
    /// Files that changed together, and of which one cannot be admitted: none of them is, until that is mended.
    stuck: Vec<BTreeSet<PathBuf>>,
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
        let keeper = Self {
            plugins,
            pipeline,
            intake,
            transport,
            stop,
            board,
            told,
            on_probation: BTreeMap::new(),
            stuck: Vec::new(),
        };
        keeper.show();
        keeper
    }

    fn show(&self) {
        let refused = self.told.values().cloned().collect();
        let waits = |file: &Path| self.stuck.iter().any(|group| group.contains(file));
        let mut view = self.plugins.view(refused, &waits);
        for line in view.plugins.iter_mut().filter(|line| line.state == "serving") {
            if self.on_probation.contains_key(line.name.as_str()) {
                line.state = "probation".to_owned();
            }
        }
        *self.board.view.lock() = view;
    }

    /// Until the host stops. A change is taken up when the directory has stood still for a moment: files are copied in
    /// place, and several of them belong together.
    pub fn run(mut self, handled: Result<Looks, Report>) {
        let WatchSettings { settle, rescan, .. } = self.plugins.config.watch;
        let mut watch = Watch::new(&self.plugins.config.plugins_dir);
        let mut handled = handled;
        let mut seen = handled.clone();
        let mut since = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let pause = if seen != handled {
                settle / 4
            } else if self.on_probation.is_empty() {
                rescan
            } else {
                rescan.min(PROBATION_LOOK)
            };
            watch.wait(pause, &self.board.orders.1, &self.stop);
            while let Ok(order) = self.board.orders.1.try_recv() {
                self.obey(order);
            }
            self.look_at_probation();
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
        self.begin_probation(&was, &is);
        self.plugins.warn_of_cycles();
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

    /// A version that replaces another is compared with it for a while.
    fn begin_probation(&mut self, was: &BTreeMap<Participant, Admitted>, is: &BTreeMap<Participant, Admitted>) {
        self.on_probation.retain(|name, _| is.contains_key(name));
        if self.plugins.config.watch.probation.is_zero() {
            return;
        }
        let stats = &self.pipeline.stats;
        for (name, admitted) in is {
            let Some(before) = was.get(name).filter(|before| before.plugin.digest() != admitted.plugin.digest()) else {
                continue;
            };
            let digest = admitted.plugin.digest().clone();
            // The version before it may not have proved itself either: then the one before that is the measure.
            let before = self.on_probation.remove(name).map_or_else(|| before.clone(), |earlier| earlier.before);
            if *before.plugin.digest() == digest {
                continue;
            }
            let (calls, failures) = counts(stats, &digest);
            let began = Instant::now();
            self.on_probation.insert(name.clone(), Probation { before, digest, calls, failures, began });
        }
    }

    fn look_at_probation(&mut self) {
        let settings = &self.plugins.config.watch;
        let (window, min, more) = (settings.probation, settings.failures_min, settings.failures_percent_more);
        let pipeline = self.pipeline.clone();
        let mut failed = Vec::new();
        let before = self.on_probation.len();
        self.on_probation.retain(|name, probation| {
            let (calls, failures) = counts(&pipeline.stats, &probation.digest);
            let (calls, failures) = (calls - probation.calls, failures - probation.failures);
            let (known, known_failures) = counts(&pipeline.stats, probation.before.plugin.digest());
            let usual = (100 * known_failures).checked_div(known).unwrap_or(0);
            if failures >= min && 100 * failures > calls * (usual + more) {
                let why =
                    format!("{failures} of {calls} calls failed, against {usual} % of those of the version before");
                failed.push((name.clone(), probation.digest.clone(), probation.before.clone(), why));
                return false;
            }
            probation.began.elapsed() < window
        });
        for (name, digest, before, why) in failed {
            let why = format!("rolled back by itself: {why}");
            if let Err(error) = self.roll_back(&name, &digest, before, &why) {
                error!(plugin = %name, error = format!("{error:#}"), why, "failed to roll a version back");
            }
        }
        if self.on_probation.len() != before {
            self.show();
        }
    }

    /// The version before serves again, and this one is in quarantine: until its file changes, or somebody admits it.
    fn roll_back(&mut self, name: &Participant, digest: &str, before: Admitted, why: &str) -> Result<()> {
        let journal = self.pipeline.journal.clone();
        journal.quarantine_plugin(journal.identity().epoch, name, digest, Some(why))?;
        let place = self.plugins.serving.iter().find(|(_, admitted)| admitted.plugin.name() == *name);
        let file = place.map_or_else(|| before.file.clone(), |(file, _)| file.clone());
        let mut target = self.plugins.serving.clone();
        target.insert(file.clone(), Admitted { file, ..before.clone() });
        self.install(target)?;
        self.on_probation.remove(name);
        let reading = self.plugins.read();
        self.tell(&reading);
        error!(
            plugin = %name, version = before.plugin.manifest().version, digest = &before.plugin.digest()[..12], why,
            "the version before serves again; what the other one completed stays, its store writes too"
        );
        Ok(())
    }

    fn obey(&mut self, Order { plugin, action, reply }: Order) {
        let done = match action {
            PluginAction::Admit => self.admit(&plugin),
            PluginAction::Rollback { by, reason } => self.told_to_roll_back(&plugin, &by, &reason),
        };
        self.show();
        let _ = reply.send(done.map(|text| Answer { done: true, text }).map_err(|error| format!("{error:#}")));
    }

    fn admit(&mut self, name: &Participant) -> Result<String> {
        let journal = self.pipeline.journal.clone();
        let epoch = journal.identity().epoch;
        let rows: Vec<_> =
            self.plugins.rows.iter().filter(|row| row.participant == *name && row.quarantined.is_some()).collect();
        ensure!(!rows.is_empty(), "no version of plugin {name} is in quarantine");
        for row in rows {
            journal.quarantine_plugin(epoch, name, &row.digest, None)?;
        }
        self.plugins.rows = journal.admitted()?;
        let now = self.plugins.look().map_err(anyhow::Error::new)?;
        let reading = self.plugins.read();
        self.tell(&reading);
        self.install(self.target(&now, &reading))?;
        Ok(format!("plugin {name} is out of quarantine; its file serves, on probation"))
    }

    fn told_to_roll_back(&mut self, name: &Participant, by: &str, reason: &str) -> Result<String> {
        let serving = self.plugins.serving.values().find(|admitted| admitted.plugin.name() == *name).cloned();
        let serving = serving.ok_or_else(|| anyhow!("plugin {name} does not serve"))?;
        let digest = serving.plugin.digest().clone();
        let before = self.plugins.stored(name, Some(&digest), &serving.file);
        let before = before.ok_or_else(|| anyhow!("no other version of plugin {name} is stored"))?;
        let version = before.plugin.manifest().version.clone();
        self.roll_back(name, &digest, before, &format!("rolled back by {by}: {reason}"))?;
        Ok(format!("plugin {name} {version} serves again"))
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

/// Calls and failures of a version since the start.
fn counts(stats: &Stats, digest: &str) -> (u64, u64) {
    stats.of_plugin(digest).map_or((0, 0), |calls| (calls.calls, calls.failures))
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
        // To look at the directory is an event, too: who heeds that one never rests.
        let changes = |event: &notify::Event| {
            !event.kind.is_access() || event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
        };
        let told = move |event: notify::Result<notify::Event>| {
            if event.as_ref().is_ok_and(changes) || event.is_err() {
                let _ = ring.try_send(());
            }
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

    fn wait(&self, timeout: Duration, orders: &Receiver<Order>, stop: &AtomicBool) {
        const SLICE: Duration = Duration::from_millis(50);
        let until = Instant::now() + timeout;
        while !stop.load(Ordering::Relaxed) && orders.is_empty() {
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
