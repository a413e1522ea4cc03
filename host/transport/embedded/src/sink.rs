//! Publishes batches into the tables. Invariant: records and offsets of a publication are one transaction, and only
//! the newest claim of an app commits one.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, TransactionBehavior, params};
use sagahost_transport::{CommitState, Committed, Found, Isolation, Publication, PublishError, Sink, TransportError};
use sagahost_wire::{Outgoing, Partition};

use super::{
    Shared,
    append::{AppendError, Appender, Directory},
    tables,
};

pub(super) struct EmbeddedSink {
    shared: Arc<Shared>,
    connection: Connection,
    directory: Directory,
    /// None before the first claim.
    epoch: Option<i64>,
}

impl EmbeddedSink {
    pub fn open(shared: Arc<Shared>) -> Result<Self, TransportError> {
        let connection = shared.connect()?;
        Ok(Self { shared, connection, directory: Directory::default(), epoch: None })
    }

    fn try_publish(&mut self, publication: &Publication<'_>) -> Result<(), PublishError> {
        let ours = self.epoch.ok_or_else(|| lost("nothing can be published before a claim".to_owned()))?;
        let shared = &*self.shared;
        let aborted = |error: rusqlite::Error| PublishError::Aborted(shared.explain(&error).to_string());
        let mut appender = Appender::begin(
            &mut self.connection,
            &mut self.directory,
            &shared.options,
            &shared.keyless,
            shared.now_ms(),
        )
        .map_err(aborted)?;
        let newest = newest_claim(&appender.transaction, &shared.app).map_err(aborted)?;
        if newest != Some(ours) {
            let why = format!("claim {newest:?} of {} is newer than {ours}", shared.app);
            return Err(PublishError::Fenced { commit: CommitState::NotAsked, why });
        }
        for (index, record) in publication.records.iter().enumerate() {
            appender.append(record).map_err(|error| match error {
                AppendError::Refused(why) => PublishError::Refused { index, topic: record.topic.clone(), why },
                AppendError::Failed(error) => aborted(error),
            })?;
        }
        for (partition, next) in publication.offsets {
            let id = appender.directory.partition(&appender.transaction, partition).map_err(aborted)?;
            let id = id.ok_or_else(|| lost(format!("{partition} is gone, its offset {next} cannot be committed")))?;
            commit_offset(&appender.transaction, &shared.app, id, *next, publication.metadata).map_err(aborted)?;
        }
        appender.commit().map_err(|error| match error.sqlite_error_code() {
            // The commit may be in the log although its sync failed: only a later claim decides.
            Some(ErrorCode::SystemIoFailure) => {
                PublishError::Lost { commit: CommitState::Asked, why: shared.explain(&error).to_string() }
            }
            _ => aborted(error),
        })
    }
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

    /// Opens the database anew: whatever was wrong with the old handle is gone with it.
    fn claim(&mut self) -> Result<(), TransportError> {
        self.connection = self.shared.connect()?;
        self.directory = Directory::default();
        let epoch = claim(&mut self.connection, &self.shared.app).map_err(|error| self.shared.explain(&error))?;
        self.epoch = Some(epoch);
        Ok(())
    }

    fn publish(&mut self, publication: &Publication<'_>) -> Result<(), PublishError> {
        let shared = self.shared.clone();
        let turn = shared.writing.lock();
        let result = self.try_publish(publication);
        drop(turn);
        if result.is_ok() {
            shared.commits.happened();
        }
        result
    }

    fn search(&mut self, records: &[&Outgoing], _since_ms: u64) -> Result<Found, TransportError> {
        let found = search(&self.connection, records);
        found.map_err(|error| self.shared.explain(&error))
    }
}

fn lost(why: String) -> PublishError {
    PublishError::Lost { commit: CommitState::NotAsked, why }
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
