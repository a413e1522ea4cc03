//! From the file to a `Config`: which fields there are, what they may be, what they are by default. Invariant: every
//! field is read here, in the order of the reference, and nowhere else.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sagahost_codec::{SAGA_FAILED, TopicSettings};
use sagahost_manifest::settings::Isolation;
use sagahost_operator::socket::PATH_BYTES_MAX;
use sagahost_saga::{
    id::{Kind, Participant},
    topology::{Bounds, OnDeadLetter},
};
use sagahost_sandbox::manifest::{is_kind, is_participant_name};
use sagahost_wire::topic_name;
use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};
use tracing_subscriber::EnvFilter;

use super::{
    AdminSettings, CodeKeyPlace, Config, DataAccess, DeadLetterSettings, EmbeddedSettings, LogFormat, LogSettings,
    PipelineSettings, PluginSettings, RetrySettings, SubscriptionSettings, WatchSettings, alerts,
    faults::Fault,
    grants, ingress, kafka, limits, participants,
    reader::{Source, Table, Value, type_of},
    records,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// A record cannot be larger than what fits into the protocol's 32 bits.
const BYTES_MAX: usize = 1 << 31;
/// librdkafka's default of `message.max.bytes`.
const MESSAGE_BYTES_MAX: usize = 1_000_000;
/// Saga id, event id, source, kind, trace and framing of an event that a plugin emits, beside its attributes.
const RECORD_OVERHEAD: usize = 8 << 10;

/// Reads the text of a file at `file`, with everything that is wrong about it.
pub fn read(text: &str, file: &Path) -> (Config, Vec<Fault>) {
    let source = Source::new(text);
    let (entries, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        match error.span() {
            Some(at) => source.syntax_fault(at, error.message()),
            None => source.fault(error.message()),
        }
    }
    let config = root(&source, entries.get_ref(), file);
    (config, source.into_faults())
}

/// Every field that exists, for the reference's test: `plugin.NAME.on.KIND.deadline`.
pub fn field_names() -> Vec<String> {
    let source = Source::new("");
    root(&source, &DeTable::new(), Path::new(super::FILE_NAME));
    let mut names = source.names();
    names.sort();
    names.dedup();
    names
}

fn root<'t>(source: &Source<'t>, entries: &DeTable<'t>, file: &Path) -> Config {
    let base = file.parent().unwrap_or(Path::new(""));
    let mut table = Table::root(source, entries);
    let app = app_name(&mut table);
    let plugins_dir = path(&mut table, "plugins", base).unwrap_or_else(|| base.join("plugins"));
    let data_dir = path(&mut table, "data", base).unwrap_or_else(|| base.join("data"));
    let data_access = table.choice("data-access", &ACCESSES).unwrap_or(DataAccess::Private);
    let compiled_code_key = compiled_code_key(&mut table, base);
    let plugin_order = plugin_order(&mut table);
    let kafka = kafka::read(table.table("kafka"), base);
    let limits = limits::read(table.table("limits"));
    let http = ingress::read(table.table("http"), base, limits.payload_bytes_max);
    let config = Config {
        file: Some(file.to_owned()),
        plugins_dir,
        data_dir,
        data_access,
        compiled_code_key,
        core_dumps: table.boolean("core-dumps", false),
        plugin_order,
        strict: table.boolean("strict", false),
        watch: watch(table.table("watch")),
        embedded: embedded(table.table("embedded")),
        pipeline: pipeline(table.table("pipeline")),
        bounds: bounds(table.table("saga")),
        limits,
        topics: topics(table.table("topics"), &app),
        dead_letters: kept_letters(table.table("dead-letters")),
        plugins: plugins(table.table("plugin"), base),
        participants: participants::read(&table.table("participant"), base),
        alerts: alerts::read(table.table("alerts"), base),
        http,
        admin: admin(table.table("admin"), base),
        log: log(table.table("log")),
        app: app.into(),
        kafka,
    };
    fit_together(&table, &config);
    table.finish();
    config
}

