//! The manifest: what a plugin says of itself, JSON in custom section `sagahost:manifest`. Invariant: reading it runs
//! nothing and compiles nothing.

use std::collections::BTreeMap;

use sagahost_saga::topology::{OnDeadLetter, Role, When};
use serde::{Deserialize, Serialize};

pub use crate::check::{contract_served, is_kind, is_participant_name};
use crate::{check, report::Fault};

/// Name of the custom section: at depth 0 (`sagahost plugins pack`) or depth 1 (the SDK's macro).
pub const SECTION: &str = "sagahost:manifest";
/// The contract that this host serves: package version of `wit/plugin.wit`.
pub const CONTRACT: &str = "0.1.0";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// The participant's name: lower-case letters, digits, hyphens.
    pub name: String,
    /// Of the plugin, for people: `1.3.0`.
    pub version: String,
    /// Version of `sagahost:plugin` that it was built against.
    pub contract: String,
    #[serde(default)]
    pub subscriptions: Vec<Subscription>,
    /// Kinds that it may emit in this saga.
    #[serde(default)]
    pub emits: Vec<String>,
    /// Kinds that it may emit under another saga id.
    #[serde(default)]
    pub starts: Vec<String>,
    #[serde(default)]
    pub compensate_on: Vec<String>,
    #[serde(default)]
    pub finish_on: Vec<String>,
    /// It ends sagas with `progress.finished`.
    #[serde(default)]
    pub finishes: bool,
    /// Format of the state and undo data that it writes.
    #[serde(default = "one")]
    pub data_format: u32,
    /// Formats that it understands; empty: only `data-format`.
    #[serde(default)]
    pub reads: Vec<u32>,
    #[serde(default)]
    pub config: BTreeMap<String, ConfigKey>,
    /// What it asks for beyond world `plugin`: `http:https://HOST/PATH`, or `http:*` for whatever the operator grants.
    #[serde(default)]
    pub grants: Vec<String>,
    /// Laws that it breaks on purpose, each with the reason: what legitimately remains. The host ignores them, the law
    /// checker prints them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waivers: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

impl Manifest {
    /// Reads the JSON of a manifest; on failure every fault that was found.
    pub fn parse(json: &[u8]) -> Result<Self, Vec<Fault>> {
        check::parse(json)
    }

    /// That of a service, which was built against no contract and need not name one.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn of_service(json: &[u8]) -> Result<Self, Vec<Fault>> {
        check::parse_of_service(json)
    }

    /// Whether these bytes are meant as the manifest of a service: a component's begin with its magic number.
    pub fn is_of_service(bytes: &[u8]) -> bool {
        bytes.trim_ascii_start().first() == Some(&b'{')
    }

    /// What is wrong with it; empty: nothing.
    pub fn faults(&self) -> Vec<Fault> {
        check::faults(self)
    }

    /// One line of JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has only text keys, so it can be JSON")
    }

    /// Does it understand all these formats of state and undo data?
    pub fn reads(&self, formats: &[u32]) -> bool {
        let known =
            |format: &u32| self.reads.contains(format) || (self.reads.is_empty() && *format == self.data_format);
        formats.iter().all(known)
    }

    pub fn subscription(&self, kind: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|subscription| subscription.kind == kind)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Subscription {
    pub kind: String,
    #[serde(default = "compensable")]
    pub role: Role,
    #[serde(default = "running")]
    pub when: When,
    #[serde(default)]
    pub after: Vec<String>,
    /// `now`: events taken in after its admission; `earliest`: the whole topic, where the app did not read it before.
    #[serde(default)]
    pub from: From,
    #[serde(default)]
    pub retry: RetrySpec,
    /// From taking the event in to the end of its last attempt.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    #[serde(default)]
    pub park_ttl_ms: Option<u64>,
    #[serde(default)]
    pub on_dead_letter: Option<OnDeadLetter>,
    /// An upper bound for the outcome's `undo`.
    #[serde(default)]
    pub undo_bytes_max: Option<usize>,
    /// The data of one example event.
    #[serde(default)]
    pub example: Option<serde_json::Value>,
}

fn compensable() -> Role {
    Role::Compensable
}
fn running() -> When {
    When::Running
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    #[default]
    Now,
    Earliest,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RetrySpec {
    pub attempts_max: Option<u32>,
    pub base_ms: Option<u64>,
    pub cap_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ConfigKey {
    #[serde(rename = "type")]
    pub of: ConfigType,
    #[serde(default)]
    pub default: Option<serde_json::Value>,
    #[serde(default)]
    pub required: bool,
    #[serde(default)]
    pub doc: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigType {
    String,
    Integer,
    Float,
    Boolean,
    /// Arrives as JSON text.
    Json,
}
