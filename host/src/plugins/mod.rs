//! The plugins of this app: those in the directory, those that were admitted before and are away now, and what
//! follows from their manifests. Invariant: a participant that was admitted once is never forgotten: while its file
//! is away its events park.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail};
use sagahost_saga::{
    id::{Kind, Participant},
    topology::Topology,
};
use sagahost_sandbox::{
    Engine, Fault, Manifest, Report,
    admission::{Admitted, admit},
    digests::DigestStore,
    directory::{Directory, Looks, Reading},
    graph::Graph,
    manifest::From,
    members::{Override, Overrides, override_faults, topology_members},
    registry::Registry,
    settings::Settings,
};
use tracing::{error, info, warn};

use crate::{
    admin::view::{PluginLine, PluginsView},
    clock::Clock,
    codec::Codec,
    config::{Config, SAGA_FAILED, Start, SubscriptionSettings},
    journal::{AdmittedRow, BatchNo, Journal},
    pipeline::Surroundings,
    start::Wanted,
};

/// What serves, by the file that it came from.
pub type Serving = BTreeMap<PathBuf, Admitted>;

/// One participant of this app.
struct Participating {
    manifest: Manifest,
    serving: bool,
}

pub struct Plugins {
    pub config: Config,
    engine: Arc<Engine>,
    digests: DigestStore,
    settings: BTreeMap<String, Settings>,
    directory: Directory,
    pub serving: Serving,
    pub rows: Vec<AdmittedRow>,
}

impl Plugins {
    /// Reads no file yet.
    pub fn open(config: Config) -> Result<Self> {
        let cache = config.data_dir.join("cache");
        let engine = Engine::new(config.limits.clone(), Some(&cache)).context("failed to start the sandbox")?;
        let digests = DigestStore::open(&config.data_dir.join("plugins"))?;
        let settings = settings(&config);
        let directory = Directory::new(&config.plugins_dir);
        Ok(Self { config, engine, digests, settings, directory, serving: Serving::new(), rows: Vec::new() })
    }

    /// What stands in the directory; no file is opened.
    pub fn look(&self) -> Result<Looks, Report> {
        self.directory.look()
    }

    /// Admits what has changed since the last reading. Changes nothing of what serves.
    pub fn read(&mut self) -> Reading {
        let of_name = |row: &AdmittedRow| (row.participant.clone(), row.digest.clone());
        let known = self.rows.iter().filter(|row| row.serving).map(of_name).collect();
        let mut reading = self.directory.read(&self.engine, &self.settings, &known);
        let overrides = overrides(&self.config);
        reading.refuse(|admitted| override_faults(&[admitted.plugin.manifest()], &overrides));
        reading.refuse(|admitted| self.quarantine_fault(admitted).into_iter().collect());
        reading
    }

    /// A version that was taken out of service does not come back by itself.
    fn quarantine_fault(&self, Admitted { plugin, .. }: &Admitted) -> Option<Fault> {
        let name = plugin.name();
        let row = self.rows.iter().find(|row| row.participant == name && row.digest == *plugin.digest())?;
        let what = format!("this version is in quarantine: {}", row.quarantined.as_ref()?);
        let fix = format!("replace the file by a mended version, or `sagahost plugins admit {name}`");
        Some(Fault::new(what, "", fix))
    }

    /// The newest stored version of a participant that is not in quarantine, other than `not`; to serve in place of
    /// the file that is refused.
    pub fn stored(&self, participant: &Participant, not: Option<&str>, file: &Path) -> Option<Admitted> {
        let usable = |row: &&AdmittedRow| {
            row.participant == *participant && row.quarantined.is_none() && Some(&*row.digest) != not
        };
        let row = self.rows.iter().filter(usable).max_by_key(|row| (row.serving, row.admitted))?;
        let bytes =
            self.digests.get(&row.digest).inspect_err(|error| error!(%error, "a stored version is lost")).ok()??;
        admit(bytes, file, &self.engine, &self.settings)
            .inspect_err(|report| error!(%report, "a stored version is of no use"))
            .ok()
    }

