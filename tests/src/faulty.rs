//! Decorators that break a real journal and a real transport at a chosen durable step, before or after it happened.
//! From then on everything fails, as for a process that is dead.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use sagahost_journal::*;
use sagahost_saga::{
    history::Entry,
    id::{Participant, SagaId, Time},
    input::{Command, Status},
};
use sagahost_transport::*;
use sagahost_wire::{BatchNo, Epoch, Outgoing, Partition, Position, StoredLetter, TopicId};

/// Where the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    BeforeCommit,
    AfterCommit,
    BeforePublish,
    AfterPublish,
    BeforeConfirm,
    AfterConfirm,
}

pub const POINTS: [Point; 6] = [
    Point::BeforeCommit,
    Point::AfterCommit,
    Point::BeforePublish,
    Point::AfterPublish,
    Point::BeforeConfirm,
    Point::AfterConfirm,
];

/// Dies the N-th time that its point is reached.
pub struct Death {
    point: Point,
    left: AtomicI64,
    dead: AtomicBool,
    /// So many changes of plugins are refused; nothing dies of it.
    refused: AtomicI64,
    /// So many commits of batches with records go through and say that they failed; nothing dies of it.
    lies: AtomicI64,
}

impl Death {
    pub fn at(point: Point, time: i64) -> Arc<Self> {
        let none = || AtomicI64::new(0);
        let (dead, left) = (AtomicBool::new(false), AtomicI64::new(time));
        Arc::new(Self { point, left, dead, refused: none(), lies: none() })
    }
    pub fn never() -> Arc<Self> {
        Self::at(Point::BeforeCommit, i64::MAX)
    }
    pub fn refuse_plugins(&self, times: i64) {
        self.refused.store(times, Ordering::SeqCst);
    }
    pub fn refusals_left(&self) -> i64 {
        self.refused.load(Ordering::SeqCst)
    }
    pub fn lie_about_commits(&self, times: i64) {
        self.lies.store(times, Ordering::SeqCst);
    }
    pub fn lies_left(&self) -> i64 {
        self.lies.load(Ordering::SeqCst)
    }
    /// Takes one, if there is one left.
    fn one_of(left: &AtomicI64) -> bool {
        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| (left > 0).then(|| left - 1)).is_ok()
    }
    pub fn dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
    fn reached(&self, point: Point) -> bool {
        if point == self.point && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.dead.store(true, Ordering::SeqCst);
        }
        self.dead()
    }
}

fn failed() -> JournalError {
    JournalError::Failed("the process is dead".to_owned())
}

pub struct FaultyJournal {
    pub inner: Arc<dyn Journal>,
    pub death: Arc<Death>,
}

macro_rules! calls {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> Result<$out, JournalError> {
            if self.death.dead() { Err(failed()) } else { self.inner.$name($($arg),*) }
        })*
    };
}

impl Journal for FaultyJournal {
    fn identity(&self) -> Identity {
        self.inner.identity()
    }
    sagahost_journal::journal_reads!(calls);
    sagahost_journal::journal_writes!(calls);
    fn commit(&self, epoch: Epoch, batch: &BatchWrite) -> Result<CommitAnswer, JournalError> {
        if self.death.reached(Point::BeforeCommit) {
            return Err(failed());
        }
        let committed = self.inner.commit(epoch, batch)?;
        let lies = !batch.outbox.is_empty() && Death::one_of(&self.death.lies);
        if self.death.reached(Point::AfterCommit) || lies { Ok(CommitAnswer::Unknown(failed())) } else { Ok(committed) }
    }
    fn confirm(&self, epoch: Epoch, up_to: BatchNo) -> Result<(), JournalError> {
        if self.death.reached(Point::BeforeConfirm) {
            return Err(failed());
        }
        self.inner.confirm(epoch, up_to)?;
        if self.death.reached(Point::AfterConfirm) { Err(failed()) } else { Ok(()) }
    }
    fn change_plugins(&self, epoch: Epoch, write: &PluginWrite) -> Result<(), JournalError> {
        if self.death.dead() || Death::one_of(&self.death.refused) {
            Err(failed())
        } else {
            self.inner.change_plugins(epoch, write)
        }
    }
    fn close(&self) -> Result<(), JournalError> {
        self.inner.close()
    }
}

