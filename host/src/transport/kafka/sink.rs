//! The way out: one transaction for each publication. Invariant: a transaction is committed only when every record of
//! it is known to be delivered and its offsets are in it.
//!
//! Every delivery report is in before offsets are sent: librdkafka waits in steps of 100 ms for anything in flight.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer as _,
    error::{KafkaError, RDKafkaError},
    producer::Producer as _,
    types::RDKafkaErrorCode as Code,
    util::Timeout,
};
use tracing::{debug, info, warn};

use super::{
    SLICE, base_record,
    connection::{Connection, Consumer, Producer, Served},
    errors, patiently, retire,
};
use crate::transport::{
    Committed, Isolation, Outgoing, Partition, Publication, PublishError, Sink, TransportError,
};

/// A claim answers within this, and goes on with the same producer when it is called again.
const CLAIM_PATIENCE: Duration = Duration::from_secs(5);
/// Longer than any transaction that may be pending is allowed to be, on top of its timeout.
const COMMITTED_PATIENCE: Duration = Duration::from_secs(10);
const ABORT_PATIENCE: Duration = Duration::from_secs(3);
/// No report for so long: something may have gone wrong that has none.
const QUIET: Duration = Duration::from_millis(150);

pub(super) struct KafkaSink {
    connection: Arc<Connection>,
    /// Of the app's group: reads committed offsets, names the group in transactions.
    stable: Option<Consumer>,
    uncommitted: Option<Consumer>,
    producer: Option<Producer>,
    /// One that has not reached the coordinator yet.
    claiming: Option<Producer>,
    /// Publications so far: tells reports of this one from late ones.
    round: u32,
}

/// How sending ended before offsets are added.
enum Sent {
    Delivered,
    /// Some record failed, by index.
    Failed(Vec<(usize, Code)>),
    /// The transaction itself failed.
    Spoilt(RDKafkaError),
    /// Not all reports came in time.
    Away,
}

impl KafkaSink {
    pub fn new(connection: Arc<Connection>) -> Result<Self, TransportError> {
        let stable = Some(connection.consumer(Isolation::Stable)?);
        Ok(Self {
            connection,
            stable,
            uncommitted: None,
            producer: None,
            claiming: None,
            round: 0,
        })
    }

    fn consumer(&mut self, isolation: Isolation) -> Result<&Consumer, TransportError> {
        let slot = match isolation {
            Isolation::Stable => &mut self.stable,
            Isolation::Uncommitted => &mut self.uncommitted,
        };
        match slot {
            Some(consumer) => Ok(consumer),
            None => Ok(slot.insert(self.connection.consumer(isolation)?)),
        }
    }

    /// One attempt, from begin to commit. `singly`: no record travels with another, so that one that is too large
    /// does not take its neighbours with it.
    fn attempt(
        &mut self,
        producer: &Producer,
        publication: &Publication<'_>,
        singly: bool,
    ) -> Result<(), PublishError> {
        let started = Instant::now();
        self.round = self.round.wrapping_add(1);
        Served::context(producer).take_reports();
        producer
            .begin_transaction()
            .map_err(|error| self.failed(&error))?;
        match self.send(producer, publication.records, singly) {
            Sent::Delivered => {}
            Sent::Failed(failures) => {
                return Err(self.refused(producer, publication.records, &failures));
            }
            Sent::Spoilt(error) => {
                let verdict = self.blame(publication.records, &error);
                return Err(self.abort_for(producer, verdict));
            }
            Sent::Away => {
                let why = Served::context(producer)
                    .last_trouble()
                    .unwrap_or_else(|| "no answer".to_owned());
                return Err(PublishError::Away(format!(
                    "{}: {why}",
                    self.connection.servers
                )));
            }
        }
        let drained = started.elapsed();
        self.send_offsets(producer, publication)?;
        let with_offsets = started.elapsed();
        self.commit(producer)?;
        debug!(
            records = publication.records.len(),
            metadata = publication.metadata,
            drain_us = drained.as_micros(),
            offsets_us = (with_offsets - drained).as_micros(),
            commit_us = (started.elapsed() - with_offsets).as_micros(),
            "published"
        );
        Ok(())
    }

