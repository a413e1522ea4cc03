//! The way in: partitions assigned one by one, each with a queue of its own. Invariant: a record is delivered only
//! from the position on that was last asked for.
//!
//! A queue for each partition, because an end-of-partition event or an error in a shared queue does not say which
//! topic it is about. It makes pausing simple too: a paused queue is not looked at, and librdkafka stops fetching
//! when it is full.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{Consumer as _, base_consumer::PartitionQueue},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode as Code,
};
use tracing::{debug, warn};

use super::{
    PATIENCE, SLICE,
    connection::{Connection, Consumer, Served},
    context::Context,
    errors,
    lane::{Found, Lane},
    reading::{Reading, Taken, first_offset, forbidden, missing, objection, unreadable},
    retire, topics,
};
use crate::transport::{Assignment, Isolation, Partition, Polled, Source, TransportError};

/// How often it is looked whether topics have more partitions.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often a broker that is away is tried.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// Records of one partition in a row, while others wait.
const RUN_MAX: u32 = 64;
/// A wake-up that got lost costs this much.
const NAP_MAX: Duration = Duration::from_millis(20);

pub(super) struct KafkaSource {
    connection: Arc<Connection>,
    /// Always there, until it is dropped.
    consumer: Option<Arc<Consumer>>,
    lanes: Vec<Lane>,
    /// Whose turn it is, and for how many records it has been.
    turn: usize,
    run: u32,
    news: VecDeque<Polled>,
    wake: (Sender<()>, Receiver<()>),
    /// Partitions of the topics that are read.
    counts: BTreeMap<Arc<str>, i32>,
    next_look: Instant,
    /// The broker is away: when to try again.
    away: Option<Instant>,
}

impl KafkaSource {
    pub fn new(connection: Arc<Connection>) -> Result<Self, TransportError> {
        let wake = bounded(1);
        let mut consumer = connection.consumer(Isolation::Stable)?;
        let bell: Sender<()> = wake.0.clone();
        consumer.set_nonempty_callback(move || {
            let _ = bell.try_send(());
        });
        Ok(Self {
            connection,
            consumer: Some(Arc::new(consumer)),
            lanes: Vec::new(),
            turn: 0,
            run: 0,
            news: VecDeque::new(),
            wake,
            counts: BTreeMap::new(),
            next_look: Instant::now() + LOOK_EVERY,
            away: None,
        })
    }

    fn consumer(&self) -> &Arc<Consumer> {
        self.consumer.as_ref().expect("the consumer is there until the source is dropped")
    }

    fn broken(&self, doing: &str, error: &KafkaError) -> TransportError {
        errors::transport(&self.connection, Served::context(&**self.consumer()), doing, error)
    }

    /// Must come before the partition is assigned: from then on its records go to this queue.
    fn queue(&self, partition: &Partition) -> Result<PartitionQueue<Context>, TransportError> {
        let mut queue = self
            .consumer()
            .split_partition_queue(&partition.topic, partition.number)
            .ok_or_else(|| TransportError::Broken(format!("{partition} is no name of a partition")))?;
        let bell = self.wake.0.clone();
        queue.set_nonempty_callback(move || {
            let _ = bell.try_send(());
        });
        Ok(queue)
    }

    /// The bounds of a partition, or why it cannot be read from the position.
    fn check(&self, assignment: &Assignment) -> Result<Result<(i64, i64), String>, TransportError> {
        let partition = &assignment.partition;
        let consumer = self.consumer();
        let count = topics::count(&self.connection, consumer, &partition.topic, PATIENCE)?;
        if count.is_none_or(|count| partition.number >= count) {
            return Ok(Err(missing(partition)));
        }
        let bounds = topics::bounds(&self.connection, consumer, partition, PATIENCE)?;
        Ok(objection(assignment, bounds).map_or(Ok(bounds), Err))
    }

