//! Reading a manifest and finding what is wrong with it. Invariant: all faults are found in one go, each with its
//! place, and nothing of the plugin is run or compiled for it.

use std::collections::BTreeSet;

use sagahost_saga::topology::{OnDeadLetter, Role};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    http,
    law::Law,
    manifest::{CONTRACT, ConfigKey, ConfigType, Manifest, Subscription},
    report::{Fault, hint},
};

const FIELDS: &[&str] = &[
    "name",
    "version",
    "contract",
    "subscriptions",
    "emits",
    "starts",
    "compensate-on",
    "finish-on",
    "finishes",
    "data-format",
    "reads",
    "config",
    "grants",
    "waivers",
];
const SUBSCRIPTION_FIELDS: &[&str] = &[
    "kind",
    "role",
    "when",
    "after",
    "from",
    "retry",
    "deadline-ms",
    "park-ttl-ms",
    "on-dead-letter",
    "undo-bytes-max",
    "example",
];
const RETRY_FIELDS: &[&str] = &["attempts-max", "base-ms", "cap-ms"];
const CONFIG_FIELDS: &[&str] = &["type", "default", "required", "doc"];
const NAME_BYTES_MAX: usize = 64;
const KIND_BYTES_MAX: usize = 128;
const REASON_BYTES_MAX: usize = 500;

pub(crate) fn parse(json: &[u8]) -> Result<Manifest, Vec<Fault>> {
    parse_fields(object(json)?)
}

pub(crate) fn parse_of_service(json: &[u8]) -> Result<Manifest, Vec<Fault>> {
    let mut fields = object(json)?;
    fields.entry("contract").or_insert_with(|| Value::from(CONTRACT));
    parse_fields(fields)
}

fn object(json: &[u8]) -> Result<Map<String, Value>, Vec<Fault>> {
    let value: Value = serde_json::from_slice(json).map_err(|error| {
        vec![Fault::new(format!("its manifest is not valid JSON: {error}"), "manifest", "correct the manifest")]
    })?;
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(vec![Fault::new("its manifest is not a JSON object", "manifest", "correct the manifest")]),
    }
}

fn parse_fields(mut fields: Map<String, Value>) -> Result<Manifest, Vec<Fault>> {
    let mut faults = Vec::new();
    known_only(&mut fields, FIELDS, "manifest", &mut faults);
    let subscriptions = subscriptions(&mut fields, &mut faults);
    let config = config(&mut fields, &mut faults);
    let manifest: Option<Manifest> = typed(Value::Object(fields), "manifest", &mut faults);
    match manifest {
        Some(manifest) if faults.is_empty() => Ok(Manifest { subscriptions, config, ..manifest }),
        Some(manifest) => {
            faults.extend(self::faults(&Manifest { subscriptions, config, ..manifest }));
            Err(faults)
        }
        None => Err(faults),
    }
}

fn subscriptions(fields: &mut Map<String, Value>, faults: &mut Vec<Fault>) -> Vec<Subscription> {
    let Some(Value::Array(list)) = fields.get_mut("subscriptions").map(Value::take) else {
        return Vec::new();
    };
    fields.remove("subscriptions");
    let mut read = Vec::new();
    for (index, mut value) in list.into_iter().enumerate() {
        let place = format!("manifest, subscriptions[{index}]");
        if let Value::Object(subscription) = &mut value {
            known_only(subscription, SUBSCRIPTION_FIELDS, &place, faults);
            if let Some(Value::Object(retry)) = subscription.get_mut("retry") {
                known_only(retry, RETRY_FIELDS, &format!("{place}.retry"), faults);
            }
        }
        read.extend(typed::<Subscription>(value, &place, faults));
    }
    read
}

fn config(fields: &mut Map<String, Value>, faults: &mut Vec<Fault>) -> std::collections::BTreeMap<String, ConfigKey> {
    let Some(Value::Object(keys)) = fields.get_mut("config").map(Value::take) else {
        return Default::default();
    };
    fields.remove("config");
    let mut read = std::collections::BTreeMap::new();
    for (name, mut value) in keys {
        let place = format!("manifest, config.{name}");
        if let Value::Object(key) = &mut value {
            known_only(key, CONFIG_FIELDS, &place, faults);
        }
        if let Some(key) = typed(value, &place, faults) {
            read.insert(name, key);
        }
    }
    read
}

