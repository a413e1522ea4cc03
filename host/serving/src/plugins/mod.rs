//! The plugins of this app: those in the directory, those that were admitted before and are away now, and what
//! follows from their manifests. Invariant: a participant that was admitted once is not forgotten until an operator
//! retires it: while its file is away its events park.

mod directory;
mod error;
mod listing;
mod retention;
mod start;
mod unfinished;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use sagahost_codec::{Codec, SAGA_FAILED};
use sagahost_journal::{AdmittedRow, Journal, PluginHistoryEntry, PluginWrite};
use sagahost_manifest::{
    Fault, Manifest, Report,
    graph::Graph,
    manifest::From,
    members::{override_faults, topology_members},
};
use sagahost_processor::{
    self as processor,
    planted::{self, Planted},
    start::Wanted,
    step::Signal,
};
use sagahost_saga::{
    id::{Kind, Participant, Time},
    topology::Topology,
};
use sagahost_wire::Generation;
use tracing::{error, info, warn};

use self::directory::Verdicts;
pub use self::{
    directory::Reading,
    error::PluginsError,
    start::{Readiness, Started},
};
use crate::{
    admission::{self, Admission, Admitted, Archive, Compiling, DirectorySnapshot, Watch},
    code::{Registry, Shelf},
    settings::{NewTopics, Settings, Values},
};

/// How the history entry of a version begins that replaced another.
const IN_PLACE_OF: &str = "serves in place of";

/// What serves, by the file that it came from.
pub type Serving = BTreeMap<PathBuf, Admitted>;

/// One participant of this app.
struct Participating {
    manifest: Manifest,
    serving: bool,
}

pub struct Plugins {
    pub settings: Settings,
    admission: Arc<dyn Admission>,
    archive: Arc<dyn Archive>,
    verdicts: Verdicts,
    pub serving: Serving,
    /// What the journal knows, as of the last `refresh`.
    pub rows: Vec<AdmittedRow>,
    pub paused: BTreeMap<Participant, String>,
    /// Services that do not answer at the moment, and why.
    pub unreachable: BTreeMap<Participant, String>,
    /// Data formats that unfinished sagas hold.
    formats: BTreeMap<Participant, BTreeSet<u32>>,
}

impl Plugins {
    /// Reads no file yet.
    pub fn new(settings: Settings, admission: Arc<dyn Admission>, archive: Arc<dyn Archive>) -> Self {
        Self {
            settings,
            admission,
            archive,
            verdicts: Verdicts::default(),
            serving: Serving::new(),
            rows: Vec::new(),
            paused: BTreeMap::new(),
            unreachable: BTreeMap::new(),
            formats: BTreeMap::new(),
        }
    }

    /// What is in the directory; no file is opened.
    pub fn look(&self) -> Result<DirectorySnapshot, Report> {
        self.admission.look()
    }

    pub(crate) fn watch(&self, changed: Arc<Signal>) -> Box<dyn Watch> {
        self.admission.watch(changed)
    }

    /// What the journal knows of plugins, and what sagas under way need of them.
    pub fn refresh(&mut self, journal: &dyn Journal) -> Result<(), PluginsError> {
        self.rows = journal.admitted()?;
        self.paused = journal.paused()?;
        let referenced = journal.referenced_digests()?;
        self.formats.clear();
        for row in self.rows.iter().filter(|row| referenced.contains_key(&row.digest)) {
            if let Some(manifest) = row.manifest() {
                self.formats.entry(row.participant.clone()).or_default().insert(manifest.data_format);
            }
        }
        Ok(())
    }

    /// Other values for plugins: everything is to be admitted anew. Returns those before.
    pub fn configure(&mut self, values: Values) -> Values {
        self.verdicts.forget();
        std::mem::replace(&mut self.settings.values, values)
    }

    /// Has one of these been compiled by now?
    pub fn is_one_compiled(&self, compiling: &BTreeMap<PathBuf, Compiling>) -> bool {
        let is_compiled = |compiling: &Compiling| !self.admission.is_compiling(&compiling.digest);
        compiling.values().any(is_compiled) && !planted::on(Planted::ForgetCompiling)
    }

