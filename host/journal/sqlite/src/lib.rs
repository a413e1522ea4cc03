//! The journal in SQLite: one file, one owner. Invariant: every write is one transaction that began by checking the
//! owner's epoch; whatever fails leaves the journal as it was.
//!
//! Sagas lie in order of arrival and are found through a hash of their id; a batch's outbox is one cell. That is several
//! times faster than rows clustered by random ids (`cargo run --release -p sagahost-journal-sqlite --example journal_rate`).

mod batch;
mod connection;
mod data;
mod fault;
mod format;
mod head;
mod holder;
mod letter;
mod letter_removal;
mod outbox;
mod owner;
mod packed;
mod plugins;
mod removal;
mod saga;
mod saga_row;
mod schema;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rusqlite::{Connection, TransactionBehavior};
use sagahost_journal::{
    AdmittedRow, BatchWrite, CommitAnswer, Identity, Journal, JournalError, LeftOut, LetterFilter, LetterRemoval,
    LetterRetention, OutboxBatch, PageBounds, PluginHistoryEntry, PluginWrite, PublicationNotes, QueuedCommand,
    RemovedLetters, SagaFilter, SagaKey, SagaListRow, SagaRow, StorePage, StoreValue,
};
use sagahost_private as private;
use sagahost_saga::{
    history::Entry,
    id::{Participant, SagaId, Time},
    input::{Command, Status},
};
use sagahost_wire::{BatchNo, Epoch, Partition, Position, StoredLetter};

use self::{
    connection::{Readers, closed},
    fault::{Fault, Outcome, damaged, failed},
    head::Head,
    owner::OwnerLock,
};

/// The journal's file in the data directory.
pub const FILE: &str = "journal.db";

/// How a journal is opened; the default suits a host.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Opens although another owner holds the lock: the epoch alone fences it. For tests of exactly that.
    pub past_the_lock: bool,
    /// How long an owner that is ending may take to let go of the lock.
    pub lock_wait: Duration,
    /// Of the connection that writes.
    pub page_cache_bytes: usize,
    /// Of each that reads: with every batch SQLite forgets what it holds, and the system has the pages anyhow.
    pub reader_cache_bytes: usize,
    /// Readers kept for the next read; more are opened when more threads read at once.
    pub readers_max: usize,
    /// How long another program (a backup, a database shell) may hold the file before a write fails.
    pub busy_wait: Duration,
    /// The write-ahead log is moved into the file when it has this many pages of 4 KiB.
    pub wal_pages_max: u32,
    /// What the write-ahead log may keep on the disk after a burst.
    pub wal_bytes_kept: u32,
    /// A journal up to this size is verified as a whole when it is opened; a larger one as it is read.
    pub verify_bytes_max: u64,
    /// Fills with random bytes, for names of journals and of those who own them.
    pub random: Random,
}

/// Why there are none is said.
pub type Random = fn(&mut [u8]) -> Result<(), String>;

fn system_random(bytes: &mut [u8]) -> Result<(), String> {
    getrandom::fill(bytes).map_err(|error| error.to_string())
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            past_the_lock: false,
            lock_wait: Duration::from_secs(1),
            page_cache_bytes: 16 << 20,
            reader_cache_bytes: 2 << 20,
            readers_max: 8,
            busy_wait: Duration::from_secs(10),
            wal_pages_max: 4_000,
            wal_bytes_kept: 64 << 20,
            verify_bytes_max: 32 << 20,
            random: system_random,
        }
    }
}

/// One app's journal, owned by this process.
pub struct SqliteJournal {
    dir: PathBuf,
    hash: fn(&SagaId) -> i64,
    random: Random,
    identity: Mutex<Identity>,
    readers: Readers,
    /// None: closed. The lock goes after the connection.
    writer: Mutex<Option<(Connection, Option<OwnerLock>)>>,
}

impl SqliteJournal {
    /// Opens the journal in `dir`, or makes a new one, and takes it over: this handle is its newest owner from here on.
    pub fn open(dir: &Path, app: &str, options: OpenOptions) -> Result<Self, JournalError> {
        Self::open_with(dir, app, options, format::id_hash)
    }

