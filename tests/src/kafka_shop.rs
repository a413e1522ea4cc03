//! The reference shop on a real broker, run by the real binary: fed by a plain client, read by Kafka's own console
//! consumer, killed as a machine kills.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use sagahost::transport::{Assignment, Partition, Polled, Source, Transport};
use sagahost_demo::{
    broker::Broker,
    workload::{Counters, Ends, Order, conservation_faults, counters_of},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    built,
    shop::{OPENING_BALANCE, OPENING_STOCK},
};

/// One app on the broker, in a directory of its own.
pub struct KafkaShop<'b> {
    pub broker: &'b Broker,
    pub app: String,
    pub dir: TempDir,
    topics: Topics,
}

/// Apps that share a broker have topics of their own; apps of one saga share them.
#[derive(Clone, Debug)]
pub struct Topics(pub String);

impl Topics {
    pub fn of(&self, kind: &str) -> String {
        format!("{}.{kind}", self.0)
    }

    fn table(&self) -> String {
        const KINDS: [&str; 10] = [
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
        let lines = KINDS[..9].iter().map(|kind| format!("{kind} = \"{}\"\n", self.of(kind)));
        format!(
            "[topics]\nsaga-failed = \"{}\"\n[topics.of-kind]\n{}",
            self.of("SagaFailed"),
            lines.collect::<String>()
        )
    }
}

impl<'b> KafkaShop<'b> {
    pub fn new(broker: &'b Broker, app: &str, plugins: &[&str], topics: &Topics) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        built::copy(plugins, &dir.path().join("plugins"));
        let has = |name: &str| plugins.contains(&name);
        let payment =
            format!("[plugin.payment.config]\nlimit-cents = 100000\nopening-balance-cents = {OPENING_BALANCE}\n");
        let inventory = format!("[plugin.inventory.config]\nopening-stock = {OPENING_STOCK}\n");
        let text = format!(
            "app = \"{app}\"\nplugins = \"plugins\"\ndata = \"data\"\n[kafka]\nbootstrap-servers = \"{}\"\n\
             start = \"earliest\"\ncreate-topics = true\npartitions = 4\n{}{}{}",
            broker.bootstrap(),
            if has("payment") { payment.as_str() } else { "" },
            if has("inventory") { inventory.as_str() } else { "" },
            topics.table(),
        );
        fs::write(dir.path().join("sagahost.toml"), text).expect("the configuration can be written");
        Self { broker, app: app.to_owned(), dir, topics: topics.clone() }
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("sagahost.toml")
    }

    pub fn start(&self) -> Running {
        self.start_with(&[], &[])
    }

    /// The real binary; `crash`: environment that makes it end itself at a named point.
    pub fn start_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let log = self.dir.path().join("host.log");
        let out = File::options().create(true).append(true).open(&log).expect("the log can be opened");
        let child = Command::new(built::sagahost())
            .args(["run", "--config"])
            .arg(self.config())
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("the log can be opened twice"))
            .stderr(out)
            .spawn()
            .expect("the binary starts");
        Running { child, log }
    }

    /// What a command prints as JSON.
    pub fn ask(&self, words: &[&str]) -> Value {
        let output = Command::new(built::sagahost())
            .args(words)
            .args(["--json", "--config"])
            .arg(self.config())
            .output()
            .expect("the binary starts");
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{words:?}: {error}: {text}{}", String::from_utf8_lossy(&output.stderr)))
    }

    pub fn counters(&self) -> Counters {
        counters_of(&self.ask(&["plugins", "counters"]))
    }

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
            .map(|partition| Assignment { partition, position: 0, last: None })
            .collect();
        let mut source = transport.source().expect("a consumer");
        source.assign(&assignments).expect("partitions can be assigned");
        Watch { source, ends: Ends::default(), completed: self.topics.of("OrderCompleted") }
    }

    /// What Kafka's own console consumer reads, read_committed.
    pub fn ends(&self) -> Ends {
        let mut ends = Ends::default();
        for kind in ["OrderCompleted", "OrderCancelled"] {
            for line in
                self.broker.read(&self.topics.of(kind), Duration::from_secs(6)).expect("the console consumer reads")
            {
                ends.read(kind, &line.key, 0);
            }
        }
        ends
    }

    /// Each order has ended once, money and stock are conserved, nothing is a dead letter.
    pub fn assert_right(&self, orders: &[Order]) {
        let ends = self.ends();
        let faults = ends.faults(orders);
        assert!(faults.is_empty(), "{} of {}: {:?}", faults.len(), orders.len(), &faults[..faults.len().min(5)]);
        let faults = conservation_faults(orders, &ends, &self.counters(), OPENING_BALANCE, OPENING_STOCK);
        assert!(faults.is_empty(), "{:?}", &faults[..faults.len().min(5)]);
    }
}

pub struct Watch {
    source: Box<dyn Source>,
    pub ends: Ends,
    completed: String,
}

impl Watch {
    pub fn read(&mut self, wait: Duration) -> usize {
        let end = Instant::now() + wait;
        loop {
            // A broker that restarts is away for a moment: errors pass.
            if let Ok(Polled::Record(record)) = self.source.poll(end.saturating_duration_since(Instant::now())) {
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
        while self.read(Duration::from_millis(200)) < count {
            assert!(Instant::now() < end, "{} of {count} orders ended", self.ends.len());
        }
    }
}

pub struct Running {
    pub child: Child,
    log: PathBuf,
}

impl Running {
    pub fn kill(mut self) {
        self.child.kill().expect("the host can be killed");
        self.child.wait().expect("the host ends");
    }

    /// SIGTERM, and wait.
    pub fn stop(mut self) -> ExitStatus {
        Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        self.child.wait().expect("the host ends")
    }

    /// By itself, within a minute.
    pub fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().expect("the host can be asked") {
                return status;
            }
            assert!(Instant::now() < end, "the host still runs:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
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