/// Faults of two fields that are right by themselves.
fn fit_together(table: &Table<'_, '_>, config: &Config) {
    if config.kafka.is_some() && !table.has("app") {
        table.fault_of_table(
            "needs app = \"NAME\" with [kafka]: it is the consumer group, and no other app may have it",
        );
    }
    if config.kafka.is_some() && table.has("embedded") {
        table.fault_of_table("[embedded] has no effect beside [kafka]: remove one of the two tables");
    }
    let record = config.pipeline.record_bytes_max;
    let payload = config.limits.payload_bytes_max;
    let beside = config.limits.attributes_bytes_max + RECORD_OVERHEAD;
    if payload + beside > record {
        let text = format!(
            "limits.payload-bytes-max ({payload}) with {beside} bytes for headers is more than \
             pipeline.record-bytes-max ({record})"
        );
        table.fault_of_table(format_args!("{text}: no record could carry such an event"));
    }
    if let Some(kafka) = &config.kafka {
        let said = kafka.properties.get("message.max.bytes").and_then(|property| property.value().parse().ok());
        let message = said.unwrap_or(MESSAGE_BYTES_MAX);
        if record > message {
            table.fault_of_table(format_args!(
                "pipeline.record-bytes-max ({record}) is more than librdkafka sends ({message}): set \
                 \"message.max.bytes\" = {record} in [kafka.properties]"
            ));
        }
    }
    if record > config.pipeline.batch_bytes_max {
        table.fault_of_table("pipeline.batch-bytes-max must not be less than pipeline.record-bytes-max");
    }
    if record > config.pipeline.in_flight_bytes_max {
        table.fault_of_table("pipeline.in-flight-bytes-max must not be less than pipeline.record-bytes-max");
    }
    if record > config.bounds.data_bytes_max {
        table.fault_of_table("saga.data-bytes-max must not be less than pipeline.record-bytes-max");
    }
    if config.topics.dead_letters.as_ref() == Some(&config.topics.saga_failed) {
        table.fault_of_table("topics.dead-letters and topics.saga-failed must be different topics");
    }
}

fn app_name(table: &mut Table<'_, '_>) -> String {
    let Some((name, at)) = table.text("app") else { return "sagahost".to_owned() };
    let fits = (1..=100).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if !fits {
        table.fault("app", at, "must be 1 to 100 letters, digits, `.`, `_` or `-` (it names the consumer group)");
    }
    name
}

/// Relative to the file.
fn path(table: &mut Table<'_, '_>, name: &'static str, base: &Path) -> Option<PathBuf> {
    let (text, at) = table.text(name)?;
    if text.is_empty() {
        table.fault(name, at, "must name a path; write \".\" for the directory of this file");
        return None;
    }
    Some(base.join(text))
}

const ACCESSES: [(&str, DataAccess); 2] = [("private", DataAccess::Private), ("unchecked", DataAccess::Unchecked)];

/// A file that is called `off` can be named `./off`.
fn compiled_code_key(table: &mut Table<'_, '_>, base: &Path) -> CodeKeyPlace {
    match path(table, "compiled-code-key", Path::new("")) {
        None => CodeKeyPlace::State,
        Some(off) if off == Path::new("off") => CodeKeyPlace::Off,
        Some(file) => CodeKeyPlace::File(base.join(file)),
    }
}

fn plugin_order(table: &mut Table<'_, '_>) -> Vec<Participant> {
    let mut order: Vec<Participant> = Vec::new();
    for (name, at) in table.texts("plugin-order") {
        if order.iter().any(|known| known.as_str() == name) {
            table.fault("plugin-order", at, format_args!("duplicate `{name}`"));
        } else if is_participant_name(&name) {
            order.push(Participant::new(name));
        } else {
            table.fault("plugin-order", at, format_args!("`{name}` is not a valid plugin name"));
        }
    }
    order
}

fn watch(mut table: Table<'_, '_>) -> WatchSettings {
    let d = WatchSettings::default();
    let settings = WatchSettings {
        settle: table.duration("settle", 10 * MS..=60 * SECOND, d.settle),
        rescan: table.duration("rescan", 100 * MS..=HOUR, d.rescan),
        probation: table.duration("probation", Duration::ZERO..=24 * HOUR, d.probation),
        failures_min: table.number("failures-min", 1..=1_000_000, d.failures_min),
        failures_percent_more: table.number("failures-percent-more", 0..=100, d.failures_percent_more),
    };
    table.finish();
    settings
}

fn embedded(mut table: Table<'_, '_>) -> EmbeddedSettings {
    let d = EmbeddedSettings::default();
    let settings = EmbeddedSettings {
        partitions: table.number("partitions", 1..=1024, d.partitions),
        kept_records_max: table.number("kept-records-max", 1..=1 << 39, d.kept_records_max),
    };
    table.finish();
    settings
}

