//! The topics of an app: which it reads and writes, whether they are there, how far it is behind. Invariant: what an
//! app needs follows from configuration and from the manifests of what serves, never from those of refused files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use sagahost_codec::{SAGA_FAILED, TopicSettings};
use sagahost_journal::{AdmittedRow, Journal};
use sagahost_saga::id::Kind;
use sagahost_sandbox::{manifest::Manifest, pack};
use sagahost_transport::Transport;
use sagahost_wire::Partition;

use super::{protocol::Refusal, view::TopicLine};
use crate::settings::Settings;

/// A plugin file and what it says of itself; none: it is not a plugin (admission says why).
/// `services`: manifests of services, wherever they are.
pub fn plugin_files(dir: &Path, services: &[PathBuf]) -> Vec<(PathBuf, Option<Manifest>)> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm") && path.is_file())
        .collect();
    files.extend_from_slice(services);
    files.sort();
    files.into_iter().map(|path| (manifest_of(&path), path)).map(|(manifest, path)| (path, manifest)).collect()
}

fn manifest_of(file: &Path) -> Option<Manifest> {
    pack::manifest_of(&fs::read(file).ok()?)
}

/// Where participants are known from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    pub settings: &'a Settings,
    /// None: no host has run yet.
    pub journal: Option<&'a dyn Journal>,
    /// Then a file that the journal does not know serves nothing: it is refused, or waits.
    pub host_runs: bool,
}

/// Of all participants, those that serve and those that are away: of the versions that serve, or served last. Without a
/// host also of files whose plugins the journal does not know, which the next start may serve.
pub fn manifests(of: Sources<'_>) -> Result<Vec<Manifest>, Refusal> {
    let rows = match of.journal {
        Some(journal) => journal.admitted().map_err(Refusal::failed)?,
        None => Vec::new(),
    };
    let serving = rows.iter().filter(|row| row.serving);
    let mut found: Vec<Manifest> = serving.filter_map(AdmittedRow::manifest).collect();
    if of.host_runs {
        return Ok(found);
    }
    for manifest in plugin_files(&of.settings.plugins_dir, &of.settings.service_manifests)
        .into_iter()
        .filter_map(|(_, manifest)| manifest)
    {
        let judged = |row: &AdmittedRow| row.serving || row.quarantined.is_some();
        let known = rows.iter().any(|row| judged(row) && row.participant.as_str() == manifest.name)
            || found.iter().any(|other| other.name == manifest.name);
        if !known {
            found.push(manifest);
        }
    }
    Ok(found)
}

pub fn needed(settings: &TopicSettings, manifests: &[Manifest]) -> BTreeMap<Arc<str>, TopicLine> {
    let mut topics = BTreeMap::<Arc<str>, TopicLine>::new();
    let mut note = |kind: &str, read: bool| {
        let line = topics.entry(settings.topic_of(&Kind::new(kind))).or_default();
        line.read |= read;
        line.written |= !read;
        if !line.kinds.iter().any(|known| known == kind) {
            line.kinds.push(kind.to_owned());
        }
    };
    for manifest in manifests {
        let handled = manifest.subscriptions.iter().map(|subscription| &subscription.kind);
        handled.chain(&manifest.compensate_on).chain(&manifest.finish_on).for_each(|kind| note(kind, true));
        manifest.emits.iter().chain(&manifest.starts).for_each(|kind| note(kind, false));
    }
    note(SAGA_FAILED, true);
    note(SAGA_FAILED, false);
    if let Some(name) = &settings.dead_letters {
        topics.entry(name.clone()).or_default().written = true;
    }
    for (name, line) in &mut topics {
        line.name = name.to_string();
        line.kinds.sort();
    }
    topics
}

pub fn list(of: Sources<'_>, transport: &dyn Transport) -> Result<Vec<TopicLine>, Refusal> {
    let mut lines = needed(&of.settings.topics, &manifests(of)?);
    let names: Vec<Arc<str>> = lines.keys().cloned().collect();
    let there = transport.topics(&names).map_err(Refusal::failed)?;
    let partitions: Vec<Partition> =
        there.iter().flat_map(|(name, count)| (0..*count).map(move |number| Partition::new(name, number))).collect();
    let bounds = transport.bounds(&partitions).map_err(Refusal::failed)?;
    let positions = match of.journal {
        Some(journal) => journal.positions().map_err(Refusal::failed)?,
        None => BTreeMap::new(),
    };
    for (name, line) in &mut lines {
        line.partitions = there.get(name).copied();
        if line.partitions.is_none() {
            line.create = Some(transport.create_command(name));
        }
    }
    for (partition, (first, end)) in bounds {
        let Some(line) = lines.get_mut(&partition.topic) else { continue };
        *line.records.get_or_insert(0) += end - first;
        if let Some(position) = positions.get(&partition) {
            *line.lag.get_or_insert(0) += (end - position.next.max(first)).max(0);
        }
    }
    let read: Vec<Partition> = partitions.into_iter().filter(|partition| positions.contains_key(partition)).collect();
    for at in transport.unstable(&read).map_err(Refusal::failed)? {
        let reached = positions.get(&at.partition).is_some_and(|position| position.next >= at.stable);
        if let Some(line) = lines.get_mut(&at.partition.topic).filter(|_| reached) {
            line.held_up.push(format!("{} at {}", at.partition, at.stable));
        }
    }
    Ok(lines.into_values().collect())
}

/// No names: all that are missing. Returns what it made.
pub fn create(
    of: Sources<'_>,
    transport: &dyn Transport,
    names: &[String],
    partitions: i32,
) -> Result<Vec<String>, Refusal> {
    let wanted: BTreeSet<Arc<str>> = if names.is_empty() {
        needed(&of.settings.topics, &manifests(of)?).into_keys().collect()
    } else {
        names.iter().map(|name| name.as_str().into()).collect()
    };
    let wanted: Vec<Arc<str>> = wanted.into_iter().collect();
    let there = transport.topics(&wanted).map_err(Refusal::failed)?;
    let missing: Vec<Arc<str>> = wanted.into_iter().filter(|name| !there.contains_key(name)).collect();
    if !missing.is_empty() {
        transport.create_topics(&missing, partitions).map_err(Refusal::failed)?;
    }
    Ok(missing.iter().map(ToString::to_string).collect())
}
