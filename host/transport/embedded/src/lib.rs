//! Topics as tables of an embedded database, `topics.db` in the data directory: nothing to install. Invariant: what a
//! reader, a publisher or a person with `sagahost emit` sees here is what Kafka would show them, partitions included.

mod append;
mod bounds;
mod commits;
mod partitioner;
mod sink;
mod source;
mod tables;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use sagahost_private as private;
use sagahost_transport::{Sink, Source, Topics, Transport, TransportError, Unstable};
use sagahost_wire::{
    Outgoing, Partition, TopicId,
    clock::{Clock, SystemClock},
    topic_name,
};

use self::{
    append::{AppendError, Appender, Directory, Row},
    commits::Commits,
    sink::EmbeddedSink,
    source::EmbeddedSource,
};

pub use partitioner::partition_of;

/// The database in the data directory.
pub const FILE: &str = "topics.db";

/// Bound on `create_topics`.
const PARTITIONS_MAX: i32 = 1024;
/// Records that `delete_before` removes in one transaction.
const DELETE_RECORDS: i64 = 5000;

#[derive(Clone, Debug)]
pub struct Options {
    /// Larger records are refused; counted as `Outgoing::size_bytes` counts.
    pub record_bytes_max: usize,
    /// Per partition. Above it the oldest records go, though none that an app which reads the partition has yet to
    /// pass. None: all are kept.
    pub kept_records_max: Option<u64>,
    /// How long to wait for another process that writes.
    pub busy_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { record_bytes_max: 1_000_000, kept_records_max: None, busy_timeout: Duration::from_secs(5) }
    }
}

/// What the parts of one transport have in common.
struct Shared {
    /// As people named it.
    path: PathBuf,
    /// Without links: SQLite follows none on the way to the file.
    resolved: PathBuf,
    app: Box<str>,
    options: Options,
    clock: Arc<dyn Clock>,
    /// Writers of this process take turns here, which is quicker than at the database's lock.
    writing: Mutex<()>,
    commits: Commits,
    keyless: AtomicUsize,
}

impl Shared {
    fn connect(&self) -> Result<Connection, TransportError> {
        tables::open(&self.resolved, self.options.busy_timeout)
    }
    fn explain(&self, error: &rusqlite::Error) -> TransportError {
        tables::explain(&self.path, error)
    }
    fn now_ms(&self) -> u64 {
        self.clock.now().0
    }
}

pub struct EmbeddedTransport {
    shared: Arc<Shared>,
    desk: Mutex<Desk>,
}

/// For what is asked beside reading and publishing.
struct Desk {
    connection: Connection,
    directory: Directory,
}

impl EmbeddedTransport {
    /// Opens `topics.db` in the data directory, making both where they are missing.
    pub fn open(data_dir: &Path, app: &str) -> Result<Self, TransportError> {
        Self::open_with(data_dir, app, Options::default(), Arc::new(SystemClock))
    }

