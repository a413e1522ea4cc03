//! Publishes batches into the tables. Invariant: records and offsets of a transaction are written as one, when it ends,
//! and only the newest claim of an app writes.
//!
//! What is sent is kept in memory until then: the database's only write lock is never held between two calls.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, TransactionBehavior, params};
use sagahost_transport::{Committed, Found, Isolation, Patience, Progress, Sink, SinkError, TransportError};
use sagahost_wire::{Outgoing, Partition};

use super::{
    Shared,
    append::{AppendError, Appender, Directory, Row},
    tables,
};

/// Nothing here is waited for but other processes that write, and SQLite has a patience of its own for those.
const PATIENCE: Patience = Patience { delivery: Duration::from_secs(10), end: Duration::from_secs(10) };

pub(super) struct EmbeddedSink {
    shared: Arc<Shared>,
    connection: Connection,
    directory: Directory,
    /// None: it has to claim first.
    epoch: Option<i64>,
    open: Option<Draft>,
}

/// A transaction that has not ended.
#[derive(Default)]
struct Draft {
    offsets: Vec<(Partition, i64)>,
    metadata: String,
    rows: Vec<Row>,
}

impl EmbeddedSink {
    pub fn open(shared: Arc<Shared>) -> Result<Self, TransportError> {
        let connection = shared.connect()?;
        Ok(Self { shared, connection, directory: Directory::default(), epoch: None, open: None })
    }

    fn draft(&mut self) -> Result<&mut Draft, SinkError> {
        self.open.as_mut().ok_or_else(|| SinkError::Spent("no transaction is open".to_owned()))
    }

    fn write(&mut self) -> Result<(), SinkError> {
        let ours = self.epoch.ok_or_else(unclaimed)?;
        let draft = self.open.as_ref().ok_or_else(|| SinkError::Spent("no transaction is open".to_owned()))?;
        let shared = &*self.shared;
        let spoilt = |error: rusqlite::Error| SinkError::Spoilt(shared.explain(&error).to_string());
        let mut appender = Appender::begin(
            &mut self.connection,
            &mut self.directory,
            &shared.options,
            &shared.keyless,
            shared.now_ms(),
        )
        .map_err(spoilt)?;
        let newest = newest_claim(&appender.transaction, &shared.app).map_err(spoilt)?;
        if newest != Some(ours) {
            return Err(SinkError::Fenced(format!("claim {newest:?} of {} is newer than {ours}", shared.app)));
        }
        for (index, row) in draft.rows.iter().enumerate() {
            appender.append(row).map_err(|error| match error {
                AppendError::Refused(why) => SinkError::Refused { index, why },
                AppendError::Failed(error) => spoilt(error),
            })?;
        }
        for (partition, next) in &draft.offsets {
            let id = appender.directory.partition(&appender.transaction, partition).map_err(spoilt)?;
            let gone = || SinkError::Spent(format!("{partition} is gone, its offset {next} cannot be committed"));
            commit_offset(&appender.transaction, &shared.app, id.ok_or_else(gone)?, *next, &draft.metadata)
                .map_err(spoilt)?;
        }
        appender.commit().map_err(|error| match error.sqlite_error_code() {
            // The commit may be in the log although its sync failed: only a later claim decides.
            Some(ErrorCode::SystemIoFailure) => SinkError::Spent(shared.explain(&error).to_string()),
            _ => spoilt(error),
        })
    }
}

fn unclaimed() -> SinkError {
    SinkError::Spent("nothing can be published before a claim".to_owned())
}