    /// Reads the directory for the first time, and keeps and journals what is admitted.
    pub fn start(&mut self, journal: &dyn Journal, clock: &dyn Clock) -> Result<Vec<Report>> {
        self.rows = journal.admitted()?;
        let reading = self.read();
        if self.config.strict && !reading.refused.is_empty() {
            let reports = lines(&reading.refused);
            bail!("not started, as `strict` asks: not every file of the plugin directory is admitted{reports}");
        }
        let since = BatchNo(journal.identity().last_batch.0 + 1);
        self.keep(&reading.admitted, since, journal, clock)?;
        self.serving = reading.admitted.into_iter().map(|admitted| (admitted.file.clone(), admitted)).collect();
        // Where a file is in quarantine, the version before it serves on.
        let quarantined = |row: &AdmittedRow| row.quarantined.is_some();
        let names: BTreeSet<Participant> =
            self.rows.iter().filter(|row| quarantined(row)).map(|row| row.participant.clone()).collect();
        for name in names {
            let serves = self.serving.values().any(|admitted| admitted.plugin.name() == name);
            let file = reading.refused.iter().find(|report| report.plugin.as_deref() == Some(name.as_str()));
            if let (false, Some(report)) = (serves, file)
                && let Some(stored) = self.stored(&name, None, &report.file)
            {
                self.serving.insert(report.file.clone(), stored);
            }
        }
        self.remove_unneeded(journal)?;
        let participants = self.participants(&self.serving);
        if participants.is_empty() {
            let dir = self.config.plugins_dir.display();
            bail!("nothing to run: no plugin in {dir} is admitted{}", lines(&reading.refused));
        }
        for admitted in self.serving.values() {
            let plugin = &admitted.plugin;
            info!(plugin = %plugin.name(), version = plugin.manifest().version, digest = &plugin.digest()[..12], "admitted");
        }
        for away in participants.iter().filter(|participating| !participating.serving) {
            warn!(
                participant = away.manifest.name,
                "no plugin in the directory serves it; its events park until one does"
            );
        }
        self.warn_of_cycles();
        for report in &reading.refused {
            error!("not admitted, and the others serve without it:\n{report}");
        }
        Ok(reading.refused)
    }

    /// Keeps the bytes of each version, and journals the new ones.
    pub fn keep(
        &mut self,
        admitted: &[Admitted],
        since: BatchNo,
        journal: &dyn Journal,
        clock: &dyn Clock,
    ) -> Result<()> {
        let epoch = journal.identity().epoch;
        for admitted in admitted {
            let plugin = &admitted.plugin;
            self.digests.put(&admitted.bytes)?;
            let row = AdmittedRow {
                participant: plugin.name(),
                digest: plugin.digest().clone(),
                manifest: serde_json::to_string(&**plugin.manifest())?,
                admitted: clock.now(),
                since,
                serving: true,
                quarantined: None,
            };
            let serves = |other: &AdmittedRow| {
                other.participant == row.participant && other.digest == row.digest && other.serving
            };
            if !self.rows.iter().any(serves) {
                journal.admit(epoch, &row)?;
            }
        }
        self.rows = journal.admitted()?;
        Ok(())
    }

    /// Versions that no saga needs any more, past the retention.
    fn remove_unneeded(&self, journal: &dyn Journal) -> Result<()> {
        let mut needed = journal.referenced_digests()?;
        needed.extend(self.rows.iter().filter(|row| row.serving).map(|row| row.digest.clone()));
        let since = SystemTime::now().checked_sub(self.config.bounds.retention).unwrap_or(SystemTime::UNIX_EPOCH);
        let removed = self.digests.retain(&needed, since)?;
        if removed > 0 {
            info!(removed, "plugin versions that no saga needs any more, and that are past the retention");
        }
        Ok(())
    }

