//! The way out: the app's transactional id, its committed offsets, one transaction for each publication. Invariant: a
//! producer that failed in a way that nobody understands is never used again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList, consumer::Consumer as _, producer::Producer as _, types::RDKafkaErrorCode as Code,
};
use sagahost_transport::{CommitState, Committed, Found, Isolation, Publication, PublishError, Sink, TransportError};
use sagahost_wire::{Outgoing, Partition};
use tracing::{info, warn};

use super::{
    SLICE,
    connection::{Connection, Consumer},
    errors, patiently,
    producer::Producer,
    retire,
    search::Search,
    topics,
    transaction::{Failure, Transaction, Way},
};

/// A claim answers within this, and goes on with the same producer when it is called again.
const CLAIM_PATIENCE: Duration = Duration::from_secs(5);
/// How long a partition counts as gone, before it is asked for again.
const GONE_FOR: Duration = Duration::from_secs(60);
/// Longer than any transaction that may be pending is allowed to be, on top of its timeout.
const COMMITTED_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct KafkaSink {
    connection: Arc<Connection>,
    /// Of the app's group: reads committed offsets, names the group in transactions. There until it is dropped.
    stable: Option<Consumer>,
    uncommitted: Option<Consumer>,
    producer: Option<Producer>,
    /// One that has not reached the coordinator yet.
    claiming: Option<Producer>,
    /// Transactions so far.
    round: u32,
    /// Partitions whose offsets nobody takes any more, and when that was found.
    gone: Option<(Instant, BTreeSet<Partition>)>,
}