impl Sink for EmbeddedSink {
    fn committed(
        &mut self,
        partitions: &[Partition],
        _isolation: Isolation,
    ) -> Result<BTreeMap<Partition, Committed>, TransportError> {
        let explain = |error: rusqlite::Error| self.shared.explain(&error);
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT c.next_offset, c.metadata FROM committed c
                 JOIN partitions p ON p.id = c.partition_id JOIN topics t ON t.id = p.topic
                 WHERE c.app = ?1 AND t.name = ?2 AND p.number = ?3",
            )
            .map_err(explain)?;
        let mut found = BTreeMap::new();
        for partition in partitions {
            let row = statement
                .query_row(params![&*self.shared.app, &*partition.topic, partition.number], |row| {
                    Ok(Committed { offset: row.get(0)?, metadata: row.get(1)? })
                })
                .optional()
                .map_err(explain)?;
            found.extend(row.map(|committed| (partition.clone(), committed)));
        }
        Ok(found)
    }

    /// Opens the database again: whatever was wrong with the old handle is gone with it.
    fn claim(&mut self) -> Result<(), TransportError> {
        self.connection = self.shared.connect()?;
        self.directory = Directory::default();
        (self.open, self.epoch) = (None, None);
        let epoch = claim(&mut self.connection, &self.shared.app).map_err(|error| self.shared.explain(&error))?;
        self.epoch = Some(epoch);
        Ok(())
    }

    fn patience(&self) -> Patience {
        PATIENCE
    }

    fn begin(&mut self) -> Result<(), SinkError> {
        if self.open.is_some() {
            (self.open, self.epoch) = (None, None);
            return Err(SinkError::Spent("the transaction before is still open".to_owned()));
        }
        self.epoch.ok_or_else(unclaimed)?;
        self.open = Some(Draft::default());
        Ok(())
    }

    fn offsets(&mut self, offsets: &[(Partition, i64)], metadata: &str) -> Result<Progress, SinkError> {
        let draft = self.draft()?;
        (draft.offsets, draft.metadata) = (offsets.to_vec(), metadata.to_owned());
        Ok(Progress::Done)
    }

    fn send(&mut self, records: &[Outgoing]) -> Result<usize, SinkError> {
        self.draft()?.rows.extend(records.iter().map(Row::of));
        Ok(records.len())
    }

    /// Whether a record can be written shows when it is.
    fn poll(&mut self) -> Result<Progress, SinkError> {
        self.draft().map(|_| Progress::Done)
    }

    fn end(&mut self) -> Result<Progress, SinkError> {
        let shared = self.shared.clone();
        let turn = shared.writing.lock();
        let written = self.write();
        drop(turn);
        match &written {
            Ok(()) => {
                self.open = None;
                shared.commits.happened();
            }
            Err(SinkError::Spent(_) | SinkError::Fenced(_)) => (self.open, self.epoch) = (None, None),
            Err(SinkError::Refused { .. } | SinkError::Unclear { .. } | SinkError::Spoilt(_)) => {}
        }
        written.map(|()| Progress::Done)
    }

    fn abort(&mut self) -> Result<Progress, SinkError> {
        self.epoch.ok_or_else(unclaimed)?;
        self.open = None;
        Ok(Progress::Done)
    }

    fn search(&mut self, records: &[&Outgoing], _since_ms: u64) -> Result<Option<Found>, TransportError> {
        let found = search(&self.connection, records);
        found.map(Some).map_err(|error| self.shared.explain(&error))
    }
}

/// The first record that is still there answers for all; one that was removed says nothing.
fn search(connection: &Connection, records: &[&Outgoing]) -> rusqlite::Result<Found> {
    let mut statement = connection.prepare_cached(
        "SELECT max(p.first_offset), EXISTS (
             SELECT 1 FROM records r JOIN partitions q ON q.id = r.id >> 40 JOIN topics u ON u.id = q.topic
             WHERE u.name = ?1 AND r.key IS ?2 AND r.value IS ?3 AND r.headers IS ?4)
         FROM partitions p JOIN topics t ON t.id = p.topic WHERE t.name = ?1",
    )?;
    let mut removed = false;
    for record in records {
        let parameters = params![&*record.topic, record.key, record.value, tables::pack_headers(&record.headers)];
        let (first, found): (Option<i64>, bool) =
            statement.query_row(parameters, |row| Ok((row.get(0)?, row.get(1)?)))?;
        match (found, first) {
            (true, _) => return Ok(Found::Committed),
            (false, Some(0)) => return Ok(Found::Absent),
            (false, _) => removed = true,
        }
    }
    let why = "the topics no longer hold all records".to_owned();
    Ok(if removed { Found::Unclear(why) } else { Found::Absent })
}

fn claim(connection: &mut Connection, app: &str) -> rusqlite::Result<i64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let epoch = newest_claim(&transaction, app)?.unwrap_or(0) + 1;
    transaction.execute("INSERT OR REPLACE INTO claims (app, epoch) VALUES (?1, ?2)", params![app, epoch])?;
    transaction.commit()?;
    Ok(epoch)
}

fn newest_claim(connection: &Connection, app: &str) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT epoch FROM claims WHERE app = ?1")?.query_row([app], |row| row.get(0)).optional()
}

/// What an app has handled of a partition.
pub(super) fn commit_offset(
    connection: &Connection,
    app: &str,
    partition_id: i64,
    next: i64,
    metadata: &str,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO committed (app, partition_id, next_offset, metadata) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![app, partition_id, next, metadata])?;
    Ok(())
}
