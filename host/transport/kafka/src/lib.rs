//! Records through Kafka: one app is one consumer group and one transactional id, without being a member of the
//! group. Invariant: every call ends within a bound, with an answer or with what to check.
//!
//! In reading order: `settings` and `connection` (which properties), `offline` (are they accepted), `source`, `topic_changes`, `lane`
//! and `reading` (the way in), `sink`, `transaction`, `verdict` and `search` (the way out), then what they need: `aside`,
//! `context`, `producer`, `errors`, `undelivered`, `token`, `topics`, `topic_id`, `topic_watch`, `ends`.

pub mod properties;
pub mod settings;

mod aside;
mod connection;
mod context;
mod ends;
mod errors;
mod lane;
mod offline;
mod producer;
mod reading;
mod search;
mod sink;
mod source;
#[cfg(test)]
mod tests;
mod token;
mod topic_changes;
mod topic_id;
mod topic_watch;
mod topics;
mod transaction;
mod undelivered;
mod verdict;

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rdkafka::{
    error::{KafkaError, KafkaResult},
    message::{Header, OwnedHeaders},
    producer::BaseRecord,
    types::RDKafkaErrorCode as Code,
};
use sagahost_transport::{Isolation, SLICE, Sink, Source, Topics, Transport, TransportError, Unstable};
use sagahost_wire::{Outgoing, Partition, TopicId};
use tracing::warn;

use self::{
    connection::{Connection, Consumer, Served},
    producer::Producer,
    sink::KafkaSink,
    source::KafkaSource,
};
pub use self::{
    offline::client_faults,
    settings::{KafkaSettings, Property, TOKEN_FILE, TRANSACTION_TIMEOUT, is_known, is_secret},
};

/// For questions that a broker answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a delivery report is waited for before it is checked whether the connection was refused.
const REPORT_WAIT: Duration = Duration::from_millis(250);
/// How long a client may take to end; then it is left to itself.
const FAREWELL: Duration = Duration::from_secs(2);

pub struct KafkaTransport {
    connection: Arc<Connection>,
    /// For questions: reads nothing, is made when first needed.
    lookout: Mutex<Option<Arc<Consumer>>>,
    /// The same, but sees open transactions.
    open_lookout: Mutex<Option<Arc<Consumer>>>,
    /// For single records, likewise.
    producer: Mutex<Option<Producer>>,
}

impl std::fmt::Debug for KafkaTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaTransport").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl KafkaTransport {
    /// Connects to nothing yet, but refuses properties that librdkafka does not know.
    pub fn new(settings: &KafkaSettings, app: &str) -> Result<Self, TransportError> {
        let connection = Arc::new(Connection::new(settings, app)?);
        let transport =
            Self { connection, lookout: Mutex::default(), open_lookout: Mutex::default(), producer: Mutex::default() };
        transport.lookout()?;
        Ok(transport)
    }

    fn lookout(&self) -> Result<Arc<Consumer>, TransportError> {
        self.made(&self.lookout, Isolation::Stable)
    }

    fn made(&self, slot: &Mutex<Option<Arc<Consumer>>>, isolation: Isolation) -> Result<Arc<Consumer>, TransportError> {
        let mut slot = slot.lock();
        if let Some(consumer) = &*slot {
            return Ok(consumer.clone());
        }
        let consumer = Arc::new(self.connection.consumer(isolation)?);
        Ok(slot.insert(consumer).clone())
    }
}

impl Transport for KafkaTransport {
    fn describe(&self) -> String {
        format!("kafka at {}", self.connection.servers)
    }

    fn topics(&self, names: &[Arc<str>]) -> Result<Topics, TransportError> {
        let lookout = self.lookout()?;
        let mut found = Topics::new();
        for name in names {
            if let Some(partitions) = topics::count(&self.connection, &lookout, name, PATIENCE)? {
                found.insert(name.clone(), partitions);
            }
        }
        Ok(found)
    }

