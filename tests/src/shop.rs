//! The reference shop on the embedded transport, in this process: fed, watched and judged from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use sagahost::{
    config::Config,
    host::{Host, Parts},
};
use sagahost_demo::workload::{Counters, Ends, Order, conservation_faults, wrong_ends};
use sagahost_journal::{Journal, LetterFilter};
use sagahost_journal_sqlite::{OpenOptions, SqliteJournal};
use sagahost_processor::start::Decisions;
use sagahost_sandbox::Compiler;
use sagahost_transport::{Assignment, Polled, Transport, waiting::Waiting};
use sagahost_transport_embedded::EmbeddedTransport;
use sagahost_wire::{
    Outgoing, Partition, Record,
    clock::{Clock, SystemClock},
    topic_name,
};
use tempfile::TempDir;

use crate::{
    built,
    compiled::{self, Lent},
    faulty::{Death, FaultyJournal, FaultyTransport},
    kafka_shop::KINDS,
};

pub const OPENING_BALANCE: i64 = 1_000_000;
pub const OPENING_STOCK: i64 = 1_000;

pub struct Shop {
    lent: OnceLock<Lent>,
    pub dir: TempDir,
    pub config: Config,
    /// Where the topics are, when not in the data directory: as a broker is elsewhere.
    pub topics_dir: Option<PathBuf>,
    plugins: Vec<String>,
}

impl Shop {
    /// `plugins`: names of built plugins. `more`: further lines of the configuration.
    pub fn new(plugins: &[&str], more: &str) -> Self {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        built::copy(plugins, &dir.path().join("plugins"));
        let config = Self::configured(dir.path(), plugins, more);
        Self {
            lent: OnceLock::new(),
            dir,
            config,
            topics_dir: None,
            plugins: plugins.iter().map(ToString::to_string).collect(),
        }
    }

    /// Other further lines, from the next start on.
    pub fn configure(&mut self, more: &str) {
        let plugins: Vec<&str> = self.plugins.iter().map(String::as_str).collect();
        self.config = Self::configured(self.dir.path(), &plugins, more);
    }

    fn configured(dir: &Path, plugins: &[&str], more: &str) -> Config {
        let has = |name: &str| plugins.contains(&name);
        let payment =
            format!("[plugin.payment.config]\nlimit-cents = 100000\nopening-balance-cents = {OPENING_BALANCE}\n");
        let inventory = format!("[plugin.inventory.config]\nopening-stock = {OPENING_STOCK}\n");
        let text = format!(
            "app = \"shop\"\nplugins = \"plugins\"\ndata = \"data\"\ncompiled-code-key = {:?}\n{}{}{more}\n",
            built::state().join("sagahost/compiled-code.key"),
            if has("payment") { payment.as_str() } else { "" },
            if has("inventory") { inventory.as_str() } else { "" },
        );
        let file = dir.join("sagahost.toml");
        std::fs::write(&file, &text).expect("the configuration can be written");
        Config::load(&file).unwrap_or_else(|faults| panic!("{faults}"))
    }

    pub fn data(&self) -> PathBuf {
        self.config.data_dir.clone()
    }

    fn topics_dir(&self) -> &Path {
        self.topics_dir.as_deref().unwrap_or(&self.config.data_dir)
    }

    pub fn topics(&self) -> EmbeddedTransport {
        EmbeddedTransport::open(self.topics_dir(), "test").expect("the topics open")
    }

    pub fn start(&self) -> Host {
        self.start_dying(&Death::never())
    }

    pub fn start_dying(&self, death: &Arc<Death>) -> Host {
        self.try_start(death, Decisions::default()).unwrap_or_else(|error| panic!("{error:#}"))
    }

    pub fn try_start(&self, death: &Arc<Death>, decisions: Decisions) -> anyhow::Result<Host> {
        self.start_by(Arc::new(SystemClock), death, decisions)
    }

