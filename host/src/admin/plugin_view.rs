//! Plugins as operators see them. Invariant: as in `view`, plain data that commands print and `--json` prints as it is.

use std::collections::BTreeMap;

use sagahost_sandbox::{Manifest, Report};
use serde::{Deserialize, Serialize};

use super::stamp::Stamp;
use crate::journal::{AdmittedRow, PluginDeed};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct PluginLine {
    pub name: String,
    pub version: String,
    pub digest: String,
    /// serving, probation, paused (its file is gone, or an operator said so: its events park), quarantined, stored (an
    /// older version), retired; without a host admitted or new.
    pub state: String,
    /// Hash of the configuration that it served with last.
    pub config: String,
    pub admitted: Stamp,
    pub handles: Vec<String>,
    pub emits: Vec<String>,
    pub file: Option<String>,
    /// What should not be so for long: the file is another one, it is paused, why it is in quarantine.
    pub note: Option<String>,
    /// What admission found that is no fault.
    pub notes: Vec<String>,
    /// Of this host since its start.
    pub calls: u64,
    /// Of these: traps, deadlines, memory stops, invalid outcomes.
    pub failures: u64,
    /// Running time of a call, microseconds.
    pub p50_us: u64,
    pub p99_us: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PluginsView {
    pub plugins: Vec<PluginLine>,
    /// Files that are not admitted, each with all that is wrong.
    pub refused: Vec<Report>,
}

/// All about one plugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct PluginView {
    pub name: String,
    /// The version that serves first.
    pub versions: Vec<PluginLine>,
    pub refused: Vec<Report>,
    /// Of the version that serves, or served last.
    pub manifest: serde_json::Value,
    /// Configuration keys that the operator has set.
    pub configured: Vec<String>,
    /// Digest → unfinished sagas that refer to it.
    pub unfinished: BTreeMap<String, u64>,
    /// The newest first.
    pub history: Vec<DeedLine>,
}

/// What was done to a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct DeedLine {
    pub at: Stamp,
    pub digest: String,
    pub config: String,
    pub what: String,
}

impl From<&PluginDeed> for DeedLine {
    fn from(deed: &PluginDeed) -> Self {
        Self {
            at: deed.at.into(),
            digest: deed.digest.to_string(),
            config: deed.config.to_string(),
            what: deed.what.clone(),
        }
    }
}

impl PluginLine {
    pub fn of_row(row: &AdmittedRow, state: &str) -> Self {
        let manifest: Option<Manifest> = serde_json::from_str(&row.manifest).ok();
        Self {
            name: row.participant.to_string(),
            version: manifest.as_ref().map(|manifest| manifest.version.clone()).unwrap_or_default(),
            digest: row.digest.to_string(),
            state: state.to_owned(),
            config: row.config.to_string(),
            admitted: Stamp(row.admitted),
            handles: manifest.iter().flat_map(|m| &m.subscriptions).map(|s| s.kind.clone()).collect(),
            emits: manifest.iter().flat_map(|manifest| manifest.emits.clone()).collect(),
            ..Self::default()
        }
    }
}

impl PluginsView {
    /// By name; what is merely stored last, the newest of it first.
    pub fn sorted(mut plugins: Vec<PluginLine>, refused: Vec<Report>) -> Self {
        plugins.sort_by(|a, b| {
            (&a.name, a.state == "stored", b.admitted).cmp(&(&b.name, b.state == "stored", a.admitted))
        });
        Self { plugins, refused }
    }
}
