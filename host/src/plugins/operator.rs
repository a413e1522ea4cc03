//! What the operator's configuration says about plugins, in the sandbox's words. Invariant: nothing is decided here.

use std::{collections::BTreeMap, time::Duration};

use sagahost_sandbox::{
    members::{Override, Overrides},
    settings::Settings,
};

use crate::config::{Config, PluginSettings, SubscriptionSettings};

pub fn settings(config: &Config) -> BTreeMap<String, Settings> {
    let of = |config: &serde_json::Map<String, serde_json::Value>| Settings {
        config: config.clone().into_iter().collect(),
        grants: Vec::new(),
    };
    config.plugins.iter().map(|(name, plugin)| (name.clone(), of(&plugin.config))).collect()
}

pub fn overrides(config: &Config) -> Overrides {
    let kinds =
        |plugin: &PluginSettings| plugin.on.iter().map(|(kind, settings)| (kind.to_string(), over(settings))).collect();
    config.plugins.iter().map(|(name, plugin)| (name.clone(), kinds(plugin))).collect()
}

fn over(settings: &SubscriptionSettings) -> Override {
    let ms = |duration: Option<Duration>| duration.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
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