    fn topic_ids(&self, names: &[Arc<str>]) -> Result<BTreeMap<Arc<str>, TopicId>, TransportError> {
        let names = names.iter().cloned().collect();
        let described = topic_id::describe(&self.connection, &self.lookout()?, &names, PATIENCE)?;
        Ok(described.into_iter().filter_map(|(name, described)| Some((name, described.id()?.clone()))).collect())
    }

    fn create_topics(&self, names: &[Arc<str>], partitions: i32) -> Result<(), TransportError> {
        let existing = self.topics(names)?;
        let missing: Vec<_> = names.iter().filter(|name| !existing.contains_key(*name)).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        topics::create(&self.connection, &missing, partitions)?;
        self.wait_for(&missing)
    }

    fn create_command(&self, topic: &str) -> String {
        format!(
            "sagahost topics create (or: kafka-topics.sh --bootstrap-server {} --create --topic {topic} --partitions 4 \
             --replication-factor {}{})",
            self.connection.servers,
            self.connection.replication,
            if self.connection.is_plain() { "" } else { " --command-config CLIENT.properties" },
        )
    }

    fn bounds(&self, partitions: &[Partition]) -> Result<BTreeMap<Partition, (i64, i64)>, TransportError> {
        let lookout = self.lookout()?;
        partitions
            .iter()
            .map(|partition| Ok((partition.clone(), topics::bounds(&self.connection, &lookout, partition, PATIENCE)?)))
            .collect()
    }

    fn unstable(&self, partitions: &[Partition]) -> Result<Vec<Unstable>, TransportError> {
        let open = self.made(&self.open_lookout, Isolation::Uncommitted)?;
        let stable = ends::ends(&self.connection, &*self.lookout()?, partitions, SLICE)?;
        let ends = ends::ends(&self.connection, &open, partitions, SLICE)?;
        let unstable = stable.into_iter().filter_map(|(partition, stable)| {
            let end = *ends.get(&partition)?;
            (end > stable).then_some(Unstable { partition, stable, end })
        });
        Ok(unstable.collect())
    }

    fn find_producers(&self, partition: &Partition) -> String {
        format!(
            "To see whose it is: kafka-transactions.sh --bootstrap-server {} describe-producers --topic {} --partition {}",
            self.connection.servers, partition.topic, partition.number
        )
    }

    fn source(&self) -> Result<Box<dyn Source>, TransportError> {
        Ok(Box::new(KafkaSource::new(self.connection.clone(), self.lookout()?)?))
    }

    fn sink(&self) -> Result<Box<dyn Sink>, TransportError> {
        Ok(Box::new(KafkaSink::new(self.connection.clone())?))
    }

    fn offer(&self, record: &Outgoing) -> Result<(Partition, i64), TransportError> {
        let mut slot = self.producer.lock();
        let producer = match slot.take() {
            Some(producer) => producer,
            None => self.connection.idempotent_producer()?,
        };
        let offered = self.deliver(&producer, record);
        match offered {
            // Whatever is still on its way ends with the producer.
            Err(TransportError::Away(_) | TransportError::Broken(_)) => retire("producer", producer),
            Ok(_) | Err(TransportError::Refused(_) | TransportError::Fenced(_)) => *slot = Some(producer),
        }
        offered
    }
}

impl KafkaTransport {
    fn deliver(&self, producer: &Producer, record: &Outgoing) -> Result<(Partition, i64), TransportError> {
        let started = Instant::now();
        let refused = |code| {
            errors::refusal(code)
                .map(|why| TransportError::Refused(format!("a record for topic {} was refused: {why}", record.topic)))
                .unwrap_or_else(|| self.trouble(producer, "publish a record", &KafkaError::MessageProduction(code)))
        };
        producer.send(base_record(record, 0)).map_err(|(error, _)| refused(errors::code(&error)))?;
        let patience = self.connection.delivery_timeout() + SLICE;
        loop {
            let context = Served::context(producer);
            if let Some((_, outcome)) = context.await_reports(1, Instant::now() + REPORT_WAIT).pop() {
                return match outcome {
                    Ok((number, offset)) => Ok((Partition { topic: record.topic.clone(), number }, offset)),
                    Err(code) => Err(refused(code)),
                };
            }
            if let Some(reason) = context.refused_since(started).filter(|_| started.elapsed() > SLICE) {
                return Err(errors::turned_down(&self.connection, &reason));
            }
            if started.elapsed() > patience {
                return Err(refused(Code::OperationTimedOut));
            }
        }
    }

