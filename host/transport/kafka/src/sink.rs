//! The way out: the app's transactional id, its committed offsets, one transaction after the other. Invariant: a producer
//! that failed in a way that nobody understands is never used again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList, consumer::Consumer as _, producer::Producer as _, types::RDKafkaErrorCode as Code,
};
use sagahost_transport::{Committed, Found, Isolation, Patience, Progress, Sink, SinkError, TransportError};
use sagahost_wire::{Outgoing, Partition};
use tracing::{info, warn};

use super::{
    SLICE, abandon,
    aside::Aside,
    connection::{Connection, Consumer},
    errors,
    producer::Producer,
    retire, retry_until_stopped,
    search::Search,
    topics,
    transaction::Transaction,
};

/// How long a partition counts as gone, before it is asked for again.
const GONE_FOR: Duration = Duration::from_secs(60);
/// A claim that takes longer is said to wait.
const SLOW: Duration = Duration::from_secs(2);

pub(super) struct KafkaSink {
    connection: Arc<Connection>,
    /// Of the app's group: reads committed offsets, names the group in transactions. There until it is dropped.
    stable: Option<Arc<Consumer>>,
    uncommitted: Option<Arc<Consumer>>,
    state: State,
    /// Transactions so far.
    round: u32,
    /// Something failed: which partitions are there is looked at before the next offsets are sent.
    look: bool,
    /// Partitions whose offsets nobody takes any more, and when that was found.
    gone: Option<(Instant, BTreeSet<Partition>)>,
    /// A search that is on, and what for.
    search: Option<(Vec<Outgoing>, Searching)>,
}

type Searching = Aside<Result<Found, TransportError>>;

#[derive(Default)]
enum State {
    /// A claim is wanted.
    #[default]
    Unclaimed,
    /// Not heard by the coordinator yet.
    Claiming(Producer, Instant),
    Claimed(Producer),
    Open(Box<Transaction>),
}

impl KafkaSink {
    pub fn new(connection: Arc<Connection>) -> Result<Self, TransportError> {
        let stable = Some(Arc::new(connection.consumer(Isolation::Stable)?));
        Ok(Self {
            connection,
            stable,
            uncommitted: None,
            state: State::Unclaimed,
            round: 0,
            look: false,
            gone: None,
            search: None,
        })
    }

    fn consumer(&mut self, isolation: Isolation) -> Result<&Arc<Consumer>, TransportError> {
        let slot = match isolation {
            Isolation::Stable => &mut self.stable,
            Isolation::Uncommitted => &mut self.uncommitted,
        };
        match slot {
            Some(consumer) => Ok(consumer),
            None => Ok(slot.insert(Arc::new(self.connection.consumer(isolation)?))),
        }
    }

    fn stable(&self) -> Arc<Consumer> {
        self.stable.clone().expect("the consumer is there until the sink is dropped")
    }

    fn open(&mut self) -> Result<&mut Transaction, SinkError> {
        match &mut self.state {
            State::Open(open) => Ok(open),
            State::Unclaimed | State::Claiming(..) => Err(unclaimed()),
            State::Claimed(_) => Err(SinkError::Spent("no transaction is open".to_owned())),
        }
    }

    /// What a call of the open transaction says; a producer that is spent is given up.
    fn told<T>(&mut self, told: Result<T, SinkError>) -> Result<T, SinkError> {
        match &told {
            Err(SinkError::Spent(_) | SinkError::Fenced(_)) => self.give_up(),
            Ok(_) | Err(SinkError::Refused { .. } | SinkError::Unclear { .. } | SinkError::Spoilt(_)) => {}
        }
        told
    }

    fn give_up(&mut self) {
        match std::mem::take(&mut self.state) {
            State::Unclaimed => {}
            State::Claiming(producer, _) | State::Claimed(producer) => abandon("producer", producer),
            State::Open(open) => {
                self.look = true;
                abandon("producer", open.into_producer());
            }
        }
    }

    /// The transaction is over: its producer is free for the next.
    fn over(&mut self) {
        self.state = match std::mem::take(&mut self.state) {
            State::Open(open) => State::Claimed(open.into_producer()),
            other => other,
        };
    }

    /// Without those of partitions that are gone: librdkafka would repeat them until the transaction is over.
    fn offsets_there(&mut self, offsets: &[(Partition, i64)]) -> Vec<(Partition, i64)> {
        if std::mem::take(&mut self.look) || self.gone.as_ref().is_some_and(|(at, _)| at.elapsed() > GONE_FOR) {
            self.look_for_gone(offsets);
        }
        let gone = |partition| self.gone.as_ref().is_some_and(|(_, gone)| gone.contains(partition));
        offsets.iter().filter(|(partition, _)| !gone(partition)).cloned().collect()
    }