    /// With another clock than the system's.
    pub fn start_by(&self, clock: Arc<dyn Clock>, death: &Arc<Death>, decisions: Decisions) -> anyhow::Result<Host> {
        self.lent.get_or_init(|| compiled::lend(&self.data()));
        let journal = self.journal()?;
        let transport = EmbeddedTransport::open(self.topics_dir(), &self.config.app)?;
        Ok(Host::start_with(Parts {
            journal: Arc::new(FaultyJournal { inner: journal, death: death.clone() }),
            transport: Arc::new(FaultyTransport { inner: Arc::new(transport), death: death.clone() }),
            clock,
            compiler: Compiler::Here,
            decisions,
            stop_requested: Arc::default(),
            config: self.config.clone(),
        })?)
    }

    pub fn journal(&self) -> anyhow::Result<Arc<dyn Journal>> {
        Ok(Arc::new(SqliteJournal::open(&self.data(), &self.config.app, OpenOptions::default())?))
    }

    /// Plain records, as any client writes them.
    pub fn produce(&self, orders: &[Order]) {
        let records: Vec<Outgoing> = orders.iter().map(order_record).collect();
        let topics = self.topics();
        topics.create_topics(&["order-created".into()], 4).expect("topics can be made");
        topics.offer_all(&records).expect("records can be appended");
    }

    /// A record of any kind, in a topic that the host has made or that is made now.
    pub fn send(&self, record: &Outgoing) -> (Partition, i64) {
        let topics = self.topics();
        topics.create_topics(std::slice::from_ref(&record.topic), 4).expect("topics can be made");
        topics.offer(record).expect("a record can be appended")
    }

    /// All records of these topics.
    pub fn read(&self, topics: &[&str]) -> Vec<Record> {
        let transport = self.topics();
        let names: Vec<Arc<str>> = topics.iter().map(|topic| Arc::from(*topic)).collect();
        let there = transport.topics(&names).expect("topics can be listed");
        let assignments: Vec<Assignment> = there
            .iter()
            .flat_map(|(topic, count)| (0..*count).map(move |number| Partition { topic: topic.clone(), number }))
            .map(|partition| Assignment::new(partition, 0))
            .collect();
        let mut source = Waiting::new(transport.source().expect("a source can be made"));
        source.assign(&assignments).expect("partitions can be assigned");
        let mut records = Vec::new();
        let mut ended = 0;
        while ended < assignments.len() {
            match source.poll(Duration::from_millis(200)).expect("topics can be read") {
                Some(Polled::Record(record)) => records.push(record),
                Some(Polled::End(..)) => ended += 1,
                Some(Polled::Verified(_)) => {}
                None => break,
                other => panic!("unexpected: {other:?}"),
            }
        }
        records
    }

    pub fn ends(&self) -> Ends {
        let mut ends = Ends::default();
        for record in self.read(&["order-completed", "order-cancelled"]) {
            let kind = if &*record.partition.topic == "order-completed" { "OrderCompleted" } else { "OrderCancelled" };
            let order = String::from_utf8(record.key.unwrap_or_default()).expect("keys are text");
            ends.read(kind, &order, record.timestamp_ms.unwrap_or(0));
        }
        ends
    }

