//! A transport that delivers what it is given, and plugins that are functions. Invariant: both do nothing by themselves.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use sagahost_manifest::{host_calls::HostCalls, sends::Config};
use sagahost_saga::outcome::{Behaviour, Call, End};
use sagahost_transport::{Assignment, Polled, Polls, Ring, Sink, Source, Topics, Transport, TransportError, Unstable};
use sagahost_wire::{Outgoing, Partition, TopicId};

use crate::{
    code::{Callable, Code, Pick, Ran},
    step::Now,
};

#[derive(Default)]
pub struct Broker {
    /// Ends of partitions.
    pub ends: Mutex<BTreeMap<Partition, i64>>,
    pub away: Mutex<bool>,
}

impl Transport for Broker {
    fn describe(&self) -> String {
        "a script".to_owned()
    }
    fn topics(&self, _: &[Arc<str>]) -> Result<Topics, TransportError> {
        Ok(Topics::new())
    }
    fn topic_ids(&self, _: &[Arc<str>]) -> Result<BTreeMap<Arc<str>, TopicId>, TransportError> {
        Ok(BTreeMap::new())
    }
    fn create_topics(&self, _: &[Arc<str>], _: i32) -> Result<(), TransportError> {
        Ok(())
    }
    fn create_command(&self, _: &str) -> String {
        String::new()
    }
    fn bounds(&self, partitions: &[Partition]) -> Result<BTreeMap<Partition, (i64, i64)>, TransportError> {
        if *self.away.lock() {
            return Err(TransportError::Away("as told".to_owned()));
        }
        let ends = self.ends.lock();
        let of = |at: &Partition| (at.clone(), (0, ends.get(at).copied().unwrap_or(0)));
        Ok(partitions.iter().map(of).collect())
    }
    fn unstable(&self, _: &[Partition]) -> Result<Vec<Unstable>, TransportError> {
        Ok(Vec::new())
    }
    fn find_producers(&self, _: &Partition) -> String {
        String::new()
    }
    fn source(&self) -> Result<Box<dyn Source>, TransportError> {
        Ok(Box::new(Script::default()))
    }
    fn sink(&self) -> Result<Box<dyn Sink>, TransportError> {
        unreachable!("nothing is published here")
    }
    fn offer(&self, record: &Outgoing) -> Result<(Partition, i64), TransportError> {
        unreachable!("nothing is offered: {record:?}")
    }
}

/// What was done to the source, and what it brings.
#[derive(Default)]
pub struct Played {
    pub brings: VecDeque<Polled>,
    pub paused: bool,
    pub polled_while_paused: usize,
    pub sought: Vec<Vec<(Partition, i64)>>,
}

#[derive(Clone, Default)]
pub struct Script(pub Arc<Mutex<Played>>);

impl Source for Script {
    /// A test steps the reader when it has brought something.
    fn on_ready(&mut self, _: Ring) {}
    fn assign(&mut self, _: &[Assignment]) -> Result<(), TransportError> {
        Ok(())
    }
    /// What is paused is not delivered.
    fn poll(&mut self, max: usize) -> Result<Polls, TransportError> {
        let mut played = self.0.lock();
        if played.paused {
            played.polled_while_paused += 1;
            return Ok(Polls::default());
        }
        let count = max.min(played.brings.len());
        Ok(Polls { items: played.brings.drain(..count).collect(), within: None })
    }
    fn pause(&mut self, partitions: &[Partition]) -> Result<(), TransportError> {
        self.0.lock().paused |= !partitions.is_empty();
        Ok(())
    }
    fn resume(&mut self, _: &[Partition]) -> Result<(), TransportError> {
        self.0.lock().paused = false;
        Ok(())
    }
    fn seek(&mut self, positions: &[(Partition, i64)]) -> Result<(), TransportError> {
        self.0.lock().sought.push(positions.to_vec());
        Ok(())
    }
}

pub type Handler = dyn Fn(&Call, &mut dyn HostCalls) -> End + Send + Sync;

/// One function for every call.
pub struct Plugin {
    pub run: Arc<Handler>,
    pub now: Now,
    pub digest: Arc<str>,
    pub sends: bool,
}

impl Code for Arc<Plugin> {
    fn pick(&self, _: &Call) -> Pick {
        Pick::Plugin(self.clone())
    }
}

impl Callable for Plugin {
    fn digest(&self) -> &Arc<str> {
        &self.digest
    }
    fn behaviour(&self) -> Behaviour {
        Behaviour { digest: self.digest.clone(), config: "c".into(), version: "1.0".into() }
    }
    fn sends(&self) -> Option<Config> {
        self.sends.then(Config::default)
    }
    fn run(&self, call: &Call, mut host: Box<dyn HostCalls>) -> Ran {
        let end = (self.run)(call, &mut *host);
        Ran { end: Ok(end), host, took: Duration::from_millis(1), now: self.now }
    }
}
