//! What is wrong with a configuration beyond its fields: what librdkafka says when clients are made of it, and what has
//! no effect with the plugins that there are. Invariant: nothing is connected, started or written, so that `config check`
//! and a start find the same.

use std::collections::BTreeSet;

use sagahost_ingress::{Does, Route};
use sagahost_journal::AdmittedRow;
use sagahost_manifest::{
    Manifest,
    members::override_faults,
    report::{hint, nearest},
    settings::{Fit, resolve},
};
use sagahost_net::TlsSettings;
use sagahost_operator::topics::{needed, plugin_files};
use sagahost_saga::notation::with_causes;
use sagahost_serving::settings::Values;
use sagahost_transport_kafka::client_faults;
use tracing::warn;

use crate::config::{Config, ConfigFile, Fault};

/// Faults that a start refuses with: those of the file, and, where no property is wrong by itself, those of clients.
pub fn refused(file: &ConfigFile) -> Vec<Fault> {
    let mut faults = file.faults.clone();
    let of_a_property = |fault: &Fault| fault.text.starts_with("kafka.properties");
    if let Some(kafka) = file.config.kafka.as_ref().filter(|_| !faults.iter().any(of_a_property)) {
        let clients = client_faults(kafka, &file.config.app);
        let line = |text: &str| {
            let named = kafka.properties.keys().find(|name| text.contains(name.as_str()));
            named.and_then(|name| file.line_of(&format!("kafka.properties.{name}"))).or_else(|| file.line_of("kafka"))
        };
        faults.extend(clients.into_iter().map(|text| Fault { line: line(&text), text }));
    }
    if let Some(Err(error)) = file.config.http.as_ref().and_then(|http| http.tls.as_ref()).map(TlsSettings::check) {
        faults.push(Fault { line: file.line_of("http.tls"), text: format!("http.tls: {}", with_causes(&error)) });
    }
    faults.sort();
    faults
}

/// A part of the file that nothing reads, or that a plugin refuses: `plugin.paymnt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    pub table: String,
    pub text: String,
}

impl Stray {
    pub fn fault(self, file: &ConfigFile) -> Fault {
        Fault { line: file.line_of(&self.table), text: self.text }
    }
}

/// The plugins that a configuration can be about.
#[derive(Debug, Default)]
pub struct Known {
    pub manifests: Vec<Manifest>,
    /// Of plugins that are away, too, whose manifests nobody has.
    pub names: BTreeSet<String>,
}

