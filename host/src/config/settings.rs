//! The configuration as the rest of the host sees it: plain types that are true already. Invariant: nothing here can
//! hold a value that the check of the file would refuse, and no secret is printed through `Debug`.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sagahost_alerts::AlertSettings;
use sagahost_codec::TopicSettings;
use sagahost_ingress::HttpSettings;
use sagahost_manifest::settings::Isolation;
use sagahost_outbound::GrantSettings;
use sagahost_remote::RemoteSettings;
use sagahost_saga::{
    id::{Kind, Participant},
    notation::word,
    topology::{Bounds, OnDeadLetter},
};
use sagahost_transport_kafka::KafkaSettings;

use super::Limits;

pub use sagahost_operator::AdminSettings;
pub use sagahost_serving::WatchSettings;

#[derive(Clone, Debug)]
pub struct Config {
    /// None: no file, everything has its default (`run --plugins DIR --data DIR`).
    pub file: Option<PathBuf>,
    /// Consumer group, transactional id and source of the events that are emitted.
    pub app: Arc<str>,
    /// Directory of `*.wasm`.
    pub plugins_dir: PathBuf,
    /// Journal, compiled code, plugin bytes by digest, socket.
    pub data_dir: PathBuf,
    /// Who may have access to it.
    pub data_access: DataAccess,
    /// Where the key is that marks compiled code.
    pub compiled_code_key: CodeKeyPlace,
    /// May the system write the memory of a host that crashes to disk?
    pub core_dumps: bool,
    /// Participants that run first when several subscribe to one event, in this order; the others follow by name.
    pub plugin_order: Vec<Participant>,
    /// Do not start while a file of the plugin directory is refused.
    pub strict: bool,
    pub watch: WatchSettings,
    /// None: the embedded transport.
    pub kafka: Option<KafkaSettings>,
    pub embedded: EmbeddedSettings,
    pub pipeline: PipelineSettings,
    pub bounds: Bounds,
    pub limits: Limits,
    pub topics: TopicSettings,
    pub dead_letters: DeadLetterSettings,
    /// By participant.
    pub plugins: BTreeMap<String, PluginSettings>,
    /// Services that take part, by participant.
    pub participants: BTreeMap<String, RemoteSettings>,
    /// Who hears of what needs a person.
    pub alerts: AlertSettings,
    /// None: there is no way in over HTTP.
    pub http: Option<HttpSettings>,
    pub admin: AdminSettings,
    pub log: LogSettings,
}

impl Config {
    /// An app with nothing but two directories: embedded transport, defaults everywhere.
    pub fn embedded(plugins: impl Into<PathBuf>, data: impl Into<PathBuf>) -> Self {
        let app = "sagahost";
        Self {
            file: None,
            app: app.into(),
            plugins_dir: plugins.into(),
            data_dir: data.into(),
            data_access: DataAccess::Private,
            compiled_code_key: CodeKeyPlace::State,
            core_dumps: false,
            plugin_order: Vec::new(),
            strict: false,
            watch: WatchSettings::default(),
            kafka: None,
            embedded: EmbeddedSettings::default(),
            pipeline: PipelineSettings::default(),
            bounds: Bounds::default(),
            limits: Limits::default(),
            topics: TopicSettings::of_app(app),
            dead_letters: DeadLetterSettings::default(),
            plugins: BTreeMap::new(),
            participants: BTreeMap::new(),
            alerts: AlertSettings::default(),
            http: None,
            admin: AdminSettings::default(),
            log: LogSettings::default(),
        }
    }

    /// The files in which services say what they handle.
    pub fn service_manifests(&self) -> Vec<PathBuf> {
        self.participants.values().map(|service| service.manifest.clone()).collect()
    }

    /// What the operator says about a plugin; nothing where the file does not name it.
    pub fn plugin(&self, name: &str) -> PluginSettings {
        self.plugins.get(name).cloned().unwrap_or_default()
    }

    /// A command line that reaches this app: `sagahost sagas list --config shop.toml`.
    pub fn command_line(&self, command: &str) -> String {
        format!("sagahost {command}{}", self.way())
    }

    /// What a command needs to reach this app.
    pub(super) fn way(&self) -> String {
        match &self.file {
            Some(file) if file == Path::new(super::FILE_NAME) => String::new(),
            Some(file) => format!(" --config {}", word(&file.display().to_string())),
            None => format!(" --data {}", word(&self.data_dir.display().to_string())),
        }
    }
}

/// What is asked of the data directory before anything in it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataAccess {
    /// It belongs to this user, and nobody else can change it or put another one in its place.
    Private,
    /// Nothing.
    Unchecked,
}

/// Where the key is that marks compiled code as this user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodeKeyPlace {
    /// In the user's directory for what programs remember.
    State,
    File(PathBuf),
    /// Compiled code is not kept.
    Off,
}

