//! A host as the simulation runs it: the shipped start and the shipped parts, with simulated surroundings.

use std::{
    collections::BTreeMap,
    error::Error,
    path::Path,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use sagahost_codec::{Codec, SAGA_FAILED, TopicSettings};
use sagahost_journal::{Journal, SagaKey};
use sagahost_journal_sqlite::{OpenOptions, SqliteJournal};
use sagahost_processor::{
    Fatal, Processor, Serving, Settings,
    outside::{Answers, Outside},
    processor::At,
    read_ahead::ReadAhead,
    schedule::ScheduleBounds,
    stage::BatchBounds,
    start::{Begun, Decisions, Start, StartError, Starting, Wanted},
    step::{Next, Now, Part, Signal, Wait},
};
use sagahost_saga::{Saga, id::Kind, topology::Topology};
use sagahost_transport::{StartAt, Transport};
use sagahost_transport_embedded::{EmbeddedTransport, Options};
use sagahost_wire::Generation;

use crate::{
    code::{Plugins, Version},
    courier::{Line, Service},
    disk,
    journal::SimJournal,
    plan::Plan,
    transport::SimTransport,
    world::{self, HostNo, WorldClock},
};

pub const APP: &str = "shop";
pub const PARTITIONS: i32 = 3;

pub fn topics() -> TopicSettings {
    TopicSettings::of_app(APP)
}

pub fn transport(dir: &Path) -> Arc<EmbeddedTransport> {
    let opened = EmbeddedTransport::open_with(dir, APP, Options::default(), Arc::new(WorldClock));
    Arc::new(opened.expect("the embedded transport opens"))
}

pub fn codec(topology: &Topology) -> Codec {
    let kinds: Vec<Kind> = kinds(topology).into_iter().chain([Kind::new(SAGA_FAILED)]).collect();
    Codec::new(APP, &topics(), 1_000_000).with_kinds(&kinds)
}

/// Kinds that somebody acts on.
fn kinds(topology: &Topology) -> Vec<Kind> {
    let of = |member: &sagahost_saga::topology::Member| {
        let subscribed = member.subscriptions.iter().map(|subscription| subscription.kind.clone());
        subscribed.chain(member.compensate_on.clone()).chain(member.finish_on.clone()).collect::<Vec<_>>()
    };
    topology.members.iter().flat_map(of).collect()
}

pub fn serving(plugins: &Plugins, version: &Version, host: HostNo) -> Serving {
    let topology = plugins.topology(APP, version, world::world(|world| world.plan.known_max));
    let joined = Generation(u64::from(version.ledger));
    Serving {
        code: plugins.code(version, host),
        codec: codec(&topology),
        topology,
        generation: joined,
        since: BTreeMap::from([(Kind::new("PaymentProcessed"), joined)]),
    }
}

/// What runs, for whoever plays the operator.
pub struct Running {
    pub host: HostNo,
    /// None: it has not begun yet.
    pub processor: Arc<Mutex<Option<Arc<Processor>>>>,
}

impl Running {
    pub fn processor(&self) -> Option<Arc<Processor>> {
        self.processor.lock().expect("nobody panics with it").clone()
    }
}

/// A process begins: in the same directory as those before it, with the same topics.
///
/// # Errors
/// The journal cannot be opened, or does not hold what it must.
pub fn start(
    dir: &Path,
    topics_db: &Arc<EmbeddedTransport>,
    plugins: &Plugins,
    version: &Version,
    courier: &Arc<Service>,
) -> Result<Running, String> {
    let host = world::world(world::World::process);
    let options =
        OpenOptions { past_the_lock: true, wal_pages_max: 500, random: world::random, ..OpenOptions::default() };
    let journal =
        SqliteJournal::open(dir, APP, options).map_err(|error| format!("the journal cannot be opened: {error}"))?;
    let directory = world::world(|world| {
        world.begins_at(journal.identity().last_batch.0)?;
        Ok::<_, String>(world.directory)
    })?;
    let journal = Arc::new(SimJournal { inner: Arc::new(journal), host, directory });
    let transport = Arc::new(SimTransport { inner: topics_db.clone(), host });
    let topology = plugins.topology(APP, version, 32);
    let input = |kind: Kind| (topics().topic_of(&kind), true);
    let wanted = Wanted {
        inputs: kinds(&topology).into_iter().chain([Kind::new(SAGA_FAILED)]).map(input).collect(),
        outputs: outputs(),
        create: true,
        partitions: PARTITIONS,
        start: StartAt::Earliest,
    };
    let running = Running { host, processor: Arc::default() };
    let start = Start::new(APP, journal.clone(), transport.clone(), wanted, Decisions::default());
    let starting = Beginning {
        host,
        start,
        journal,
        transport,
        plugins: plugins.clone(),
        courier: courier.clone(),
        running: running.processor.clone(),
        signal: Arc::default(),
    };
    world::world(|world| {
        world.note(|| format!("host {host} starts"));
        world.add(host, "start", Box::new(starting));
    });
    Ok(running)
}

fn outputs() -> std::collections::BTreeSet<Arc<str>> {
    [
        "OrderCompleted",
        "OrderCancelled",
        "PaymentRefunded",
        "InventoryReleased",
        "PaymentProcessed",
        "InventoryUpdated",
        "PaymentEntered",
    ]
    .iter()
    .map(|kind| topics().topic_of(&Kind::new(kind)))
    .chain(topics().dead_letters)
    .collect()
}

struct Beginning {
    host: HostNo,
    start: Start,
    journal: Arc<SimJournal>,
    transport: Arc<SimTransport>,
    plugins: Plugins,
    courier: Arc<Service>,
    running: Arc<Mutex<Option<Arc<Processor>>>>,
    signal: Arc<Signal>,
}

impl Part for Beginning {
    fn step(&mut self, now: Now) -> Next {
        match self.start.step(now) {
            Ok(Starting::Wait(until)) => {
                Next::Wait(Wait { signal: self.signal.clone(), seen: self.signal.seen(), until: Some(until) })
            }
            // Where it cannot go on, a person starts it again.
            Ok(Starting::Begun(begun)) => {
                Next::Ended(self.begun(*begun).map_err(|error| Fatal::Superseded(error.to_string())))
            }
            Err(StartError::Journal { source }) => Next::Ended(Err(Fatal::Superseded(source.to_string()))),
            // A person brings the other directory back.
            Err(error @ (StartError::NotNewest { .. } | StartError::Unclear { .. })) if disk::is_something_aside() => {
                world::world(|world| world.refused = true);
                Next::Ended(Err(Fatal::Superseded(error.to_string())))
            }
            Err(error) => panic!("failed to start: {error}"),
        }
    }
}

impl Beginning {
    /// A call whose end the host before this one did not see counts as one that failed.
    fn count_interrupted(&self) -> Result<(), Box<dyn Error>> {
        for (_, id) in self.journal.inner.in_doubt(SagaKey(0), usize::MAX)? {
            let Some(row) = self.journal.inner.saga(&id)? else { continue };
            for call in Saga::decode(&row.bytes)?.in_doubt() {
                world::world(|world| world.failed(&id, &call.participant));
            }
        }
        Ok(())
    }

    fn begun(&self, begun: Begun) -> Result<(), Box<dyn Error>> {
        disk::forget_aside();
        // What serves may have changed since the process began.
        let (plan, version) = world::world(|world| (world.plan.clone(), world.version.clone()));
        let serving = serving(&self.plugins, &version, self.host);
        let answers: Arc<OnceLock<Answers>> = Arc::default();
        let line = Line { service: self.courier.clone(), host: self.host, answers: answers.clone() };
        let outside: Arc<dyn Outside> = Arc::new(line);
        let processor = Processor::new(self.journal.clone(), serving, topics(), settings(&plan), Some(outside));
        let processor = Arc::new(processor);
        let _ = answers.set(processor.answers());
        self.count_interrupted()?;
        let notes = self.journal.publication_notes()?;
        let (identity, anchor, published) = (begun.identity, begun.anchor, begun.published);
        let at = At { identity, anchor, published, notes, reached: |_| {} };
        processor.take_up(&at, begun.backlog)?;
        let source = self.transport.source()?;
        let mut parts: Vec<(String, Box<dyn Part>)> = vec![
            ("publisher".to_owned(), Box::new(processor.publisher(begun.sink, &at))),
            ("committer".to_owned(), Box::new(processor.committer(&at))),
            ("reader".to_owned(), Box::new(processor.reader(source, begun.assignments, &at))),
            ("timers".to_owned(), Box::new(processor.timers())),
            ("parked".to_owned(), Box::new(processor.parked())),
            ("deadlines".to_owned(), Box::new(processor.deadlines(self.transport.clone()))),
        ];
        for number in 0..processor.workers() {
            parts.push((format!("worker {number}"), Box::new(processor.worker())));
        }
        *self.running.lock().expect("nobody panics with it") = Some(processor);
        world::world(|world| {
            for (name, part) in parts {
                world.add(self.host, &name, part);
            }
        });
        Ok(())
    }
}

fn settings(plan: &Plan) -> Settings {
    Settings {
        batch: BatchBounds {
            chains_max: plan.chains_max,
            bytes_max: 4 << 20,
            wait: Duration::from_millis(10),
            position_wait: Duration::from_secs(1),
            unpublished_max: plan.unpublished_max,
        },
        schedule: ScheduleBounds {
            slots: plan.workers,
            slow_max: plan.slow_max,
            slow_after: Duration::from_millis(20),
        },
        read_ahead: ReadAhead {
            events_max: plan.queue_events_max,
            bytes_max: plan.in_flight_bytes_max,
            record_bytes_max: 1_000,
        },
        chain_steps_max: plan.chain_steps_max,
        reservation_max: Duration::from_millis(500),
        cache_bytes_max: plan.cache_bytes_max,
        stall_wait_max: Duration::from_secs(60),
        due_per_second_max: 500,
    }
}