    fn send(&self, producer: &Producer, records: &[Outgoing], singly: bool) -> Sent {
        let mut drain = Drain {
            round: self.round,
            sent: 0,
            reported: 0,
            failures: Vec::new(),
        };
        let deadline = Instant::now() + self.connection.delivery_timeout() + SLICE;
        for (index, record) in records.iter().enumerate() {
            let number = (self.round as usize) << 32 | index;
            while let Err((error, _)) = producer.send(base_record(record, number)) {
                match errors::code(&error) {
                    Code::QueueFull if Instant::now() < deadline => drain.serve(producer),
                    Code::QueueFull => return Sent::Away,
                    code => {
                        // What was sent before has to be answered before anything is aborted.
                        drain.to_the_end(producer, deadline);
                        drain.failures.push((index, code));
                        return Sent::Failed(drain.failures);
                    }
                }
            }
            drain.sent += 1;
            if singly && let Some(ended) = drain.to_the_end(producer, deadline) {
                return ended;
            }
        }
        drain
            .to_the_end(producer, deadline)
            .unwrap_or(Sent::Delivered)
    }

    fn send_offsets(
        &mut self,
        producer: &Producer,
        publication: &Publication<'_>,
    ) -> Result<(), PublishError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in publication.offsets {
            let mut element = list.add_partition(&partition.topic, partition.number);
            let set = element.set_offset(Offset::Offset(*offset));
            set.map_err(|error| {
                PublishError::Fatal(format!("offset {offset} of {partition}: {error}"))
            })?;
            element.set_metadata(publication.metadata);
        }
        let consumer = self
            .stable
            .as_ref()
            .expect("the consumer is there until the sink is dropped");
        Served::serve(consumer, Duration::ZERO);
        let group = consumer.group_metadata();
        let group =
            group.ok_or_else(|| PublishError::Fatal("the consumer has no group".to_owned()))?;
        self.settle(producer, |slice| {
            producer.send_offsets_to_transaction(&list, &group, slice)
        })
    }

    fn commit(&mut self, producer: &Producer) -> Result<(), PublishError> {
        // librdkafka bounds it with what is left of transaction.timeout.ms.
        match self.settle(producer, |_| producer.commit_transaction(Timeout::Never)) {
            // From here on the coordinator may have decided.
            Err(PublishError::Fatal(why)) => Err(PublishError::Away(why)),
            settled => settled,
        }
    }

    /// The same call again while that may help.
    fn settle(
        &mut self,
        producer: &Producer,
        mut call: impl FnMut(Duration) -> Result<(), KafkaError>,
    ) -> Result<(), PublishError> {
        let deadline = Instant::now() + self.connection.transaction_timeout;
        loop {
            let error = match call(SLICE * 2) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            producer.poll(Duration::ZERO);
            if let KafkaError::Transaction(error) = &error
                && error.is_retriable()
                && Instant::now() < deadline
            {
                debug!(%error, "the same call again");
                continue;
            }
            let failed = self.failed(&error);
            if let PublishError::Aborted(_) = failed {
                self.abort(producer)?;
            }
            return Err(failed);
        }
    }

    fn failed(&self, error: &KafkaError) -> PublishError {
        match error {
            KafkaError::Transaction(error) => errors::publication(&self.connection, error),
            error => PublishError::Fatal(self.connection.redaction.clean(&error.to_string())),
        }
    }

    fn abort(&mut self, producer: &Producer) -> Result<(), PublishError> {
        let started = Instant::now();
        loop {
            match producer.abort_transaction(SLICE) {
                Ok(()) => break,
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && started.elapsed() < ABORT_PATIENCE => {}
                Err(error) => {
                    return Err(match self.failed(&error) {
                        // Asked to abort what cannot be aborted.
                        PublishError::Aborted(why) => PublishError::Fatal(why),
                        failed => failed,
                    });
                }
            }
        }
        // Records that were thrown away are reported too, and belong to nobody now.
        while producer.in_flight_count() > 0 && started.elapsed() < ABORT_PATIENCE {
            producer.poll(Duration::from_millis(1));
        }
        Served::context(producer).take_reports();
        Ok(())
    }

    /// Records failed: nothing of the publication may become visible, and the one to blame is named.
    fn refused(
        &mut self,
        producer: &Producer,
        records: &[Outgoing],
        failures: &[(usize, Code)],
    ) -> PublishError {
        let named = failures.iter().find_map(|(index, code)| {
            let topic = records[*index].topic.clone();
            let why = format!("{} ({code})", errors::refusal(*code)?);
            Some(PublishError::Refused {
                index: *index,
                topic,
                why,
            })
        });
        // Records may be thrown away because of a failure that has no report.
        let cause = || spoilt(producer).map(|error| self.blame(records, &error));
        let verdict = named.or_else(cause).unwrap_or_else(|| {
            let text = failures
                .first()
                .map_or_else(String::new, |(_, code)| code.to_string());
            let late = |(_, code): &(usize, Code)| {
                matches!(code, Code::MessageTimedOut | Code::BrokerTransportFailure)
            };
            if failures.iter().all(late) {
                PublishError::Away(format!("{}: {text}", self.connection.servers))
            } else {
                PublishError::Aborted(text)
            }
        });
        self.abort_for(producer, verdict)
    }

    /// The transaction failed: librdkafka's text names the topic, if it is about one.
    fn blame(&self, records: &[Outgoing], error: &RDKafkaError) -> PublishError {
        let failed = errors::publication(&self.connection, error);
        let Some(why) = errors::refusal(error.code()).filter(|_| error.txn_requires_abort()) else {
            return failed;
        };
        let text = error.string();
        let about = |record: &Outgoing| {
            text.split([' ', '"', ','])
                .any(|word| word == &*record.topic)
        };
        match records
            .iter()
            .position(about)
            .or((records.len() == 1).then_some(0))
        {
            Some(index) => {
                let why = format!("{why} ({})", error.code());
                PublishError::Refused {
                    index,
                    topic: records[index].topic.clone(),
                    why,
                }
            }
            None => failed,
        }
    }

    /// What to say once everything is taken back. Where even that fails, the producer is of no use, and what is known
    /// about a record still is: the next call says that a claim is needed.
    fn abort_for(&mut self, producer: &Producer, verdict: PublishError) -> PublishError {
        match (&verdict, self.abort(producer)) {
            (PublishError::Fenced(_) | PublishError::Fatal(_), _) | (_, Ok(())) => verdict,
            (PublishError::Refused { .. }, Err(PublishError::Fatal(_))) => verdict,
            (_, Err(error)) => error,
        }
    }
}

