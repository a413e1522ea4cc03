//! What the crates behind get of the configuration: settings of their own, narrow ones. Invariant: nothing is decided here.

use std::{collections::BTreeMap, time::Duration};

use sagahost_saga::id::Participant;
use sagahost_sandbox::{
    members::{Override, Overrides},
    settings,
};
use sagahost_serving::settings::{NewTopics, Values};
use sagahost_transport::StartAt;

use super::{Config, PluginSettings, SubscriptionSettings};
use crate::crash;

impl Config {
    /// For whoever serves plugins.
    pub fn serving(&self) -> sagahost_serving::Settings {
        sagahost_serving::Settings {
            app: self.app.clone(),
            plugins_dir: self.plugins_dir.clone(),
            data_dir: self.data_dir.clone(),
            strict: self.strict,
            watch: self.watch.clone(),
            limits: self.limits.clone(),
            bounds: self.bounds.clone(),
            topics: self.topics.clone(),
            record_bytes_max: self.pipeline.record_bytes_max,
            new_topics: match &self.kafka {
                Some(kafka) => {
                    NewTopics { create: kafka.create_topics, partitions: kafka.partitions, start: kafka.start }
                }
                None => NewTopics { create: true, partitions: self.embedded.partitions, start: StartAt::Earliest },
            },
            plugin_order: self.plugin_order.iter().map(ToString::to_string).collect(),
            values: self.values(),
            outside: self.participants.keys().cloned().collect(),
            reached: crash::point,
        }
    }

    /// For whoever answers operators.
    pub fn operator(&self) -> sagahost_operator::Settings {
        let new_topics = self.serving().new_topics;
        sagahost_operator::Settings {
            app: self.app.clone(),
            data_dir: self.data_dir.clone(),
            plugins_dir: self.plugins_dir.clone(),
            service_manifests: self.service_manifests(),
            topics: self.topics.clone(),
            record_bytes_max: self.pipeline.record_bytes_max,
            create_topics: new_topics.create,
            partitions: new_topics.partitions,
            configured: self.values().configured(),
            way: self.way(),
            admin: self.admin.clone(),
        }
    }

    /// What the operator says of plugins, in the sandbox's words.
    pub fn values(&self) -> Values {
        let of = |plugin: &PluginSettings| settings::Settings {
            config: plugin.config.clone().into_iter().collect(),
            http: plugin.http.iter().map(|settings| settings.grant.to_string()).collect(),
            isolation: plugin.isolation,
        };
        Values {
            settings: self.plugins.iter().map(|(name, plugin)| (name.clone(), of(plugin))).collect(),
            overrides: self.overrides(),
        }
    }

    /// Where plugins may send requests.
    pub fn grants(&self) -> sagahost_outbound::Plugins {
        let granted = self.plugins.iter().filter(|(_, plugin)| !plugin.http.is_empty());
        granted.map(|(name, plugin)| (Participant::new(name), plugin.http.clone())).collect()
    }

    fn overrides(&self) -> Overrides {
        let kinds = |plugin: &PluginSettings| -> BTreeMap<String, Override> {
            plugin.on.iter().map(|(kind, settings)| (kind.to_string(), over(settings))).collect()
        };
        self.plugins.iter().map(|(name, plugin)| (name.clone(), kinds(plugin))).collect()
    }
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
