//! The effective configuration, to be shown. Invariant: it names every field that can be set, and no secret; read
//! again it means the same (but for the secrets).

use sagahost_alerts::AlertSettings;
use sagahost_codec::{RecordMapping, TopicSettings};
use sagahost_ingress::{Does, HttpSettings, Principal, Proof, Sees};
use sagahost_manifest::settings::Isolation;
use sagahost_net::{SentHeader, TlsSettings, without_query};
use sagahost_outbound::GrantSettings;
use sagahost_remote::RemoteSettings;
use sagahost_saga::{id::hex, topology::OnDeadLetter};
use sagahost_transport::StartAt;
use sagahost_transport_kafka::{KafkaSettings, is_secret};
use serde_json::Value as Json;
use toml::{Table, Value};

use super::{
    CodeKeyPlace, Config, DataAccess, EmbeddedSettings, LogFormat, PluginSettings, RetrySettings, SubscriptionSettings,
    limits, reader::format_duration,
};

pub fn table(config: &Config) -> Table {
    let mut all = Table::new();
    all.insert("app".into(), text(&*config.app));
    all.insert("plugins".into(), text(config.plugins_dir.display()));
    all.insert("data".into(), text(config.data_dir.display()));
    let access = match config.data_access {
        DataAccess::Private => "private",
        DataAccess::Unchecked => "unchecked",
    };
    all.insert("data-access".into(), text(access));
    match &config.compiled_code_key {
        CodeKeyPlace::State => {}
        CodeKeyPlace::File(file) => drop(all.insert("compiled-code-key".into(), text(file.display()))),
        CodeKeyPlace::Off => drop(all.insert("compiled-code-key".into(), text("off"))),
    }
    all.insert("core-dumps".into(), Value::Boolean(config.core_dumps));
    let order = config.plugin_order.iter().map(text).collect();
    all.insert("plugin-order".into(), Value::Array(order));
    match &config.kafka {
        Some(settings) => all.insert("kafka".into(), kafka(settings)),
        None => all.insert("embedded".into(), embedded(&config.embedded)),
    };
    all.insert("strict".into(), Value::Boolean(config.strict));
    let watch = &config.watch;
    let whole = |count: u64| number(i64::try_from(count).unwrap_or(i64::MAX));
    let watched = fields([
        ("settle", text(format_duration(watch.settle))),
        ("rescan", text(format_duration(watch.rescan))),
        ("probation", text(format_duration(watch.probation))),
        ("failures-min", whole(watch.failures_min)),
        ("failures-percent-more", whole(watch.failures_percent_more)),
    ]);
    all.insert("watch".into(), watched);
    all.insert("pipeline".into(), pipeline(config));
    all.insert("saga".into(), saga(config));
    all.insert("limits".into(), object(limits::fields_of(&config.limits)));
    all.insert("topics".into(), topics(&config.topics));
    let letters = &config.dead_letters;
    let kept = fields([
        ("undecodable-max", whole(letters.undecodable_max)),
        ("undecodable-bytes-max", whole(letters.undecodable_bytes_max)),
        ("undecodable-retention", text(format_duration(letters.undecodable_retention))),
    ]);
    all.insert("dead-letters".into(), kept);
    if !config.plugins.is_empty() {
        let plugins = config.plugins.iter().map(|(name, settings)| (name.clone(), plugin(settings)));
        all.insert("plugin".into(), Value::Table(plugins.collect()));
    }
    if !config.participants.is_empty() {
        let services = config.participants.iter().map(|(name, settings)| (name.clone(), participant(settings)));
        all.insert("participant".into(), Value::Table(services.collect()));
    }
    if !config.alerts.is_off() {
        all.insert("alerts".into(), alerts(&config.alerts));
    }
    if let Some(settings) = &config.http {
        all.insert("http".into(), http(settings));
    }
    all.insert("admin".into(), admin(config));
    all.insert("log".into(), log(config));
    all
}