impl Known {
    /// Those of the directory and of the journal's rows.
    pub fn of(config: &Config, rows: &[AdmittedRow]) -> Self {
        let files = plugin_files(&config.plugins_dir, &config.service_manifests())
            .into_iter()
            .filter_map(|(_, manifest)| manifest);
        let manifests: Vec<Manifest> = files.chain(rows.iter().filter_map(AdmittedRow::manifest)).collect();
        let names = manifests.iter().map(|manifest| manifest.name.clone()).collect();
        Self { manifests, names }
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// Tables and names that are about nothing. Without a single plugin there is nothing to compare them with.
pub fn strays(config: &Config, known: &Known) -> Vec<Stray> {
    if known.is_empty() {
        return Vec::new();
    }
    let names = || known.names.iter().map(String::as_str);
    let mut strays = Vec::new();
    for name in config.plugins.keys().filter(|name| !known.names.contains(*name)) {
        let text = format!("[plugin.{name}]: there is no plugin `{name}`; {}", hint(name, names()));
        strays.push(Stray { table: format!("plugin.{name}"), text });
    }
    for name in config.plugin_order.iter().filter(|name| !known.names.contains(name.as_str())) {
        let text = format!("plugin-order: there is no plugin `{name}`; {}", hint(name.as_str(), names()));
        strays.push(Stray { table: "plugin-order".to_owned(), text });
    }
    strays.extend(route_strays(config, known));
    // Who is away may read any topic.
    if known.names.iter().all(|name| known.manifests.iter().any(|manifest| manifest.name == *name)) {
        strays.extend(topic_strays(config, &known.manifests));
    }
    strays
}

/// Parts of a configuration that are about no plugin. `config check` calls them faults; here they are warned of, for they
/// may be about one that comes later.
pub fn warned_strays(config: &Config, rows: &[AdmittedRow]) -> Vec<Stray> {
    let strays = strays(config, &Known::of(config, rows));
    for stray in &strays {
        warn!("{} has no effect: {}", stray.table, stray.text);
    }
    strays
}

/// Routes for whom nobody is there.
fn route_strays(config: &Config, known: &Known) -> Vec<Stray> {
    let names = || known.names.iter().map(String::as_str);
    let kinds = || known.manifests.iter().flat_map(|manifest| &manifest.subscriptions).map(|of| of.kind.as_str());
    let all_are_known = known.names.iter().all(|name| known.manifests.iter().any(|manifest| manifest.name == *name));
    let routes = config.http.iter().flat_map(|http| &http.routes);
    let stray = |route: &Route| {
        let why = match &route.does {
            Does::Step { participant, .. } | Does::Undo { participant }
                if !known.names.contains(participant.as_str()) =>
            {
                format!("there is no plugin `{participant}`; {}", hint(participant.as_str(), names()))
            }
            Does::Begin { kind, .. } if all_are_known && !kinds().any(|handled| handled == kind.as_str()) => {
                format!("no plugin handles {kind}; {}", hint(kind.as_str(), kinds()))
            }
            Does::Begin { .. } | Does::Step { .. } | Does::Undo { .. } => return None,
        };
        let name = route.name();
        Some(Stray { text: format!("[http.route.\"{name}\"]: {why}"), table: format!("http.route.{name}") })
    };
    routes.filter_map(stray).collect()
}

fn topic_strays(config: &Config, manifests: &[Manifest]) -> Vec<Stray> {
    let topics = needed(&config.topics, manifests);
    let read = || topics.iter().filter(|(_, line)| line.read).map(|(name, _)| &**name);
    let mut strays = Vec::new();
    for topic in config.topics.records.keys().filter(|topic| !read().any(|read| read == &***topic)) {
        let text = format!("[topics.records.{topic}]: no plugin reads topic {topic}; {}", hint(topic, read()));
        strays.push(Stray { table: format!("topics.records.{topic}"), text });
    }
    let kinds = || topics.values().flat_map(|line| line.kinds.iter().map(String::as_str));
    for kind in config.topics.of_kind.keys().filter(|kind| !kinds().any(|known| known == kind.as_str())) {
        // A kind may come with a plugin of tomorrow, a slip looks like one of today.
        let Some(near) = nearest(kind.as_str(), kinds()) else { continue };
        let text = format!("topics.of-kind.{kind}: no plugin reads or emits {kind}; did you mean `{near}`?");
        strays.push(Stray { table: format!("topics.of-kind.{kind}"), text });
    }
    strays
}

/// What admission would say of the files in the plugin directory because of the configuration.
pub fn plugin_faults(config: &Config) -> Vec<Stray> {
    let manifests: Vec<Manifest> = plugin_files(&config.plugins_dir, &config.service_manifests())
        .into_iter()
        .filter_map(|(_, manifest)| manifest)
        .collect();
    let Values { settings, overrides } = config.values();
    let values = manifests.iter().flat_map(|manifest| {
        let of_plugin = settings.get(&manifest.name).cloned().unwrap_or_default();
        resolve(manifest, &of_plugin, Fit::Exact).err().unwrap_or_default()
    });
    let kinds = override_faults(&manifests.iter().collect::<Vec<_>>(), &overrides);
    let stray = |fault: sagahost_manifest::Fault| {
        let place = fault.place.strip_prefix("configuration, ").unwrap_or(&fault.place);
        let table = place.replace(['[', ']'], "").replace(' ', ".");
        Stray { text: format!("{place}: {}; {}", fault.what, fault.fix), table }
    };
    values.chain(kinds).map(stray).collect()
}