    fn open_with(dir: &Path, app: &str, options: OpenOptions, hash: fn(&SagaId) -> i64) -> Result<Self, JournalError> {
        let unusable = |doing: &str, error: std::io::Error| {
            JournalError::Unusable(format!("the data directory {} cannot be {doing}: {error}", dir.display()))
        };
        private::make_dir(dir).map_err(|error| unusable("made", error))?;
        let lock = if options.past_the_lock { None } else { Some(OwnerLock::take(dir, options.lock_wait)?) };
        // SQLite follows no link on the way to the file.
        let file = dir.canonicalize().map_err(|error| unusable("found", error))?.join(FILE);
        let (conn, identity) = open_file(&file, app, &options).map_err(|fault| fault.told(dir))?;
        Ok(Self {
            dir: dir.to_owned(),
            hash,
            random: options.random,
            identity: Mutex::new(identity),
            readers: Readers::new(file, options),
            writer: Mutex::new(Some((conn, lock))),
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> Outcome<T>) -> Result<T, JournalError> {
        self.readers.with(read).map_err(|fault| fault.told(&self.dir))
    }

    /// One transaction: all of it or nothing.
    fn transact<T>(&self, write: impl FnOnce(&Connection) -> Outcome<T>) -> Outcome<T> {
        let mut writer = self.writer.lock();
        let transact = || -> Outcome<T> {
            let (conn, _) = writer.as_mut().ok_or_else(closed)?;
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let answer = write(&tx)?;
            tx.commit().map_err(fault::at_the_end)?;
            Ok(answer)
        };
        transact()
    }

    fn write<T>(&self, write: impl FnOnce(&Connection) -> Outcome<T>) -> Result<T, JournalError> {
        self.transact(write).map_err(|fault| fault.told(&self.dir))
    }

    /// As the owner with this epoch, or not at all. What the head says afterwards is what `identity` says.
    fn own<T>(
        &self,
        epoch: Epoch,
        write: impl FnOnce(&Connection, &mut Head) -> Outcome<T>,
    ) -> Result<T, JournalError> {
        self.transact_as(epoch, write).map_err(|fault| fault.told(&self.dir))
    }

    fn transact_as<T>(&self, epoch: Epoch, write: impl FnOnce(&Connection, &mut Head) -> Outcome<T>) -> Outcome<T> {
        let (answer, head) = self.transact(|conn| {
            let mut head = head::owned(conn, epoch)?;
            let answer = write(conn, &mut head)?;
            head::write(conn, &head)?;
            Ok((answer, head))
        })?;
        self.learn(&head);
        Ok(answer)
    }

    /// Another thread's write may have been learned first: both numbers only grow.
    fn learn(&self, head: &Head) -> Identity {
        let mut identity = self.identity.lock();
        identity.last_batch = identity.last_batch.max(head.last_batch);
        identity.confirmed = identity.confirmed.max(head.confirmed);
        identity.clone()
    }
}

fn open_file(file: &Path, app: &str, options: &OpenOptions) -> Outcome<(Connection, Identity)> {
    let name = file.display().to_string();
    let mut conn = connection::writer(file, options)?;
    verify(&conn, file, options)?;
    schema::prepare(&mut conn, &name)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let identity = head::claim(&tx, app, &name, options.random)?;
    tx.commit()?;
    sync_names(file)?;
    Ok((conn, identity))
}

/// SQLite makes what is in its files durable, this makes the files' names so.
fn sync_names(file: &Path) -> Outcome<()> {
    let dir = file.parent().unwrap_or(file);
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| failed(format!("{} cannot be synced: {error}", dir.display())))
}

fn verify(conn: &Connection, file: &Path, options: &OpenOptions) -> Outcome<()> {
    if std::fs::metadata(file).is_ok_and(|file| file.len() > options.verify_bytes_max) {
        return Ok(());
    }
    let found: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(damaged(file.parent().unwrap_or(file), &found).into()) }
}

impl Journal for SqliteJournal {
    fn identity(&self) -> Identity {
        self.identity.lock().clone()
    }
    fn reread(&self) -> Result<Identity, JournalError> {
        let ours = self.identity.lock().epoch;
        let head = self.read(|conn| head::owned(conn, ours))?;
        Ok(self.learn(&head))
    }

