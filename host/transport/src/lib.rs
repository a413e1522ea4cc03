//! The boundary to where records come from and go to. Two real sides: Kafka, and topics as tables of an embedded
//! database. Invariant: a publication becomes visible as a whole, with its offsets and their metadata, or not at all.
//!
//! A `Source` is owned by the poll thread, a `Sink` by the publisher; both block.

#[doc(hidden)]
pub mod contract;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sagahost_wire::{Outgoing, Partition, Record, TopicId};

/// Where to read a partition from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub partition: Partition,
    /// The next record to read.
    pub position: i64,
    /// Offset and timestamp of the last record that was handled, where known: if the record there has another
    /// timestamp now, the topic was made anew.
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
    /// The partition is not read any more until somebody acts; the others are. `why` is for the operator and says
    /// what to do.
    Held {
        partition: Partition,
        why: String,
    },
    /// More partitions exist than were assigned.
    Appeared(Vec<Partition>),
    /// The broker cannot be reached; `Back` follows. Reading goes on by itself.
    Away(String),
    Back,
    /// Nothing came within the timeout.
    Nothing,
}

pub trait Source: Send {
    /// Replaces what is read. Each assignment is checked before its first record is delivered: another topic id, a
    /// position beyond the end, below the first record still kept, or a record made anew gives `Held`.
    fn assign(&mut self, assignments: &[Assignment]) -> Result<(), TransportError>;
    fn poll(&mut self, timeout: Duration) -> Result<Polled, TransportError>;
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

/// One batch on its way out.
#[derive(Clone, Debug)]
pub struct Publication<'a> {
    pub records: &'a [Outgoing],
    /// Next offsets to read. Never empty: the anchor at least.
    pub offsets: &'a [(Partition, i64)],
    /// Of every offset of this publication: `journal/incarnation/batch`.
    pub metadata: &'a str,
}

pub trait Sink: Send {
    fn committed(
        &mut self,
        partitions: &[Partition],
        isolation: Isolation,
    ) -> Result<BTreeMap<Partition, Committed>, TransportError>;
    /// Ends dangling transactions of this app and fences whoever published for it before (`init_transactions`).
    fn claim(&mut self) -> Result<(), TransportError>;
    /// Publishes as one unit. Blocks until it is decided, or returns why it is not.
    fn publish(&mut self, publication: &Publication<'_>) -> Result<(), PublishError>;
    /// Was the publication of these records, none of them tried before `since_ms`, committed? For when the committed
    /// offsets no longer say. Only after a claim: from then on none of the app's transactions is undecided.
    fn search(&mut self, records: &[&Outgoing], since_ms: u64) -> Result<Found, TransportError>;
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

/// How far a publication that failed had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitState {
    /// Nothing of it is visible, and nothing ever will be.
    NotAsked,
    /// It may have been committed: only the committed offsets know.
    Asked,
}

/// How a publication failed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker will never take this record as it is (too large, no permission, topic gone). Aborted.
    #[error("record {index} for topic {topic} was refused: {why}")]
    Refused { index: usize, topic: Arc<str>, why: String },
    /// Aborted; the same publication may be tried again at once.
    #[error("the publication was aborted: {0}")]
    Aborted(String),
    /// The producer is spent, or the broker cannot be reached. A claim makes a new one.
    #[error("{why}")]
    Lost { commit: CommitState, why: String },
    /// Somebody else claimed the app's transactional id, or the client's own transaction timed out: claim nothing,
    /// read the committed offsets first.
    #[error("fenced by another producer with the same transactional id: {why}")]
    Fenced { commit: CommitState, why: String },
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
    /// id is asked for first: then a topic made anew in between is noticed.
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
