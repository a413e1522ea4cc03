//! The plugins of this app: those in the directory, those that were admitted before and are away now, and what
//! follows from their manifests. Invariant: a participant that was admitted once is never forgotten: while its file
//! is away its events park.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail};
use sagahost_saga::{
    id::{Kind, Participant},
    topology::Topology,
};
use sagahost_sandbox::{
    Engine, Manifest, Report,
    digests::DigestStore,
    directory,
    manifest::From,
    members::{Override, Overrides, topology_members},
    registry::Registry,
    settings::Settings,
};
use tracing::{error, info, warn};

use crate::{
    clock::Clock,
    config::{Config, SAGA_FAILED, Start, SubscriptionSettings},
    journal::{AdmittedRow, BatchNo, Journal},
    pipeline::Surroundings,
    start::Wanted,
};

/// One participant of this app.
struct Participating {
    manifest: Manifest,
    serving: bool,
}

pub struct PluginSet {
    registry: Registry,
    participants: Vec<Participating>,
    rows: Vec<AdmittedRow>,
    pub refused: Vec<Report>,
}

/// Plugins of the directory and of the data directory, without a journal: what `plugins list` shows.
pub struct Shelf {
    pub engine: Arc<Engine>,
    pub digests: DigestStore,
    pub settings: BTreeMap<String, Settings>,
    pub reading: directory::Reading,
}

impl Shelf {
    pub fn read(config: &Config) -> Result<Self> {
        let cache = config.data_dir.join("cache");
        let engine = Engine::new(config.limits.clone(), Some(&cache)).context("failed to start the sandbox")?;
        let digests = DigestStore::open(&config.data_dir.join("plugins"))?;
        let settings = settings(config);
        let reading = directory::read(&config.plugins_dir, &engine, &settings);
        Ok(Self { engine, digests, settings, reading })
    }
}

impl PluginSet {
    /// Reads the directory, keeps the bytes of what is admitted, and journals each new version.
    pub fn load(config: &Config, journal: &dyn Journal, clock: &dyn Clock) -> Result<Self> {
        let Shelf { engine, digests, settings, reading } = Shelf::read(config)?;
        let identity = journal.identity();
        let since = BatchNo(identity.last_batch.0 + 1);
        let before = journal.admitted()?;
        for admitted in &reading.admitted {
            let plugin = &admitted.plugin;
            digests.put(&admitted.bytes)?;
            let row = AdmittedRow {
                participant: plugin.name(),
                digest: plugin.digest().clone(),
                manifest: serde_json::to_string(&**plugin.manifest())?,
                admitted: clock.now(),
                since,
                serving: true,
            };
            let known = before
                .iter()
                .any(|other| other.participant == row.participant && other.digest == row.digest && other.serving);
            if !known {
                journal.admit(identity.epoch, &row)?;
            }
            info!(plugin = %plugin.name(), version = plugin.manifest().version, digest = &plugin.digest()[..12], "admitted");
        }
        let rows = journal.admitted()?;
        let mut needed = journal.referenced_digests()?;
        needed.extend(rows.iter().filter(|row| row.serving).map(|row| row.digest.clone()));
        let since = SystemTime::now().checked_sub(config.bounds.retention).unwrap_or(SystemTime::UNIX_EPOCH);
        let removed = digests.retain(&needed, since)?;
        if removed > 0 {
            info!(removed, "plugin versions that no saga needs any more, and that are past the retention");
        }
        let registry = Registry::new(&reading.admitted, digests.list()?, engine, digests, settings);
        let mut participants: Vec<Participating> = reading
            .admitted
            .iter()
            .map(|admitted| Participating { manifest: (**admitted.plugin.manifest()).clone(), serving: true })
            .collect();
        for row in rows.iter().filter(|row| row.serving) {
            if participants.iter().any(|there| there.manifest.name == row.participant.as_str()) {
                continue;
            }
            match serde_json::from_str(&row.manifest) {
                Ok(manifest) => {
                    warn!(
                        participant = %row.participant,
                        "no plugin in the directory serves it; its events park until one does"
                    );
                    participants.push(Participating { manifest, serving: false });
                }
                Err(error) => error!(participant = %row.participant, %error, "its journaled manifest cannot be read"),
            }
        }
        if participants.is_empty() {
            bail!("nothing to run: {}", nothing_admitted(config, &reading.refused));
        }
        for report in &reading.refused {
            error!("not admitted, and the others serve without it:\n{report}");
        }
        Ok(Self { registry, participants, rows, refused: reading.refused })
    }

    /// All kinds that any participant names: for records that say their kind by their topic only.
    pub fn kinds(&self) -> Vec<Kind> {
        let kinds: BTreeSet<Kind> = self.participants.iter().flat_map(|p| kinds_read(&p.manifest)).collect();
        kinds.into_iter().chain([Kind::new(SAGA_FAILED)]).collect()
    }

    /// Topics that this app reads and writes.
    pub fn wanted(&self, config: &Config) -> Wanted {
        let mut inputs: BTreeMap<Arc<str>, bool> = BTreeMap::new();
        let mut outputs = BTreeSet::new();
        for Participating { manifest, .. } in &self.participants {
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

    pub fn into_surroundings(self, config: &Config) -> Surroundings {
        let order: Vec<String> = config.plugin_order.iter().map(ToString::to_string).collect();
        let members: Vec<(&Manifest, bool)> = self.participants.iter().map(|p| (&p.manifest, p.serving)).collect();
        let topology = Topology {
            app: config.app.to_string(),
            members: topology_members(&members, &overrides(config), &order),
            bounds: config.bounds.clone(),
            saga_failed: None,
        };
        let since = self.since();
        Surroundings { topology, registry: self.registry, since }
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

fn nothing_admitted(config: &Config, refused: &[Report]) -> String {
    let reports: String = refused.iter().map(|report| format!("\n{report}")).collect();
    format!("no plugin in {} is admitted{reports}", config.plugins_dir.display())
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