fn kafka(settings: &KafkaSettings) -> Value {
    let start = match settings.start {
        StartAt::Earliest => "earliest",
        StartAt::Latest => "latest",
    };
    let properties = settings.properties.iter().map(|(name, value)| (name.clone(), text(value.shown())));
    fields([
        ("bootstrap-servers", text(&settings.bootstrap_servers)),
        ("start", text(start)),
        ("create-topics", Value::Boolean(settings.create_topics)),
        ("partitions", number(settings.partitions)),
        ("replication", number(settings.replication)),
        ("properties", Value::Table(properties.collect())),
    ])
}

fn embedded(settings: &EmbeddedSettings) -> Value {
    let kept = i64::try_from(settings.kept_records_max).unwrap_or(i64::MAX);
    fields([("partitions", number(settings.partitions)), ("kept-records-max", number(kept))])
}

fn pipeline(config: &Config) -> Value {
    let p = &config.pipeline;
    fields([
        ("workers", size(p.workers)),
        ("slow-calls-max", size(p.slow_calls_max)),
        ("slow-call-after", text(format_duration(p.slow_call_after))),
        ("queue-events-max", size(p.queue_events_max)),
        ("in-flight-bytes-max", size(p.in_flight_bytes_max)),
        ("batch-chains-max", size(p.batch_chains_max)),
        ("batch-bytes-max", size(p.batch_bytes_max)),
        ("batch-wait", text(format_duration(p.batch_wait))),
        ("batch-wait-max", text(format_duration(p.batch_wait_max))),
        ("batch-interval", text(format_duration(p.batch_interval))),
        ("unpublished-batches-max", size(p.unpublished_batches_max)),
        ("chain-steps-max", size(p.chain_steps_max)),
        ("chain-bytes-max", size(p.chain_bytes_max)),
        ("reservation-max", text(format_duration(p.reservation_max))),
        ("cache-bytes-max", size(p.cache_bytes_max)),
        ("record-bytes-max", size(p.record_bytes_max)),
        ("position-wait", text(format_duration(p.position_wait))),
        ("stall-wait-max", text(format_duration(p.stall_wait_max))),
        ("due-per-second-max", number(p.due_per_second_max)),
        ("shutdown-deadline", text(format_duration(p.shutdown_deadline))),
    ])
}

fn saga(config: &Config) -> Value {
    let b = &config.bounds;
    fields([
        ("hops-max", number(b.hops_max)),
        ("emissions-per-outcome-max", size(b.emissions_per_outcome_max)),
        ("steps-max", size(b.steps_per_saga_max)),
        ("events-max", size(b.events_per_saga_max)),
        ("data-bytes-max", size(b.data_bytes_max)),
        ("parked-max", size(b.parked_per_saga_max)),
        ("inline-events-max", size(b.inline_events_max)),
        ("inline-history-max", size(b.inline_history_max)),
        ("notes-max", size(b.notes_max)),
        ("deadline", text(b.saga_deadline.map_or_else(|| "off".to_owned(), format_duration))),
        ("retention", text(format_duration(b.retention))),
    ])
}

fn topics(settings: &TopicSettings) -> Value {
    let of_kind = settings.of_kind.iter().map(|(kind, topic)| (kind.to_string(), text(topic)));
    let records = settings.records.iter().map(|(topic, mapping)| (topic.to_string(), record(mapping)));
    fields([
        ("dead-letters", text(settings.dead_letters.as_deref().unwrap_or("off"))),
        ("saga-failed", text(&*settings.saga_failed)),
        ("headers", Value::Array(settings.headers.iter().map(text).collect())),
        ("ignored-kinds", Value::Array(settings.ignored_kinds.iter().map(text).collect())),
        ("of-kind", Value::Table(of_kind.collect())),
        ("records", Value::Table(records.collect())),
    ])
}

fn record(mapping: &RecordMapping) -> Value {
    let said = [
        ("kind", mapping.kind.as_ref().map(text)),
        ("saga-id", mapping.saga_id.as_ref().map(text)),
        ("event-id", Some(text(&mapping.event_id))),
        ("data", mapping.data.as_ref().map(text)),
        ("key", Some(text(mapping.key.name()))),
        ("structured", Some(Value::Boolean(mapping.structured))),
    ];
    fields(said.into_iter().filter_map(|(name, value)| Some((name, value?))))
}

