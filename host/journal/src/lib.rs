//! The durable truth of one app. Invariant: a batch is in the journal as a whole or not at all, and only its owner
//! (by epoch) can write.

#[doc(hidden)]
pub mod contract;
mod decorate;
pub mod requests;
pub mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sagahost_manifest::Manifest;
pub use sagahost_manifest::host_calls::{PageBounds, PageFill, entry_bytes};
use sagahost_saga::{
    history::Entry,
    id::{Participant, SagaId, Time},
    input::{Command, Status, Wake},
};
use sagahost_wire::{BatchNo, Epoch, Generation, Outgoing, Partition, Position, StoredLetter, StreamNo};
use serde::{Deserialize, Serialize};

pub use values::{
    CommitAnswer, Contended, CounterWrite, Name, Seen, Stale, StoreEntry, StorePage, StoreValue, Version,
};

/// Integer key of a saga, in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SagaKey(pub i64);

/// What the journal says of the stream that its owner writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub journal: Arc<str>,
    pub app: Arc<str>,
    pub stream: StreamNo,
    pub incarnation: Arc<str>,
    pub epoch: Epoch,
    /// Last batch journaled, by anybody.
    pub last_batch: BatchNo,
    /// Highest batch known published.
    pub confirmed: BatchNo,
    /// The partition whose committed offset always carries the newest batch.
    pub anchor: Option<Partition>,
}

/// A saga's row. `bytes` is the saga crate's format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaRow {
    pub key: SagaKey,
    pub bytes: Arc<[u8]>,
}

/// How a saga changes in a batch.
#[derive(Clone, Debug)]
pub struct SagaWrite {
    pub id: SagaId,
    /// None: it has no row yet.
    pub key: Option<SagaKey>,
    pub bytes: Vec<u8>,
    pub status: Status,
    pub wake: Wake,
    pub notes: Vec<(String, String)>,
    pub updated: Time,
    pub spilled_events: Vec<([u8; 16], [u8; 16])>,
    pub spilled_history: Vec<Entry>,
    /// Plugins that it may still need.
    pub digests: BTreeSet<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "letters are rare, and most of them are opened")]
pub enum LetterWrite {
    Open(StoredLetter),
    Close { key: String, how: String, at: Time },
}

/// Which dead letters may go, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterRetention {
    /// Those that were closed before this time.
    pub closed_before: Time,
    /// Open ones of records that could not be decoded: from before this time,
    pub undecodable_before: Time,
    /// or beyond this many,
    pub undecodable_max: u64,
    /// or beyond so many bytes of their records.
    pub undecodable_bytes_max: u64,
}

/// Letters of records that could not be decoded, and are gone although nobody closed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedLetters {
    pub code: String,
    pub letters: u64,
    pub bytes: u64,
    /// When the last one went.
    pub last: Time,
}

/// What one removal of letters did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterRemoval {
    /// Closed ones.
    pub closed: usize,
    pub undecodable: Vec<RemovedLetters>,
}

/// Everything that one batch makes durable.
#[derive(Clone, Debug, Default)]
pub struct BatchWrite {
    pub number: BatchNo,
    pub at: Time,
    pub sagas: Vec<SagaWrite>,
    /// None: deleted.
    pub store: BTreeMap<Name, Option<Arc<[u8]>>>,
    /// Keys that its chains read, with the version that the journal must have. None: there must be no such key.
    pub store_read: BTreeMap<Name, Option<Version>>,
    pub counters: BTreeMap<Name, CounterWrite>,
    pub letters: Vec<LetterWrite>,
    pub positions: BTreeMap<Partition, Position>,
    pub outbox: Vec<Outgoing>,
    /// Commands of the durable mailbox that this batch has taken in.
    pub commands_done: Vec<i64>,
    /// Highest batch known published when this one sealed.
    pub confirmed: BatchNo,
}

