//! Looks into the topics whether a publication went through. Invariant: "absent" is said only where everything that was
//! committed since then has been read.
//!
//! A publication is visible as a whole or not at all, so any one of its records answers for all. Records are compared
//! whole: the ids of emitted events are unique, and a dead letter's copy has its letter and its time in its headers.

use std::{
    collections::{BTreeMap, HashMap},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::Consumer as _,
    error::KafkaError,
    message::{BorrowedMessage, Headers as _},
};
use sagahost_transport::{Found, Isolation, TransportError};
use sagahost_wire::{Outgoing, Partition};
use tracing::info;

use super::{
    PATIENCE,
    connection::{Connection, Consumer},
    retire, retry_until_stopped, topics,
};

/// Clocks differ, and a broker may stamp records with its own.
const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);
/// Topics that are looked into, until one gives an answer.
const TOPICS_MAX: usize = 4;
/// Records that are read of one topic at most.
const RECORDS_MAX: i64 = 1_000_000;
/// Reading that makes no progress for this long is given up.
const STANDSTILL: Duration = Duration::from_secs(20);
/// How long another producer's open transaction may keep what follows it from being read.
const OPEN_TRANSACTION: Duration = Duration::from_secs(20);

pub(super) struct Search<'a> {
    connection: &'a Connection,
    /// By topic, then by key.
    wanted: BTreeMap<&'a str, HashMap<Option<&'a [u8]>, Vec<&'a Outgoing>>>,
    stable: Client,
    uncommitted: Client,
}

/// A consumer that ends on a thread of its own.
struct Client(Option<Consumer>);

impl Client {
    fn new(connection: &Connection, isolation: Isolation) -> Result<Self, TransportError> {
        Ok(Self(Some(connection.consumer(isolation)?)))
    }

    fn consumer(&self) -> &Consumer {
        self.0.as_ref().expect("the consumer is there until it is dropped")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(consumer) = self.0.take() {
            retire("consumer", consumer);
        }
    }
}

/// A stretch of a partition that must be read.
struct Stretch {
    partition: Partition,
    from: i64,
    /// Exclusive: the end when the search began, open transactions included.
    end: i64,
    /// Nothing of the time in question was removed from it.
    whole: bool,
}

