//! The boundary to where records come from and go to. Two real sides: Kafka, and topics as tables of an embedded
//! database. Invariant: a publication becomes visible as a whole, with its offsets and their metadata, or not at all.
//!
//! A `Source` is owned by the reader, a `Sink` by the publisher. Their calls may block, but none for much longer than a
//! `SLICE`: what is not decided by then is asked for again.

#[doc(hidden)]
pub mod contract;
pub mod waiting;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sagahost_wire::{Outgoing, Partition, Record, TopicId};

/// Where to read a partition from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub partition: Partition,
    /// The next record to read.
    pub position: i64,
    /// Offset and timestamp of the last record that was handled, where known: if the record there has another
    /// timestamp now, the topic was recreated.
    pub last: Option<(i64, u64)>,
    /// The topic that the position belongs to. None: not known, whichever topic has the name.
    pub topic_id: Option<TopicId>,
}

impl Assignment {
    /// Nothing is known of what was handled before.
    pub fn new(partition: Partition, position: i64) -> Self {
        Self { partition, position, last: None, topic_id: None }
    }
}

/// What was delivered of a partition up to an offset (exclusive) came from this topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub partition: Partition,
    /// `CERTAIN`: a source that cannot read from another topic by mistake.
    pub up_to: i64,
    pub topic_id: TopicId,
}

impl Verified {
    pub const CERTAIN: i64 = i64::MAX;
}

/// What a poll brings.
#[derive(Debug)]
pub enum Polled {
    Record(Record),
    /// All records of the partition up to this offset (exclusive) have been delivered.
    End(Partition, i64),
    /// Which topic the records before this came from. From the first one on, a position of the partition counts only
    /// as far as it is verified. Partitions of topics without an id are never verified.
    Verified(Vec<Verified>),
    /// The partition is not read any more until an operator acts; the others are. `why` is for the operator and says
    /// what to do.
    Held {
        partition: Partition,
        why: String,
    },
    /// More partitions exist than were assigned.
    Appeared(Vec<Partition>),
    /// The broker cannot be reached; `Back` follows. Reading continues by itself.
    Away(String),
    Back,
}

/// What a poll brought, in order.
#[derive(Debug, Default)]
pub struct Polls {
    pub items: Vec<Polled>,
    /// Where nothing was brought: poll again within this, although nobody rings. None: the ring tells everything.
    pub within: Option<Duration>,
}

/// Called from any thread; it does not wait.
pub type Ring = Arc<dyn Fn() + Send + Sync>;

pub trait Source: Send {
    /// Rings when there may be something to poll since a poll that brought nothing. Set once, before anything is polled.
    fn on_ready(&mut self, ring: Ring);
    /// Replaces what is read. Each assignment is checked before its first record is delivered: another topic id, a
    /// position beyond the end, below the first record still kept, or a record recreated gives `Held`.
    fn assign(&mut self, assignments: &[Assignment]) -> Result<(), TransportError>;
    /// What is there, at most `max` of it, without waiting for more. A failure loses nothing of what was to be brought.
    fn poll(&mut self, max: usize) -> Result<Polls, TransportError>;
    /// Backpressure. Records already fetched of a paused partition are not delivered until it is resumed.
    fn pause(&mut self, partitions: &[Partition]) -> Result<(), TransportError>;
    fn resume(&mut self, partitions: &[Partition]) -> Result<(), TransportError>;
    /// Goes back: after a failed commit the records are delivered again.
    fn seek(&mut self, positions: &[(Partition, i64)]) -> Result<(), TransportError>;
}

/// Where an app begins to read that has never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    Earliest,
    Latest,
}

/// What is committed for a partition in the app's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    /// Empty after an operator's reset.
    pub metadata: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Answers at once, although a transaction may be pending: for the identity check.
    Uncommitted,
    /// Waits until a pending transaction is decided.
    Stable,
}

/// How long a call of a sink may take before it says that there is no answer yet. One that asks two things may take
/// twice as long.
pub const SLICE: Duration = Duration::from_secs(1);

/// When the time of a record is over, the client says so within this: it looks once a second, and may be busy.
pub const REPORTED_WITHIN: Duration = Duration::from_secs(3);

/// How far a call has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// Not decided, or turned down for the moment: the same call again. What it waits for is for messages.
    NotYet(String),
}

/// How long the same call may be repeated before its producer counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// `offsets`, and `send` with `poll` until everything is delivered.
    pub delivery: Duration,
    /// `end`.
    pub end: Duration,
}

