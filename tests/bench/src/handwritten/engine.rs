//! Consume, change, produce: one batch after the other, as large as what has come meanwhile. Invariant: a batch's state is durable
//! before its events are; whoever dies between the two reads the batch again, finds its ids seen, and publishes from the state.

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::{BorrowedMessage, Header, Headers as _, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
    types::RDKafkaErrorCode,
};
use rusqlite::{Connection, params};

use crate::Args;

/// Records of one batch.
const BATCH_MAX: usize = 10_000;
const IDLE: Duration = Duration::from_secs(1);
const CALL: Duration = Duration::from_secs(30);

/// What is published.
pub struct Event {
    pub topic: &'static str,
    pub kind: &'static str,
    pub order: String,
    pub data: Vec<u8>,
}

impl Event {
    pub fn new(topic: &'static str, kind: &'static str, order: &str, data: &impl serde::Serialize) -> Result<Self> {
        Ok(Self { topic, kind, order: order.to_owned(), data: serde_json::to_vec(data)? })
    }
}

/// One service's logic.
pub trait Service {
    const NAME: &'static str;
    const TOPICS: &'static [&'static str];
    const SCHEMA: &'static str;

    /// `again`: its effect is in the database already; only what is to be published is wanted.
    fn handle(db: &Connection, topic: &str, data: &[u8], again: bool, out: &mut Vec<Event>) -> Result<()>;
}

pub fn run<S: Service>(args: &Args) -> Result<()> {
    fs::create_dir_all(&args.data)?;
    let mut db = Connection::open(args.data.join(format!("{}.sqlite", S::NAME)))?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "cache_size", -65_536)?;
    db.execute_batch(S::SCHEMA)?;
    db.execute_batch("create table if not exists seen (topic text, id text, primary key (topic, id)) without rowid;")?;
    let group = format!("{}-{}", args.group, S::NAME);
    let (consumer, producer) = (consumer::<S>(args, &group)?, producer(args, &group)?);
    producer.init_transactions(CALL)?;
    println!("ready");
    let mut offsets = BTreeMap::new();
    let mut out = Vec::new();
    loop {
        let Some(first) = consumer.poll(IDLE) else { continue };
        let state = db.transaction()?;
        let mut next = Some(first);
        let mut records = 0;
        while let Some(message) = next {
            take::<S>(&state, &taken(message)?, &mut offsets, &mut out)?;
            records += 1;
            next = if records < BATCH_MAX { consumer.poll(Duration::ZERO) } else { None };
        }
        state.commit()?;
        publish(&producer, &consumer, &out, &offsets, args.undrained)?;
        offsets.clear();
        out.clear();
    }
}

fn taken(message: Result<BorrowedMessage<'_>, KafkaError>) -> Result<BorrowedMessage<'_>> {
    message.context("failed to read")
}

fn take<S: Service>(
    db: &Connection,
    message: &BorrowedMessage<'_>,
    offsets: &mut BTreeMap<(String, i32), i64>,
    out: &mut Vec<Event>,
) -> Result<()> {
    let topic = message.topic();
    // What comes from others has no id, and is one of its kind for its order.
    let id = message
        .headers()
        .and_then(|headers| headers.iter().find(|header| header.key == "ce_id"))
        .and_then(|header| header.value)
        .or_else(|| message.key())
        .context("a record without id and key")?;
    let id = std::str::from_utf8(id)?;
    let known = db.prepare_cached("insert or ignore into seen values (?1, ?2)")?.execute(params![topic, id])? == 0;
    S::handle(db, topic, message.payload().unwrap_or_default(), known, out)?;
    match offsets.get_mut(&(topic.to_owned(), message.partition())) {
        Some(next) => *next = message.offset() + 1,
        None => {
            offsets.insert((topic.to_owned(), message.partition()), message.offset() + 1);
        }
    }
    Ok(())
}

fn publish(
    producer: &BaseProducer,
    consumer: &BaseConsumer,
    out: &[Event],
    offsets: &BTreeMap<(String, i32), i64>,
    undrained: bool,
) -> Result<()> {
    producer.begin_transaction()?;
    for event in out {
        let (headers, id) = headers(event);
        let mut record = BaseRecord::to(event.topic).key(&event.order).payload(&event.data).headers(headers);
        while let Err((error, unsent)) = producer.send(record) {
            anyhow::ensure!(
                error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull),
                "failed to publish {id}: {error}"
            );
            record = unsent;
            producer.poll(Duration::from_millis(5));
        }
    }
    if !undrained {
        // `flush` would sleep for 100 ms: it does not take the reports that it waits for.
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(1));
        }
    }
    let mut list = TopicPartitionList::new();
    for ((topic, partition), next) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
    }
    let group = consumer.group_metadata().context("the consumer has a group")?;
    producer.send_offsets_to_transaction(&list, &group, CALL)?;
    producer.commit_transaction(CALL)?;
    Ok(())
}

/// As CloudEvents have them.
fn headers(event: &Event) -> (OwnedHeaders, String) {
    let id = format!("{}-{}", event.order, event.kind);
    let mut headers = OwnedHeaders::new_with_capacity(6);
    for (key, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", &id),
        ("ce_type", event.kind),
        ("ce_source", "/handwritten"),
        ("ce_sagaid", &event.order),
        ("content-type", "application/json"),
    ] {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    (headers, id)
}

fn producer(args: &Args, group: &str) -> Result<BaseProducer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &args.bootstrap).set("transactional.id", group);
    config.set("partitioner", "murmur2_random").set("linger.ms", "1").set("queue.buffering.max.messages", "200000");
    Ok(config.create()?)
}

/// Of all partitions: with one instance of each service there is nobody to share them with. The first time it begins at their ends.
fn consumer<S: Service>(args: &Args, group: &str) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &args.bootstrap).set("group.id", group);
    config.set("isolation.level", "read_committed").set("enable.auto.commit", "false");
    config.set("auto.offset.reset", "error").set("fetch.wait.max.ms", "100").set("fetch.queue.backoff.ms", "10");
    let consumer: BaseConsumer = config.create()?;
    let mut all = TopicPartitionList::new();
    for topic in S::TOPICS {
        let metadata = consumer.fetch_metadata(Some(topic), CALL)?;
        let partitions = metadata.topics().first().context("the topic is there")?.partitions().len();
        all.add_partition_range(topic, 0, i32::try_from(partitions)? - 1);
    }
    let mut from = TopicPartitionList::new();
    for element in committed(&consumer, all)?.elements() {
        let offset = match element.offset() {
            Offset::Offset(next) => next,
            _ => consumer.fetch_watermarks(element.topic(), element.partition(), CALL)?.1,
        };
        from.add_partition_offset(element.topic(), element.partition(), Offset::Offset(offset))?;
    }
    consumer.assign(&from)?;
    Ok(consumer)
}

/// The coordinator of a new group is not there at once.
fn committed(consumer: &BaseConsumer, all: TopicPartitionList) -> Result<TopicPartitionList> {
    let end = Instant::now() + CALL;
    loop {
        match consumer.committed_offsets(all.clone(), CALL) {
            Ok(committed) => return Ok(committed),
            Err(error) if Instant::now() > end => return Err(error).context("failed to read what is committed"),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}