pub struct FaultyTransport {
    pub inner: Arc<dyn Transport>,
    pub death: Arc<Death>,
}

struct FaultySink {
    inner: Box<dyn Sink>,
    death: Arc<Death>,
}

fn away() -> TransportError {
    TransportError::Away("the process is dead".to_owned())
}

fn spent() -> SinkError {
    SinkError::Spent("the process is dead".to_owned())
}

impl FaultySink {
    fn alive<E>(&self, dead: impl FnOnce() -> E) -> Result<(), E> {
        if self.death.dead() { Err(dead()) } else { Ok(()) }
    }
}

impl Sink for FaultySink {
    fn committed(
        &mut self,
        partitions: &[Partition],
        isolation: Isolation,
    ) -> Result<BTreeMap<Partition, Committed>, TransportError> {
        self.alive(away)?;
        self.inner.committed(partitions, isolation)
    }
    fn claim(&mut self) -> Result<(), TransportError> {
        self.alive(away)?;
        self.inner.claim()
    }
    fn patience(&self) -> Patience {
        self.inner.patience()
    }
    fn begin(&mut self) -> Result<(), SinkError> {
        self.alive(spent)?;
        self.inner.begin()
    }
    fn offsets(&mut self, offsets: &[(Partition, i64)], metadata: &str) -> Result<Progress, SinkError> {
        self.alive(spent)?;
        self.inner.offsets(offsets, metadata)
    }
    fn send(&mut self, records: &[Outgoing]) -> Result<usize, SinkError> {
        self.alive(spent)?;
        self.inner.send(records)
    }
    fn poll(&mut self) -> Result<Progress, SinkError> {
        self.alive(spent)?;
        self.inner.poll()
    }
    fn end(&mut self) -> Result<Progress, SinkError> {
        if self.death.reached(Point::BeforePublish) {
            return Err(spent());
        }
        let ended = self.inner.end()?;
        if self.death.reached(Point::AfterPublish) {
            return Err(spent());
        }
        Ok(ended)
    }
    fn abort(&mut self) -> Result<Progress, SinkError> {
        self.alive(spent)?;
        self.inner.abort()
    }
    fn search(&mut self, records: &[&Outgoing], since_ms: u64) -> Result<Option<Found>, TransportError> {
        self.alive(away)?;
        self.inner.search(records, since_ms)
    }
}

impl Transport for FaultyTransport {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn topics(&self, names: &[Arc<str>]) -> Result<Topics, TransportError> {
        self.inner.topics(names)
    }
    fn topic_ids(&self, names: &[Arc<str>]) -> Result<BTreeMap<Arc<str>, TopicId>, TransportError> {
        self.inner.topic_ids(names)
    }
    fn create_topics(&self, names: &[Arc<str>], partitions: i32) -> Result<(), TransportError> {
        self.inner.create_topics(names, partitions)
    }
    fn create_command(&self, topic: &str) -> String {
        self.inner.create_command(topic)
    }
    fn bounds(&self, partitions: &[Partition]) -> Result<BTreeMap<Partition, (i64, i64)>, TransportError> {
        self.inner.bounds(partitions)
    }
    fn unstable(&self, partitions: &[Partition]) -> Result<Vec<Unstable>, TransportError> {
        self.inner.unstable(partitions)
    }
    fn find_producers(&self, partition: &Partition) -> String {
        self.inner.find_producers(partition)
    }
    fn source(&self) -> Result<Box<dyn Source>, TransportError> {
        self.inner.source()
    }
    fn sink(&self) -> Result<Box<dyn Sink>, TransportError> {
        Ok(Box::new(FaultySink { inner: self.inner.sink()?, death: self.death.clone() }))
    }
    fn offer(&self, record: &Outgoing) -> Result<(Partition, i64), TransportError> {
        self.inner.offer(record)
    }
}
