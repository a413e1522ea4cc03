//! The operator's settings for one plugin, against what its manifest declares. Invariant: what a guest reads through
//! `config` has passed here: declared, of the declared type, and complete.

use std::{collections::BTreeMap, sync::Arc};

use sagahost_saga::id;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    check::{has_type, type_name},
    http::{ALL, Grant, Grants},
    manifest::{ConfigType, Manifest},
    report::{Fault, hint},
};

/// `[plugin.NAME]` of the configuration, as far as the sandbox is concerned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Settings {
    /// What the plugin reads through its `config` import.
    pub config: BTreeMap<String, Value>,
    /// Where it may send requests; the manifest must ask for it, too. URLs that are no grants grant nothing; in tests, `*`
    /// grants all that the manifest asks for.
    pub http: Vec<String>,
    pub isolation: Isolation,
}

/// What a call finds in the plugin's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Nothing: an instance is made for it, and thrown away behind it.
    #[default]
    Fresh,
    /// What calls before it left there, of other sagas, too. An instance whose call did not return is thrown away.
    Reuse,
}

/// How strictly the operator's settings must fit the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// A file of the plugin directory: every key must be known.
    Exact,
    /// An older version from the data directory: keys that it does not know are for its successor.
    Lenient,
}

/// All keys that have a value, scalars as text.
pub fn resolve(manifest: &Manifest, settings: &Settings, fit: Fit) -> Result<BTreeMap<String, String>, Vec<Fault>> {
    let place = |key: &str| format!("configuration, [plugin.{}.config] {key}", manifest.name);
    let mut faults = Vec::new();
    if fit == Fit::Exact {
        for key in settings.config.keys().filter(|key| !manifest.config.contains_key(*key)) {
            let fix = hint(key, manifest.config.keys().map(String::as_str));
            faults.push(Fault::new(format!("the plugin has no configuration key `{key}`"), place(key), fix));
        }
        faults.extend(grant_faults(manifest, settings));
    }
    let mut resolved = BTreeMap::new();
    for (name, key) in &manifest.config {
        match settings.config.get(name).or(key.default.as_ref()) {
            Some(value) if has_type(value, key.of) => {
                resolved.insert(name.clone(), text(value, key.of));
            }
            Some(value) => {
                let what = format!("`{name}` must be of type {}, not {value}", type_name(key.of));
                faults.push(Fault::new(what, place(name), doc("correct the value", &key.doc)));
            }
            None if key.required => {
                let what = format!("`{name}` is required and has no value");
                let fix = doc(&format!("add a value of type {}", type_name(key.of)), &key.doc);
                faults.push(Fault::new(what, place(name), fix));
            }
            None => {}
        }
    }
    if faults.is_empty() { Ok(resolved) } else { Err(faults) }
}

/// Where a plugin may send requests.
pub fn grants(manifest: &Manifest, settings: &Settings) -> Grants {
    let all = settings.http.iter().any(|url| url == ALL);
    let given = || settings.http.iter().filter_map(|url| Grant::parse(url).ok()).collect();
    Grants::new(&manifest.grants, (!all).then(given))
}

fn grant_faults(manifest: &Manifest, settings: &Settings) -> Vec<Fault> {
    let grants = grants(manifest, settings);
    let (missing, unasked) = grants.differences();
    let missing = missing.iter().map(|grant| {
        let what = format!("the plugin asks to send requests to {grant}, and nothing of that is granted");
        let url = if grant == "*" { "https://HOST/PATH" } else { grant };
        Fault::new(
            what,
            format!("configuration, [plugin.{}]", manifest.name),
            format!("add {}", table(&manifest.name, url)),
        )
    });
    let unasked = unasked.iter().map(|grant| {
        let what = format!("the plugin does not ask to send requests to {grant}");
        let place = format!("configuration, {}", table(&manifest.name, &grant.to_string()));
        Fault::new(what, place, "remove the table")
    });
    missing.chain(unasked).collect()
}

fn table(name: &str, url: &str) -> String {
    format!("[plugin.{name}.http.\"{url}\"]")
}

fn doc(fix: &str, doc: &str) -> String {
    if doc.is_empty() { fix.to_owned() } else { format!("{fix} ({doc})") }
}

fn text(value: &Value, of: ConfigType) -> String {
    match value {
        Value::String(text) if of != ConfigType::Json => text.clone(),
        other => other.to_string(),
    }
}

/// Part of a behaviour's identity.
pub fn config_hash(config: &BTreeMap<String, String>) -> Arc<str> {
    let parts: Vec<&[u8]> = config.iter().flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()]).collect();
    id::hex(&id::sha256(&parts)[..16]).into()
}
