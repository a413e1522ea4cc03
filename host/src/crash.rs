//! Named points at which the process can be made to end itself, for crash tests of the real binary: environment
//! variable `SAGAHOST_CRASH_AT=POINT` or `POINT:N` (the N-th time). With `SAGAHOST_STOP_AT` it stops there as SIGSTOP
//! does, and continues at SIGCONT. Invariant: without these variables a point does nothing.
//!
//! In the order in which a batch reaches them: `before-journal-commit`, `after-journal-commit` (the committer);
//! `before-offsets`, `after-offsets`, `before-produce`, `after-produce`, `before-end-of-transaction`,
//! `after-end-of-transaction` (a Kafka transaction, `Pointed`; the first one of an app is that of its first start);
//! `before-confirm`, `after-confirm` (the committer, when it has nothing else to write). When plugins change:
//! `plugins-admitted`, `plugin-positions`, `plugin-stored` (each; a start stores, too), `plugins-journaled`,
//! `plugins-switched`.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use sagahost_transport::{
    Committed, Found, Isolation, Patience, Progress, Sink, SinkError, Source, Topics, Transport, TransportError,
    Unstable,
};
use sagahost_wire::{Outgoing, Partition, TopicId};

struct Plan {
    point: String,
    times: AtomicU64,
}

impl Plan {
    fn of(variable: &str) -> Option<Self> {
        let text = std::env::var(variable).ok()?;
        let (point, times) = match text.split_once(':') {
            Some((point, times)) => (point.to_owned(), times.parse().ok()?),
            None => (text, 1),
        };
        Some(Self { point, times: AtomicU64::new(times) })
    }

    fn is_here(&self, name: &str) -> bool {
        self.point == name && self.times.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

static CRASH: LazyLock<Option<Plan>> = LazyLock::new(|| Plan::of("SAGAHOST_CRASH_AT"));
static STOP: LazyLock<Option<Plan>> = LazyLock::new(|| Plan::of("SAGAHOST_STOP_AT"));

/// Ends the process as a kill would: no destructors, no flushing.
pub fn point(name: &str) {
    if CRASH.as_ref().is_some_and(|plan| plan.is_here(name)) {
        eprintln!("crash point {name}");
        std::process::abort();
    }
    if STOP.as_ref().is_some_and(|plan| plan.is_here(name)) {
        eprintln!("stop point {name}");
        // Not by a call into libc: a test's detail is not worth unsafe code.
        let _ = Command::new("kill").args(["-STOP", &std::process::id().to_string()]).status();
    }
}

/// A transport whose transactions have points.
pub struct Pointed<T>(pub T);

impl<T: Transport> Transport for Pointed<T> {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn topics(&self, names: &[Arc<str>]) -> Result<Topics, TransportError> {
        self.0.topics(names)
    }
    fn topic_ids(&self, names: &[Arc<str>]) -> Result<BTreeMap<Arc<str>, TopicId>, TransportError> {
        self.0.topic_ids(names)
    }
    fn create_topics(&self, names: &[Arc<str>], partitions: i32) -> Result<(), TransportError> {
        self.0.create_topics(names, partitions)
    }
    fn create_command(&self, topic: &str) -> String {
        self.0.create_command(topic)
    }
    fn bounds(&self, partitions: &[Partition]) -> Result<BTreeMap<Partition, (i64, i64)>, TransportError> {
        self.0.bounds(partitions)
    }
    fn unstable(&self, partitions: &[Partition]) -> Result<Vec<Unstable>, TransportError> {
        self.0.unstable(partitions)
    }
    fn find_producers(&self, partition: &Partition) -> String {
        self.0.find_producers(partition)
    }
    fn source(&self) -> Result<Box<dyn Source>, TransportError> {
        self.0.source()
    }
    fn sink(&self) -> Result<Box<dyn Sink>, TransportError> {
        Ok(Box::new(PointedSink { inner: self.0.sink()?, ends: false }))
    }
    fn offer(&self, record: &Outgoing) -> Result<(Partition, i64), TransportError> {
        self.0.offer(record)
    }
}

struct PointedSink {
    inner: Box<dyn Sink>,
    /// The end of the transaction was asked for: it is asked for again and again until it comes.
    ends: bool,
}

impl Sink for PointedSink {
    fn committed(
        &mut self,
        partitions: &[Partition],
        isolation: Isolation,
    ) -> Result<BTreeMap<Partition, Committed>, TransportError> {
        self.inner.committed(partitions, isolation)
    }
    fn claim(&mut self) -> Result<(), TransportError> {
        self.inner.claim()
    }
    fn patience(&self) -> Patience {
        self.inner.patience()
    }
    fn begin(&mut self) -> Result<(), SinkError> {
        self.ends = false;
        point("before-offsets");
        self.inner.begin()
    }
    fn offsets(&mut self, offsets: &[(Partition, i64)], metadata: &str) -> Result<Progress, SinkError> {
        let told = self.inner.offsets(offsets, metadata)?;
        if told == Progress::Done {
            point("after-offsets");
            point("before-produce");
        }
        Ok(told)
    }
    fn send(&mut self, records: &[Outgoing]) -> Result<usize, SinkError> {
        self.inner.send(records)
    }
    fn poll(&mut self) -> Result<Progress, SinkError> {
        self.inner.poll()
    }
    fn end(&mut self) -> Result<Progress, SinkError> {
        if !std::mem::replace(&mut self.ends, true) {
            point("after-produce");
            point("before-end-of-transaction");
        }
        let told = self.inner.end()?;
        if told == Progress::Done {
            point("after-end-of-transaction");
        }
        Ok(told)
    }
    fn abort(&mut self) -> Result<Progress, SinkError> {
        self.inner.abort()
    }
    fn search(&mut self, records: &[&Outgoing], since_ms: u64) -> Result<Option<Found>, TransportError> {
        self.inner.search(records, since_ms)
    }
}