/// A batch in the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxBatch {
    pub number: BatchNo,
    /// Who journaled it.
    pub incarnation: Arc<str>,
    pub records: Vec<Outgoing>,
    /// Positions of the partitions that it moved.
    pub positions: BTreeMap<Partition, Position>,
    /// Rows that stay out, by an operator's word or since the broker refuses a dead letter's copy, with the reason.
    pub skipped: BTreeMap<usize, String>,
    /// Dead letters' copies that go out without their value, with the reason.
    pub valueless: BTreeMap<usize, String>,
    /// When its first chain ended: it was published no earlier.
    pub at: Time,
}

/// What of a row in the outbox stays out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    Row,
    Value,
}

/// What the journal knows of publication beside the batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublicationNotes {
    /// This batch, and so all behind it, is known not to be out: its last attempt failed before the commit.
    pub not_out: Option<BatchNo>,
    /// When all committed offsets are to be renewed.
    pub touch_due: Option<Time>,
}

/// A participant that was admitted once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmittedRow {
    pub participant: Participant,
    pub digest: Arc<str>,
    /// The manifest as JSON.
    pub manifest: String,
    pub admitted: Time,
    /// From which on its subscriptions take events. (A host before generations wrote the number of a batch, which is
    /// lower than any generation that follows.)
    pub since: Generation,
    /// It serves, or would if its file were there; false for all versions of a participant that is retired.
    pub serving: bool,
    /// Why this version was taken out of service.
    pub quarantined: Option<String>,
    /// Where its file stood; empty: it is away.
    pub file: String,
    /// Hash of the configuration that it served with last.
    pub config: Arc<str>,
}

impl AdmittedRow {
    /// Its file was gone when a host last looked.
    pub fn away(&self) -> bool {
        self.file.is_empty()
    }

    /// None: another version of the host wrote it.
    pub fn manifest(&self) -> Option<Manifest> {
        serde_json::from_str(&self.manifest).ok()
    }

    /// Something was done to this version.
    pub fn history_entry(&self, at: Time, what: impl Into<String>) -> PluginHistoryEntry {
        PluginHistoryEntry {
            participant: self.participant.clone(),
            at,
            digest: self.digest.clone(),
            config: self.config.clone(),
            what: what.into(),
        }
    }
}

/// What changes about plugins at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginWrite {
    pub admitted: Vec<AdmittedRow>,
    /// A version (participant, digest) is taken out of service, or (None) may serve again.
    pub quarantined: Vec<(Participant, Arc<str>, Option<String>)>,
    /// A participant is paused, or (None) resumed.
    pub paused: Vec<(Participant, Option<String>)>,
    /// Versions (participant, digest) that are no longer known; not those that serve or are in quarantine.
    pub forgotten: Vec<(Participant, Arc<str>)>,
    pub history: Vec<PluginHistoryEntry>,
}

/// What was done to a plugin: `serves in place of 1.2.0`, `paused by ann: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginHistoryEntry {
    pub participant: Participant,
    pub at: Time,
    pub digest: Arc<str>,
    /// Hash of the configuration.
    pub config: Arc<str>,
    pub what: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedCommand {
    pub id: i64,
    pub saga: SagaId,
    pub command: Command,
}

#[derive(Clone, Debug, Default)]
pub struct SagaFilter {
    pub status: Option<Status>,
    /// Note name and value.
    pub notes: Vec<(String, String)>,
    /// Newest first; continue below this key.
    pub before: Option<SagaKey>,
    pub limit: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaListRow {
    pub key: SagaKey,
    pub id: SagaId,
    pub status: Status,
    pub updated: Time,
    pub notes: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default)]