fn pipeline(mut table: Table<'_, '_>) -> PipelineSettings {
    let d = PipelineSettings::default();
    let settings = PipelineSettings {
        workers: table.number("workers", 1..=1024, d.workers),
        slow_calls_max: table.number("slow-calls-max", 0..=1024, d.slow_calls_max),
        slow_call_after: table.duration("slow-call-after", MS..=60 * SECOND, d.slow_call_after),
        queue_events_max: table.number("queue-events-max", 1..=1_000_000, d.queue_events_max),
        in_flight_bytes_max: table.number("in-flight-bytes-max", 1 << 20..=64 << 30, d.in_flight_bytes_max),
        batch_chains_max: table.number("batch-chains-max", 1..=100_000, d.batch_chains_max),
        batch_bytes_max: table.number("batch-bytes-max", 64 << 10..=256 << 20, d.batch_bytes_max),
        batch_wait: table.duration("batch-wait", Duration::ZERO..=10 * SECOND, d.batch_wait),
        batch_wait_max: table.duration("batch-wait-max", Duration::ZERO..=10 * SECOND, d.batch_wait_max),
        batch_interval: table.duration("batch-interval", Duration::ZERO..=10 * SECOND, d.batch_interval),
        unpublished_batches_max: table.number("unpublished-batches-max", 1..=2, d.unpublished_batches_max),
        chain_steps_max: table.number("chain-steps-max", 1..=10_000, d.chain_steps_max),
        chain_bytes_max: table.number("chain-bytes-max", 64 << 10..=1 << 30, d.chain_bytes_max),
        reservation_max: table.duration("reservation-max", 10 * MS..=60 * SECOND, d.reservation_max),
        cache_bytes_max: table.number("cache-bytes-max", 0..=64 << 30, d.cache_bytes_max),
        record_bytes_max: table.number("record-bytes-max", 1024..=BYTES_MAX, d.record_bytes_max),
        position_wait: table.duration("position-wait", 10 * MS..=60 * SECOND, d.position_wait),
        stall_wait_max: table.duration("stall-wait-max", Duration::ZERO..=24 * HOUR, d.stall_wait_max),
        due_per_second_max: table.number("due-per-second-max", 1..=1_000_000, d.due_per_second_max),
        shutdown_deadline: table.duration("shutdown-deadline", 100 * MS..=HOUR, d.shutdown_deadline),
    };
    table.finish();
    settings
}

fn bounds(mut table: Table<'_, '_>) -> Bounds {
    let d = Bounds::default();
    let bounds = Bounds {
        hops_max: table.number("hops-max", 1..=10_000, d.hops_max),
        emissions_per_outcome_max: table.number("emissions-per-outcome-max", 1..=10_000, d.emissions_per_outcome_max),
        steps_per_saga_max: table.number("steps-max", 1..=100_000, d.steps_per_saga_max),
        events_per_saga_max: table.number("events-max", 1..=10_000_000, d.events_per_saga_max),
        data_bytes_max: table.number("data-bytes-max", 1024..=1 << 30, d.data_bytes_max),
        parked_per_saga_max: table.number("parked-max", 1..=10_000, d.parked_per_saga_max),
        inline_events_max: table.number("inline-events-max", 1..=10_000, d.inline_events_max),
        inline_history_max: table.number("inline-history-max", 1..=10_000, d.inline_history_max),
        saga_deadline: table.duration_or_off("deadline", 10 * MS..=YEAR, d.saga_deadline),
        notes_max: table.number("notes-max", 0..=10_000, d.notes_max),
        retention: table.duration("retention", Duration::ZERO..=10 * YEAR, d.retention),
    };
    table.finish();
    bounds
}

fn topics(mut table: Table<'_, '_>, app: &str) -> TopicSettings {
    let mut settings = TopicSettings::of_app(app);
    if let Some(off) = dead_letters(&mut table) {
        settings.dead_letters = off;
    }
    if let Some(topic) = topic(&mut table, "saga-failed") {
        settings.saga_failed = topic;
    }
    settings.headers = table.texts("headers").into_iter().map(|(name, _)| name.to_lowercase()).collect();
    settings.ignored_kinds = ignored_kinds(&mut table);
    let records_table = table.table("records");
    records::read(records_table.absent("TOPIC"));
    for (name, at, child) in records_table.tables("TOPIC") {
        check_topic(&records_table, &name, at, &name);
        settings.records.insert(name.into(), records::read(child));
    }
    kind_topics(&table.table("of-kind"), &mut settings);
    table.finish();
    settings
}

