//! The configuration file, read again while the host runs. Invariant: only values for plugins change before the next start.

use std::{error::Error, mem, path::PathBuf, sync::Arc};

use sagahost_journal::AdmittedRow;
use sagahost_serving::keeper::{Configuration, NewValues};
use tracing::error;

use super::Config;
use crate::{outside::Everybody, preflight::warned_strays};

/// The file that the host was started with, and what is in force of it.
pub struct ReloadedFile {
    file: PathBuf,
    in_force: Config,
    read: Config,
    /// Who sends what plugins are granted.
    outside: Arc<Everybody>,
}

impl ReloadedFile {
    /// None: the host runs without a file.
    pub fn of(config: &Config, outside: &Arc<Everybody>) -> Option<Self> {
        let (file, outside) = (config.file.clone()?, outside.clone());
        Some(Self { file, in_force: config.clone(), read: config.clone(), outside })
    }
}

impl Configuration for ReloadedFile {
    fn read(&mut self, rows: &[AdmittedRow]) -> Result<NewValues, Box<dyn Error + Send + Sync>> {
        self.read = Config::load(&self.file)?;
        let elsewhere = changed_elsewhere(&self.in_force, &self.read);
        let mut notes = Vec::new();
        if !elsewhere.is_empty() {
            notes.push(format!("{} changed too: that takes effect at the next start", elsewhere.join(", ")));
        }
        let strays = warned_strays(&self.read, rows);
        notes.extend(strays.iter().map(|stray| format!("no effect: {}", stray.text)));
        let changed = changed_plugins(&self.in_force, &self.read);
        let unknown = |name: &&String| strays.iter().any(|stray| stray.table == format!("plugin.{name}"));
        Ok(NewValues {
            values: self.read.values(),
            unknown: changed.iter().filter(unknown).cloned().collect(),
            changed,
            place: self.file.display().to_string(),
            notes,
        })
    }

    fn applied(&mut self) {
        self.in_force.plugins = mem::take(&mut self.read.plugins);
        if let Err(error) = self.outside.senders.grant(&self.in_force.grants()) {
            error!(%error, "the grants of plugins stay as they were");
        }
    }
}

fn changed_plugins(before: &Config, now: &Config) -> Vec<String> {
    let mut names: Vec<String> = before.plugins.keys().chain(now.plugins.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| before.plugins.get(name) != now.plugins.get(name));
    names
}

fn changed_elsewhere(before: &Config, now: &Config) -> Vec<String> {
    // What the command line said at the start is not a change of the file.
    let now = Config { strict: before.strict, ..now.clone() };
    let (before, now) = (before.shown(), now.shown());
    let fields = before.iter().filter(|(name, value)| *name != "plugin" && now.get(*name) != Some(value));
    fields.map(|(name, _)| format!("`{name}`")).collect()
}
