//! The way in: partitions assigned one by one, each with a queue of its own. Invariant: a record is delivered only
//! from the position on that was last asked for.
//!
//! A queue for each partition, because an end-of-partition event or an error in a shared queue does not say which
//! topic it is about. It makes pausing simple too: a paused queue is not looked at, and librdkafka stops fetching
//! when it is full.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{Consumer as _, base_consumer::PartitionQueue},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode as Code,
};
use sagahost_transport::{Assignment, Isolation, Polled, Polls, Ring, Source, TransportError, Verified};
use sagahost_wire::Partition;
use tracing::{debug, warn};

use super::{
    PATIENCE, SLICE,
    connection::{Connection, Consumer, Served},
    context::Context,
    errors,
    lane::{Found, Lane},
    reading::{Reading, Taken, another_topic, first_offset, forbidden, missing, objection, unreadable},
    retire,
    topic_id::{self, Described, Questions},
    topic_watch::TopicWatch,
    topics,
};

/// How often a broker that is away is tried.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// Behind a record of more bytes the reader looks at its room again: a broker bounds records as they are compressed.
const LARGE: usize = 1 << 20;
/// Records of one partition in a row, while others wait.
const RUN_MAX: u32 = 64;
/// At the latest after this the client's own events are served again: rdkafka ends a poll behind one of them, although
/// more may be queued.
const SERVE_EVERY: Duration = SLICE;

pub(super) struct KafkaSource {
    connection: Arc<Connection>,
    /// Always there, until it is dropped.
    consumer: Option<Arc<Consumer>>,
    /// For questions that are not to wait behind a fetch.
    lookout: Arc<Consumer>,
    watch: Option<TopicWatch>,
    /// That a topic has no id is said once.
    pub(super) no_ids: bool,
    pub(super) lanes: Vec<Lane>,
    /// Whose turn it is, and for how many records it has been.
    turn: usize,
    run: u32,
    pub(super) news: VecDeque<Polled>,
    ring: Arc<OnceLock<Ring>>,
    /// Met while there was something to bring first.
    failed: Option<TransportError>,
    /// Partitions of the topics that are read.
    pub(super) counts: BTreeMap<Arc<str>, i32>,
    /// The broker is away: when to try again.
    pub(super) away: Option<Instant>,
}