/// The way out. A transaction is `begin`, `offsets`, `send` and `poll`, then `end`, or `abort` at any moment: each
/// says how far it has come and what a failure means; what is done about it is the caller's to decide.
pub trait Sink: Send {
    /// `TransportError::Away`: not yet.
    fn committed(
        &mut self,
        partitions: &[Partition],
        isolation: Isolation,
    ) -> Result<BTreeMap<Partition, Committed>, TransportError>;
    /// Ends dangling transactions of this app and fences whoever published for it before (`init_transactions`).
    /// Whatever this sink had open is given up. `TransportError::Away`: not yet; the next call continues it.
    fn claim(&mut self) -> Result<(), TransportError>;
    fn patience(&self) -> Patience;
    /// A new transaction; the one before has ended or is aborted.
    fn begin(&mut self) -> Result<(), SinkError>;
    /// Next offsets to read, with the metadata of each. Once in a transaction, before its records; never empty: the
    /// anchor at least.
    fn offsets(&mut self, offsets: &[(Partition, i64)], metadata: &str) -> Result<Progress, SinkError>;
    /// Hands records over. Returns how many were taken: where it is not all, `poll` before the rest is sent.
    fn send(&mut self, records: &[Outgoing]) -> Result<usize, SinkError>;
    /// Done: everything that was sent is delivered.
    fn poll(&mut self) -> Result<Progress, SinkError>;
    /// Commits. Only when everything is delivered. Until it is done nobody knows whether it is committed.
    fn end(&mut self) -> Result<Progress, SinkError>;
    /// Done: nothing of the transaction is visible, or ever will be.
    fn abort(&mut self) -> Result<Progress, SinkError>;
    /// Was the publication of these records, none of them tried before `since_ms`, committed? For when the committed
    /// offsets no longer say. Only after a claim: from then on none of the app's transactions is undecided. None: not
    /// yet; the same question again.
    fn search(&mut self, records: &[&Outgoing], since_ms: u64) -> Result<Option<Found>, TransportError>;
}

/// What the topics say of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Committed,
    /// Nothing of it was committed.
    Absent,
    /// The topics do not say any more, and why.
    Unclear(String),
}

/// What a failed call means for its transaction.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The broker will never take this record as it is (too large, no permission, topic gone). `index`: among those sent
    /// in this transaction. It can only be aborted.
    #[error("record {index} was refused: {why}")]
    Refused { index: usize, why: String },
    /// The broker refuses something that was sent, and does not say what. It can only be aborted.
    #[error("refused: {why}")]
    Unclear {
        /// It was too large, perhaps only as one request with others.
        size: bool,
        why: String,
    },
    /// It can only be aborted; then the same producer can try the same again.
    #[error("the transaction is to be aborted: {0}")]
    Spoilt(String),
    /// The producer is unusable, or cannot reach the broker: a claim makes a new one.
    #[error("{0}")]
    Spent(String),
    /// Another producer claimed the app's transactional id, or the client's own transaction timed out: claim nothing,
    /// read the committed offsets first.
    #[error("fenced by another producer with the same transactional id: {0}")]
    Fenced(String),
}

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Passing: the same call again later.
    #[error("{0}")]
    Away(String),
    /// Needs a person: wrong credentials, no permission, wrong configuration. The text says what to do.
    #[error("{0}")]
    Refused(String),
    #[error("fenced by another producer with the same transactional id: {0}")]
    Fenced(String),
    #[error("{0}")]
    Broken(String),
}

/// A partition that an open transaction keeps from being read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unstable {
    pub partition: Partition,
    /// The first offset that cannot be read.
    pub stable: i64,
    pub end: i64,
}

/// Partition counts of topics that exist, by name.
pub type Topics = BTreeMap<Arc<str>, i32>;

pub trait Transport: Send + Sync {
    /// For logs: `kafka at 127.0.0.1:9092`, `embedded topics in data/topics.db`.
    fn describe(&self) -> String;
    /// Of the topics asked for, those that exist.
    fn topics(&self, names: &[Arc<str>]) -> Result<Topics, TransportError>;
    /// Of the topics asked for, those that exist and have an id. Where a position is taken from the topic's bounds, the
    /// id is asked for first: then a topic that is recreated in between is noticed.
    fn topic_ids(&self, names: &[Arc<str>]) -> Result<BTreeMap<Arc<str>, TopicId>, TransportError>;
    fn create_topics(&self, names: &[Arc<str>], partitions: i32) -> Result<(), TransportError>;
    /// The command that makes a missing topic, for messages.
    fn create_command(&self, topic: &str) -> String;
    /// First offset still kept, and the end (exclusive), of each partition.
    fn bounds(&self, partitions: &[Partition]) -> Result<BTreeMap<Partition, (i64, i64)>, TransportError>;
    /// Of these partitions, those with records that cannot be read yet, since a transaction is open in front of them.
    fn unstable(&self, partitions: &[Partition]) -> Result<Vec<Unstable>, TransportError>;
    /// How to find out whose transaction is open, for messages.
    fn find_producers(&self, partition: &Partition) -> String;
    fn source(&self) -> Result<Box<dyn Source>, TransportError>;
    fn sink(&self) -> Result<Box<dyn Sink>, TransportError>;
    /// Publishes one record outside of any batch (`sagahost emit`); returns where it stands.
    fn offer(&self, record: &Outgoing) -> Result<(Partition, i64), TransportError>;
}
