//! The embedded transport, where calls fail, lie or are interrupted, and a process dies at each publication.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sagahost_processor::step::Steady;
use sagahost_transport::*;
use sagahost_wire::{Outgoing, Partition, TopicId};

use crate::{
    plan::Fault,
    world::{self, HostNo, choose, die, happens, inside},
};

pub struct SimTransport {
    pub inner: Arc<dyn Transport>,
    pub host: HostNo,
}

fn note(what: impl FnOnce() -> String) {
    world::world(|world| world.note(what));
}

fn away(what: &str) -> TransportError {
    TransportError::Away(format!("simulated: {what}"))
}

macro_rules! calls {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> Result<$out, TransportError> {
            inside(self.host);
            self.inner.$name($($arg),*)
        })*
    };
}

impl Transport for SimTransport {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    calls! {
        topics(names: &[Arc<str>]) -> Topics;
        topic_ids(names: &[Arc<str>]) -> BTreeMap<Arc<str>, TopicId>;
        create_topics(names: &[Arc<str>], partitions: i32) -> ();
        bounds(partitions: &[Partition]) -> BTreeMap<Partition, (i64, i64)>;
        unstable(partitions: &[Partition]) -> Vec<Unstable>;
        offer(record: &Outgoing) -> (Partition, i64);
    }
    fn create_command(&self, topic: &str) -> String {
        self.inner.create_command(topic)
    }
    fn find_producers(&self, partition: &Partition) -> String {
        self.inner.find_producers(partition)
    }
    fn source(&self) -> Result<Box<dyn Source>, TransportError> {
        Ok(Box::new(SimSource { inner: self.inner.source()?, host: self.host, away_until: None }))
    }
    fn sink(&self) -> Result<Box<dyn Sink>, TransportError> {
        Ok(Box::new(SimSink::new(self.inner.sink()?, self.host)))
    }
}

struct SimSource {
    inner: Box<dyn Source>,
    host: HostNo,
    away_until: Option<Steady>,
}

impl Source for SimSource {
    fn on_ready(&mut self, ring: Ring) {
        self.inner.on_ready(ring);
    }
    fn assign(&mut self, assignments: &[Assignment]) -> Result<(), TransportError> {
        inside(self.host);
        if happens(Fault::AssignFails) {
            return Err(away("assign"));
        }
        let places = || assignments.iter().map(|at| format!("{}@{}", at.partition, at.position)).collect::<Vec<_>>();
        note(|| format!("assigned {}", places().join(" ")));
        self.inner.assign(assignments)
    }
    fn poll(&mut self, max: usize) -> Result<Polls, TransportError> {
        inside(self.host);
        let only = |item| Ok(Polls { items: vec![item], within: None });
        if let Some(until) = self.away_until {
            let now = world::now().steady;
            if now < until && !world::world(|world| world.calm) {
                return Ok(Polls { items: Vec::new(), within: Some(until.since(now)) });
            }
            self.away_until = None;
            return only(Polled::Back);
        }
        if happens(Fault::Away) {
            self.away_until = Some(world::now().steady.after(Duration::from_secs(3)));
            return only(Polled::Away("simulated".to_owned()));
        }
        if happens(Fault::PollFails) {
            return Err(away("poll"));
        }
        let most = 1 + choose(max, 18);
        let polls = self.inner.poll(most)?;
        assert!(polls.items.len() <= most, "{} items, where {most} were asked for", polls.items.len());
        for item in &polls.items {
            match item {
                Polled::Record(record) => note(|| format!("read {}@{}", record.partition, record.offset)),
                other => note(|| format!("read {other:?}")),
            }
        }
        inside(self.host);
        // Nobody appends without ringing here.
        Ok(Polls { within: None, ..polls })
    }
    fn pause(&mut self, partitions: &[Partition]) -> Result<(), TransportError> {
        inside(self.host);
        self.inner.pause(partitions)
    }
    fn resume(&mut self, partitions: &[Partition]) -> Result<(), TransportError> {
        inside(self.host);
        self.inner.resume(partitions)
    }
    fn seek(&mut self, positions: &[(Partition, i64)]) -> Result<(), TransportError> {
        inside(self.host);
        if happens(Fault::SeekFails) {
            return Err(away("seek"));
        }
        let places = || positions.iter().map(|(at, next)| format!("{at}@{next}")).collect::<Vec<_>>();
        note(|| format!("goes back to {}", places().join(" ")));
        self.inner.seek(positions)
    }
}

struct SimSink {
    inner: Box<dyn Sink>,
    host: HostNo,
    /// Records of the open transaction.
    sent: usize,
    metadata: String,
    /// Nothing is answered any more before a claim.
    stalls: bool,
    end: End,
    /// The broker does not know the producer, until it claims its id again.
    forgotten: bool,
}

/// How far the end of a transaction is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    NotAsked,
    /// It comes in front of the next claim.
    Late,
    /// It went through, and this was not said yet.
    Untold,
}

impl SimSink {
    fn new(inner: Box<dyn Sink>, host: HostNo) -> Self {
        Self { inner, host, sent: 0, metadata: String::new(), stalls: false, end: End::NotAsked, forgotten: false }
    }