    fn trouble(&self, producer: &Producer, doing: &str, error: &KafkaError) -> TransportError {
        // A record that was not delivered in time is nobody's fault but the connection's.
        let error = match errors::code(error) {
            Code::MessageTimedOut => &KafkaError::Global(Code::OperationTimedOut),
            _ => error,
        };
        errors::transport(&self.connection, Served::context(producer), doing, error)
    }

    /// A topic that was just made is not known everywhere at once.
    fn wait_for(&self, names: &[Arc<str>]) -> Result<(), TransportError> {
        let started = Instant::now();
        while self.topics(names)?.len() < names.len() {
            if started.elapsed() > PATIENCE {
                let names = names.join(", ");
                return Err(TransportError::Away(format!("{names}: created, but not known to all brokers yet")));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn base_record(record: &Outgoing, number: usize) -> BaseRecord<'_, [u8], [u8], usize> {
    let mut base = BaseRecord::with_opaque_to(&record.topic, number);
    base.key = record.key.as_deref();
    base.payload = record.value.as_deref();
    if !record.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        base.headers = Some(
            record
                .headers
                .iter()
                .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: value.as_ref() })),
        );
    }
    base
}

/// Repeats what may pass, in slices, for as long as `patience` says; a connection that is turned down ends it sooner.
fn retry_until_stopped<C: Served, T>(
    connection: &Connection,
    client: &C,
    doing: &str,
    patience: Duration,
    mut attempt: impl FnMut(Duration) -> KafkaResult<T>,
) -> Result<T, TransportError> {
    let started = Instant::now();
    loop {
        client.serve(Duration::ZERO);
        match attempt(SLICE.min(patience)) {
            Ok(answer) => {
                client.context().well();
                return Ok(answer);
            }
            Err(error) if errors::passing(&error) => {
                client.serve(Duration::ZERO);
                // A token may have been missing before anybody asked.
                let recently = started.checked_sub(PATIENCE).unwrap_or(started);
                if let Some(reason) = client.context().refused_since(recently) {
                    return Err(errors::turned_down(connection, &reason));
                }
                if let Some(code) = client.context().forbidden_since(recently) {
                    return Err(errors::transport(connection, client.context(), doing, &KafkaError::Global(code)));
                }
                if started.elapsed() >= patience {
                    return Err(errors::transport(connection, client.context(), doing, &error));
                }
                thread::sleep(Duration::from_millis(20));
            }
            Err(error) => {
                return Err(errors::transport(connection, client.context(), doing, &error));
            }
        }
    }
}

/// The same, while work continues: nothing waits for it.
fn abandon<T: Send + 'static>(what: &'static str, client: T) {
    if thread::Builder::new().name(format!("{what} ends")).spawn(move || drop(client)).is_err() {
        warn!("failed to start a thread to close a Kafka {what}");
    }
}

/// A client can hang when it ends: it does so on a thread of its own.
fn retire<T: Send + 'static>(what: &'static str, client: T) {
    let (done, ended) = crossbeam_channel::bounded::<()>(1);
    let farewell = thread::Builder::new().name(format!("{what} ends")).spawn(move || {
        drop(client);
        drop(done);
    });
    if farewell.is_err() || ended.recv_timeout(FAREWELL) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
        warn!("a Kafka {what} did not close in time; abandoned");
    }
}

impl Drop for KafkaTransport {
    fn drop(&mut self) {
        for slot in [&self.lookout, &self.open_lookout] {
            if let Some(consumer) = slot.lock().take() {
                retire("consumer", consumer);
            }
        }
        if let Some(producer) = self.producer.lock().take() {
            retire("producer", producer);
        }
    }
}
