//! Reads the tables as a broker's partitions are read. Invariant: of a partition that is read, offset n+1 is delivered
//! after offset n; a gap holds the partition instead of being passed over.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, params};
use sagahost_transport::{Assignment, Polled, Polls, Ring, Source, TransportError, Verified};
use sagahost_wire::{Partition, Record, TopicId};

use super::{
    Shared,
    append::{Directory, data_version},
    bounds::{DELETED, check_last, check_position, newest_partition},
    tables,
};

/// What one look at a partition brings, at most.
const FETCH_RECORDS: i64 = 500;
const FETCH_BYTES: usize = 1 << 20;
/// After this many deliveries the other partitions get a look, even when this one has more.
const LOOK_AFTER_DELIVERIES: u32 = 500;
/// How long an idle source leaves between two looks at what other processes wrote: SQLite does not say that they did.
const IDLE_MIN: Duration = Duration::from_millis(1);
const IDLE_MAX: Duration = Duration::from_millis(10);

/// A partition that is read.
struct Lane {
    partition: Partition,
    id: i64,
    /// The next record to take from the table.
    position: i64,
    fetched: VecDeque<Record>,
    /// The table may hold more than was fetched.
    more: bool,
    /// End of the partition when last looked at.
    end: i64,
    /// The end that was last reported.
    end_told: Option<i64>,
    paused: bool,
    held: bool,
}

pub(super) struct EmbeddedSource {
    shared: Arc<Shared>,
    connection: Connection,
    lanes: Vec<Lane>,
    /// The lane whose turn it is.
    turn: usize,
    /// Delivered before any record.
    news: VecDeque<Polled>,
    data_version: i64,
    /// Known to those who commit for as long as it is here.
    ring: Option<Ring>,
    /// Met while there was something to bring first.
    failed: Option<rusqlite::Error>,
    deliveries: u32,
    idle: Duration,
    /// Highest partition that the tables have been searched for.
    newest_partition: i64,
}

impl EmbeddedSource {
    pub fn open(shared: Arc<Shared>) -> Result<Self, TransportError> {
        let connection = shared.connect()?;
        Ok(Self {
            shared,
            connection,
            lanes: Vec::new(),
            turn: 0,
            news: VecDeque::new(),
            data_version: -1,
            ring: None,
            failed: None,
            deliveries: 0,
            idle: IDLE_MIN,
            newest_partition: 0,
        })
    }

    fn try_assign(&mut self, assignments: &[Assignment]) -> rusqlite::Result<()> {
        self.news.clear();
        self.lanes.clear();
        self.turn = 0;
        let mut directory = Directory::default();
        let mut verified = Vec::new();
        for assignment in assignments {
            let partition = assignment.partition.clone();
            let Some(id) = directory.partition(&self.connection, &partition)? else {
                let make = super::create_command(&partition.topic);
                let why = format!("there is no such partition; if the topic is missing, make it with `{make}`");
                self.news.push_back(Polled::Held { partition, why });
                continue;
            };
            let mut lane = Lane::new(partition, id, assignment.position);
            match self.check(id, assignment)? {
                Ok(topic_id) => verified.push(Verified {
                    partition: lane.partition.clone(),
                    // A row's id is never used again, so that no other topic can be read.
                    up_to: Verified::CERTAIN,
                    topic_id,
                }),
                Err(why) => self.news.push_back(lane.hold(why)),
            }
            self.lanes.push(lane);
        }
        if !verified.is_empty() {
            self.news.push_front(Polled::Verified(verified));
        }
        self.newest_partition = newest_partition(&self.connection)?;
        Ok(())
    }

    /// The id of the topic, or why the partition cannot be read from there.
    fn check(&self, id: i64, assignment: &Assignment) -> rusqlite::Result<Result<TopicId, String>> {
        let Assignment { partition, position, last, topic_id } = assignment;
        let Some(is) = tables::topic_id(&self.connection, &partition.topic)? else {
            return Ok(Err(DELETED.to_owned()));
        };
        let wrong = match topic_id {
            Some(was) if *was != is && *position > 0 => Some(format!(
                "the topic was recreated (its id was {was}, now it is {is}), or the database is another copy; from \
                 `earliest` it is read from its beginning"
            )),
            Some(_) | None => check_position(&self.connection, id, *position)?.err(),
        };
        let wrong = match wrong {
            None => check_last(&self.connection, id, *last)?,
            wrong => wrong,
        };
        Ok(wrong.map_or(Ok(is), Err))
    }

