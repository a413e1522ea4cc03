//! A simulated app around the real core: sagas, values, time and topics in memory. Invariant: what one request causes is
//! kept as a whole, or not at all; nothing here decides what a saga does.

mod chain;
mod chores;
mod outside;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use sagahost_manifest::{
    Fault, Manifest,
    http::ALL,
    members::{Overrides, topology_members},
    report::hint,
    settings::Settings,
};
use sagahost_saga::{
    Saga,
    event::{Event, Origin},
    history::Entry,
    id::{Direction, EventKey, Kind, Participant, SagaId, Time},
    input::{Input, Letter},
    topology::{Bounds, Topology},
};
use serde_json::Value;

use self::outside::Outside;
use crate::{
    code::Code,
    protocol::{Done, Happened, Hello, LogLine, PROTOCOL, Reply, Request, Sent},
    values::Values,
};

/// When simulated time begins.
const BEGIN: Time = Time(1_700_000_000_000);
/// Deliveries and timers of one request; whoever needs more goes round in circles.
const ROUNDS_MAX: usize = 100_000;
/// Steps of one chain; more than that come back through their topics. As in the host.
const CHAIN_STEPS_MAX: usize = 64;
const APP: &str = "test";

/// Makes code with these settings, when it is first called and whenever they change.
pub type Load = Box<dyn Fn(&Settings) -> Result<Box<dyn Code>, Vec<Fault>> + Send>;

struct Plugin {
    manifest: Manifest,
    load: Load,
    settings: Settings,
    code: Option<Box<dyn Code>>,
}

/// A saga, and what its record no longer holds.
#[derive(Clone)]
struct Record {
    saga: Saga,
    spilled_events: HashMap<[u8; 16], [u8; 16]>,
    spilled_history: Vec<Entry>,
}

/// Attempts that die.
struct Death {
    participant: Participant,
    direction: Direction,
    attempts: std::ops::RangeInclusive<u32>,
}

/// All that happens to the app.
struct World {
    now: Time,
    sagas: BTreeMap<SagaId, Record>,
    values: BTreeMap<Participant, Arc<Values>>,
    /// On their way to another saga, or back to this one.
    topics: VecDeque<Event>,
    /// Of kinds that are kept back.
    held: Vec<Event>,
    /// What stands in the topics, by saga.
    delivered: BTreeMap<SagaId, Vec<Event>>,
    /// Whom plugins ask.
    outside: Outside,
    letters: BTreeMap<String, (SagaId, Letter)>,
    log: Vec<LogLine>,
    sent: u64,
    current: SagaId,
}

/// The host behind a [`MockHost`](crate::MockHost), and behind `sagahost mock`.
pub struct Engine {
    plugins: BTreeMap<Participant, Plugin>,
    topology: Topology,
    world: World,
    hold: BTreeSet<Kind>,
    deaths: Vec<Death>,
    saga_id_at: Option<String>,
    last: Option<Event>,
    /// Something has begun to happen; an error from here on is the end.
    acting: bool,
    broken: Option<String>,
}

impl Engine {
    /// An app without plugins, at the beginning of time.
    pub fn new() -> Self {
        let topology = Topology { app: APP.to_owned(), bounds: Bounds::default(), ..Topology::default() };
        let world = World {
            now: BEGIN,
            sagas: BTreeMap::new(),
            values: BTreeMap::new(),
            topics: VecDeque::new(),
            held: Vec::new(),
            delivered: BTreeMap::new(),
            outside: Outside::default(),
            letters: BTreeMap::new(),
            log: Vec::new(),
            sent: 0,
            current: "saga-1".into(),
        };
        let (hold, deaths) = (BTreeSet::new(), Vec::new());
        Self {
            plugins: BTreeMap::new(),
            topology,
            world,
            hold,
            deaths,
            saga_id_at: None,
            last: None,
            acting: false,
            broken: None,
        }
    }

    /// One more plugin.
    pub fn add(&mut self, manifest: Manifest, load: Load) -> Result<(), String> {
        let name = Participant::new(&manifest.name);
        if self.plugins.contains_key(&name) {
            return Err(format!("there are two plugins called {name}"));
        }
        // A test is nobody's to grant: what the manifest asks for is there.
        let settings = Settings { http: vec![ALL.to_owned()], ..Settings::default() };
        self.plugins.insert(name, Plugin { manifest, load, settings, code: None });
        let all: Vec<(&Manifest, bool)> = self.plugins.values().map(|plugin| (&plugin.manifest, true)).collect();
        self.topology.members = topology_members(&all, &Overrides::new(), &[]);
        Ok(())
    }