pub struct LetterFilter {
    pub saga: Option<SagaId>,
    pub code: Option<String>,
    pub participant: Option<Participant>,
    pub open_only: bool,
    pub limit: usize,
    pub offset: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    #[error("the journal belongs to a newer owner (epoch {newest:?}, this host has {ours:?})")]
    StaleEpoch { newest: Epoch, ours: Epoch },
    #[error("the disk is full: {0}")]
    DiskFull(String),
    #[error("the journal is corrupt: {0}")]
    Corrupt(String),
    /// Another process holds it. The text says which, and what to do.
    #[error("{0}")]
    InUse(String),
    /// Cannot be opened: of another app, of a newer version. The text says what to do.
    #[error("{0}")]
    Unusable(String),
    #[error("{0}")]
    Failed(String),
}

/// Reads are answered from what is committed, from any thread. Writes take the owner's epoch.
pub trait Journal: Send + Sync {
    fn identity(&self) -> Identity;
    /// The identity as it is kept, for after a write whose end is not known: a commit that reported a failure may have
    /// gone through.
    ///
    /// # Errors
    /// `StaleEpoch` where another owner has taken the journal over.
    fn reread(&self) -> Result<Identity, JournalError>;

    fn saga(&self, id: &SagaId) -> Result<Option<SagaRow>, JournalError>;
    /// The data hash of a known event that was spilled.
    fn spilled_event(&self, saga: SagaKey, event: [u8; 16]) -> Result<Option<[u8; 16]>, JournalError>;
    /// Entries that were spilled, oldest first, from that place on; at most `limit`.
    fn spilled_history(&self, saga: SagaKey, from: u64, limit: usize) -> Result<Vec<Entry>, JournalError>;
    fn store_get(&self, participant: &Participant, key: &str) -> Result<Option<StoreValue>, JournalError>;
    /// Keys that begin with `prefix` and are above `after`, in byte order. No more than one value beyond the bounds is
    /// read.
    fn store_scan(
        &self,
        participant: &Participant,
        prefix: &str,
        after: Option<&str>,
        bounds: PageBounds,
    ) -> Result<StorePage, JournalError>;
    fn counter(&self, participant: &Participant, name: &str) -> Result<Option<i64>, JournalError>;
    fn counters(&self, participant: Option<&Participant>) -> Result<Vec<(Participant, String, i64)>, JournalError>;

    /// Sagas with a retry or delayed emission due by `now`, earliest first.
    fn due(&self, now: Time, limit: usize) -> Result<Vec<(Time, SagaId)>, JournalError>;
    /// Sagas with a deadline or park expiry due by `now`.
    fn deadlines(&self, now: Time, limit: usize) -> Result<Vec<(Time, SagaId)>, JournalError>;
    /// Earliest of each, for sleeping.
    fn next_due(&self) -> Result<(Option<Time>, Option<Time>), JournalError>;
    /// Sagas with something parked for a plugin that is away, above `after`.
    fn parked_sagas(&self, after: SagaKey, limit: usize) -> Result<Vec<(SagaKey, SagaId)>, JournalError>;
    /// Sagas with a call whose end is not known.
    fn in_doubt(&self, after: SagaKey, limit: usize) -> Result<Vec<(SagaKey, SagaId)>, JournalError>;
    fn sagas(&self, filter: &SagaFilter) -> Result<Vec<SagaListRow>, JournalError>;
    fn count_by_status(&self) -> Result<Vec<(Status, u64)>, JournalError>;

    fn letters(&self, filter: &LetterFilter) -> Result<Vec<StoredLetter>, JournalError>;
    fn letter(&self, key: &str) -> Result<Option<StoredLetter>, JournalError>;
    /// (code, participant, open count), most first.
    fn letter_groups(&self) -> Result<Vec<(String, Option<Participant>, u64)>, JournalError>;
    /// Letters that went without being closed since there is this journal, by code.
    fn removed_letters(&self) -> Result<Vec<RemovedLetters>, JournalError>;