/// Table `[dead-letters]`: what is kept in the journal of records that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterSettings {
    pub undecodable_max: u64,
    /// Of their records.
    pub undecodable_bytes_max: u64,
    pub undecodable_retention: Duration,
}

impl Default for DeadLetterSettings {
    fn default() -> Self {
        Self {
            undecodable_max: 10_000,
            undecodable_bytes_max: 256 << 20,
            undecodable_retention: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// Table `[embedded]`: topics as tables, where there is no `[kafka]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedSettings {
    /// Of topics that are made.
    pub partitions: i32,
    /// Of each partition; older ones go, though none that an app has yet to read.
    pub kept_records_max: u64,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self { partitions: 4, kept_records_max: 1_000_000 }
    }
}

/// Table `[pipeline]`: how much is done at once, and how long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineSettings {
    /// Sagas that run at once, beside those in slow calls.
    pub workers: usize,
    /// Slow calls that run beside them.
    pub slow_calls_max: usize,
    /// A call that takes longer is slow: its worker is replaced by another.
    pub slow_call_after: Duration,
    /// Events that are with the workers or wait for one; above it, partitions are paused.
    pub queue_events_max: usize,
    /// Records that were read, batches that are not out: key, values, headers, records of sagas.
    pub in_flight_bytes_max: usize,
    /// A batch seals at this many chains …
    pub batch_chains_max: usize,
    /// … or at this many bytes of records and sagas …
    pub batch_bytes_max: usize,
    /// … or this long after its first chain; at once when nothing else is under way.
    pub batch_wait: Duration,
    /// Instead, while the batch before it is on its way out or hundreds of events wait.
    pub batch_wait_max: Duration,
    /// Batches are sealed so far apart while more than one chain goes into each.
    pub batch_interval: Duration,
    /// Batches journaled and not yet published; then execution waits.
    pub unpublished_batches_max: usize,
    /// Steps fused into one chain; what goes beyond is published and comes back.
    pub chain_steps_max: usize,
    /// What the steps of a chain read, wrote and returned; from there on it takes in nothing of what it publishes, and the
    /// next call waits for another chain.
    pub chain_bytes_max: usize,
    /// How long a chain that was thrown away twice may hold the store entries and counters that it conflicted on.
    pub reservation_max: Duration,
    /// Sagas, store entries and counters kept in memory.
    pub cache_bytes_max: usize,
    /// Key, value and headers of one record, in and out.
    pub record_bytes_max: usize,
    /// How long progress that no batch carries may stay unjournaled (positions, `confirmed`).
    pub position_wait: Duration,
    /// After a stall: how long deadlines wait for queued results.
    pub stall_wait_max: Duration,
    /// After a stall: deadlines and park expiries fired per second.
    pub due_per_second_max: u32,
    /// From SIGTERM to the end, at most.
    pub shutdown_deadline: Duration,
}

impl Default for PipelineSettings {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            slow_calls_max: 4,
            slow_call_after: Duration::from_millis(20),
            queue_events_max: 2000,
            in_flight_bytes_max: 64 << 20,
            batch_chains_max: 10_000,
            batch_bytes_max: 16 << 20,
            batch_wait: Duration::from_millis(10),
            batch_wait_max: Duration::from_millis(200),
            batch_interval: Duration::from_millis(25),
            unpublished_batches_max: 2,
            chain_steps_max: 64,
            chain_bytes_max: 16 << 20,
            reservation_max: Duration::from_secs(5),
            cache_bytes_max: 64 << 20,
            record_bytes_max: 1_000_000,
            position_wait: Duration::from_secs(1),
            stall_wait_max: Duration::from_secs(60),
            due_per_second_max: 1000,
            shutdown_deadline: Duration::from_secs(10),
        }
    }
}

/// Tables `[plugin.NAME.config]`, `[plugin.NAME.on.KIND]` and `[plugin.NAME.http."URL"]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginSettings {
    /// What the plugin reads through its `config` import.
    pub config: serde_json::Map<String, serde_json::Value>,
    pub on: BTreeMap<Kind, SubscriptionSettings>,
    /// Where it may send requests.
    pub http: Vec<GrantSettings>,
    pub isolation: Isolation,
}

/// What an operator overrides of a subscription. None: as the manifest says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionSettings {
    pub retry: RetrySettings,
    pub undo_retry: RetrySettings,
    pub deadline: Option<Duration>,
    pub park_ttl: Option<Duration>,
    pub on_dead_letter: Option<OnDeadLetter>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetrySettings {
    pub attempts_max: Option<u32>,
    pub base: Option<Duration>,
    pub cap: Option<Duration>,
}

/// Table `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub format: LogFormat,
    /// As `RUST_LOG`, which wins where it is set.
    pub filter: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One object a line.
    Json,
}