    fn hold(&mut self, index: usize, why: String) {
        let reading = &mut self.lanes[index].reading;
        reading.held = true;
        reading.doubt = None;
        let partition = reading.partition.clone();
        self.news.push_back(Polled::Held { partition: partition.clone(), why });
        let mut list = TopicPartitionList::new();
        list.add_partition(&partition.topic, partition.number);
        if let Err(error) = self.consumer().incremental_unassign(&list) {
            debug!(%partition, %error, "failed to give back a partition that is held");
        }
    }

    /// Taking a partition back and assigning it anew makes librdkafka forget what it had fetched and what it was
    /// about to fetch; a seek can lose against either.
    fn go_to(&mut self, places: &[(usize, i64)]) -> Result<(), TransportError> {
        let failed = |source: &Self, error| source.broken("go to a position", &error);
        let mut gone = TopicPartitionList::new();
        for (index, _) in places {
            let partition = &self.lanes[*index].reading.partition;
            gone.add_partition(&partition.topic, partition.number);
        }
        if places.is_empty() {
            return Ok(());
        }
        self.consumer().incremental_unassign(&gone).map_err(|error| failed(self, error))?;
        let mut come = TopicPartitionList::new();
        for (index, position) in places {
            let partition = self.lanes[*index].reading.partition.clone();
            add(&mut come, &partition, *position).map_err(|error| failed(self, error))?;
            self.lanes[*index].queue = self.queue(&partition)?;
        }
        self.consumer().incremental_assign(&come).map_err(|error| failed(self, error))
    }

