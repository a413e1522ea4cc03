//! The reference shop on a real broker, run by the real binary: fed by a plain client, read by Kafka's own console
//! consumer, killed as a machine kills.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use sagahost_demo::{
    broker::Broker,
    workload::{Counters, Ends, LIMIT_CENTS, Order, conservation_faults, counters_of, wrong_ends},
};
use sagahost_transport::{Assignment, Polled, Transport, waiting::Waiting};
use sagahost_wire::Partition;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    built, compiled,
    shop::{OPENING_BALANCE, OPENING_STOCK, none},
};

/// One app on the broker, in a directory of its own.
pub struct KafkaShop<'b> {
    pub broker: &'b Broker,
    pub app: String,
    pub dir: TempDir,
    pub topics: Topics,
    plugins: Vec<String>,
}

/// All that the shop's participants emit or subscribe to; the last one has a table entry of its own.
pub const KINDS: [&str; 10] = [
    "OrderCreated",
    "OrderCompleted",
    "OrderCancelled",
    "PaymentProcessed",
    "PaymentFailed",
    "PaymentRefunded",
    "InventoryUpdated",
    "InventoryRejected",
    "InventoryReleased",
    "SagaFailed",
];

/// Apps that share a broker have topics of their own; apps of one saga share them.
#[derive(Clone, Debug)]
pub struct Topics(pub String);

impl Topics {
    pub fn of(&self, kind: &str) -> String {
        format!("{}.{kind}", self.0)
    }

    fn table(&self) -> String {
        let lines = KINDS[..9].iter().map(|kind| format!("{kind} = \"{}\"\n", self.of(kind)));
        format!(
            "[topics]\nsaga-failed = \"{}\"\n[topics.of-kind]\n{}",
            self.of("SagaFailed"),
            lines.collect::<String>()
        )
    }
}

/// What is configured beside the plugins and the topics.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Another listener than the plain one.
    pub bootstrap: Option<String>,
    /// Lines of `[kafka]`.
    pub kafka: String,
    /// Further tables.
    pub more: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { bootstrap: None, kafka: "create-topics = true\npartitions = 4\n".to_owned(), more: String::new() }
    }
}

impl Settings {
    /// Batches of at most so many chains: a load that is soon done takes many of them.
    pub fn small_batches(chains_max: usize) -> Self {
        Self { more: format!("[pipeline]\nbatch-chains-max = {chains_max}\n"), ..Self::default() }
    }
}

impl<'b> KafkaShop<'b> {
    pub fn new(broker: &'b Broker, app: &str, plugins: &[&str], topics: &Topics) -> Self {
        Self::with(broker, app, plugins, topics, &Settings::default())
    }

    pub fn with(broker: &'b Broker, app: &str, plugins: &[&str], topics: &Topics, settings: &Settings) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        built::copy(plugins, &dir.path().join("plugins"));
        let shop = Self {
            broker,
            app: app.to_owned(),
            dir,
            topics: topics.clone(),
            plugins: plugins.iter().map(|name| (*name).to_owned()).collect(),
        };
        shop.configure(settings);
        shop
    }

    /// Takes effect at the next start.
    pub fn configure(&self, settings: &Settings) {
        let has = |name: &str| self.plugins.iter().any(|plugin| plugin == name);
        let payment = format!(
            "[plugin.payment.config]\nlimit-cents = {LIMIT_CENTS}\nopening-balance-cents = {OPENING_BALANCE}\n"
        );
        let inventory = format!("[plugin.inventory.config]\nopening-stock = {OPENING_STOCK}\n");
        let text = format!(
            "app = \"{}\"\nplugins = \"plugins\"\ndata = \"data\"\n[kafka]\nbootstrap-servers = \"{}\"\n\
             start = \"earliest\"\n{}{}{}{}{}",
            self.app,
            settings.bootstrap.clone().unwrap_or_else(|| self.broker.bootstrap()),
            settings.kafka,
            if has("payment") { payment.as_str() } else { "" },
            if has("inventory") { inventory.as_str() } else { "" },
            self.topics.table(),
            settings.more,
        );
        fs::write(self.config(), text).expect("the configuration can be written");
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("sagahost.toml")
    }

    pub fn start(&self) -> Running {
        self.start_with(&[], &[])
    }