fn plugin(settings: &PluginSettings) -> Value {
    let on = settings.on.iter().map(|(kind, settings)| (kind.to_string(), subscription(settings)));
    let http = settings.http.iter().map(|settings| (settings.grant.to_string(), grant(settings)));
    let isolation = match settings.isolation {
        Isolation::Fresh => "fresh",
        Isolation::Reuse => "reuse",
    };
    let mut said = vec![
        ("isolation", text(isolation)),
        ("config", object(without_secrets(&settings.config))),
        ("on", Value::Table(on.collect())),
    ];
    if !settings.http.is_empty() {
        said.push(("http", Value::Table(http.collect())));
    }
    fields(said)
}

fn grant(settings: &GrantSettings) -> Value {
    fields([
        ("allow-networks", Value::Array(settings.allow_networks.iter().map(text).collect())),
        ("timeout", text(format_duration(settings.timeout))),
        ("calls-at-once-max", size(settings.calls_at_once_max)),
        ("headers", sent(&settings.headers)),
    ])
}

/// A plugin's manifest does not say what is a secret; the name of a key does.
fn without_secrets(config: &serde_json::Map<String, Json>) -> serde_json::Map<String, Json> {
    let shown = |(name, value): (&String, &Json)| {
        let value = match value {
            Json::String(_) if is_secret(name) => Json::from("(hidden)"),
            Json::Object(inner) => Json::Object(without_secrets(inner)),
            value => value.clone(),
        };
        (name.clone(), value)
    };
    config.iter().map(shown).collect()
}

fn subscription(settings: &SubscriptionSettings) -> Value {
    let policy = settings.on_dead_letter.map(|policy| match policy {
        OnDeadLetter::Compensate => "compensate",
        OnDeadLetter::Block => "block",
        OnDeadLetter::Skip => "skip",
    });
    let said = [
        ("deadline", settings.deadline.map(|time| text(format_duration(time)))),
        ("park-ttl", settings.park_ttl.map(|time| text(format_duration(time)))),
        ("on-dead-letter", policy.map(text)),
        ("retry", retry(&settings.retry)),
        ("undo-retry", retry(&settings.undo_retry)),
    ];
    fields(said.into_iter().filter_map(|(name, value)| Some((name, value?))))
}

fn sent(headers: &[SentHeader]) -> Value {
    Value::Table(headers.iter().map(|header| (header.name.to_string(), text(&header.shown))).collect())
}

fn alerts(settings: &AlertSettings) -> Value {
    let command = settings.command.iter().map(text).collect();
    let said = [
        ("alertmanager", settings.alertmanager.as_ref().map(|url| text(without_query(url)))),
        ("webhook", settings.webhook.as_ref().map(|url| text(without_query(url)))),
        ("command", Some(Value::Array(command))),
        ("interval", Some(text(format_duration(settings.interval)))),
        ("headers", Some(sent(&settings.headers))),
    ];
    fields(said.into_iter().filter_map(|(name, value)| Some((name, value?))))
}

fn http(settings: &HttpSettings) -> Value {
    let principal = |of: &Principal| (of.name.to_string(), principal(of));
    let said = [
        ("listen", Some(text(settings.listen))),
        ("hosts", Some(Value::Array(settings.hosts.iter().map(text).collect()))),
        ("body-bytes-max", Some(size(settings.body_bytes_max))),
        ("bodies-bytes-max", Some(size(settings.bodies_bytes_max))),
        ("connections-max", Some(size(settings.connections_max))),
        ("header-timeout", Some(text(format_duration(settings.header_timeout)))),
        ("body-timeout", Some(text(format_duration(settings.body_timeout)))),
        ("wait", Some(text(format_duration(settings.wait)))),
        ("tls", settings.tls.as_ref().map(tls)),
        ("route", Some(Value::Table(settings.routes.iter().map(|of| (of.name(), route(&of.does))).collect()))),
        ("principal", Some(Value::Table(settings.principals.iter().map(principal).collect()))),
    ];
    fields(said.into_iter().filter_map(|(name, value)| Some((name, value?))))
}