impl KafkaSource {
    pub fn new(connection: Arc<Connection>, lookout: Arc<Consumer>) -> Result<Self, TransportError> {
        let ring: Arc<OnceLock<Ring>> = Arc::default();
        let mut consumer = connection.consumer(Isolation::Stable)?;
        consumer.set_nonempty_callback(bell(&ring));
        let questions = Questions::new(lookout.clone(), bell(&ring))?;
        Ok(Self {
            connection,
            consumer: Some(Arc::new(consumer)),
            lookout,
            watch: Some(TopicWatch::new(questions)),
            no_ids: false,
            lanes: Vec::new(),
            turn: 0,
            run: 0,
            news: VecDeque::new(),
            ring,
            failed: None,
            counts: BTreeMap::new(),
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
            .ok_or_else(|| TransportError::Broken(format!("{partition} is not a valid partition")))?;
        queue.set_nonempty_callback(bell(&self.ring));
        Ok(queue)
    }

    pub(super) fn watch(&mut self) -> &mut TopicWatch {
        self.watch.as_mut().expect("the watch is there until the source is dropped")
    }

    fn describe(&self, topics: &BTreeSet<Arc<str>>) -> Result<topic_id::Descriptions, TransportError> {
        topic_id::describe(&self.connection, &self.lookout, topics, PATIENCE)
    }

    /// The bounds of a partition, or why it cannot be read from the position. What is described was asked for before, so
    /// that the bounds are those of this topic or a later one.
    fn check(
        &self,
        assignment: &Assignment,
        described: &Described,
    ) -> Result<Result<(i64, i64), String>, TransportError> {
        let partition = &assignment.partition;
        // One that fetches nothing: an answer would wait behind a fetch that waits for records.
        let lookout = &self.lookout;
        if let Some(why) = another_topic(assignment, described) {
            return Ok(Err(why));
        }
        // It brings the lookout up to date as well: it knows no bounds of partitions that it has not heard of.
        let count = topics::count(&self.connection, lookout, &partition.topic, PATIENCE)?;
        if count.is_none_or(|count| partition.number >= count) {
            return Ok(Err(missing(partition)));
        }
        let bounds = topics::bounds(&self.connection, lookout, partition, PATIENCE)?;
        Ok(objection(assignment, bounds).map_or(Ok(bounds), Err))
    }

    pub(super) fn hold(&mut self, index: usize, why: String) {
        let reading = &mut self.lanes[index].reading;
        reading.held = true;
        reading.doubt = None;
        let partition = reading.partition.clone();
        self.news.push_back(Polled::Held { partition: partition.clone(), why });
        let mut list = TopicPartitionList::new();
        list.add_partition(&partition.topic, partition.number);
        if let Err(error) = self.consumer().incremental_unassign(&list) {
            debug!(%partition, %error, "failed to stop reading a partition that is held");
        }
    }

    /// Taking a partition back and assigning it again makes librdkafka forget what it had fetched and what it was
    /// about to fetch; a seek can lose against either.
    pub(super) fn go_to(&mut self, places: &[(usize, i64)]) -> Result<(), TransportError> {
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
            // Both are handles of one queue, and one that is dropped takes the bell off it: the old one goes first.
            self.lanes[*index].queue = None;
            self.lanes[*index].queue = Some(self.queue(&partition)?);
        }
        self.consumer().incremental_assign(&come).map_err(|error| failed(self, error))
    }

    pub(super) fn index(&self, partition: &Partition) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.reading.partition == *partition)
    }

    fn each(&mut self, partitions: &[Partition], change: impl Fn(&mut Reading)) {
        for partition in partitions {
            if let Some(index) = self.index(partition) {
                change(&mut self.lanes[index].reading);
            }
        }
    }

    fn fill(&mut self, max: usize, items: &mut Vec<Polled>) -> Result<(), TransportError> {
        self.serve();
        self.look_at_doubts()?;
        self.look_around()?;
        while items.len() < max {
            if let Some(news) = self.news.pop_front() {
                items.push(news);
                continue;
            }
            match self.next_record()? {
                Some(polled) if self.away.is_some() => {
                    self.back();
                    self.news.push_back(polled);
                }
                Some(polled) => {
                    let alone = matches!(&polled, Polled::Record(record) if record.size_bytes() > LARGE);
                    items.push(polled);
                    if alone {
                        break;
                    }
                }
                None if self.news.is_empty() => break,
                None => {}
            }
        }
        // What was just delivered is asked about at once.
        self.look_around()
    }

    /// When there is something to do that no queue tells.
    fn within(&self) -> Duration {
        if !self.news.is_empty() {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let doubts = self.lanes.iter().filter_map(|lane| lane.reading.doubt.map(|(due, _)| due));
        let due = doubts.chain(self.away).map(|due| due.saturating_duration_since(now));
        let question = self.watch.as_ref().and_then(TopicWatch::due_in).filter(|_| self.away.is_none());
        due.chain(question).fold(SERVE_EVERY, Duration::min)
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
                    self.watch().delivered();
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
                self.watch().delivered();
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
            code => debug!(%partition, %code, "librdkafka recovers by itself"),
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
            let described = self.describe(&BTreeSet::from([assignment.partition.topic.clone()]));
            let described =
                described.map(|mut all| all.remove(&assignment.partition.topic).unwrap_or(Described::Missing));
            let checked = described.and_then(|described| Ok((self.check(&assignment, &described)?, described)));
            match checked.map(|(checked, described)| checked.map(|bounds| (bounds, described))) {
                Ok(Ok((bounds, described))) => {
                    let from = first_offset(&assignment, bounds.0);
                    self.lanes[index].reading.again(&assignment, described.id());
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

    pub(super) fn ask_broker(&self) -> Result<(), String> {
        let topic = self.counts.keys().next();
        let Some(topic) = topic else { return Ok(()) };
        let asked = topics::count(&self.connection, self.consumer(), topic, SLICE);
        asked.map(drop).map_err(|error| error.to_string())
    }

    pub(super) fn lost(&mut self, why: String) {
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
}

impl Source for KafkaSource {
    fn on_ready(&mut self, ring: Ring) {
        let _ = self.ring.set(ring);
    }

    fn assign(&mut self, assignments: &[Assignment]) -> Result<(), TransportError> {
        let topics: BTreeSet<_> = assignments.iter().map(|assignment| assignment.partition.topic.clone()).collect();
        let described = self.describe(&topics)?;
        self.say_without_ids(&described);
        let described_of = |topic: &Arc<str>| described.get(topic).unwrap_or(&Described::Missing);
        let mut places = Vec::new();
        for assignment in assignments {
            let checked = self.check(assignment, described_of(&assignment.partition.topic))?;
            places.push(checked.map(|(low, _)| first_offset(assignment, low)));
        }
        let unassigned = self.consumer().unassign();
        unassigned.map_err(|error| self.broken("assign partitions", &error))?;
        self.news.retain(|news| matches!(news, Polled::Away(_) | Polled::Back | Polled::Appeared(_)));
        self.lanes.clear();
        self.watch().forget();
        let mut list = TopicPartitionList::new();
        let mut verified = Vec::new();
        for (assignment, place) in assignments.iter().zip(places) {
            let queue = self.queue(&assignment.partition)?;
            let seen = described_of(&assignment.partition.topic).id();
            let mut reading = Reading::new(assignment, seen);
            match place {
                Ok(from) => {
                    let added = add(&mut list, &assignment.partition, from);
                    added.map_err(|error| self.broken("assign partitions", &error))?;
                    let same = seen.filter(|seen| assignment.topic_id.as_ref() == Some(*seen) || reading.is_checked());
                    verified.extend(same.map(|topic_id| Verified {
                        partition: assignment.partition.clone(),
                        up_to: assignment.position,
                        topic_id: topic_id.clone(),
                    }));
                }
                Err(why) => {
                    reading.held = true;
                    self.news.push_back(Polled::Held { partition: assignment.partition.clone(), why });
                }
            }
            self.lanes.push(Lane { reading, queue: Some(queue) });
        }
        if !verified.is_empty() {
            self.news.push_back(Polled::Verified(verified));
        }
        let count = |topic: &Arc<str>| match described_of(topic) {
            Described::There { partitions, .. } => *partitions,
            Described::Missing | Described::Hidden | Described::Unclear(_) => 0,
        };
        // Partitions that are new since the last look are reported by the next one.
        let known = |topic: &Arc<str>| self.counts.get(topic).copied().unwrap_or_else(|| count(topic));
        self.counts = topics.iter().map(|topic| (topic.clone(), known(topic))).collect();
        self.consumer().assign(&list).map_err(|error| self.broken("assign partitions", &error))
    }

    fn poll(&mut self, max: usize) -> Result<Polls, TransportError> {
        let mut items = Vec::new();
        let filled = self.failed.take().map_or_else(|| self.fill(max, &mut items), Err);
        match filled {
            Err(error) if items.is_empty() => return Err(error),
            Err(error) => self.failed = Some(error),
            Ok(()) => {}
        }
        Ok(Polls { items, within: Some(self.within()) })
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
        self.watch().forget();
        for (index, position) in &places {
            self.lanes[*index].reading.seek(*position);
        }
        self.news.retain(|news| match news {
            Polled::Record(record) => !positions.iter().any(|(partition, _)| *partition == record.partition),
            Polled::End(partition, _) => !positions.iter().any(|(sought, _)| sought == partition),
            _ => true,
        });
        for verified in self.news.iter_mut() {
            if let Polled::Verified(all) = verified {
                all.retain(|verified| !positions.iter().any(|(partition, _)| *partition == verified.partition));
            }
        }
        Ok(())
    }
}

fn bell(ring: &Arc<OnceLock<Ring>>) -> impl Fn() + Send + Sync + use<> {
    let ring = ring.clone();
    move || {
        if let Some(ring) = ring.get() {
            ring();
        }
    }
}

fn add(list: &mut TopicPartitionList, partition: &Partition, position: i64) -> KafkaResult<()> {
    list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(position))
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        let lanes = std::mem::take(&mut self.lanes);
        let watch = self.watch.take();
        if let Some(consumer) = self.consumer.take() {
            retire("consumer", (lanes, consumer, watch));
        }
    }
}