fn known_only(fields: &mut Map<String, Value>, known: &[&'static str], place: &str, faults: &mut Vec<Fault>) {
    fields.retain(|name, _| {
        let is_known = known.contains(&name.as_str());
        if !is_known {
            faults.push(Fault::new(format!("unknown field `{name}`"), place, hint(name, known.iter().copied())));
        }
        is_known
    });
}

fn typed<T: DeserializeOwned>(value: Value, place: &str, faults: &mut Vec<Fault>) -> Option<T> {
    serde_json::from_value(value)
        .map_err(|error| faults.push(Fault::new(error.to_string(), place, "correct the manifest")))
        .ok()
}

/// What is wrong with a manifest that could be read.
pub(crate) fn faults(manifest: &Manifest) -> Vec<Fault> {
    let mut check = Check(Vec::new());
    check.identity(manifest);
    check.kinds(manifest);
    for (index, subscription) in manifest.subscriptions.iter().enumerate() {
        check.subscription(manifest, subscription, &format!("manifest, subscriptions[{index}]"));
    }
    if let Some(kind) = after_cycle(manifest) {
        check.fault(format!("`after` of {kind} waits for itself"), "manifest, subscriptions", "break the cycle");
    }
    for (name, key) in &manifest.config {
        check.config_key(name, key);
    }
    if !manifest.reads.is_empty() && !manifest.reads.contains(&manifest.data_format) {
        let what = format!("`reads` does not name data format {}, which it writes", manifest.data_format);
        check.fault(what, "manifest, reads", "add the format that `data-format` names");
    }
    for (law, reason) in &manifest.waivers {
        check.waiver(law, reason);
    }
    for grant in &manifest.grants {
        if let Err(why) = http::check_grant(grant) {
            check.fault(
                why,
                "manifest, grants",
                "write `http:https://HOST/PATH`, or `http:*` for what the operator grants",
            );
        }
    }
    check.0
}

struct Check(Vec<Fault>);

impl Check {
    fn fault(&mut self, what: impl Into<String>, place: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Fault::new(what, place, fix));
    }

    fn identity(&mut self, manifest: &Manifest) {
        if !is_participant_name(&manifest.name) {
            self.fault(
                format!("`{}` is not a valid name for a participant", manifest.name),
                "manifest, name",
                format!("use lower-case letters, digits and hyphens, a letter first, {NAME_BYTES_MAX} at most"),
            );
        }
        if manifest.version.is_empty() || manifest.version.len() > NAME_BYTES_MAX {
            self.fault("the version is empty or too long", "manifest, version", "write one such as 1.3.0");
        }
        if !contract_served(&manifest.contract) {
            self.fault(
                format!("it was built for contract {}, this host serves {CONTRACT}", manifest.contract),
                "manifest, contract",
                "rebuild it with the SDK or the `wit` directory of this host's version",
            );
        }
    }

    fn kinds(&mut self, manifest: &Manifest) {
        if manifest.subscriptions.is_empty() {
            self.fault("it subscribes to nothing", "manifest, subscriptions", "name at least one kind of event");
        }
        let subscribed: Vec<String> = manifest.subscriptions.iter().map(|s| s.kind.clone()).collect();
        let lists = [
            ("subscriptions", &subscribed),
            ("emits", &manifest.emits),
            ("starts", &manifest.starts),
            ("compensate-on", &manifest.compensate_on),
            ("finish-on", &manifest.finish_on),
        ];
        for (field, kinds) in lists {
            let mut seen = BTreeSet::new();
            for kind in kinds {
                let place = format!("manifest, {field}");
                if !is_kind(kind) {
                    let fix = format!("use letters, digits and `._-/:`, {KIND_BYTES_MAX} at most");
                    self.fault(format!("`{kind}` is not a valid kind of event"), place.clone(), fix);
                }
                if !seen.insert(kind) {
                    self.fault(format!("duplicate {kind}"), place, "keep one of them");
                }
            }
        }
        for kind in manifest.finish_on.iter().filter(|kind| manifest.compensate_on.contains(kind)) {
            let what = format!("{kind} is in both `finish-on` and `compensate-on`");
            self.fault(what, "manifest, finish-on", "name it in `finish-on` or in `compensate-on`");
        }
    }

    fn subscription(&mut self, manifest: &Manifest, subscription: &Subscription, place: &str) {
        let kind = &subscription.kind;
        for after in &subscription.after {
            if !manifest.subscriptions.iter().any(|other| other.kind == *after) {
                self.fault(
                    format!("{kind} waits for {after}, which this participant does not handle"),
                    format!("{place}.after"),
                    hint(after, manifest.subscriptions.iter().map(|s| s.kind.as_str())),
                );
            }
        }
        if subscription.role != Role::Compensable && subscription.undo_bytes_max.is_some() {
            let what = format!("{kind} has `undo-bytes-max`, but its role says that it is never undone");
            self.fault(what, format!("{place}.undo-bytes-max"), "remove it, or make the role `compensable`");
        }
        if subscription.role == Role::Retriable && subscription.on_dead_letter == Some(OnDeadLetter::Compensate) {
            let what = format!("{kind} is retriable, so it comes after the pivot, where nothing can be compensated");
            self.fault(what, format!("{place}.on-dead-letter"), "use `block` or `skip`");
        }
        self.bounds(subscription, place);
    }

    fn bounds(&mut self, subscription: &Subscription, place: &str) {
        let retry = &subscription.retry;
        if retry.attempts_max == Some(0) {
            self.fault("no attempt is allowed", format!("{place}.retry.attempts-max"), "use 1 or more");
        }
        if retry.cap_ms.is_some_and(|cap| retry.base_ms.is_some_and(|base| base > cap)) {
            self.fault("`base-ms` is above `cap-ms`", format!("{place}.retry"), "raise the cap or lower the base");
        }
        for (field, value) in [("deadline-ms", subscription.deadline_ms), ("park-ttl-ms", subscription.park_ttl_ms)] {
            if value == Some(0) {
                self.fault("a duration of 0 never lets it run", format!("{place}.{field}"), "use 1 or more, or none");
            }
        }
    }

    fn waiver(&mut self, law: &str, reason: &str) {
        let place = format!("manifest, waivers.{law}");
        let waivable = Law::ALL.iter().filter(|law| law.waivable()).map(|law| law.name());
        match Law::parse(law) {
            None => self.fault(format!("there is no law `{law}`"), place.clone(), hint(law, waivable)),
            Some(law) if !law.waivable() => {
                let fix = "remove it, and fix the plugin: `sagahost check` shows how it is broken";
                self.fault(format!("`{law}` cannot be waived"), place.clone(), fix);
            }
            Some(_) => {}
        }
        if !(1..=REASON_BYTES_MAX).contains(&reason.trim().len()) {
            let fix = format!("say in a sentence what remains and why it may, {REASON_BYTES_MAX} bytes at most");
            self.fault("a waiver needs a reason", place, fix);
        }
    }

    fn config_key(&mut self, name: &str, key: &ConfigKey) {
        let place = format!("manifest, config.{name}");
        if !is_participant_name(name) {
            let fix = "use lower-case letters, digits and hyphens, a letter first";
            self.fault(format!("`{name}` is not a valid configuration key"), place.clone(), fix);
        }
        if key.required && key.default.is_some() {
            self.fault("it is required and has a default", place.clone(), "keep one of the two");
        }
        if let Some(default) = key.default.as_ref().filter(|default| !has_type(default, key.of)) {
            let what = format!("its default {default} is not a valid {}", type_name(key.of));
            self.fault(what, place, "correct the default or the type");
        }
    }
}