    /// Those whose plugins serve, and those that are away.
    fn participants(&self, serving: &Serving) -> Vec<Participating> {
        let manifest = |admitted: &Admitted| (**admitted.plugin.manifest()).clone();
        let mut participants: Vec<Participating> =
            serving.values().map(|admitted| Participating { manifest: manifest(admitted), serving: true }).collect();
        for row in self.rows.iter().filter(|row| row.serving) {
            if participants.iter().any(|there| there.manifest.name == row.participant.as_str()) {
                continue;
            }
            match serde_json::from_str(&row.manifest) {
                Ok(manifest) => participants.push(Participating { manifest, serving: false }),
                Err(error) => error!(participant = %row.participant, %error, "its journaled manifest cannot be read"),
            }
        }
        participants
    }

    /// Topics that this app reads and writes.
    pub fn wanted(&self, serving: &Serving) -> Wanted {
        let config = &self.config;
        let mut inputs: BTreeMap<Arc<str>, bool> = BTreeMap::new();
        let mut outputs = BTreeSet::new();
        for Participating { manifest, .. } in &self.participants(serving) {
            for kind in kinds_read(manifest) {
                let subscription = manifest.subscriptions.iter().find(|s| s.kind == kind.as_str());
                let whole = subscription.is_some_and(|subscription| subscription.from == From::Earliest);
                *inputs.entry(config.topics.topic_of(&kind)).or_default() |= whole;
            }
            let emitted = manifest.emits.iter().chain(&manifest.starts);
            outputs.extend(emitted.map(|kind| config.topics.topic_of(&Kind::new(kind))));
        }
        if !inputs.is_empty() {
            inputs.entry(config.topics.saga_failed.clone()).or_default();
        }
        outputs.extend(config.topics.dead_letters.clone());
        let (create, partitions, start) = match &config.kafka {
            Some(kafka) => (kafka.create_topics, kafka.partitions, kafka.start),
            None => (true, config.embedded.partitions, Start::Earliest),
        };
        Wanted { inputs, outputs, create, partitions, start }
    }

    /// Topics whose events only participants handle that are away: reading them can wait. Failures and endings cannot.
    pub fn idle_topics(&self) -> BTreeSet<Arc<str>> {
        let topic = |kind: &String| self.config.topics.topic_of(&Kind::new(kind));
        let (mut idle, mut read) = (BTreeSet::new(), BTreeSet::from([self.config.topics.saga_failed.clone()]));
        for Participating { manifest, serving } in &self.participants(&self.serving) {
            let handled = manifest.subscriptions.iter().map(|subscription| topic(&subscription.kind));
            if *serving {
                read.extend(handled)
            } else {
                idle.extend(handled)
            }
            read.extend(manifest.compensate_on.iter().chain(&manifest.finish_on).map(topic));
        }
        &idle - &read
    }

    /// `waits`: files whose new version waits for another file.
    pub fn view(&self, refused: Vec<Report>, waits: &dyn Fn(&Path) -> bool) -> PluginsView {
        let of = |row: &AdmittedRow| {
            if let Some(why) = &row.quarantined {
                return PluginLine { note: Some(why.clone()), ..PluginLine::of_row(row, "quarantined") };
            }
            let serving = self.serving.values().find(|admitted| {
                row.serving && admitted.plugin.name() == row.participant && *admitted.plugin.digest() == row.digest
            });
            let state = match (row.serving, serving) {
                (true, Some(_)) => "serving",
                (true, None) => "paused",
                (false, _) => "stored",
            };
            let mut line = PluginLine::of_row(row, state);
            if let Some(admitted) = serving {
                line.file = Some(admitted.file.display().to_string());
                line.note = if refused.iter().any(|report| report.file == admitted.file) {
                    Some("the file is another one now, and refused: see below".to_owned())
                } else if waits(&admitted.file) {
                    Some("the file is another one now, and waits for one that changed with it".to_owned())
                } else {
                    None
                };
            }
            line
        };
        PluginsView::sorted(self.rows.iter().map(of).collect(), refused)
    }

    /// Kinds that lead back to themselves: said, not refused, for what is declared need not happen.
    pub fn warn_of_cycles(&self) {
        let participants = self.participants(&self.serving);
        for cycle in Graph::of(participants.iter().map(|participating| &participating.manifest)).cycles {
            warn!(
                cycle = cycle.join(" → "),
                "these plugins may feed each other without end; `[saga] hops-max` and `steps-max` stop that"
            );
        }
    }