    fn saga(&self, id: &SagaId) -> Result<Option<SagaRow>, JournalError> {
        self.read(|conn| saga::find(conn, id, (self.hash)(id)))
    }
    fn spilled_event(&self, saga: SagaKey, event: [u8; 16]) -> Result<Option<[u8; 16]>, JournalError> {
        self.read(|conn| saga::spilled_event(conn, saga, event))
    }
    fn spilled_history(&self, saga: SagaKey, from: u64, limit: usize) -> Result<Vec<Entry>, JournalError> {
        self.read(|conn| saga::spilled_history(conn, saga, from, limit))
    }
    fn store_get(&self, participant: &Participant, key: &str) -> Result<Option<StoreValue>, JournalError> {
        self.read(|conn| data::get(conn, participant, key))
    }
    fn store_scan(
        &self,
        participant: &Participant,
        prefix: &str,
        after: Option<&str>,
        bounds: PageBounds,
    ) -> Result<StorePage, JournalError> {
        self.read(|conn| data::scan(conn, participant, prefix, after, bounds))
    }
    fn counter(&self, participant: &Participant, name: &str) -> Result<Option<i64>, JournalError> {
        self.read(|conn| data::counter(conn, participant, name))
    }
    fn counters(&self, participant: Option<&Participant>) -> Result<Vec<(Participant, String, i64)>, JournalError> {
        self.read(|conn| data::counters(conn, participant))
    }

    fn due(&self, now: Time, limit: usize) -> Result<Vec<(Time, SagaId)>, JournalError> {
        self.read(|conn| saga::due(conn, saga::Timer::Wake, now, limit))
    }
    fn deadlines(&self, now: Time, limit: usize) -> Result<Vec<(Time, SagaId)>, JournalError> {
        self.read(|conn| saga::due(conn, saga::Timer::Deadline, now, limit))
    }
    fn next_due(&self) -> Result<(Option<Time>, Option<Time>), JournalError> {
        self.read(saga::next_due)
    }
    fn parked_sagas(&self, after: SagaKey, limit: usize) -> Result<Vec<(SagaKey, SagaId)>, JournalError> {
        self.read(|conn| saga::marked(conn, saga::Mark::Parked, after, limit))
    }
    fn in_doubt(&self, after: SagaKey, limit: usize) -> Result<Vec<(SagaKey, SagaId)>, JournalError> {
        self.read(|conn| saga::marked(conn, saga::Mark::InDoubt, after, limit))
    }
    fn sagas(&self, filter: &SagaFilter) -> Result<Vec<SagaListRow>, JournalError> {
        self.read(|conn| saga::list(conn, filter))
    }
    fn count_by_status(&self) -> Result<Vec<(Status, u64)>, JournalError> {
        self.read(saga::count_by_status)
    }

    fn letters(&self, filter: &LetterFilter) -> Result<Vec<StoredLetter>, JournalError> {
        self.read(|conn| letter::list(conn, filter))
    }
    fn letter(&self, key: &str) -> Result<Option<StoredLetter>, JournalError> {
        self.read(|conn| letter::find(conn, key))
    }
    fn letter_groups(&self) -> Result<Vec<(String, Option<Participant>, u64)>, JournalError> {
        self.read(letter::groups)
    }
    fn removed_letters(&self) -> Result<Vec<RemovedLetters>, JournalError> {
        self.read(letter_removal::so_far)
    }

    fn positions(&self) -> Result<BTreeMap<Partition, Position>, JournalError> {
        self.read(data::positions)
    }
    fn outbox(&self, above: BatchNo, limit: usize) -> Result<Vec<OutboxBatch>, JournalError> {
        self.read(|conn| outbox::list(conn, above, limit))
    }
    fn publication_notes(&self) -> Result<PublicationNotes, JournalError> {
        self.read(head::notes)
    }
    fn batch_incarnation(&self, number: BatchNo) -> Result<Option<Arc<str>>, JournalError> {
        self.read(|conn| head::incarnation_of(conn, number))
    }
    fn admitted(&self) -> Result<Vec<AdmittedRow>, JournalError> {
        self.read(plugins::admitted)
    }
    fn paused(&self) -> Result<BTreeMap<Participant, String>, JournalError> {
        self.read(plugins::paused)
    }
    fn plugin_history(&self, participant: &Participant, limit: usize) -> Result<Vec<PluginHistoryEntry>, JournalError> {
        self.read(|conn| plugins::history(conn, participant, limit))
    }
    fn queued_commands(&self) -> Result<Vec<QueuedCommand>, JournalError> {
        self.read(data::queued)
    }
    fn referenced_digests(&self) -> Result<BTreeMap<Arc<str>, u64>, JournalError> {
        self.read(plugins::referenced)
    }