    /// In front of each call of a transaction: other parts run, the process may die, there may be no answer yet.
    fn entered(&mut self) -> Option<Progress> {
        inside(self.host);
        if happens(Fault::CrashInTransaction) {
            die(self.host);
        }
        self.stalls = !world::world(|world| world.calm) && (self.stalls || happens(Fault::SinkStalls));
        (self.stalls || happens(Fault::SinkWaits)).then(|| Progress::NotYet("simulated".to_owned()))
    }

    fn ended(&mut self) -> Result<(), SinkError> {
        self.inner.end()?;
        note(|| format!("published {} with {} records", self.metadata, self.sent));
        Ok(())
    }
}

fn why() -> String {
    "simulated".to_owned()
}

impl Sink for SimSink {
    fn committed(
        &mut self,
        partitions: &[Partition],
        isolation: Isolation,
    ) -> Result<BTreeMap<Partition, Committed>, TransportError> {
        inside(self.host);
        if happens(Fault::CommittedFails) {
            return Err(away("committed offsets"));
        }
        if happens(Fault::OffsetsExpire) {
            return Ok(BTreeMap::new());
        }
        let committed = self.inner.committed(partitions, isolation);
        inside(self.host);
        committed
    }
    fn claim(&mut self) -> Result<(), TransportError> {
        inside(self.host);
        if happens(Fault::ClaimFails) {
            return Err(away("claim"));
        }
        if self.end == End::Late {
            let late = self.ended();
            note(|| format!("the end of a transaction comes late: {late:?}"));
        }
        (self.stalls, self.end) = (false, End::NotAsked);
        self.inner.claim()?;
        self.forgotten = false;
        inside(self.host);
        Ok(())
    }
    fn patience(&self) -> Patience {
        self.inner.patience()
    }
    fn begin(&mut self) -> Result<(), SinkError> {
        inside(self.host);
        if happens(Fault::CrashBeforePublish) {
            die(self.host);
        }
        if happens(Fault::PublishLostBefore) {
            return Err(SinkError::Spent(why()));
        }
        (self.sent, self.end) = (0, End::NotAsked);
        self.inner.begin()
    }
    fn offsets(&mut self, offsets: &[(Partition, i64)], metadata: &str) -> Result<Progress, SinkError> {
        if let Some(not_yet) = self.entered() {
            return Ok(not_yet);
        }
        if happens(Fault::PublishFenced) {
            return Err(SinkError::Fenced(why()));
        }
        self.forgotten |= happens(Fault::ProducerForgotten);
        if self.forgotten {
            return Err(SinkError::Spoilt(why()));
        }
        self.metadata = metadata.to_owned();
        self.inner.offsets(offsets, metadata)
    }
    fn send(&mut self, records: &[Outgoing]) -> Result<usize, SinkError> {
        inside(self.host);
        let taken = if happens(Fault::SendStops) { choose(records.len(), 16) } else { records.len() };
        self.sent += taken;
        self.inner.send(&records[..taken])
    }
    fn poll(&mut self) -> Result<Progress, SinkError> {
        if let Some(not_yet) = self.entered() {
            return Ok(not_yet);
        }
        if happens(Fault::PublishAborted) {
            return Err(SinkError::Spoilt(why()));
        }
        if self.sent > 0 && happens(Fault::RowRefused) {
            return Err(SinkError::Refused { index: choose(self.sent, 1), why: why() });
        }
        if self.sent > 0 && happens(Fault::RowUnclear) {
            return Err(SinkError::Unclear { size: choose(2, 17) == 0, why: why() });
        }
        self.inner.poll()
    }
    fn end(&mut self) -> Result<Progress, SinkError> {
        if let Some(not_yet) = self.entered() {
            return Ok(not_yet);
        }
        if self.end == End::Untold {
            return Ok(Progress::Done);
        }
        if happens(Fault::PublishLostAfter) {
            return Err(SinkError::Spent(why()));
        }
        if happens(Fault::EndSpoilt) {
            return Err(SinkError::Spoilt(why()));
        }
        if happens(Fault::EndsLate) {
            self.end = End::Late;
            return Err(SinkError::Spent(why()));
        }
        self.ended()?;
        if happens(Fault::CrashAfterPublish) {
            die(self.host);
        }
        if happens(Fault::PublishLies) {
            return Err(SinkError::Spent(why()));
        }
        if happens(Fault::EndUntold) {
            self.end = End::Untold;
            return Ok(Progress::NotYet(why()));
        }
        inside(self.host);
        Ok(Progress::Done)
    }
    fn abort(&mut self) -> Result<Progress, SinkError> {
        if let Some(not_yet) = self.entered() {
            return Ok(not_yet);
        }
        if happens(Fault::AbortFails) {
            return Err(SinkError::Spent(why()));
        }
        self.inner.abort()
    }
    fn search(&mut self, records: &[&Outgoing], since_ms: u64) -> Result<Option<Found>, TransportError> {
        inside(self.host);
        if happens(Fault::SinkWaits) {
            return Ok(None);
        }
        self.inner.search(records, since_ms)
    }
}