impl<'a> Search<'a> {
    pub fn new(connection: &'a Connection, records: &[&'a Outgoing]) -> Result<Self, TransportError> {
        let mut wanted: BTreeMap<&str, HashMap<Option<&[u8]>, Vec<&Outgoing>>> = BTreeMap::new();
        for record in records {
            wanted.entry(&record.topic).or_default().entry(record.key.as_deref()).or_default().push(record);
        }
        Ok(Self {
            connection,
            wanted,
            stable: Client::new(connection, Isolation::Stable)?,
            uncommitted: Client::new(connection, Isolation::Uncommitted)?,
        })
    }

    /// `since_ms`: the publication was not tried before this.
    pub fn run(&self, since_ms: u64) -> Result<Found, TransportError> {
        let mut unclear = Vec::new();
        for topic in self.wanted.keys().take(TOPICS_MAX) {
            match self.topic(topic, since_ms)? {
                Found::Unclear(why) => unclear.push(why),
                answer => return Ok(answer),
            }
        }
        Ok(Found::Unclear(unclear.join("; ")))
    }

    fn topic(&self, topic: &str, since_ms: u64) -> Result<Found, TransportError> {
        let Some(count) = topics::count(self.connection, self.stable.consumer(), topic, PATIENCE)? else {
            return Ok(Found::Unclear(format!("topic {topic} does not exist")));
        };
        let partitions = (0..count).map(|number| Partition::new(topic, number));
        let stretches = partitions.map(|partition| self.stretch(partition, since_ms));
        let stretches = stretches.collect::<Result<Vec<Stretch>, TransportError>>()?;
        let records: i64 = stretches.iter().map(|stretch| stretch.end - stretch.from).sum();
        if records > RECORDS_MAX {
            return Ok(Found::Unclear(format!(
                "topic {topic} has {records} records since then, more than the {RECORDS_MAX} that are searched"
            )));
        }
        info!(topic, records, "searching the topic for the batch");
        for stretch in &stretches {
            self.until_readable(stretch)?;
        }
        let found = self.read(topic, &stretches)?;
        let removed = stretches.iter().find(|stretch| !stretch.whole);
        Ok(match (found, removed) {
            (Found::Absent, Some(stretch)) => {
                Found::Unclear(format!("{} no longer holds all records of that time", stretch.partition))
            }
            (found, _) => found,
        })
    }

    fn stretch(&self, partition: Partition, since_ms: u64) -> Result<Stretch, TransportError> {
        let bounds = |client: &Client| topics::bounds(self.connection, client.consumer(), &partition, PATIENCE);
        let (low, end) = bounds(&self.uncommitted)?;
        let margin = u64::try_from(CLOCKS_DIFFER.as_millis()).unwrap_or(u64::MAX);
        let first = self.first_since(&partition, since_ms.saturating_sub(margin))?.unwrap_or(end);
        let from = first.clamp(low, end);
        // Retention removes from the beginning: where an older record is left, nothing newer is gone.
        let whole = low == 0 || from > low;
        Ok(Stretch { partition, from, end, whole })
    }

    /// The first record of this time or later; none: there is none.
    fn first_since(&self, partition: &Partition, since_ms: u64) -> Result<Option<i64>, TransportError> {
        let consumer = self.uncommitted.consumer();
        let since = i64::try_from(since_ms).unwrap_or(i64::MAX);
        retry_until_stopped(self.connection, consumer, "find records by their time", PATIENCE, |slice| {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(since))?;
            let list = consumer.offsets_for_times(list, slice)?;
            let element = list.elements().into_iter().next();
            element.map_or(Ok(None), |element| {
                element.error()?;
                Ok(match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                })
            })
        })
    }

    /// Behind another producer's open transaction nothing committed can be read.
    fn until_readable(&self, stretch: &Stretch) -> Result<(), TransportError> {
        let started = Instant::now();
        loop {
            let (_, stable) = topics::bounds(self.connection, self.stable.consumer(), &stretch.partition, PATIENCE)?;
            if stable >= stretch.end {
                return Ok(());
            }
            if started.elapsed() > OPEN_TRANSACTION {
                return Err(TransportError::Away(format!(
                    "another producer's transaction is open in {} at {stable}: what follows it cannot be read yet",
                    stretch.partition
                )));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn read(&self, topic: &str, stretches: &[Stretch]) -> Result<Found, TransportError> {
        let mut left: BTreeMap<i32, i64> = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        let broken = |error: &KafkaError| {
            TransportError::Broken(format!("failed to read topic {topic} at {}: {error}", self.connection.servers))
        };
        for stretch in stretches.iter().filter(|stretch| stretch.from < stretch.end) {
            left.insert(stretch.partition.number, stretch.end);
            list.add_partition_offset(topic, stretch.partition.number, Offset::Offset(stretch.from))
                .map_err(|error| broken(&error))?;
        }
        let consumer = self.stable.consumer();
        consumer.assign(&list).map_err(|error| broken(&error))?;
        let mut overwritten = false;
        let mut moved = Instant::now();
        while !left.is_empty() {
            match consumer.poll(PATIENCE) {
                Some(Ok(message)) => {
                    moved = Instant::now();
                    match self.compare(topic, &message) {
                        Compared::Same => return Ok(Found::Committed),
                        Compared::SameKey => overwritten = true,
                        Compared::Other => {}
                    }
                    if left.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
                        left.remove(&message.partition());
                    }
                }
                // The end was readable before reading began, so all of it has been read.
                Some(Err(KafkaError::PartitionEOF(number))) => {
                    left.remove(&number);
                }
                Some(Err(error)) => info!(topic, %error, "failed to read from the topic; retrying"),
                None => {}
            }
            if moved.elapsed() > STANDSTILL {
                return Err(TransportError::Away(format!(
                    "failed to read topic {topic}: no records for {} s",
                    STANDSTILL.as_secs()
                )));
            }
        }
        let unassigned = consumer.unassign();
        unassigned.map_err(|error| broken(&error))?;
        if overwritten {
            // In a compacted topic ours may have given way to it.
            return Ok(Found::Unclear(format!("topic {topic} has other records under the same keys")));
        }
        Ok(Found::Absent)
    }

    fn compare(&self, topic: &str, message: &BorrowedMessage<'_>) -> Compared {
        let same_key = self.wanted.get(topic).and_then(|keys| keys.get(&message.key()));
        match same_key {
            Some(records) if records.iter().any(|record| is_same(record, message)) => Compared::Same,
            Some(_) if message.key().is_some() => Compared::SameKey,
            Some(_) | None => Compared::Other,
        }
    }
}

enum Compared {
    Same,
    SameKey,
    Other,
}

fn is_same(record: &Outgoing, message: &BorrowedMessage<'_>) -> bool {
    let headers = message.headers();
    record.value.as_deref() == message.payload()
        && record.headers.len() == headers.map_or(0, |headers| headers.count())
        && headers
            .into_iter()
            .flat_map(|headers| headers.iter())
            .zip(&record.headers)
            .all(|(header, (name, value))| header.key == name && header.value == value.as_deref())
}
