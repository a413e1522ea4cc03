//! What an operator says of plugins, as far as serving them is concerned. Invariant: the values are true already; nothing
//! here is read from a file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use sagahost_codec::TopicSettings;
use sagahost_manifest::{Limits, members::Overrides, settings};
use sagahost_saga::topology::Bounds;
use sagahost_transport::StartAt;

#[derive(Clone, Debug)]
pub struct Settings {
    pub app: Arc<str>,
    /// Directory of `*.wasm`.
    pub plugins_dir: PathBuf,
    /// Compiled code, plugin bytes by digest, the listing.
    pub data_dir: PathBuf,
    /// Do not start while a file of the plugin directory is refused.
    pub strict: bool,
    pub watch: WatchSettings,
    pub limits: Limits,
    pub bounds: Bounds,
    pub topics: TopicSettings,
    /// Key, value and headers of one record, in and out.
    pub record_bytes_max: usize,
    pub new_topics: NewTopics,
    /// Participants that run first when several subscribe to one event.
    pub plugin_order: Vec<String>,
    pub values: Values,
    /// Services of the configuration: what they did is undone over there, also while no version of theirs serves.
    pub outside: BTreeSet<String>,
    /// Named moments, for tests that end the process there.
    pub reached: fn(&'static str),
}

/// Topics that are missing, and those that were never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTopics {
    pub create: bool,
    pub partitions: i32,
    pub start: StartAt,
}

/// What can change while the host runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// By plugin name.
    pub settings: BTreeMap<String, settings::Settings>,
    pub overrides: Overrides,
}

impl Values {
    /// Keys that the operator has set, of each plugin.
    pub fn configured(&self) -> BTreeMap<String, Vec<String>> {
        let set = self.settings.iter().filter(|(_, settings)| !settings.config.is_empty());
        set.map(|(name, settings)| (name.clone(), settings.config.keys().cloned().collect())).collect()
    }
}

/// Table `[watch]`: the plugin directory while the host runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchSettings {
    /// How long the directory must stand still before a change is taken up: what changes within it belongs together.
    pub settle: Duration,
    /// How often it is looked at where the file system does not tell of changes.
    pub rescan: Duration,
    /// How long a version that replaced another is on probation; zero: not at all.
    pub probation: Duration,
    /// It is rolled back at so many failures (traps, deadlines, memory stops, invalid outcomes) …
    pub failures_min: u64,
    /// … when its calls fail more often than those of the version before, by so many percent of all calls.
    pub failures_percent_more: u64,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            settle: Duration::from_millis(100),
            rescan: Duration::from_secs(2),
            probation: Duration::from_secs(60),
            failures_min: 3,
            failures_percent_more: 5,
        }
    }
}