    /// A topic was deleted, or recreated with fewer partitions.
    fn look_for_gone(&mut self, offsets: &[(Partition, i64)]) {
        let consumer = &*self.stable();
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
}

fn unclaimed() -> SinkError {
    SinkError::Spent("the transactional id is not claimed".to_owned())
}

impl Sink for KafkaSink {
    fn committed(
        &mut self,
        partitions: &[Partition],
        isolation: Isolation,
    ) -> Result<BTreeMap<Partition, Committed>, TransportError> {
        let connection = self.connection.clone();
        let consumer = &**self.consumer(isolation)?;
        retry_until_stopped(&connection, consumer, "read the committed offsets of the app's group", SLICE, |slice| {
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
        let (producer, since) = match std::mem::take(&mut self.state) {
            State::Claiming(producer, since) => (producer, since),
            other => {
                self.state = other;
                self.give_up();
                (self.connection.transactional_producer()?, Instant::now())
            }
        };
        let doing = "claim the app's transactional id";
        let claimed =
            retry_until_stopped(&self.connection, &producer, doing, SLICE, |slice| producer.init_transactions(slice));
        match &claimed {
            Ok(()) => self.state = State::Claimed(producer),
            Err(TransportError::Away(_)) => {
                if since.elapsed() > SLOW {
                    info!(
                        transactional_id = self.connection.app,
                        waited_s = since.elapsed().as_secs(),
                        "waiting for the transaction coordinator"
                    );
                }
                self.state = State::Claiming(producer, since);
            }
            Err(_) => abandon("producer", producer),
        }
        claimed
    }

    fn patience(&self) -> Patience {
        Patience { delivery: self.connection.delivery_timeout(), end: self.connection.transaction_timeout }
    }

    fn begin(&mut self) -> Result<(), SinkError> {
        let producer = match std::mem::take(&mut self.state) {
            State::Claimed(producer) => producer,
            State::Open(open) => {
                self.state = State::Open(open);
                return self.told(Err(SinkError::Spent("the transaction before is still open".to_owned())));
            }
            other @ (State::Unclaimed | State::Claiming(..)) => {
                self.state = other;
                return Err(unclaimed());
            }
        };
        self.round = self.round.wrapping_add(1);
        let mut open = Transaction::new(self.connection.clone(), producer, self.stable(), self.round);
        let begun = open.begin();
        self.state = State::Open(Box::new(open));
        self.told(begun)
    }

    fn offsets(&mut self, offsets: &[(Partition, i64)], metadata: &str) -> Result<Progress, SinkError> {
        if let State::Open(open) = &self.state
            && open.sends_offsets()
        {
            let told = self.open()?.offsets(&[], metadata);
            return self.told(told);
        }
        let there = self.offsets_there(offsets);
        let told = self.open()?.offsets(&there, metadata);
        self.told(told)
    }

    fn send(&mut self, records: &[Outgoing]) -> Result<usize, SinkError> {
        Ok(self.open()?.send(records))
    }

    fn poll(&mut self) -> Result<Progress, SinkError> {
        let told = self.open()?.poll();
        self.told(told)
    }

    fn end(&mut self) -> Result<Progress, SinkError> {
        let told = self.open()?.end();
        if matches!(told, Ok(Progress::Done)) {
            self.over();
        }
        self.told(told)
    }

    fn abort(&mut self) -> Result<Progress, SinkError> {
        let told = self.open()?.abort();
        if matches!(told, Ok(Progress::Done)) {
            self.look = true;
            self.over();
        }
        self.told(told)
    }

    /// In a thread of its own: topics are read from end to end.
    fn search(&mut self, records: &[&Outgoing], since_ms: u64) -> Result<Option<Found>, TransportError> {
        let same = |wanted: &[Outgoing]| wanted.iter().eq(records.iter().copied());
        if self.search.as_ref().is_none_or(|(wanted, _)| !same(wanted)) {
            let wanted: Vec<Outgoing> = records.iter().map(|record| (*record).clone()).collect();
            let (connection, looked_for) = (self.connection.clone(), wanted.clone());
            let search = move || {
                let records: Vec<&Outgoing> = looked_for.iter().collect();
                Search::new(&connection, &records)?.run(since_ms)
            };
            let started = Aside::start("search", search);
            let started =
                started.ok_or_else(|| TransportError::Broken("failed to start a thread for a search".to_owned()))?;
            self.search = Some((wanted, started));
        }
        let found = self.search.as_ref().and_then(|(_, search)| search.answer(SLICE));
        if found.is_some() {
            self.search = None;
        }
        found.transpose()
    }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        match std::mem::take(&mut self.state) {
            State::Unclaimed => {}
            State::Claiming(producer, _) | State::Claimed(producer) => retire("producer", producer),
            State::Open(open) => retire("producer", open.into_producer()),
        }
        for consumer in [self.stable.take(), self.uncommitted.take()].into_iter().flatten() {
            retire("consumer", consumer);
        }
    }
}