impl KafkaSink {
    pub fn new(connection: Arc<Connection>) -> Result<Self, TransportError> {
        let stable = Some(connection.consumer(Isolation::Stable)?);
        Ok(Self { connection, stable, uncommitted: None, producer: None, claiming: None, round: 0, gone: None })
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

    fn transaction<'a>(&'a mut self, producer: &'a Producer, way: Way) -> Transaction<'a> {
        self.round = self.round.wrapping_add(1);
        let consumer = self.stable.as_ref().expect("the consumer is there until the sink is dropped");
        Transaction::new(&self.connection, producer, consumer, self.round, way)
    }

    /// Without those of partitions that are gone: librdkafka would repeat them until the transaction is over.
    fn offsets_there(&mut self, offsets: &[(Partition, i64)]) -> Vec<(Partition, i64)> {
        if self.gone.as_ref().is_some_and(|(at, _)| at.elapsed() > GONE_FOR) {
            self.look_for_gone(offsets);
        }
        let gone = |partition| self.gone.as_ref().is_some_and(|(_, gone)| gone.contains(partition));
        offsets.iter().filter(|(partition, _)| !gone(partition)).cloned().collect()
    }

    /// A topic was deleted, or made anew with fewer partitions.
    fn look_for_gone(&mut self, offsets: &[(Partition, i64)]) {
        let consumer = self.stable.as_ref().expect("the consumer is there until the sink is dropped");
        let mut counts = BTreeMap::new();
        for topic in offsets.iter().map(|(partition, _)| &partition.topic) {
            if !counts.contains_key(topic) {
                let Ok(count) = topics::count(&self.connection, consumer, topic, SLICE) else { return };
                counts.insert(topic.clone(), count.unwrap_or(0));
            }
        }
        let partitions = offsets.iter().map(|(partition, _)| partition);
        let gone: BTreeSet<_> =
            partitions.filter(|partition| partition.number >= counts[&partition.topic]).cloned().collect();
        if !gone.is_empty() && self.gone.as_ref().is_none_or(|(_, before)| *before != gone) {
            warn!(?gone, "these partitions do not exist any more; batches are published without their offsets");
        }
        self.gone = (!gone.is_empty()).then(|| (Instant::now(), gone));
    }

    /// The broker refuses something of a publication, and does not say what: it is asked record by record.
    fn clarify(
        &mut self,
        producer: &Producer,
        publication: &Publication<'_>,
        code: Code,
        why: String,
    ) -> Result<(), PublishError> {
        if !errors::is_size(code) {
            return Err(self.refused_topic(producer, publication).unwrap_or(PublishError::Aborted(why)));
        }
        warn!(
            "a request was too large for the broker; sending its records one by one. If this repeats, lower batch.size \
             in [kafka.properties] to the broker's message.max.bytes"
        );
        // What was refused left a gap in the numbers of the producer, which may cost one more attempt.
        let mut published = Err(PublishError::Aborted(why));
        for _ in 0..3 {
            if matches!(published, Err(PublishError::Aborted(_))) {
                let attempt = self.transaction(producer, Way::Singly).publish(publication);
                published = attempt.map_err(Failure::into_error);
            }
        }
        published
    }

    /// The first record for each topic, in a transaction that is never committed.
    fn refused_topic(&mut self, producer: &Producer, publication: &Publication<'_>) -> Option<PublishError> {
        let mut topics = BTreeSet::new();
        let firsts = publication.records.iter().enumerate().filter(|(_, record)| topics.insert(&record.topic));
        let (indices, records): (Vec<_>, Vec<_>) = firsts.map(|(index, record)| (index, record.clone())).unzip();
        let sample = Publication { records: &records, ..publication.clone() };
        match self.transaction(producer, Way::Singly).rehearse(&sample) {
            Err(Failure::Known(PublishError::Refused { index, topic, why })) => {
                Some(PublishError::Refused { index: indices[index], topic, why })
            }
            Err(Failure::Known(PublishError::Aborted(_)) | Failure::Unclear(..)) | Ok(()) => None,
            Err(Failure::Known(error)) => Some(error),
        }
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
        patiently(&connection, consumer, "read the committed offsets of the app's group", patience, |slice| {
            if started.elapsed() > SLICE * 3 {
                info!("waiting for the committed offsets: a transaction is pending, or the brokers do not answer");
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
                    committed.insert(partition, Committed { offset, metadata: element.metadata().to_owned() });
                }
            }
            Ok(committed)
        })
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
        let claimed = patiently(&self.connection, &producer, doing, CLAIM_PATIENCE, |slice| {
            if started.elapsed() > SLICE * 2 {
                info!(
                    transactional_id = self.connection.app,
                    waited_s = started.elapsed().as_secs(),
                    "waiting for the transaction coordinator"
                );
            }
            producer.init_transactions(slice)
        });
        match &claimed {
            Ok(()) => self.producer = Some(producer),
            Err(TransportError::Away(_)) => self.claiming = Some(producer),
            Err(_) => retire("producer", producer),
        }
        claimed
    }

    fn publish(&mut self, publication: &Publication<'_>) -> Result<(), PublishError> {
        let Some(producer) = self.producer.take() else {
            let why = "the transactional id is not claimed".to_owned();
            return Err(PublishError::Lost { commit: CommitState::NotAsked, why });
        };
        let all = publication.offsets;
        let offsets = self.offsets_there(all);
        let publication = &Publication { offsets: &offsets, ..publication.clone() };
        let published = match self.transaction(&producer, Way::Together).publish(publication) {
            Err(Failure::Unclear(code, why)) => self.clarify(&producer, publication, code, why),
            published => published.map_err(Failure::into_error),
        };
        match &published {
            Ok(()) | Err(PublishError::Refused { .. } | PublishError::Aborted(_)) => self.producer = Some(producer),
            Err(PublishError::Fenced { .. } | PublishError::Lost { .. }) => retire("producer", producer),
        }
        if !matches!(published, Ok(()) | Err(PublishError::Refused { .. })) {
            self.look_for_gone(all);
        }
        published
    }

    fn search(&mut self, records: &[&Outgoing], since_ms: u64) -> Result<Found, TransportError> {
        Search::new(&self.connection, records)?.run(since_ms)
    }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        for producer in [self.producer.take(), self.claiming.take()].into_iter().flatten() {
            retire("producer", producer);
        }
        for consumer in [self.stable.take(), self.uncommitted.take()].into_iter().flatten() {
            retire("consumer", consumer);
        }
    }
}