/// Waits for the delivery reports of one publication.
struct Drain {
    round: u32,
    sent: usize,
    reported: usize,
    failures: Vec<(usize, Code)>,
}

impl Drain {
    fn serve(&mut self, producer: &Producer) {
        producer.poll(Duration::from_millis(1));
        self.gather(producer);
    }

    fn gather(&mut self, producer: &Producer) {
        for (number, outcome) in Served::context(producer).take_reports() {
            if number >> 32 != self.round as usize {
                continue;
            }
            self.reported += 1;
            if let Err(code) = outcome {
                self.failures.push((number & 0xffff_ffff, code));
            }
        }
    }

    /// None: everything sent so far is delivered.
    fn to_the_end(&mut self, producer: &Producer, deadline: Instant) -> Option<Sent> {
        let mut moved = Instant::now();
        while self.reported < self.sent {
            let before = self.reported;
            producer.poll(Duration::ZERO);
            self.gather(producer);
            if self.reported == before {
                self.serve(producer);
            }
            if self.reported > before {
                moved = Instant::now();
            } else if moved.elapsed() > QUIET {
                moved = Instant::now();
                // After a failure librdkafka sends nothing more: what was in flight is answered by now.
                if !self.failures.is_empty() {
                    break;
                }
                if let Some(error) = spoilt(producer) {
                    return Some(Sent::Spoilt(error));
                }
            }
            if Instant::now() > deadline {
                return Some(Sent::Away);
            }
        }
        self.failures.sort_by_key(|(index, _)| *index);
        (!self.failures.is_empty()).then(|| Sent::Failed(std::mem::take(&mut self.failures)))
    }
}

/// Has the open transaction failed? A second begin is refused anyhow, and says why.
fn spoilt(producer: &Producer) -> Option<RDKafkaError> {
    match producer.begin_transaction() {
        Err(KafkaError::Transaction(error)) if error.txn_requires_abort() || error.is_fatal() => {
            Some(error)
        }
        _ => None,
    }
}