    /// The real binary; `crash`: environment that makes it end itself at a named point.
    pub fn start_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let lent = compiled::lend(&self.data());
        let log = self.dir.path().join("host.log");
        let out = File::options().create(true).append(true).open(&log).expect("the log can be opened");
        let log_from = out.metadata().map_or(0, |log| log.len() as usize);
        let child = Command::new(built::sagahost())
            .args(["run", "--config"])
            .arg(self.config())
            .args(arguments)
            .env("XDG_STATE_HOME", built::state())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("the log can be opened twice"))
            .stderr(out)
            .spawn()
            .expect("the binary starts");
        Running { child, log, log_from, _lent: lent }
    }

    /// What a command prints as JSON.
    pub fn ask(&self, words: &[&str]) -> Value {
        let output = self.command(words);
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{words:?}: {error}: {text}{}", String::from_utf8_lossy(&output.stderr)))
    }

    pub fn command(&self, words: &[&str]) -> Output {
        let mut command = Command::new(built::sagahost());
        command.args(words).args(["--json", "--config"]).arg(self.config()).env("XDG_STATE_HOME", built::state());
        command.output().expect("the binary starts")
    }

    pub fn status(&self) -> Status {
        Status(self.ask(&["status"]))
    }

    /// Asks again and again until the status is as wanted.
    pub fn until(&self, what: &str, patience: Duration, wanted: impl Fn(&Status) -> bool) -> Status {
        let end = Instant::now() + patience;
        loop {
            // A host that is starting does not answer yet.
            let output = self.command(&["status"]);
            if let Ok(status) = serde_json::from_slice(&output.stdout).map(Status)
                && wanted(&status)
            {
                return status;
            }
            let last = String::from_utf8_lossy(&output.stdout);
            assert!(Instant::now() < end, "waited for {what}: {last}{}", String::from_utf8_lossy(&output.stderr));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Until everything is published and nothing more comes, positions included.
    pub fn until_quiet(&self) -> Status {
        let batch = std::cell::Cell::new((0, Instant::now()));
        self.until("the host to be idle", Duration::from_secs(60), |status| {
            if status.number("batch") != batch.get().0 {
                batch.set((status.number("batch"), Instant::now()));
            }
            // Positions by themselves wait for a second.
            status.unpublished() == 0 && batch.get().1.elapsed() > Duration::from_secs(2)
        })
    }

    pub fn counters(&self) -> Counters {
        counters_of(&self.ask(&["plugins", "counters"]))
    }

    /// CloudEvents, each with an id of its own that is the same whenever the order is produced again.
    pub fn produce_cloud_events(&self, orders: &[Order]) {
        let texts: Vec<(String, String)> = orders
            .iter()
            .map(|order| (order.order_id.clone(), serde_json::to_string(order).expect("an order is JSON")))
            .collect();
        let headers: Vec<[(&str, &str); 5]> = texts
            .iter()
            .map(|(id, _)| {
                let (version, source) = (("ce_specversion", "1.0"), ("ce_source", "web"));
                [version, ("ce_id", id.as_str()), source, ("ce_type", "OrderCreated"), ("ce_sagaid", id.as_str())]
            })
            .collect();
        let records =
            texts.iter().zip(&headers).map(|((key, value), headers)| (key.as_str(), value.as_str(), &headers[..]));
        self.broker.produce(&self.topics.of("OrderCreated"), records).expect("the broker takes orders");
    }

    /// Plain records.
    pub fn produce(&self, orders: &[Order]) {
        let texts: Vec<(String, String)> = orders
            .iter()
            .map(|order| (order.order_id.clone(), serde_json::to_string(order).expect("an order is JSON")))
            .collect();
        let none: &[(&str, &str)] = &[];
        let records = texts.iter().map(|(key, value)| (key.as_str(), value.as_str(), none));
        self.broker.produce(&self.topics.of("OrderCreated"), records).expect("the broker takes orders");
    }

    /// How many orders have ended so far, seen by a reader of committed records.
    pub fn watch(&self) -> Watch {
        let transport = self.broker.transport(&format!("{}-watch", self.app)).expect("a client");
        let names = [self.topics.of("OrderCompleted"), self.topics.of("OrderCancelled")].map(std::sync::Arc::from);
        let end = Instant::now() + Duration::from_secs(60);
        let there = loop {
            let there = transport.topics(&names).expect("topics can be listed");
            if there.len() == names.len() {
                break there;
            }
            assert!(Instant::now() < end, "the host has not made its topics");
            std::thread::sleep(Duration::from_millis(100));
        };
        let assignments: Vec<Assignment> = there
            .iter()
            .flat_map(|(topic, count)| (0..*count).map(move |number| Partition { topic: topic.clone(), number }))
            .map(|partition| Assignment::new(partition, 0))
            .collect();
        let mut source = Waiting::new(transport.source().expect("a consumer"));
        source.assign(&assignments).expect("partitions can be assigned");
        Watch {
            source,
            ends: Ends::default(),
            completed: self.topics.of("OrderCompleted"),
            dir: self.dir.path().to_owned(),
        }
    }

    /// What a plain client reads of committed records.
    pub fn ends(&self) -> Ends {
        let mut ends = Ends::default();
        for kind in ["OrderCompleted", "OrderCancelled"] {
            for line in self.broker.committed(&self.topics.of(kind)).expect("a plain client reads") {
                ends.read(kind, &line.key, 0);
            }
        }
        ends
    }

    /// Of what was published under one id, nothing is there twice.
    pub fn assert_no_doubles(&self, kinds: &[&str]) {
        for kind in kinds {
            let mut seen = BTreeSet::new();
            for line in self.broker.committed(&self.topics.of(kind)).expect("a plain client reads") {
                let id = line.headers.iter().find(|(name, _)| name == "ce_id").map(|(_, id)| id.clone());
                let id = id.unwrap_or_else(|| panic!("an event without an id: {line:?}"));
                assert!(seen.insert(id), "twice in {kind}: {line:?}");
            }
        }
    }

    /// Each order has ended once, nothing is published twice, money and stock are conserved, nothing is a dead letter.
    pub fn assert_right(&self, orders: &[Order]) {
        self.assert_right_with(orders, &self.counters());
        self.assert_no_doubles(&KINDS[1..]);
        assert_eq!(self.status().number("open-letters"), 0, "{:?}", self.ask(&["dead-letters", "list"]));
    }

    /// The same where the counters are kept by several apps.
    pub fn assert_right_with(&self, orders: &[Order], counters: &Counters) {
        let ends = self.ends();
        let mut faults = ends.faults(orders);
        faults.extend(wrong_ends(orders, &ends, OPENING_STOCK));
        faults.extend(conservation_faults(orders, &ends, counters, OPENING_BALANCE, OPENING_STOCK));
        none(&faults, orders);
    }
}

/// `sagahost status --json`.
#[derive(Debug)]
pub struct Status(pub Value);

impl Status {
    pub fn number(&self, name: &str) -> u64 {
        self.0.get(name).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {name} in {}", self.0))
    }

    /// Since the host's start.
    pub fn counter(&self, name: &str) -> u64 {
        let counter = self.0.get("counters").and_then(|counters| counters.get(name)).and_then(Value::as_u64);
        counter.unwrap_or_else(|| panic!("no counter {name} in {}", self.0))
    }

    pub fn unpublished(&self) -> u64 {
        self.number("batch") - self.number("published")
    }

    /// What it waits for.
    pub fn waits(&self) -> String {
        self.0.get("waiting-for").map(Value::to_string).unwrap_or_default()
    }

    pub fn held(&self) -> String {
        self.0.get("held").map(Value::to_string).unwrap_or_default()
    }

    /// How many sagas are in one of these states.
    pub fn sagas(&self, states: &[&str]) -> u64 {
        let counts = self.0.get("sagas").and_then(Value::as_array).into_iter().flatten();
        let of = |count: &Value| Some((count.get(0)?.as_str()?.to_owned(), count.get(1)?.as_u64()?));
        counts.filter_map(of).filter(|(state, _)| states.contains(&state.as_str())).map(|(_, count)| count).sum()
    }
}

pub struct Watch {
    source: Waiting,
    pub ends: Ends,
    completed: String,
    /// Of the shop.
    dir: PathBuf,
}

impl Watch {
    pub fn read(&mut self, wait: Duration) -> usize {
        let end = Instant::now() + wait;
        loop {
            // A broker that restarts is away for a moment: errors pass.
            if let Ok(Some(Polled::Record(record))) = self.source.poll(end.saturating_duration_since(Instant::now())) {
                let kind = if *record.partition.topic == *self.completed { "OrderCompleted" } else { "OrderCancelled" };
                let key = String::from_utf8(record.key.unwrap_or_default()).expect("keys are text");
                self.ends.read(kind, &key, record.timestamp_ms.unwrap_or(0));
            }
            if Instant::now() >= end {
                return self.ends.len();
            }
        }
    }

    /// Until so many orders have ended.
    pub fn until(&mut self, count: usize, patience: Duration) {
        let end = Instant::now() + patience;
        while self.read(Duration::from_millis(2)) < count {
            assert!(Instant::now() < end, "{} of {count} orders ended\n{}", self.ends.len(), self.why());
        }
    }

    /// What the host says of itself, and the end of its log.
    fn why(&self) -> String {
        let (config, log) = (self.dir.join("sagahost.toml"), self.dir.join("host.log"));
        let status = Command::new(built::sagahost()).args(["status", "--json", "--config"]).arg(config).output();
        let status = status.map_or_else(|error| error.to_string(), |output| format!("{output:?}"));
        let log = fs::read_to_string(log).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!("{status}\n{}", tail.join("\n"))
    }
}

pub struct Running {
    pub child: Child,
    log: PathBuf,
    log_from: usize,
    _lent: compiled::Lent,
}

impl Running {
    pub fn kill(mut self) {
        self.child.kill().expect("the host can be killed");
        self.child.wait().expect("the host ends");
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
    }

    /// From a stop point.
    pub fn goes_on(&self) {
        Command::new("kill").args(["-CONT", &self.child.id().to_string()]).status().expect("kill runs");
    }

    /// SIGTERM, and wait.
    pub fn stop(mut self) -> ExitStatus {
        self.terminate();
        self.ended()
    }

    /// By itself, within a minute.
    pub fn ended(&mut self) -> ExitStatus {
        self.ended_within(Duration::from_secs(60))
    }

    pub fn ended_within(&mut self, patience: Duration) -> ExitStatus {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("the host can be asked") {
                return status;
            }
            assert!(Instant::now() < end, "the host still runs:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Until the log says it.
    pub fn says(&mut self, text: &str, patience: Duration) {
        let end = Instant::now() + patience;
        while !self.log().contains(text) {
            let ended = self.child.try_wait().expect("the host can be asked");
            assert!(Instant::now() < end && ended.is_none(), "waited for {text:?} ({ended:?}):\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Of this process, not of those before it.
    pub fn log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(log.get(self.log_from..).unwrap_or_default()).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