fn kept_letters(mut table: Table<'_, '_>) -> DeadLetterSettings {
    let d = DeadLetterSettings::default();
    let settings = DeadLetterSettings {
        undecodable_max: table.number("undecodable-max", 0..=10_000_000, d.undecodable_max),
        undecodable_bytes_max: table.number("undecodable-bytes-max", 0..=1 << 40, d.undecodable_bytes_max),
        undecodable_retention: table.duration("undecodable-retention", SECOND..=10 * YEAR, d.undecodable_retention),
    };
    table.finish();
    settings
}

fn ignored_kinds(table: &mut Table<'_, '_>) -> Vec<String> {
    let mut ignored = Vec::new();
    for (text, at) in table.texts("ignored-kinds") {
        let beginning = text.strip_suffix('*');
        if beginning == Some("") || is_kind(beginning.unwrap_or(&text)) {
            ignored.push(text);
        } else {
            let text = format!(
                "`{text}` is not a kind of event: write a kind, as OrderArchived, or the beginning of several, as billing.*"
            );
            table.fault("ignored-kinds", at, text);
        }
    }
    ignored
}

fn kind_topics(table: &Table<'_, '_>, settings: &mut TopicSettings) {
    for (kind, at, value) in table.values() {
        let DeValue::String(name) = value.get_ref() else {
            table.wrong_type::<()>(&kind, value.span(), "the name of a topic in quotes", value.get_ref());
            continue;
        };
        if !is_kind(&kind) {
            table.fault(&kind, at, "is not a valid kind of event: letters, digits and . _ - / : only");
        } else if kind == SAGA_FAILED {
            table.fault(&kind, at, "has a field of its own: write saga-failed = \"…\" in [topics]");
        } else if let Some(other) = settings.only_kind_of(name) {
            let text = format!(
                "`{name}` is the topic of {other} already: a plain record there would have two kinds; where each says its \
                 own, set kind = \"header:NAME\" or kind = \"/POINTER\" in [topics.records.{name:?}]"
            );
            table.fault(&kind, value.span(), text);
        } else if check_topic(table, &kind, value.span(), name) {
            settings.of_kind.insert(Kind::new(kind), name.as_ref().into());
        }
    }
}

/// Outer None: not said. Inner None: off.
fn dead_letters(table: &mut Table<'_, '_>) -> Option<Option<Arc<str>>> {
    let (text, at) = table.text("dead-letters")?;
    if text == "off" {
        return Some(None);
    }
    check_topic(table, "dead-letters", at, &text).then(|| Some(text.into()))
}

fn topic(table: &mut Table<'_, '_>, name: &'static str) -> Option<Arc<str>> {
    let (text, at) = table.text(name)?;
    check_topic(table, name, at, &text).then(|| text.into())
}

fn check_topic(table: &Table<'_, '_>, field: &str, at: Range<usize>, topic: &str) -> bool {
    match topic_name::check(topic) {
        Ok(()) => true,
        Err(why) => {
            table.fault(field, at, why);
            false
        }
    }
}

fn plugins(table: Table<'_, '_>, base: &Path) -> BTreeMap<String, PluginSettings> {
    plugin(table.absent("NAME"), base);
    let mut plugins = BTreeMap::new();
    for (name, at, child) in table.tables("NAME") {
        if !is_participant_name(&name) {
            let text = "is not a valid plugin name: lower-case letters, digits and hyphens, a letter first";
            table.fault(&name, at, text);
        }
        plugins.insert(name, plugin(child, base));
    }
    plugins
}

fn plugin(mut table: Table<'_, '_>, base: &Path) -> PluginSettings {
    let isolations = [("fresh", Isolation::Fresh), ("reuse", Isolation::Reuse)];
    let isolation = table.choice("isolation", &isolations).unwrap_or_default();
    let values = table.table("config");
    let mut config = serde_json::Map::new();
    for (key, _, value) in values.values() {
        if let Some(json) = json(&values, &key, value) {
            config.insert(key, json);
        }
    }
    let kinds = table.table("on");
    subscription(kinds.absent("KIND"));
    let mut on = BTreeMap::new();
    for (kind, _, child) in kinds.tables("KIND") {
        on.insert(Kind::new(kind), subscription(child));
    }
    let http = grants::read(&table.table("http"), base);
    table.finish();
    PluginSettings { config, on, http, isolation }
}

