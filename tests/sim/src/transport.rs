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
        Ok(Box::new(SimSink { inner: self.inner.sink()?, host: self.host }))
    }
}

struct SimSource {
    inner: Box<dyn Source>,
    host: HostNo,
    away_until: Option<Steady>,
}

impl Source for SimSource {
    fn assign(&mut self, assignments: &[Assignment]) -> Result<(), TransportError> {
        inside(self.host);
        if happens(Fault::AssignFails) {
            return Err(away("assign"));
        }
        let places = || assignments.iter().map(|at| format!("{}@{}", at.partition, at.position)).collect::<Vec<_>>();
        note(|| format!("assigned {}", places().join(" ")));
        self.inner.assign(assignments)
    }
    fn poll(&mut self, timeout: Duration) -> Result<Polled, TransportError> {
        inside(self.host);
        if let Some(until) = self.away_until {
            if world::now().steady < until && !world::world(|world| world.calm) {
                return Ok(Polled::Nothing);
            }
            self.away_until = None;
            return Ok(Polled::Back);
        }
        if happens(Fault::Away) {
            self.away_until = Some(world::now().steady.after(Duration::from_secs(3)));
            return Ok(Polled::Away("simulated".to_owned()));
        }
        if happens(Fault::PollFails) {
            return Err(away("poll"));
        }
        let polled = self.inner.poll(timeout);
        match &polled {
            Ok(Polled::Nothing) => {}
            Ok(Polled::Record(record)) => note(|| format!("read {}@{}", record.partition, record.offset)),
            other => note(|| format!("read {other:?}")),
        }
        inside(self.host);
        polled
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
        self.inner.claim()?;
        inside(self.host);
        Ok(())
    }
    fn publish(&mut self, publication: &Publication<'_>) -> Result<(), PublishError> {
        inside(self.host);
        let why = || "simulated".to_owned();
        if happens(Fault::CrashBeforePublish) {
            die(self.host);
        }
        if happens(Fault::PublishAborted) {
            return Err(PublishError::Aborted(why()));
        }
        if happens(Fault::PublishLostBefore) {
            return Err(PublishError::Lost { commit: CommitState::NotAsked, why: why() });
        }
        if happens(Fault::PublishLostAfter) {
            return Err(PublishError::Lost { commit: CommitState::Asked, why: why() });
        }
        if happens(Fault::PublishFenced) {
            return Err(PublishError::Fenced { commit: CommitState::NotAsked, why: why() });
        }
        if !publication.records.is_empty() && happens(Fault::RowRefused) {
            let index = choose(publication.records.len(), 1);
            let topic = publication.records[index].topic.clone();
            return Err(PublishError::Refused { index, topic, why: why() });
        }
        self.inner.publish(publication)?;
        note(|| format!("published {} with {} records", publication.metadata, publication.records.len()));
        if happens(Fault::CrashAfterPublish) {
            die(self.host);
        }
        if happens(Fault::PublishLies) {
            return Err(PublishError::Lost { commit: CommitState::Asked, why: why() });
        }
        inside(self.host);
        Ok(())
    }
    fn search(&mut self, records: &[&Outgoing], since_ms: u64) -> Result<Found, TransportError> {
        inside(self.host);
        self.inner.search(records, since_ms)
    }
}