impl Sink for KafkaSink {
    fn committed(
        &mut self,
        partitions: &[Partition],
        isolation: Isolation,
    ) -> Result<BTreeMap<Partition, Committed>, TransportError> {
        let connection = self.connection.clone();
        let consumer = self.consumer(isolation)?;
        let patience = match isolation {
            Isolation::Stable => connection.transaction_timeout + COMMITTED_PATIENCE,
            Isolation::Uncommitted => COMMITTED_PATIENCE,
        };
        let started = Instant::now();
        patiently(
            &connection,
            consumer,
            "read the committed offsets of the app's group",
            patience,
            |slice| {
                if started.elapsed() > SLICE * 3 {
                    info!(
                        "waiting for the committed offsets: a transaction is pending, or the brokers do not answer"
                    );
                }
                let mut list = TopicPartitionList::new();
                for partition in partitions {
                    list.add_partition(&partition.topic, partition.number);
                }
                let list = consumer.committed_offsets(list, slice * 2)?;
                let mut committed = BTreeMap::new();
                for element in list.elements() {
                    match element.error() {
                        // A topic that is gone has no offsets.
                        Err(error) if errors::code(&error) == Code::UnknownTopicOrPartition => {
                            continue;
                        }
                        result => result?,
                    }
                    if let Offset::Offset(offset) = element.offset() {
                        let partition = Partition::new(element.topic(), element.partition());
                        committed.insert(
                            partition,
                            Committed {
                                offset,
                                metadata: element.metadata().to_owned(),
                            },
                        );
                    }
                }
                Ok(committed)
            },
        )
    }

    fn claim(&mut self) -> Result<(), TransportError> {
        if let Some(old) = self.producer.take() {
            retire("producer", old);
        }
        let producer = match self.claiming.take() {
            Some(producer) => producer,
            None => self.connection.transactional_producer()?,
        };
        let started = Instant::now();
        let doing = "claim the app's transactional id";
        let claimed = patiently(
            &self.connection,
            &producer,
            doing,
            CLAIM_PATIENCE,
            |slice| {
                if started.elapsed() > SLICE * 2 {
                    info!(
                        transactional_id = self.connection.app,
                        waited_s = started.elapsed().as_secs(),
                        "waiting for the transaction coordinator"
                    );
                }
                producer.init_transactions(slice)
            },
        );
        match &claimed {
            Ok(()) => self.producer = Some(producer),
            Err(TransportError::Away(_)) => self.claiming = Some(producer),
            Err(_) => retire("producer", producer),
        }
        claimed
    }

    fn publish(&mut self, publication: &Publication<'_>) -> Result<(), PublishError> {
        let Some(producer) = self.producer.take() else {
            return Err(PublishError::Fatal(
                "the transactional id is not claimed".to_owned(),
            ));
        };
        let mut published = self.attempt(&producer, publication, false);
        let batch_bound = matches!(&published, Err(PublishError::Refused { why, .. }) if why.contains("too large"));
        if batch_bound && publication.records.len() > 1 {
            warn!(
                "a request was too large for the broker; sending its records one by one. If this repeats, lower \
                 batch.size in [kafka.properties] to the broker's message.max.bytes"
            );
            // What was refused left a gap in the numbers of the producer, which costs one more attempt.
            for _ in 0..3 {
                published = self.attempt(&producer, publication, true);
                if !matches!(published, Err(PublishError::Aborted(_))) {
                    break;
                }
            }
        }
        match &published {
            Ok(()) | Err(PublishError::Refused { .. } | PublishError::Aborted(_)) => {
                self.producer = Some(producer)
            }
            Err(PublishError::Away(_) | PublishError::Fenced(_) | PublishError::Fatal(_)) => {
                retire("producer", producer);
            }
        }
        published
    }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        for producer in [self.producer.take(), self.claiming.take()]
            .into_iter()
            .flatten()
        {
            retire("producer", producer);
        }
        for consumer in [self.stable.take(), self.uncommitted.take()]
            .into_iter()
            .flatten()
        {
            retire("consumer", consumer);
        }
    }
}