    /// What chains run with from now on.
    pub fn surroundings(&self) -> Result<Surroundings> {
        let config = &self.config;
        let order: Vec<String> = config.plugin_order.iter().map(ToString::to_string).collect();
        let participants = self.participants(&self.serving);
        let members: Vec<(&Manifest, bool)> = participants.iter().map(|p| (&p.manifest, p.serving)).collect();
        let topology = Topology {
            app: config.app.to_string(),
            members: topology_members(&members, &overrides(config), &order),
            bounds: config.bounds.clone(),
            saga_failed: None,
        };
        // All kinds that any participant names: for records that say their kind by their topic only.
        let kinds: BTreeSet<Kind> = participants.iter().flat_map(|p| kinds_read(&p.manifest)).collect();
        let kinds: Vec<Kind> = kinds.into_iter().chain([Kind::new(SAGA_FAILED)]).collect();
        let codec = Codec::new(&config.app, &config.topics, config.pipeline.record_bytes_max).with_kinds(&kinds);
        let admitted: Vec<Admitted> = self.serving.values().cloned().collect();
        let (engine, digests) = (self.engine.clone(), self.digests.clone());
        let registry = Registry::new(&admitted, digests.list()?, engine, digests, self.settings.clone());
        Ok(Surroundings { topology, registry, codec, since: self.since() })
    }

    /// From which batch on all subscribers of a kind take its events: the latest of their first admissions.
    fn since(&self) -> HashMap<Kind, BatchNo> {
        let mut first: BTreeMap<(Kind, &Participant), BatchNo> = BTreeMap::new();
        for row in &self.rows {
            let Ok(manifest) = serde_json::from_str::<Manifest>(&row.manifest) else { continue };
            for kind in kinds_read(&manifest) {
                let since = first.entry((kind, &row.participant)).or_insert(row.since);
                *since = (*since).min(row.since);
            }
        }
        let mut all = HashMap::new();
        for ((kind, _), since) in first {
            let latest: &mut BatchNo = all.entry(kind).or_insert(since);
            *latest = (*latest).max(since);
        }
        all
    }
}

fn lines(reports: &[Report]) -> String {
    reports.iter().map(|report| format!("\n{report}")).collect()
}

/// Kinds that a participant acts on: handles, ends with, or compensates on.
fn kinds_read(manifest: &Manifest) -> impl Iterator<Item = Kind> {
    manifest
        .subscriptions
        .iter()
        .map(|subscription| &subscription.kind)
        .chain(&manifest.finish_on)
        .chain(&manifest.compensate_on)
        .map(Kind::new)
}

fn settings(config: &Config) -> BTreeMap<String, Settings> {
    let of = |config: &serde_json::Map<String, serde_json::Value>| Settings {
        config: config.clone().into_iter().collect(),
        grants: Vec::new(),
    };
    config.plugins.iter().map(|(name, plugin)| (name.clone(), of(&plugin.config))).collect()
}

fn overrides(config: &Config) -> Overrides {
    let kinds = |plugin: &crate::config::PluginSettings| {
        plugin.on.iter().map(|(kind, settings)| (kind.to_string(), over(settings))).collect()
    };
    config.plugins.iter().map(|(name, plugin)| (name.clone(), kinds(plugin))).collect()
}

fn over(settings: &SubscriptionSettings) -> Override {
    let ms = |duration: Option<std::time::Duration>| duration.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    Override {
        attempts_max: settings.retry.attempts_max,
        base_ms: ms(settings.retry.base),
        cap_ms: ms(settings.retry.cap),
        undo_attempts_max: settings.undo_retry.attempts_max,
        undo_base_ms: ms(settings.undo_retry.base),
        undo_cap_ms: ms(settings.undo_retry.cap),
        deadline_ms: ms(settings.deadline),
        park_ttl_ms: ms(settings.park_ttl),
        on_dead_letter: settings.on_dead_letter,
    }
}