    fn fill(&mut self, max: usize, items: &mut Vec<Polled>) -> rusqlite::Result<()> {
        while items.len() < max {
            if let Some(news) = self.news.pop_front() {
                items.push(news);
                continue;
            }
            if self.deliveries >= LOOK_AFTER_DELIVERIES {
                self.look()?;
            }
            if let Some(record) = self.next_record()? {
                self.deliveries += 1;
                items.push(Polled::Record(record));
            } else if self.news.is_empty() && (!items.is_empty() || !self.look()?) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes turns, a record at a time.
    fn next_record(&mut self) -> rusqlite::Result<Option<Record>> {
        for step in 0..self.lanes.len() {
            let index = (self.turn + step) % self.lanes.len();
            let lane = &mut self.lanes[index];
            if lane.paused || lane.held {
                continue;
            }
            if lane.fetched.is_empty() && lane.more {
                self.news.extend(lane.fetch(&self.connection)?);
            }
            if let Some(record) = lane.fetched.pop_front() {
                self.news.extend(lane.end_reached());
                self.turn = index + 1;
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Has anybody written since the last look? Then every lane may have more.
    fn look(&mut self) -> rusqlite::Result<bool> {
        self.deliveries = 0;
        let version = data_version(&self.connection)?;
        if version == self.data_version {
            return Ok(false);
        }
        self.data_version = version;
        self.lanes.iter_mut().for_each(|lane| lane.more = true);
        let newest = newest_partition(&self.connection)?;
        if newest > self.newest_partition {
            self.newest_partition = newest;
            self.find_appeared()?;
        }
        Ok(true)
    }

    /// Partitions of the topics that are read, which were not there when they were assigned.
    fn find_appeared(&mut self) -> rusqlite::Result<()> {
        let mut known: HashMap<Arc<str>, i32> = HashMap::new();
        for lane in &self.lanes {
            let highest = known.entry(lane.partition.topic.clone()).or_insert(-1);
            *highest = lane.partition.number.max(*highest);
        }
        let mut directory = Directory::default();
        let mut appeared = Vec::new();
        for (topic, highest) in known {
            let count = i32::try_from(directory.partitions(&self.connection, &topic)?.len()).unwrap_or(i32::MAX);
            appeared.extend((highest + 1..count).map(|number| Partition { topic: topic.clone(), number }));
        }
        if !appeared.is_empty() {
            appeared.sort_unstable();
            self.news.push_back(Polled::Appeared(appeared));
        }
        Ok(())
    }

    fn lane(&mut self, partition: &Partition) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.partition == *partition)
    }
}

impl Source for EmbeddedSource {
    fn on_ready(&mut self, ring: Ring) {
        self.shared.commits.ring(Arc::downgrade(&ring));
        self.ring = Some(ring);
    }

    fn assign(&mut self, assignments: &[Assignment]) -> Result<(), TransportError> {
        self.try_assign(assignments).map_err(|error| self.shared.explain(&error))
    }

    fn poll(&mut self, max: usize) -> Result<Polls, TransportError> {
        let mut items = Vec::new();
        let filled = self.failed.take().map_or_else(|| self.fill(max, &mut items), Err);
        match filled {
            Err(error) if items.is_empty() => return Err(self.shared.explain(&error)),
            Err(error) => self.failed = Some(error),
            Ok(()) => {}
        }
        self.idle = if items.is_empty() { (self.idle * 2).min(IDLE_MAX) } else { IDLE_MIN };
        Ok(Polls { items, within: Some(self.idle) })
    }

    fn pause(&mut self, partitions: &[Partition]) -> Result<(), TransportError> {
        for partition in partitions {
            if let Some(lane) = self.lane(partition) {
                lane.paused = true;
            }
        }
        Ok(())
    }

    fn resume(&mut self, partitions: &[Partition]) -> Result<(), TransportError> {
        for partition in partitions {
            if let Some(lane) = self.lane(partition) {
                lane.paused = false;
            }
        }
        Ok(())
    }

    fn seek(&mut self, positions: &[(Partition, i64)]) -> Result<(), TransportError> {
        for (partition, position) in positions {
            self.news.retain(|news| !matches!(news, Polled::End(of, _) if of == partition));
            if let Some(lane) = self.lane(partition) {
                *lane = Lane { paused: lane.paused, ..Lane::new(partition.clone(), lane.id, *position) };
            }
        }
        Ok(())
    }
}

impl Lane {
    fn new(partition: Partition, id: i64, position: i64) -> Self {
        Self {
            partition,
            id,
            position,
            fetched: VecDeque::new(),
            more: true,
            end: -1,
            end_told: None,
            paused: false,
            held: false,
        }
    }

    fn hold(&mut self, why: String) -> Polled {
        self.held = true;
        self.fetched.clear();
        Polled::Held { partition: self.partition.clone(), why }
    }

    /// Takes the next records out of the table, and returns what there is to say beside them.
    fn fetch(&mut self, connection: &Connection) -> rusqlite::Result<Option<Polled>> {
        // Something was written, though mostly to other partitions.
        if self.ends_at(connection)? == Ok(self.position) {
            (self.end, self.more) = (self.position, false);
            return Ok(self.end_reached());
        }
        // One snapshot: the end that is reported is the end of what was read.
        connection.prepare_cached("BEGIN")?.execute([])?;
        let fetched = self.fetch_from_snapshot(connection);
        connection.prepare_cached("ROLLBACK")?.execute([])?;
        fetched
    }

    fn ends_at(&self, connection: &Connection) -> rusqlite::Result<Result<i64, String>> {
        check_position(connection, self.id, self.position)
    }

    fn fetch_from_snapshot(&mut self, connection: &Connection) -> rusqlite::Result<Option<Polled>> {
        self.more = false;
        self.end = match self.ends_at(connection)? {
            Ok(end) => end,
            Err(why) => return Ok(Some(self.hold(why))),
        };
        let damaged = self.fetch_rows(connection)?;
        Ok(damaged.map(|why| self.hold(why)).or_else(|| self.end_reached()))
    }

    fn fetch_rows(&mut self, connection: &Connection) -> rusqlite::Result<Option<String>> {
        let mut statement = connection.prepare_cached(
            "SELECT id, timestamp_ms, key, value, headers FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3",
        )?;
        let range = (tables::record_id(self.id, self.position), tables::record_id(self.id, self.end));
        let mut rows = statement.query(params![range.0, range.1, FETCH_RECORDS])?;
        let mut bytes = 0;
        while bytes < FETCH_BYTES
            && let Some(row) = rows.next()?
        {
            let offset = tables::offset_of(row.get(0)?);
            let Some(headers) = tables::unpack_headers(row.get_ref(4)?.as_blob_or_null()?) else {
                return Ok(Some(format!(
                    "the headers of the record at {offset} are damaged; restore the database from a copy"
                )));
            };
            if offset != self.position {
                return Ok(Some(format!(
                    "the record at {} is missing; restore the database from a copy",
                    self.position
                )));
            }
            let timestamp_ms = u64::try_from(row.get::<_, i64>(1)?).ok();
            let (key, value) = (row.get::<_, Option<Vec<u8>>>(2)?, row.get::<_, Option<Vec<u8>>>(3)?);
            bytes += key.as_ref().map_or(0, Vec::len) + value.as_ref().map_or(0, Vec::len);
            let partition = self.partition.clone();
            self.fetched.push_back(Record { partition, offset, timestamp_ms, key, value, headers });
            self.position += 1;
        }
        self.more = self.position < self.end;
        Ok(None)
    }

    /// All that there was is delivered, and that is not reported yet.
    fn end_reached(&mut self) -> Option<Polled> {
        let reached = self.fetched.is_empty() && self.position == self.end && self.end_told != Some(self.end);
        reached.then(|| {
            self.end_told = Some(self.end);
            Polled::End(self.partition.clone(), self.end)
        })
    }
}