    fn index(&self, partition: &Partition) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.reading.partition == *partition)
    }

    fn each(&mut self, partitions: &[Partition], change: impl Fn(&mut Reading)) {
        for partition in partitions {
            if let Some(index) = self.index(partition) {
                change(&mut self.lanes[index].reading);
            }
        }
    }

    /// The next record, taking turns. None: there is none, or there are news first.
    fn next_record(&mut self) -> Result<Option<Polled>, TransportError> {
        let mut empty = 0;
        while empty < self.lanes.len() && self.news.is_empty() {
            let index = self.turn % self.lanes.len();
            let found = self.lanes[index].look();
            self.run += 1;
            if found.is_none() || self.run >= RUN_MAX {
                self.turn = index + 1;
                self.run = 0;
            }
            empty = if found.is_some() { 0 } else { empty + 1 };
            match found {
                Some(Found::Taken(Taken::Deliver(record))) => {
                    return Ok(Some(Polled::Record(record)));
                }
                Some(found) => self.found(index, found)?,
                None => {}
            }
        }
        Ok(None)
    }

    fn found(&mut self, index: usize, found: Found) -> Result<(), TransportError> {
        match found {
            Found::Taken(Taken::Deliver(record)) => self.news.push_back(Polled::Record(record)),
            Found::Taken(Taken::Skip) => {}
            Found::Taken(Taken::Jump) => self.go_to(&[(index, self.lanes[index].reading.next)])?,
            Found::Taken(Taken::Hold(why)) => self.hold(index, why),
            Found::End => {
                let at = Served::context(&**self.consumer()).take_end();
                let reading = &mut self.lanes[index].reading;
                let end = reading.end(at);
                self.news.push_back(Polled::End(reading.partition.clone(), end));
            }
            Found::Trouble(error) => self.partition_trouble(index, &error),
        }
        Ok(())
    }

    fn partition_trouble(&mut self, index: usize, error: &KafkaError) {
        let reading = &mut self.lanes[index].reading;
        let partition = &reading.partition;
        match errors::code(error) {
            Code::AutoOffsetReset
            | Code::OffsetOutOfRange
            | Code::LogTruncation
            | Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopicId
            | Code::UnknownPartition => reading.doubt(),
            Code::TopicAuthorizationFailed => {
                let why = forbidden(partition);
                self.hold(index, why);
            }
            Code::BadMessage | Code::InvalidMessage | Code::BadCompression | Code::NotImplemented => {
                let why = unreadable(partition, reading.next, &error.to_string());
                self.hold(index, why);
            }
            code => debug!(%partition, %code, "librdkafka goes on by itself"),
        }
    }

    /// Partitions about which something was wrong: read on where the check finds nothing.
    fn look_at_doubts(&mut self) -> Result<(), TransportError> {
        let now = Instant::now();
        for index in 0..self.lanes.len() {
            let reading = &mut self.lanes[index].reading;
            let Some((_, looks)) = reading.doubt.filter(|(due, _)| *due <= now) else {
                continue;
            };
            reading.doubt = Some((now + SLICE, looks));
            let assignment = reading.as_assignment();
            match self.check(&assignment) {
                Ok(Ok(bounds)) => {
                    let from = first_offset(&assignment, bounds.0);
                    self.lanes[index].reading.again(&assignment);
                    self.go_to(&[(index, from)])?;
                }
                // A broker that has just come back may not know it yet.
                Ok(Err(_)) if looks < 3 => self.lanes[index].reading.doubt(),
                Ok(Err(why)) => self.hold(index, why),
                Err(TransportError::Away(why)) => self.lost(why),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Events of the client itself, and whether the broker is there.
    fn serve(&mut self) {
        let consumer = self.consumer().clone();
        while let Some(polled) = consumer.poll(Duration::ZERO) {
            // All records have queues of their own; errors are in the context too.
            if let Ok(message) = polled {
                warn!(topic = message.topic(), partition = message.partition(), "a record came in the wrong queue");
                if let Some(index) = self.index(&Partition::new(message.topic(), message.partition())) {
                    self.lanes[index].reading.doubt();
                }
            }
        }
        let context = Served::context(&*consumer);
        if self.away.is_none() && context.take_lost() {
            // Connections that were merely idle are closed too: ask before alarming anybody.
            if let Err(why) = self.ask_broker() {
                self.lost(why);
            }
        } else if self.away.is_some_and(|due| Instant::now() >= due) {
            match self.ask_broker() {
                Ok(()) => self.back(),
                Err(_) => self.away = Some(Instant::now() + TRY_EVERY),
            }
        }
    }

    fn ask_broker(&self) -> Result<(), String> {
        let topic = self.counts.keys().next();
        let Some(topic) = topic else { return Ok(()) };
        let asked = topics::count(&self.connection, self.consumer(), topic, SLICE);
        asked.map(drop).map_err(|error| error.to_string())
    }

    fn lost(&mut self, why: String) {
        if self.away.is_none() {
            self.news.push_back(Polled::Away(why));
        }
        self.away = Some(Instant::now() + TRY_EVERY);
    }

    fn back(&mut self) {
        self.away = None;
        let context = Served::context(&**self.consumer());
        context.take_lost();
        self.news.push_back(Polled::Back);
    }

    /// Topics may get more partitions, or be deleted.
    fn look_around(&mut self) -> Result<(), TransportError> {
        if Instant::now() < self.next_look || self.away.is_some() {
            return Ok(());
        }
        self.next_look = Instant::now() + LOOK_EVERY;
        let mut appeared = Vec::new();
        for (topic, known) in self.counts.clone() {
            let count = match topics::count(&self.connection, self.consumer(), &topic, SLICE) {
                Ok(count) => count.unwrap_or(0),
                Err(TransportError::Away(why)) => {
                    self.lost(why);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            if count > known {
                appeared.extend((known..count).map(|number| Partition { topic: topic.clone(), number }));
                self.counts.insert(topic, count);
            } else if count < known {
                for lane in self.lanes.iter_mut().filter(|lane| lane.reading.partition.topic == topic) {
                    if !lane.reading.held && lane.reading.doubt.is_none() && lane.reading.partition.number >= count {
                        lane.reading.doubt();
                    }
                }
            }
        }
        if !appeared.is_empty() {
            self.news.push_back(Polled::Appeared(appeared));
        }
        Ok(())
    }
}

impl Source for KafkaSource {
    fn assign(&mut self, assignments: &[Assignment]) -> Result<(), TransportError> {
        let mut counts = BTreeMap::new();
        let mut places = Vec::new();
        for assignment in assignments {
            let topic = &assignment.partition.topic;
            if !counts.contains_key(topic) {
                let count = topics::count(&self.connection, self.consumer(), topic, PATIENCE)?;
                // Partitions that are new since the last look are told by the next one.
                let count = self.counts.get(topic).copied().or(count);
                counts.insert(topic.clone(), count.unwrap_or(0));
            }
            places.push(self.check(assignment)?.map(|(low, _)| first_offset(assignment, low)));
        }
        let unassigned = self.consumer().unassign();
        unassigned.map_err(|error| self.broken("assign partitions", &error))?;
        self.news.retain(|news| matches!(news, Polled::Away(_) | Polled::Back | Polled::Appeared(_)));
        self.lanes.clear();
        let mut list = TopicPartitionList::new();
        for (assignment, place) in assignments.iter().zip(places) {
            let queue = self.queue(&assignment.partition)?;
            let mut reading = Reading::new(assignment);
            match place {
                Ok(from) => {
                    let added = add(&mut list, &assignment.partition, from);
                    added.map_err(|error| self.broken("assign partitions", &error))?;
                }
                Err(why) => {
                    reading.held = true;
                    self.news.push_back(Polled::Held { partition: assignment.partition.clone(), why });
                }
            }
            self.lanes.push(Lane { reading, queue });
        }
        self.counts = counts;
        self.next_look = Instant::now() + LOOK_EVERY;
        self.consumer().assign(&list).map_err(|error| self.broken("assign partitions", &error))
    }

    fn poll(&mut self, timeout: Duration) -> Result<Polled, TransportError> {
        let deadline = Instant::now() + timeout;
        loop {
            // Between records of one run there is nothing else to do.
            if self.run == 0 || self.away.is_some() {
                self.serve();
                self.look_at_doubts()?;
                self.look_around()?;
            }
            if let Some(news) = self.news.pop_front() {
                return Ok(news);
            }
            if let Some(polled) = self.next_record()? {
                if self.away.is_none() {
                    return Ok(polled);
                }
                self.back();
                self.news.push_back(polled);
            }
            if let Some(news) = self.news.pop_front() {
                return Ok(news);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Polled::Nothing);
            }
            let _ = self.wake.1.recv_timeout(left.min(NAP_MAX));
        }
    }

    fn pause(&mut self, partitions: &[Partition]) -> Result<(), TransportError> {
        self.each(partitions, |reading| reading.paused = true);
        Ok(())
    }

    fn resume(&mut self, partitions: &[Partition]) -> Result<(), TransportError> {
        self.each(partitions, |reading| reading.paused = false);
        Ok(())
    }

    fn seek(&mut self, positions: &[(Partition, i64)]) -> Result<(), TransportError> {
        let found = positions.iter().filter_map(|(partition, position)| Some((self.index(partition)?, *position)));
        let places: Vec<_> = found.filter(|(index, _)| !self.lanes[*index].reading.held).collect();
        self.go_to(&places)?;
        for (index, position) in &places {
            self.lanes[*index].reading.seek(*position);
        }
        self.news.retain(|news| match news {
            Polled::Record(record) => !positions.iter().any(|(partition, _)| *partition == record.partition),
            Polled::End(partition, _) => !positions.iter().any(|(sought, _)| sought == partition),
            _ => true,
        });
        Ok(())
    }
}

fn add(list: &mut TopicPartitionList, partition: &Partition, position: i64) -> KafkaResult<()> {
    list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(position))
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        let lanes = std::mem::take(&mut self.lanes);
        if let Some(consumer) = self.consumer.take() {
            retire("consumer", (lanes, consumer));
        }
    }
}