fn subscription(mut table: Table<'_, '_>) -> SubscriptionSettings {
    let policies =
        [("compensate", OnDeadLetter::Compensate), ("block", OnDeadLetter::Block), ("skip", OnDeadLetter::Skip)];
    let settings = SubscriptionSettings {
        retry: retry(table.table("retry")),
        undo_retry: retry(table.table("undo-retry")),
        deadline: table.duration_maybe("deadline", MS..=YEAR),
        park_ttl: table.duration_maybe("park-ttl", MS..=YEAR),
        on_dead_letter: table.choice("on-dead-letter", &policies),
    };
    table.finish();
    settings
}

fn retry(mut table: Table<'_, '_>) -> RetrySettings {
    let settings = RetrySettings {
        attempts_max: table.number_maybe("attempts-max", 1..=1_000_000),
        base: table.duration_maybe("base", MS..=24 * HOUR),
        cap: table.duration_maybe("cap", MS..=YEAR),
    };
    table.finish();
    settings
}

/// As the plugin will read it: JSON.
fn json(table: &Table<'_, '_>, name: &str, value: &Value<'_>) -> Option<Json> {
    match value.get_ref() {
        DeValue::String(text) => Some(Json::from(text.as_ref())),
        DeValue::Boolean(is) => Some(Json::from(*is)),
        DeValue::Integer(_) => {
            let number = super::reader::integer(value.get_ref());
            if number.is_none() {
                table.fault(name, value.span(), "does not fit into 64 bits");
            }
            number.map(Json::from)
        }
        DeValue::Float(float) => {
            let number = float.as_str().parse().ok().and_then(serde_json::Number::from_f64);
            if number.is_none() {
                table.fault(name, value.span(), "must be a finite number");
            }
            number.map(Json::Number)
        }
        DeValue::Array(items) => {
            items.iter().map(|item| json(table, name, item)).collect::<Option<_>>().map(Json::Array)
        }
        DeValue::Table(entries) => {
            let fields =
                entries.iter().map(|(key, value)| Some((key.get_ref().to_string(), json(table, name, value)?)));
            fields.collect::<Option<_>>().map(Json::Object)
        }
        other @ DeValue::Datetime(_) => {
            table.fault(
                name,
                value.span(),
                format_args!("is {}: put it in quotes, a plugin reads text", type_of(other)),
            );
            None
        }
    }
}

fn socket(table: &mut Table<'_, '_>, base: &Path) -> Option<PathBuf> {
    let at = table.value("socket").map_or(0..0, toml::Spanned::span);
    let socket = path(table, "socket", base)?;
    let bytes = socket.as_os_str().len();
    if bytes > PATH_BYTES_MAX {
        table.fault("socket", at, format_args!("has {bytes} bytes; a socket's path has at most {PATH_BYTES_MAX}"));
    }
    Some(socket)
}

fn admin(mut table: Table<'_, '_>, base: &Path) -> AdminSettings {
    let d = AdminSettings::default();
    let requests_at_once_max = table.number("requests-at-once-max", 1..=10_000, d.requests_at_once_max);
    let request_bytes_max = table.number("request-bytes-max", 1024..=256 << 20, d.request_bytes_max);
    let settings = AdminSettings {
        socket: socket(&mut table, base),
        connections_max: table.number("connections-max", 1..=40_000, 4 * requests_at_once_max),
        idle_timeout: table.duration("idle-timeout", 100 * MS..=HOUR, d.idle_timeout),
        requests_at_once_max,
        request_bytes_max,
        requests_bytes_max: table.number("requests-bytes-max", 1024..=BYTES_MAX, 4 * request_bytes_max),
        request_timeout: table.duration("request-timeout", 100 * MS..=HOUR, d.request_timeout),
    };
    if settings.requests_bytes_max < request_bytes_max {
        table.fault_of_table("requests-bytes-max must not be less than request-bytes-max");
    }
    table.finish();
    settings
}

fn filter(table: &mut Table<'_, '_>) -> Option<String> {
    let (filter, at) = table.text("filter")?;
    if let Err(error) = EnvFilter::try_new(&filter) {
        table.fault("filter", at, format_args!("`{filter}` is not a filter: {error}; write \"info,sagahost=debug\""));
        return None;
    }
    Some(filter)
}

fn log(mut table: Table<'_, '_>) -> LogSettings {
    let d = LogSettings::default();
    let settings = LogSettings {
        format: table.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]).unwrap_or(d.format),
        filter: filter(&mut table).unwrap_or(d.filter),
    };
    table.finish();
    settings
}