    /// Until all these orders have ended, or the host died, or `patience` is over.
    pub fn await_ends(&self, orders: &[Order], death: &Death, patience: Duration) -> Ends {
        let until = Instant::now() + patience;
        loop {
            let ends = self.ends();
            if ends.len() >= orders.len() || death.dead() {
                return ends;
            }
            if Instant::now() > until {
                self.explain(orders, &ends);
                return ends;
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// For a failing test: what the first order says that has not ended.
    fn explain(&self, orders: &[Order], ends: &Ends) {
        let open = orders.iter().find(|order| !ends.ended_ms.contains_key(&order.order_id));
        let file = self.data().join("journal.db");
        eprintln!("{} of {} orders ended; the first that did not: {open:?}", ends.len(), orders.len());
        let Some(open) = open else { return };
        let options = OpenOptions { past_the_lock: true, ..OpenOptions::default() };
        let Ok(journal) = SqliteJournal::open(&self.data(), &self.config.app, options) else {
            return eprintln!("{} cannot be read", file.display());
        };
        eprintln!("{:?}", journal.count_by_status());
        eprintln!("{:?}", journal.letter_groups());
        eprintln!("{:?}", journal.positions());
        let topics = self.topics();
        let partitions: Vec<Partition> = (0..4).map(|number| Partition::new("order-created", number)).collect();
        eprintln!("{:?}", topics.bounds(&partitions));
        match journal.saga(&open.order_id.as_str().into()) {
            Ok(Some(row)) => match sagahost_saga::Saga::decode(&row.bytes) {
                Ok(saga) => saga.history().iter().for_each(|entry| eprintln!("  {entry:?}")),
                Err(error) => eprintln!("{error}"),
            },
            other => eprintln!("{other:?}"),
        }
    }

    pub fn counters(&self, journal: &dyn Journal) -> Counters {
        let rows = journal.counters(None).expect("counters can be read");
        rows.into_iter()
            .map(|(participant, name, value)| ((participant.to_string(), name), value))
            .collect::<BTreeMap<_, _>>()
    }

    /// Each order has ended once and as the three plugins decide it, and everything is conserved.
    #[track_caller]
    pub fn assert_right(&self, orders: &[Order], journal: &dyn Journal) {
        let ends = self.ends();
        let mut faults = self.unconserved(orders, &ends, journal);
        if self.plugins == THREE {
            faults.extend(wrong_ends(orders, &ends, OPENING_STOCK));
        }
        none(&faults, orders);
    }

    /// Each order has ended exactly once, either way: an operator may have cancelled it. Nothing is published twice, money
    /// and stock are conserved, nothing is a dead letter.
    #[track_caller]
    pub fn assert_conserved(&self, orders: &[Order], journal: &dyn Journal) {
        none(&self.unconserved(orders, &self.ends(), journal), orders);
    }

    fn unconserved(&self, orders: &[Order], ends: &Ends, journal: &dyn Journal) -> Vec<String> {
        let mut faults = ends.faults(orders);
        let counters = self.counters(journal);
        faults.extend(conservation_faults(orders, ends, &counters, OPENING_BALANCE, OPENING_STOCK));
        faults.extend(self.doubles());
        let open = LetterFilter { open_only: true, limit: 5, ..LetterFilter::default() };
        let letters = journal.letters(&open).expect("letters can be read");
        faults.extend(letters.into_iter().map(|letter| format!("dead letter {}: {}", letter.key, letter.detail)));
        faults
    }

    /// Events that were published more than once.
    fn doubles(&self) -> Vec<String> {
        let topics: Vec<String> = KINDS[1..].iter().map(|kind| topic_name::of_kind(kind)).collect();
        let records = self.read(&topics.iter().map(String::as_str).collect::<Vec<_>>());
        let mut seen = BTreeSet::new();
        let id = |record: &Record| record.headers.iter().find(|(name, _)| name == "ce_id").map(|(_, id)| id.clone());
        let twice = records.iter().filter_map(|record| id(record).map(|id| (record, id)));
        twice
            .filter_map(|(record, id)| {
                let first = seen.insert((record.partition.topic.clone(), id));
                (!first).then(|| format!("twice in {}: {record:?}", record.partition.topic))
            })
            .collect()
    }
}

#[track_caller]
pub fn none(faults: &[String], orders: &[Order]) {
    assert!(
        faults.is_empty(),
        "{} faults, {} orders: {:?}",
        faults.len(),
        orders.len(),
        &faults[..faults.len().min(5)]
    );
}

pub fn order_record(order: &Order) -> Outgoing {
    Outgoing {
        topic: "order-created".into(),
        key: Some(order.order_id.clone().into_bytes()),
        value: Some(serde_json::to_vec(order).expect("an order is JSON")),
        headers: Vec::new(),
    }
}

pub const THREE: [&str; 3] = ["order", "payment", "inventory"];
pub const PATIENCE: Duration = Duration::from_secs(60);