    /// Does what is asked. A request that is refused has changed nothing; when the core or the code fails on the way,
    /// this host says so from then on and does no more.
    pub fn answer(&mut self, request: Request) -> Reply {
        if let Some(why) = &self.broken {
            return Reply::Error(why.clone());
        }
        self.acting = false;
        match self.perform(request) {
            Ok(done) => Reply::Ok(Box::new(done)),
            Err(why) => {
                self.broken = self.acting.then(|| format!("this host has stopped: {why}"));
                Reply::Error(why)
            }
        }
    }

    fn perform(&mut self, request: Request) -> Result<Done, String> {
        match request {
            Request::Hello { protocol } => self.hello(protocol),
            Request::Config { .. }
            | Request::Counter { .. }
            | Request::Store { .. }
            | Request::SagaIdAt { .. }
            | Request::SagaDeadline { .. }
            | Request::Hold { .. }
            | Request::Answer { .. }
            | Request::Kill { .. } => self.set(request).map(|()| Done::Set {}),
            Request::Send(sent) => {
                self.ready()?;
                let event = self.event(sent)?;
                self.last = Some(event.clone());
                self.deliver(event)
            }
            Request::SendAgain => {
                let event = self.last.clone().ok_or("nothing has been sent yet")?;
                self.deliver(event)
            }
            Request::Redeliver { saga } => self.redeliver(&saga),
            Request::Release { kind } => self.release(&kind),
            Request::Advance { ms } => self.advance(Duration::from_millis(ms)),
            Request::Cancel { .. } | Request::Retry { .. } | Request::Resolve { .. } => self.operate(request),
            Request::Saga { saga } => Ok(Done::Saga(self.saga_report(&saga))),
            Request::CounterValue { plugin, name } => {
                let value = self.values(plugin.as_deref())?.counters.get(&name).copied();
                Ok(Done::Value { value: value.map_or(Value::Null, Value::from) })
            }
            Request::Stored { plugin, key } => {
                let value = self.values(plugin.as_deref())?.store.get(&key).cloned();
                Ok(Done::Value { value: value.map_or(Value::Null, |bytes| report::json(&bytes)) })
            }
            Request::Log => Ok(Done::Log { log: self.world.log.clone() }),
            Request::Requests => Ok(Done::Requests { requests: self.world.outside.asked.clone() }),
            Request::DeadLetters => Ok(Done::DeadLetters {
                dead_letters: self.world.letters.values().map(|(saga, letter)| report::letter(saga, letter)).collect(),
            }),
        }
    }

    fn hello(&self, protocol: u32) -> Result<Done, String> {
        if protocol != PROTOCOL {
            return Err(format!("protocol {protocol} was asked for, this host speaks {PROTOCOL}"));
        }
        let plugins = self.plugins.keys().map(ToString::to_string).collect();
        Ok(Done::Hello(Hello { protocol, host: env!("CARGO_PKG_VERSION").to_owned(), plugins }))
    }

    /// The plugin of this name; without a name the only one.
    fn named(&self, plugin: Option<&str>) -> Result<Participant, String> {
        let names = self.plugins.keys().map(Participant::as_str);
        match plugin {
            Some(name) if self.plugins.contains_key(name) => Ok(name.into()),
            Some(name) => Err(format!("there is no plugin {name}; {}", hint(name, names))),
            None => match self.plugins.keys().collect::<Vec<_>>()[..] {
                [only] => Ok(only.clone()),
                _ => {
                    let names: Vec<&str> = names.collect();
                    Err(format!("there are several plugins, so name one: {}", names.join(", ")))
                }
            },
        }
    }

    fn values(&self, plugin: Option<&str>) -> Result<Arc<Values>, String> {
        let name = self.named(plugin)?;
        Ok(self.world.values.get(&name).cloned().unwrap_or_default())
    }

    fn event(&mut self, sent: Sent) -> Result<Event, String> {
        let data = match &sent.text {
            Some(text) => text.clone().into_bytes(),
            None => sent.data.to_string().into_bytes(),
        };
        let saga = match (sent.saga, &self.saga_id_at) {
            (Some(saga), _) => saga.into(),
            (None, Some(pointer)) => match sent.data.pointer(pointer) {
                Some(Value::String(saga)) if !saga.is_empty() => saga.as_str().into(),
                _ => return Err(format!("the data of {} has no saga id at {pointer}: {}", sent.kind, sent.data)),
            },
            (None, None) => self.world.current.clone(),
        };
        self.world.current = saga.clone();
        self.world.sent += 1;
        let id = sent.id.unwrap_or_else(|| format!("event-{}", self.world.sent));
        Ok(Event {
            key: EventKey::new(sent.source.as_deref().unwrap_or("test"), id),
            saga,
            kind: sent.kind.into(),
            time: self.world.now,
            content_type: sent.content_type.as_deref().unwrap_or("application/json").into(),
            data: data.into(),
            attributes: sent.attributes,
            hops: 0,
            origin: None,
            record_key: None,
        })
    }