fn tls(settings: &TlsSettings) -> Value {
    let client_ca = settings.client_ca.as_ref().map(|file| text(file.display()));
    let said = [
        ("certificate", Some(text(settings.certificate.display()))),
        ("key", Some(text(settings.key.display()))),
        ("client-ca", client_ca),
    ];
    fields(said.into_iter().filter_map(|(name, value)| Some((name, value?))))
}

fn route(does: &Does) -> Value {
    match does {
        Does::Begin { kind, saga_id, key_required, conflict } => fields([
            ("kind", text(kind)),
            ("saga-id", text(saga_id)),
            ("key", text(if *key_required { "required" } else { "optional" })),
            ("concurrent", text(if *conflict { "conflict" } else { "attach" })),
        ]),
        Does::Step { participant, saga_id } => {
            let saga_id = saga_id.as_ref().map(|pointer| ("saga-id", text(pointer)));
            fields([Some(("participant", text(participant))), saga_id].into_iter().flatten())
        }
        Does::Undo { participant } => fields([("undo", text(participant))]),
    }
}

/// Hashes of tokens are no secrets.
fn principal(principal: &Principal) -> Value {
    let (mut tokens, mut subject) = (Vec::new(), None);
    for proof in &principal.proofs {
        match proof {
            Proof::Token(hash) => tokens.push(text(hex(hash))),
            Proof::Subject(name) => subject = Some(text(name.to_string())),
        }
    }
    let sees = match principal.sees {
        Sees::Own => "own",
        Sees::All => "all",
    };
    let said = [
        ("token-sha256", (!tokens.is_empty()).then_some(Value::Array(tokens))),
        ("cert-subject", subject),
        ("routes", principal.routes.as_ref().map(|routes| Value::Array(routes.iter().map(text).collect()))),
        ("sagas", Some(text(sees))),
    ];
    fields(said.into_iter().filter_map(|(name, value)| Some((name, value?))))
}

fn participant(settings: &RemoteSettings) -> Value {
    let said = [
        ("manifest", Some(text(settings.manifest.display()))),
        ("url", Some(text(without_query(&settings.url)))),
        ("undo-url", settings.undo_url.as_ref().map(|url| text(without_query(url)))),
        ("timeout", Some(text(format_duration(settings.timeout)))),
        ("calls-at-once-max", Some(size(settings.calls_at_once_max))),
        ("rejected", Some(Value::Array(settings.rejected.iter().map(|status| number(*status)).collect()))),
        ("headers", Some(sent(&settings.headers))),
    ];
    fields(said.into_iter().filter_map(|(name, value)| Some((name, value?))))
}

fn retry(settings: &RetrySettings) -> Option<Value> {
    let said = [
        ("attempts-max", settings.attempts_max.map(number)),
        ("base", settings.base.map(|time| text(format_duration(time)))),
        ("cap", settings.cap.map(|time| text(format_duration(time)))),
    ];
    let said: Vec<_> = said.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    (!said.is_empty()).then(|| fields(said))
}

fn admin(config: &Config) -> Value {
    let a = &config.admin;
    let socket = a.socket.as_ref().map(|path| ("socket", text(path.display())));
    fields(socket.into_iter().chain([
        ("connections-max", size(a.connections_max)),
        ("idle-timeout", text(format_duration(a.idle_timeout))),
        ("requests-at-once-max", size(a.requests_at_once_max)),
        ("request-bytes-max", size(a.request_bytes_max)),
        ("requests-bytes-max", size(a.requests_bytes_max)),
        ("request-timeout", text(format_duration(a.request_timeout))),
    ]))
}

fn log(config: &Config) -> Value {
    let format = match config.log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    fields([("format", text(format)), ("filter", text(&config.log.filter))])
}

fn fields<'n>(list: impl IntoIterator<Item = (&'n str, Value)>) -> Value {
    Value::Table(list.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn text(value: impl ToString) -> Value {
    Value::String(value.to_string())
}

fn number(value: impl Into<i64>) -> Value {
    Value::Integer(value.into())
}

fn size(value: usize) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// TOML has no null; a plugin's configuration cannot hold one either, since it came from TOML.
fn object(fields: serde_json::Map<String, Json>) -> Value {
    Value::try_from(Json::Object(fields)).unwrap_or_else(|_| Value::Table(Table::new()))
}