pub fn is_participant_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

pub fn is_kind(kind: &str) -> bool {
    (1..=KIND_BYTES_MAX).contains(&kind.len())
        && kind.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':'))
}

/// While it is 0.x, every change bumps the minor.
pub fn contract_served(version: &str) -> bool {
    let series = |version: &str| version.rsplit_once('.').map(|(series, _)| series.to_owned());
    series(version).is_some() && series(version) == series(CONTRACT)
}

pub(crate) fn has_type(value: &Value, of: ConfigType) -> bool {
    match of {
        ConfigType::String => value.is_string(),
        ConfigType::Integer => value.is_i64() || value.is_u64(),
        ConfigType::Float => value.is_number(),
        ConfigType::Boolean => value.is_boolean(),
        ConfigType::Json => true,
    }
}

pub(crate) fn type_name(of: ConfigType) -> &'static str {
    match of {
        ConfigType::String => "string",
        ConfigType::Integer => "integer",
        ConfigType::Float => "number",
        ConfigType::Boolean => "boolean",
        ConfigType::Json => "JSON value",
    }
}

/// A kind whose `after` leads back to it.
fn after_cycle(manifest: &Manifest) -> Option<&str> {
    let after = |kind: &str| {
        let subscription = manifest.subscription(kind);
        subscription.into_iter().flat_map(|subscription| &subscription.after)
    };
    manifest.subscriptions.iter().map(|s| s.kind.as_str()).find(|start| {
        let mut open: Vec<&str> = after(start).map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        while let Some(kind) = open.pop() {
            if kind == *start {
                return true;
            }
            if seen.insert(kind) {
                open.extend(after(kind).map(String::as_str));
            }
        }
        false
    })
}