    pub fn open_with(
        data_dir: &Path,
        app: &str,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TransportError> {
        let unusable = |doing: &str, error: std::io::Error| {
            TransportError::Refused(format!("the data directory {} cannot be {doing}: {error}", data_dir.display()))
        };
        private::make_dir(data_dir).map_err(|error| unusable("made", error))?;
        let shared = Arc::new(Shared {
            path: data_dir.join(FILE),
            resolved: data_dir.canonicalize().map_err(|error| unusable("found", error))?.join(FILE),
            app: app.into(),
            options,
            clock,
            writing: Mutex::new(()),
            commits: Commits::default(),
            keyless: AtomicUsize::new(0),
        });
        let desk = Mutex::new(Desk { connection: shared.connect()?, directory: Directory::default() });
        Ok(Self { shared, desk })
    }

    /// Publishes records outside of any batch, in one transaction.
    pub fn offer_all(&self, records: &[Outgoing]) -> Result<Vec<(Partition, i64)>, TransportError> {
        let shared = &*self.shared;
        let turn = shared.writing.lock();
        let placed = self.try_offer(records);
        drop(turn);
        shared.commits.happened();
        placed
    }

    fn try_offer(&self, records: &[Outgoing]) -> Result<Vec<(Partition, i64)>, TransportError> {
        let shared = &*self.shared;
        let failed = |error: rusqlite::Error| shared.explain(&error);
        let desk = &mut *self.desk.lock();
        let mut appender = Appender::begin(
            &mut desk.connection,
            &mut desk.directory,
            &shared.options,
            &shared.keyless,
            shared.now_ms(),
        )
        .map_err(failed)?;
        let mut placed = Vec::with_capacity(records.len());
        for record in records {
            placed.push(appender.append(&Row::of(record)).map_err(|error| match error {
                AppendError::Refused(why) => {
                    TransportError::Refused(format!("the record for topic {} was refused: {why}", record.topic))
                }
                AppendError::Failed(error) => failed(error),
            })?);
        }
        appender.commit().map_err(failed)?;
        Ok(placed)
    }

    /// Sets the committed offset of the app, without metadata, as Kafka's offset tool does.
    pub fn reset_offset(&self, partition: &Partition, next: i64) -> Result<(), TransportError> {
        let app = self.shared.app.clone();
        self.change(partition, move |transaction, id| sink::commit_offset(transaction, &app, id, next, ""))
    }

    /// Deletes the records below `offset`, in small bites, whether anybody has read them or not.
    pub fn delete_before(&self, partition: &Partition, offset: i64) -> Result<(), TransportError> {
        loop {
            let mut left = false;
            self.change(partition, |transaction, id| {
                let Some((first, end)) = bounds::bounds(transaction, id)? else {
                    return Ok(());
                };
                let goal = offset.clamp(first, end);
                let until = goal.min(first + DELETE_RECORDS);
                append::delete_between(transaction, id, first, until)?;
                transaction.execute("UPDATE partitions SET first_offset = ?2 WHERE id = ?1", [id, until])?;
                left = until < goal;
                Ok(())
            })?;
            if !left {
                return Ok(());
            }
        }
    }

    /// Deletes a topic with its records and everybody's offsets.
    pub fn delete_topic(&self, name: &str) -> Result<(), TransportError> {
        self.write(|transaction| {
            let ids: Vec<i64> = transaction
                .prepare("SELECT p.id FROM partitions p JOIN topics t ON t.id = p.topic WHERE t.name = ?1")?
                .query_map([name], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            for id in ids {
                append::delete_between(transaction, id, 0, tables::OFFSET_MAX)?;
                transaction.execute("DELETE FROM committed WHERE partition_id = ?1", [id])?;
                transaction.execute("DELETE FROM partitions WHERE id = ?1", [id])?;
            }
            transaction.execute("DELETE FROM topics WHERE name = ?1", [name])?;
            Ok(())
        })
    }

    /// Grows a topic to `partitions`; keys land elsewhere from then on, as with Kafka.
    pub fn grow_topic(&self, name: &str, partitions: i32) -> Result<(), TransportError> {
        check_partitions(partitions)?;
        self.write(|transaction| make_partitions(transaction, name, partitions))
    }

    /// One change of one partition, as a transaction.
    fn change(
        &self,
        partition: &Partition,
        change: impl FnOnce(&Connection, i64) -> rusqlite::Result<()>,
    ) -> Result<(), TransportError> {
        let mut found = false;
        self.write(|transaction| {
            let Some(id) = Directory::default().partition(transaction, partition)? else {
                return Ok(());
            };
            found = true;
            change(transaction, id)
        })?;
        if found { Ok(()) } else { Err(TransportError::Refused(format!("there is no partition {partition}"))) }
    }

    fn write(&self, change: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> Result<(), TransportError> {
        let turn = self.shared.writing.lock();
        let desk = &mut *self.desk.lock();
        // Its own writes do not show in `data_version`.
        desk.directory = Directory::default();
        let done = desk.connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
            change(&transaction)?;
            transaction.commit()
        });
        drop(turn);
        self.shared.commits.happened();
        done.map_err(|error| self.shared.explain(&error))
    }
}

impl Transport for EmbeddedTransport {
    fn describe(&self) -> String {
        format!("embedded topics in {}", self.shared.path.display())
    }