    fn commit(&self, epoch: Epoch, batch: &BatchWrite) -> Result<CommitAnswer, JournalError> {
        match self.transact_as(epoch, |conn, head| batch::write(conn, head, batch, self.hash)) {
            Ok(keys) => Ok(CommitAnswer::Done(keys)),
            Err(Fault::Conflict(lost)) => Ok(CommitAnswer::Conflict(lost)),
            Err(Fault::Unknown(error)) => Ok(CommitAnswer::Unknown(Fault::Unknown(error).told(&self.dir))),
            Err(fault) => Err(fault.told(&self.dir)),
        }
    }
    fn confirm(&self, epoch: Epoch, up_to: BatchNo) -> Result<(), JournalError> {
        self.own(epoch, |conn, head| outbox::confirm(conn, head, up_to))
    }
    fn set_anchor(&self, epoch: Epoch, anchor: &Partition) -> Result<(), JournalError> {
        self.own(epoch, |conn, _| head::set_anchor(conn, anchor))?;
        self.identity.lock().anchor = Some(anchor.clone());
        Ok(())
    }
    fn set_position(&self, epoch: Epoch, partition: &Partition, position: &Position) -> Result<(), JournalError> {
        self.own(epoch, |conn, _| batch::write_position(conn, partition, position))
    }
    fn new_lineage(&self, epoch: Epoch) -> Result<Identity, JournalError> {
        let journal = self.own(epoch, |conn, _| head::new_lineage(conn, self.random))?;
        let mut identity = self.identity.lock();
        identity.journal = journal;
        Ok(identity.clone())
    }
    fn change_plugins(&self, epoch: Epoch, write: &PluginWrite) -> Result<(), JournalError> {
        self.own(epoch, |conn, _| plugins::write(conn, write))
    }
    fn leave_out(
        &self,
        epoch: Epoch,
        batch: BatchNo,
        index: usize,
        what: LeftOut,
        reason: &str,
    ) -> Result<(), JournalError> {
        self.own(epoch, |conn, _| outbox::leave_out(conn, batch, index, what, reason))
    }
    fn set_not_out(&self, epoch: Epoch, batch: Option<BatchNo>) -> Result<(), JournalError> {
        self.own(epoch, |conn, _| head::set_not_out(conn, batch))
    }
    fn set_touch_due(&self, epoch: Epoch, due: Time) -> Result<(), JournalError> {
        self.own(epoch, |conn, _| head::set_touch_due(conn, due))
    }
    fn queue_command(&self, saga: &SagaId, command: &Command) -> Result<i64, JournalError> {
        self.write(|conn| data::queue(conn, saga, command))
    }
    fn quarantine(&self, epoch: Epoch, id: &SagaId, why: &str) -> Result<(), JournalError> {
        self.own(epoch, |conn, head| removal::quarantine(conn, head, id, (self.hash)(id), why))
    }
    fn release(&self, epoch: Epoch, id: &SagaId) -> Result<(), JournalError> {
        self.own(epoch, |conn, _| removal::release(conn, id, (self.hash)(id)))
    }
    fn quarantined(&self, id: &SagaId) -> Result<Option<String>, JournalError> {
        self.read(|conn| removal::quarantined(conn, id))
    }
    fn remove_finished(&self, epoch: Epoch, now: Time, limit: usize) -> Result<usize, JournalError> {
        self.own(epoch, |conn, _| removal::remove_finished(conn, now, limit))
    }
    fn remove_letters(
        &self,
        epoch: Epoch,
        now: Time,
        may_go: &LetterRetention,
        limit: usize,
    ) -> Result<LetterRemoval, JournalError> {
        self.own(epoch, |conn, _| letter_removal::remove(conn, now, may_go, limit, self.hash))
    }

    fn close(&self) -> Result<(), JournalError> {
        self.readers.close();
        let Some((conn, lock)) = self.writer.lock().take() else {
            return Ok(());
        };
        let told = |error: rusqlite::Error| Fault::from(error).told(&self.dir);
        // A reader that still runs keeps the log; the next opening takes it over.
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(told)?;
        conn.close().map_err(|(_, error)| told(error))?;
        drop(lock);
        Ok(())
    }
}