    fn deliver(&mut self, event: Event) -> Result<Done, String> {
        let saga = event.saga.clone();
        if !self.topology.concerns(&event.kind) {
            let known = self.topology.members.iter().flat_map(|member| {
                let subscribed = member.subscriptions.iter().map(|subscription| subscription.kind.as_str());
                subscribed.chain(member.compensate_on.iter().chain(&member.finish_on).map(Kind::as_str))
            });
            let known: BTreeSet<&str> = known.collect();
            return Err(format!("no plugin takes {}; {}", event.kind, hint(event.kind.as_str(), known)));
        }
        let mut happened = Happened::default();
        self.take_in(event, &mut happened)?;
        self.settle(&mut happened)?;
        Ok(self.happened(&saga, happened))
    }

    fn redeliver(&mut self, saga: &str) -> Result<Done, String> {
        let Some(events) = self.world.delivered.get(saga).cloned() else {
            return Err(format!("saga {saga} has taken in nothing"));
        };
        self.ready()?;
        let mut happened = Happened::default();
        for event in events {
            self.take_in(event, &mut happened)?;
        }
        self.settle(&mut happened)?;
        Ok(self.happened(&saga.into(), happened))
    }

    fn release(&mut self, kind: &str) -> Result<Done, String> {
        self.ready()?;
        if !self.hold.remove(kind) {
            return Err(format!("{kind} was not held"));
        }
        let (released, held) =
            std::mem::take(&mut self.world.held).into_iter().partition(|event| event.kind.as_str() == kind);
        self.world.held = held;
        self.world.topics.extend(released);
        let mut happened = Happened::default();
        self.settle(&mut happened)?;
        let current = self.world.current.clone();
        Ok(self.happened(&current, happened))
    }

    fn advance(&mut self, by: Duration) -> Result<Done, String> {
        self.ready()?;
        let until = self.world.now.after(by);
        let mut happened = Happened::default();
        for _ in 0..ROUNDS_MAX {
            let Some((due, saga)) = self.next_due().filter(|(due, _)| *due <= until) else {
                self.world.now = until;
                let current = self.world.current.clone();
                return Ok(self.happened(&current, happened));
            };
            self.world.now = self.world.now.max(due);
            self.chain(&saga, Input::Due { deadlines: true }, &mut happened)?;
            self.settle(&mut happened)?;
        }
        Err(format!("after {ROUNDS_MAX} timers there are still more before the time is over"))
    }

    /// The next durable time of any saga.
    fn next_due(&self) -> Option<(Time, SagaId)> {
        let times = self.world.sagas.iter().filter_map(|(id, record)| {
            let wake = record.saga.wake(&self.topology);
            let due = [wake.at, wake.deadline].into_iter().flatten().min()?;
            Some((due, id.clone()))
        });
        times.min()
    }

    /// Everything that is on its way comes in.
    fn settle(&mut self, happened: &mut Happened) -> Result<(), String> {
        for _ in 0..ROUNDS_MAX {
            let Some(event) = self.world.topics.pop_front() else { return Ok(()) };
            self.take_in(event, happened)?;
        }
        Err(format!("after {ROUNDS_MAX} events there are still more: these plugins answer one another for ever"))
    }

    fn take_in(&mut self, event: Event, happened: &mut Happened) -> Result<(), String> {
        let event = self.through_its_topic(event);
        let saga = event.saga.clone();
        let spilled = self.spilled(&event);
        self.chain(&saga, Input::Received { event, spilled }, happened)
    }

    fn through_its_topic(&mut self, event: Event) -> Event {
        self.stands_in_a_topic(&event);
        let delivered = self.world.delivered.values().map(Vec::len).sum::<usize>();
        let offset = i64::try_from(delivered).unwrap_or(i64::MAX);
        let origin = Origin { topic: event.kind.as_str().into(), partition: 0, offset, record: None };
        Event { origin: Some(origin), ..event }
    }

    fn stands_in_a_topic(&mut self, event: &Event) {
        let delivered = self.world.delivered.entry(event.saga.clone()).or_default();
        if !delivered.iter().any(|known| known.key == event.key && known.data == event.data) {
            delivered.push(event.clone());
        }
    }

    fn spilled(&self, event: &Event) -> Option<[u8; 16]> {
        self.world.sagas.get(&event.saga)?.spilled_events.get(&event.key.hash128()).copied()
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}