    fn topics(&self, names: &[Arc<str>]) -> Result<Topics, TransportError> {
        let desk = self.desk.lock();
        let count = |name: &Arc<str>| -> rusqlite::Result<Option<i32>> {
            desk.connection
                .prepare_cached(
                    "SELECT count(p.id) FROM topics t JOIN partitions p ON p.topic = t.id WHERE t.name = ?1 GROUP BY t.id",
                )?
                .query_row([&**name], |row| row.get(0))
                .optional()
        };
        let mut topics = Topics::new();
        for name in names {
            let found = count(name).map_err(|error| self.shared.explain(&error))?;
            topics.extend(found.map(|partitions| (name.clone(), partitions)));
        }
        Ok(topics)
    }

    fn topic_ids(&self, names: &[Arc<str>]) -> Result<BTreeMap<Arc<str>, TopicId>, TransportError> {
        let desk = self.desk.lock();
        let mut ids = BTreeMap::new();
        for name in names {
            let id = tables::topic_id(&desk.connection, name).map_err(|error| self.shared.explain(&error))?;
            ids.extend(id.map(|id| (name.clone(), id)));
        }
        Ok(ids)
    }

    /// Topics that exist stay as they are.
    fn create_topics(&self, names: &[Arc<str>], partitions: i32) -> Result<(), TransportError> {
        check_partitions(partitions)?;
        for name in names {
            topic_name::check(name).map_err(TransportError::Refused)?;
        }
        self.write(|transaction| {
            for name in names {
                let made = transaction.execute("INSERT OR IGNORE INTO topics (name) VALUES (?1)", [&**name])?;
                if made == 1 {
                    make_partitions(transaction, name, partitions)?;
                }
            }
            Ok(())
        })
    }

    fn create_command(&self, topic: &str) -> String {
        create_command(topic)
    }

    fn bounds(&self, partitions: &[Partition]) -> Result<BTreeMap<Partition, (i64, i64)>, TransportError> {
        let desk = self.desk.lock();
        let mut directory = Directory::default();
        let mut one = |partition: &Partition| -> rusqlite::Result<Option<(i64, i64)>> {
            match directory.partition(&desk.connection, partition)? {
                Some(id) => bounds::bounds(&desk.connection, id),
                None => Ok(None),
            }
        };
        let mut found = BTreeMap::new();
        for partition in partitions {
            let bounds = one(partition).map_err(|error| self.shared.explain(&error))?;
            found.extend(bounds.map(|bounds| (partition.clone(), bounds)));
        }
        Ok(found)
    }

    /// A transaction holds up nobody here.
    fn unstable(&self, _partitions: &[Partition]) -> Result<Vec<Unstable>, TransportError> {
        Ok(Vec::new())
    }

    fn find_producers(&self, _partition: &Partition) -> String {
        String::new()
    }

    fn source(&self) -> Result<Box<dyn Source>, TransportError> {
        Ok(Box::new(EmbeddedSource::open(self.shared.clone())?))
    }

    fn sink(&self) -> Result<Box<dyn Sink>, TransportError> {
        Ok(Box::new(EmbeddedSink::open(self.shared.clone())?))
    }

    fn offer(&self, record: &Outgoing) -> Result<(Partition, i64), TransportError> {
        let placed = self.offer_all(std::slice::from_ref(record))?;
        placed.into_iter().next().ok_or_else(|| TransportError::Broken("the record was not stored".to_owned()))
    }
}

fn create_command(topic: &str) -> String {
    format!("sagahost topics create {topic}")
}

fn check_partitions(partitions: i32) -> Result<(), TransportError> {
    if (1..=PARTITIONS_MAX).contains(&partitions) {
        return Ok(());
    }
    Err(TransportError::Refused(format!("a topic has 1 to {PARTITIONS_MAX} partitions, not {partitions}")))
}

/// Adds what a topic lacks.
fn make_partitions(connection: &Connection, topic: &str, count: i32) -> rusqlite::Result<()> {
    for number in 0..count {
        connection
            .prepare_cached(
                "INSERT OR IGNORE INTO partitions (topic, number) SELECT id, ?2 FROM topics WHERE name = ?1",
            )?
            .execute(params![topic, number])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