    fn positions(&self) -> Result<BTreeMap<Partition, Position>, JournalError>;
    /// Batches above `above`, in order.
    fn outbox(&self, above: BatchNo, limit: usize) -> Result<Vec<OutboxBatch>, JournalError>;
    fn publication_notes(&self) -> Result<PublicationNotes, JournalError>;
    /// Who journaled a batch; None where the journal holds no such batch any more.
    fn batch_incarnation(&self, number: BatchNo) -> Result<Option<Arc<str>>, JournalError>;
    fn admitted(&self) -> Result<Vec<AdmittedRow>, JournalError>;
    /// Participants that an operator paused, with the reason.
    fn paused(&self) -> Result<BTreeMap<Participant, String>, JournalError>;
    /// The newest first; older ones than a few hundred are gone.
    fn plugin_history(&self, participant: &Participant, limit: usize) -> Result<Vec<PluginHistoryEntry>, JournalError>;
    fn queued_commands(&self) -> Result<Vec<QueuedCommand>, JournalError>;
    /// Digests that unfinished sagas may still need, and how many of them.
    fn referenced_digests(&self) -> Result<BTreeMap<Arc<str>, u64>, JournalError>;

    /// One transaction.
    ///
    /// # Errors
    /// Nothing of it is written.
    fn commit(&self, epoch: Epoch, batch: &BatchWrite) -> Result<CommitAnswer, JournalError>;
    /// Outside of the numbering: batches up to this one are published; their outbox rows go.
    fn confirm(&self, epoch: Epoch, up_to: BatchNo) -> Result<(), JournalError>;
    fn set_anchor(&self, epoch: Epoch, anchor: &Partition) -> Result<(), JournalError>;
    /// An operator has a partition read from elsewhere.
    fn set_position(&self, epoch: Epoch, partition: &Partition, position: &Position) -> Result<(), JournalError>;
    /// The deliberate way on after a refused start: a new journal id, as if the journal were new; outbox rows above
    /// `confirmed` stay.
    fn new_lineage(&self, epoch: Epoch) -> Result<Identity, JournalError>;
    /// All of it, or nothing: a set of plugins that belong together is never journaled in part.
    fn change_plugins(&self, epoch: Epoch, write: &PluginWrite) -> Result<(), JournalError>;
    /// Journaled before the rest of the batch goes out.
    fn leave_out(
        &self,
        epoch: Epoch,
        batch: BatchNo,
        index: usize,
        what: LeftOut,
        reason: &str,
    ) -> Result<(), JournalError>;
    /// None before the batch is tried again: from then on it may be out.
    fn set_not_out(&self, epoch: Epoch, batch: Option<BatchNo>) -> Result<(), JournalError>;
    fn set_touch_due(&self, epoch: Epoch, due: Time) -> Result<(), JournalError>;
    fn queue_command(&self, saga: &SagaId, command: &Command) -> Result<i64, JournalError>;
    /// Quarantines one saga whose record cannot be used; its record stays as it is for analysis.
    fn quarantine(&self, epoch: Epoch, id: &SagaId, why: &str) -> Result<(), JournalError>;
    /// The way back: the saga's row says again what it said before.
    fn release(&self, epoch: Epoch, id: &SagaId) -> Result<(), JournalError>;
    fn quarantined(&self, id: &SagaId) -> Result<Option<String>, JournalError>;
    /// Removes finished sagas whose retention is over, each with what it was asked over HTTP ([`requests`]), at most `limit`;
    /// returns how many.
    fn remove_finished(&self, epoch: Epoch, now: Time, limit: usize) -> Result<usize, JournalError>;
    /// Removes dead letters that may go, at most `limit` of each sort. Closed ones of a saga go with it at the latest. An
    /// open one is removed only where its record could not be decoded, and never while the saga that it names is in the
    /// journal and has not ended. What went without being closed is counted in the same transaction.
    fn remove_letters(
        &self,
        epoch: Epoch,
        now: Time,
        may_go: &LetterRetention,
        limit: usize,
    ) -> Result<LetterRemoval, JournalError>;
    /// Closes the handle in good order (checkpoint).
    fn close(&self) -> Result<(), JournalError>;
}