    /// The files as they were read last, as far as each is admitted by itself.
    pub fn files_there(&self) -> impl Iterator<Item = &Admitted> {
        self.verdicts.admitted()
    }

    /// Admits what has changed since the last reading. Changes nothing of what serves.
    pub fn read(&mut self) -> Reading {
        self.read_as(self.look())
    }

    /// `looks`: the directory as it stood still.
    pub fn read_as(&mut self, looks: Result<DirectorySnapshot, Report>) -> Reading {
        let (dir, settings) = (&self.settings.plugins_dir, &self.settings.values.settings);
        let mut reading = self.verdicts.read(dir, looks, &*self.admission, settings);
        let overrides = &self.settings.values.overrides;
        reading.refuse(|admitted| override_faults(&[admitted.plugin.manifest()], overrides));
        reading.refuse(|admitted| self.format_faults(admitted));
        reading.refuse(|admitted| self.quarantine_fault(admitted).into_iter().collect());
        let of_name = |row: &AdmittedRow| (row.participant.clone(), (PathBuf::from(&row.file), row.digest.clone()));
        reading.one_of_each_name(&self.rows.iter().filter(|row| row.serving).map(of_name).collect());
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
    /// the file that is refused. The one that served last comes first.
    ///
    /// # Errors
    /// One of them could not be read just now: an older one must not serve for that.
    pub fn stored(
        &self,
        participant: &Participant,
        not: Option<&str>,
        file: &Path,
    ) -> Result<Option<Admitted>, PluginsError> {
        let usable = |row: &&AdmittedRow| {
            row.participant == *participant && row.quarantined.is_none() && Some(&*row.digest) != not
        };
        let mut rows: Vec<&AdmittedRow> = self.rows.iter().filter(usable).collect();
        rows.sort_by_key(|row| std::cmp::Reverse((row.serving, row.admitted)));
        for row in rows {
            if let Some(admitted) = self.stored_as(row, file)? {
                return Ok(Some(admitted));
            }
        }
        Ok(None)
    }

    /// The version that served last, of a participant that is away.
    ///
    /// # Errors
    /// It could not be read just now.
    pub fn last_served(&self, name: &Participant, file: &Path) -> Result<Option<Admitted>, PluginsError> {
        let last = |row: &&AdmittedRow| row.participant == *name && row.serving && row.quarantined.is_none();
        self.rows.iter().find(last).map_or(Ok(None), |row| self.stored_as(row, file))
    }

    /// None: it is lost, or does not load any more.
    fn stored_as(&self, row: &AdmittedRow, file: &Path) -> Result<Option<Admitted>, PluginsError> {
        let settings = &self.settings.values.settings;
        Ok(admission::load(&*self.archive, &*self.admission, &row.digest, file, settings)?)
    }

    /// The same version with the configuration of today; None: it does not fit.
    pub fn readmit(&self, admitted: &Admitted) -> Option<Admitted> {
        let settings = &self.settings.values.settings;
        self.admission.admit_stored(admitted.bytes.clone(), &admitted.file, settings).ok()
    }

    pub fn quarantined(&self, name: &Participant, digest: &str) -> bool {
        self.rows.iter().any(|row| row.participant == *name && *row.digest == *digest && row.quarantined.is_some())
    }

    /// Keeps the bytes of each version, and journals what is new about them: all of it, or nothing.
    pub fn keep(&mut self, admitted: &[Admitted], journal: &dyn Journal, now: Time) -> Result<(), PluginsError> {
        let mut write = PluginWrite::default();
        for admitted in admitted {
            self.archive.put(&admitted.bytes)?;
            (self.settings.reached)("plugin-stored");
            let row = self.row(admitted, now)?;
            if let Some(deed) = self.history_entry(&row) {
                write.history.push(deed);
                write.admitted.push(row);
            }
        }
        let serves = |row: &AdmittedRow| admitted.iter().any(|admitted| admitted.plugin.name() == row.participant);
        for row in self.rows.iter().filter(|row| row.serving && !row.away() && !serves(row)) {
            write.history.push(row.history_entry(now, format!("away: {} is gone", row.file)));
            write.admitted.push(AdmittedRow { file: String::new(), ..row.clone() });
        }
        // The retention of a version begins when it ends to serve.
        let stays = |digest: &str| admitted.iter().any(|admitted| **admitted.plugin.digest() == *digest);
        for outgoing in self.serving.values().filter(|outgoing| !stays(outgoing.plugin.digest())) {
            self.archive.put(&outgoing.bytes)?;
        }
        if !write.admitted.is_empty() {
            journal.change_plugins(journal.identity().epoch, &write)?;
        }
        (self.settings.reached)("plugins-journaled");
        self.refresh(journal)
    }

    /// Of a version that is to serve.
    pub fn row(&self, admitted: &Admitted, now: Time) -> Result<AdmittedRow, PluginsError> {
        let (participant, behaviour) = (admitted.plugin.name(), admitted.plugin.behaviour());
        let known = self.rows.iter().find(|row| row.participant == participant && row.digest == behaviour.digest);
        let manifest = serde_json::to_string(&**admitted.plugin.manifest())
            .map_err(|source| PluginsError::Manifest { plugin: participant.to_string(), source })?;
        Ok(AdmittedRow {
            manifest,
            admitted: now,
            // What a version took in once it took in: the header of its own records still says so.
            since: known.map_or_else(|| self.next_generation(), |row| row.since),
            serving: true,
            quarantined: None,
            file: admitted.file.display().to_string(),
            digest: behaviour.digest,
            config: behaviour.config,
            participant,
        })
    }

    /// None: it serves like this already.
    fn history_entry(&self, row: &AdmittedRow) -> Option<PluginHistoryEntry> {
        let serves = self.rows.iter().find(|before| before.participant == row.participant && before.serving);
        let what = match serves {
            None => "serves".to_owned(),
            Some(before) if before.digest != row.digest => {
                format!("{IN_PLACE_OF} {}", version_of(before).unwrap_or_else(|| short(&before.digest)))
            }
            Some(before) if before.config != row.config => "serves with another configuration".to_owned(),
            Some(before) if before.file != row.file => format!("serves from {}", row.file),
            Some(_) => return None,
        };
        Some(row.history_entry(row.admitted, what))
    }

    /// Versions that no saga needs any more, past the retention.
    pub fn remove_unneeded(
        &self,
        journal: &dyn Journal,
        also_needed: BTreeSet<Arc<str>>,
        now: Time,
    ) -> Result<(), PluginsError> {
        let mut needed = also_needed;
        needed.extend(journal.referenced_digests()?.into_keys());
        needed.extend(self.rows.iter().filter(|row| row.serving).map(|row| row.digest.clone()));
        // The time of a file is finer than ours: one of this very moment counts as older.
        let since = Time(now.before(self.settings.bounds.retention).0 + 1);
        let removed = self.archive.retain(&needed, since)?;
        if removed > 0 {
            info!(removed, "plugin versions that no saga needs any more, and that are past the retention");
        }
        self.forget(&needed, since, journal)
    }

    /// Those whose plugins serve, and those that are away or paused.
    fn participants(&self, serving: &Serving) -> Vec<Participating> {
        let manifest = |admitted: &Admitted| (**admitted.plugin.manifest()).clone();
        let works = |admitted: &Admitted| {
            let name = admitted.plugin.name();
            !self.paused.contains_key(&name) && !self.unreachable.contains_key(&name)
        };
        let of = |admitted| Participating { manifest: manifest(admitted), serving: works(admitted) };
        let mut participants: Vec<Participating> = serving.values().map(of).collect();
        for row in self.rows.iter().filter(|row| row.serving && !planted::on(Planted::ForgetAway)) {
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
        let settings = &self.settings;
        let mut inputs: BTreeMap<Arc<str>, bool> = BTreeMap::new();
        let mut outputs = BTreeSet::new();
        for Participating { manifest, .. } in &self.participants(serving) {
            for kind in kinds_read(manifest) {
                let subscription = manifest.subscriptions.iter().find(|s| s.kind == kind.as_str());
                let whole = subscription.is_some_and(|subscription| subscription.from == From::Earliest);
                *inputs.entry(settings.topics.topic_of(&kind)).or_default() |= whole;
            }
            let emitted = manifest.emits.iter().chain(&manifest.starts);
            outputs.extend(emitted.map(|kind| settings.topics.topic_of(&Kind::new(kind))));
        }
        if !inputs.is_empty() {
            inputs.entry(settings.topics.saga_failed.clone()).or_default();
        }
        outputs.extend(settings.topics.dead_letters.clone());
        let NewTopics { create, partitions, start } = settings.new_topics;
        Wanted { inputs, outputs, create, partitions, start }
    }

    /// Of the topics that are assigned, those that nobody handles now: reading them can wait until somebody does.
    /// Failures and endings cannot, even of participants that are away.
    pub fn idle_topics(&self, assigned: BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
        let topic = |kind: &String| self.settings.topics.topic_of(&Kind::new(kind));
        let mut read = BTreeSet::from([self.settings.topics.saga_failed.clone()]);
        for Participating { manifest, serving } in &self.participants(&self.serving) {
            if *serving {
                read.extend(manifest.subscriptions.iter().map(|subscription| topic(&subscription.kind)));
            }
            read.extend(manifest.compensate_on.iter().chain(&manifest.finish_on).map(topic));
        }
        &assigned - &read
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
    pub fn serve(&self) -> Result<processor::Serving, PluginsError> {
        let settings = &self.settings;
        let participants = self.participants(&self.serving);
        let members: Vec<(&Manifest, bool)> = participants.iter().map(|p| (&p.manifest, p.serving)).collect();
        let mut members = topology_members(&members, &settings.values.overrides, &settings.plugin_order);
        for member in &mut members {
            let name = &member.name;
            let code = self.serving.values().find(|admitted| admitted.plugin.name() == *name);
            let configured = settings.outside.contains(name.as_str());
            member.outside_effects = code.map_or(configured, |admitted| admitted.plugin.code.is_outside());
            member.unreachable = self.unreachable.contains_key(name) && !self.paused.contains_key(name);
        }
        let topology =
            Topology { app: settings.app.to_string(), members, bounds: settings.bounds.clone(), saga_failed: None };
        // All kinds that any participant names or named: for records that say their kind by their topic only.
        let mut kinds: BTreeSet<Kind> = participants.iter().flat_map(|p| kinds_read(&p.manifest)).collect();
        let former = self.rows.iter().filter_map(AdmittedRow::manifest);
        kinds.extend(former.flat_map(|manifest| kinds_read(&manifest).collect::<Vec<_>>()));
        let kinds: Vec<Kind> = kinds.into_iter().chain([Kind::new(SAGA_FAILED)]).collect();
        let codec = Codec::new(&settings.app, &settings.topics, settings.record_bytes_max).with_kinds(&kinds);
        let shelf = Shelf {
            admission: self.admission.clone(),
            archive: self.archive.clone(),
            settings: settings.values.settings.clone(),
            loaded: Mutex::default(),
        };
        let code = Arc::new(Registry::new(self.serving.values(), self.archive.list()?, shelf));
        Ok(processor::Serving { topology, code, codec, generation: self.generation(), since: self.since() })
    }

    /// Of what serves: the newest that a version came with.
    fn generation(&self) -> Generation {
        self.rows.iter().map(|row| row.since).max().unwrap_or_default()
    }

    fn next_generation(&self) -> Generation {
        Generation(self.generation().0 + u64::from(!planted::on(Planted::KeepGeneration)))
    }

    /// From which generation on all subscribers of a kind take its events: the latest of their first admissions.
    fn since(&self) -> BTreeMap<Kind, Generation> {
        let mut first: BTreeMap<(Kind, &Participant), Generation> = BTreeMap::new();
        for row in &self.rows {
            let Some(manifest) = row.manifest() else { continue };
            for kind in kinds_read(&manifest) {
                let since = first.entry((kind, &row.participant)).or_insert(row.since);
                *since = (*since).min(row.since);
            }
        }
        let mut all = BTreeMap::new();
        for ((kind, _), since) in first {
            let latest: &mut Generation = all.entry(kind).or_insert(since);
            *latest = (*latest).max(since);
        }
        all
    }
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

fn version_of(row: &AdmittedRow) -> Option<String> {
    Some(row.manifest()?.version)
}

/// Of a digest or hash, for people.
pub fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}
