//! A host as the simulation runs it: the shipped start and the shipped parts, with simulated surroundings.

use std::{
    collections::BTreeSet,
    error::Error,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use sagahost_codec::TopicSettings;
use sagahost_journal::{Journal, SagaKey};
use sagahost_journal_sqlite::{OpenOptions, SqliteJournal};
use sagahost_manifest::Limits;
use sagahost_processor::{
    Fatal, Processor, Settings,
    drain::Drain,
    letters_kept::LetterBounds,
    outside::{Answers, Outside},
    processor::At,
    read_ahead::ReadAhead,
    schedule::ScheduleBounds,
    stage::BatchBounds,
    start::{self, Decisions, Start, StartError, Starting},
    step::{Next, Now, Part, Signal, Steady, Wait},
    worker::ChainBounds,
};
use sagahost_saga::{Saga, topology::Bounds};
use sagahost_serving::{
    Board, Keeper, Plugins, PluginsError, WatchSettings,
    keeper::Reach,
    plugins::{Readiness, Started},
    settings::{NewTopics, Values},
};
use sagahost_transport::{StartAt, Transport};
use sagahost_transport_embedded::{EmbeddedTransport, Options};

use crate::{
    code::Natives,
    courier::{Line, Service},
    disk,
    files::{Compiler, Compilers, DIR, Files, Seen},
    journal::SimJournal,
    plan::Plan,
    transport::SimTransport,
    world::{self, Ended, HostNo, WorldClock},
};

/// A host that is stopped has so long.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// A host that starts waits so long for what can also be compiled later.
const COMPILING_PATIENCE: Duration = Duration::from_secs(5);
/// Of the plugin directory, where nobody tells of a change.
const RESCAN: Duration = Duration::from_secs(10);

pub const APP: &str = "shop";
pub const PARTITIONS: i32 = 3;

pub fn topics() -> TopicSettings {
    TopicSettings::of_app(APP)
}

pub fn transport(dir: &Path) -> Arc<EmbeddedTransport> {
    let opened = EmbeddedTransport::open_with(dir, APP, Options::default(), Arc::new(WorldClock));
    Arc::new(opened.expect("the embedded transport opens"))
}

/// What runs, for whoever plays the operator.
pub struct Running {
    pub host: HostNo,
    /// None: it has not begun yet.
    begun: Arc<Mutex<Option<Begun>>>,
}

/// A host that has begun.
#[derive(Clone)]
pub struct Begun {
    pub processor: Arc<Processor>,
    /// Undisturbed.
    pub journal: Arc<dyn Journal>,
    pub board: Arc<Board>,
}

impl Running {
    pub fn begun(&self) -> Option<Begun> {
        self.begun.lock().expect("nobody panics with it").clone()
    }

    /// A person stops it, once it has begun.
    pub fn stop(&self) {
        let Some(Begun { processor, board, .. }) =
            self.begun().filter(|_| world::world(|world| world.is_alive(self.host)))
        else {
            return;
        };
        let until = world::now().steady.after(STOP_WITHIN);
        processor.stop_reading();
        board.changed.raise_all();
        let drain = processor.drain(until);
        let stopping = Stopping { host: self.host, processor, drain, seen: None };
        world::world(|world| {
            world.note(|| format!("host {} is stopped", self.host));
            world.add(self.host, "drain", Box::new(stopping));
        });
    }
}

/// It ends when everything that was read is out, or when its time is over.
struct Stopping {
    host: HostNo,
    processor: Arc<Processor>,
    drain: Drain,
    /// Of the signal that it waits for.
    seen: Option<u64>,
}

impl Part for Stopping {
    fn step(&mut self, now: Now) -> Next {
        let stage = &self.processor.stage;
        let is_out = self.drain.drained && stage.unpublished() == 0;
        assert!(!is_out || self.seen != Some(stage.progress.seen()), "all is out, and nobody told the drain");
        let next = self.drain.step(now);
        if let Next::Wait(wait) = &next {
            self.seen = Some(wait.seen);
        }
        if matches!(next, Next::Ended(_)) {
            self.processor.stop();
            world::world(|world| world.ended.push(Ended::Stopped(self.host)));
        }
        next
    }
}

/// What outlives a process.
#[derive(Clone)]
pub struct Place {
    pub dir: PathBuf,
    pub topics: Arc<EmbeddedTransport>,
    pub files: Arc<Files>,
    pub natives: Natives,
    pub courier: Arc<Service>,
}

/// A process begins: in the same directory as those before it, with the same topics.
///
/// # Errors
/// The journal cannot be opened, or does not hold what it must.
pub fn start(place: &Place) -> Result<Running, String> {
    let host = world::world(world::World::process);
    let options =
        OpenOptions { past_the_lock: true, wal_pages_max: 500, random: world::random, ..OpenOptions::default() };
    let journal = SqliteJournal::open(&place.dir, APP, options)
        .map_err(|error| format!("the journal cannot be opened: {error}"))?;
    let directory = world::world(|world| {
        world.begins_at(journal.identity().last_batch.0)?;
        Ok::<_, String>(world.directory)
    })?;
    let journal = Arc::new(SimJournal { inner: Arc::new(journal), host, directory });
    let transport = Arc::new(SimTransport { inner: place.topics.clone(), host });
    let running = Running { host, begun: Arc::default() };
    let beginning = Beginning {
        host,
        state: None,
        journal,
        transport,
        place: place.clone(),
        begun: running.begun.clone(),
        signal: Arc::default(),
        compilers: Arc::default(),
        began: world::now().steady,
    };
    let compiler = Compiler(beginning.compilers.clone());
    world::world(|world| {
        world.note(|| format!("host {host} starts"));
        world.add(host, "start", Box::new(beginning));
        world.add(host, "compiler", Box::new(compiler));
    });
    Ok(running)
}

struct Beginning {
    host: HostNo,
    /// None: it has not looked at its plugins yet.
    state: Option<(Start, Serves)>,
    journal: Arc<SimJournal>,
    transport: Arc<SimTransport>,
    place: Place,
    begun: Arc<Mutex<Option<Begun>>>,
    signal: Arc<Signal>,
    compilers: Arc<Compilers>,
    began: Steady,
}

/// The plugins that it begins with, and the directory as it was.
struct Serves {
    plugins: Plugins,
    started: Started,
}

impl Part for Beginning {
    fn step(&mut self, now: Now) -> Next {
        // Where it cannot go on, a person starts it again.
        let again = |error: &dyn Error| Next::Ended(Err(Fatal::Superseded(error.to_string())));
        let Some((start, _)) = &mut self.state else {
            let seen = self.signal.seen();
            return match self.look_at_plugins(now) {
                Ok(true) => Next::Again,
                Ok(false) => {
                    let until = Some(self.began.after(COMPILING_PATIENCE)).filter(|until| *until > now.steady);
                    Next::Wait(Wait { signal: self.signal.clone(), seen, until })
                }
                Err(error) => again(&error),
            };
        };
        match start.step(now) {
            Ok(Starting::Wait(until)) => {
                Next::Wait(Wait { signal: self.signal.clone(), seen: self.signal.seen(), until: Some(until) })
            }
            Ok(Starting::Begun(begun)) => match self.begun(*begun) {
                Ok(()) => Next::Ended(Ok(())),
                Err(error) => again(&*error),
            },
            Err(StartError::Journal { source }) => again(&source),
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
    /// False: something is being compiled first.
    fn look_at_plugins(&mut self, now: Now) -> Result<bool, PluginsError> {
        let plan = world::world(|world| world.plan.clone());
        let Place { files, natives, .. } = self.place.clone();
        self.compilers.tell(self.signal.clone());
        let seen = Arc::new(Seen { files, natives, host: self.host, compilers: self.compilers.clone() });
        let mut plugins = Plugins::new(serving(&plan), seen.clone(), seen);
        let patient = now.steady.since(self.began) < COMPILING_PATIENCE;
        let started = match plugins.start(&*self.journal, now.wall, patient)? {
            Readiness::Ready(started) => started,
            Readiness::Compiling(_) => return Ok(false),
        };
        let wanted = plugins.wanted(&plugins.serving);
        let start = Start::new(APP, self.journal.clone(), self.transport.clone(), wanted, Decisions::default());
        self.state = Some((start, Serves { plugins, started }));
        Ok(true)
    }

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

    fn begun(&mut self, begun: start::Begun) -> Result<(), Box<dyn Error>> {
        disk::forget_aside();
        let plan = world::world(|world| world.plan.clone());
        let (_, Serves { mut plugins, started }) = self.state.take().expect("it looked at its plugins");
        plugins.record_start(&started, &*self.journal, world::now().wall)?;
        let serving = plugins.serve()?;
        let answers: Arc<OnceLock<Answers>> = Arc::default();
        let line = Line { service: self.place.courier.clone(), host: self.host, answers: answers.clone() };
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
        let feeding = processor.feeding.clone();
        let mut parts: Vec<(String, Box<dyn Part>)> = vec![
            ("publisher".to_owned(), Box::new(processor.publisher(begun.sink, &at))),
            ("committer".to_owned(), Box::new(processor.committer(&at))),
            ("reader".to_owned(), Box::new(feeding.by(processor.reader(source, begun.assignments, &at)))),
            ("timers".to_owned(), Box::new(feeding.by(processor.timers()))),
            ("parked".to_owned(), Box::new(feeding.by(processor.parked()))),
            ("deadlines".to_owned(), Box::new(feeding.by(processor.deadlines(self.transport.clone())))),
        ];
        for number in 0..processor.workers() {
            parts.push((format!("worker {number}"), Box::new(processor.worker())));
        }
        let board = Arc::<Board>::default();
        let assigned = plugins.wanted(&plugins.serving).inputs.into_keys().collect();
        processor.intake.read_also(Vec::new(), plugins.idle_topics(assigned));
        let (transport, journal) = (self.transport.clone(), self.journal.inner.clone());
        let reach =
            Reach { switch: processor.switch(), transport, board: board.clone(), configuration: None, services: None };
        let keeper = Keeper::new(plugins, started, reach, world::now());
        parts.push(("plugins".to_owned(), Box::new(feeding.by(keeper))));
        *self.begun.lock().expect("nobody panics with it") = Some(Begun { processor, journal, board });
        world::world(|world| {
            for (name, part) in parts {
                world.add(self.host, &name, part);
            }
        });
        Ok(())
    }
}

/// What an operator says of plugins.
fn serving(plan: &Plan) -> sagahost_serving::Settings {
    sagahost_serving::Settings {
        app: APP.into(),
        plugins_dir: DIR.into(),
        data_dir: PathBuf::new(),
        strict: false,
        watch: WatchSettings { rescan: RESCAN, probation: plan.probation, ..WatchSettings::default() },
        limits: Limits::default(),
        bounds: Bounds {
            saga_deadline: None,
            inline_events_max: plan.known_max,
            inline_history_max: plan.known_max,
            ..Bounds::default()
        },
        topics: topics(),
        record_bytes_max: 1_000_000,
        new_topics: NewTopics { create: true, partitions: PARTITIONS, start: StartAt::Earliest },
        plugin_order: Vec::new(),
        values: Values::default(),
        outside: BTreeSet::from(["courier".to_owned()]),
        reached: world::reached,
    }
}

fn settings(plan: &Plan) -> Settings {
    Settings {
        batch: BatchBounds {
            chains_max: plan.chains_max,
            bytes_max: 4 << 20,
            wait: Duration::from_millis(10),
            wait_max: Duration::from_millis(50),
            interval: Duration::ZERO,
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
            queued_bytes_max: 0,
        },
        chain: ChainBounds {
            steps_max: plan.chain_steps_max,
            bytes_max: plan.chain_bytes_max,
            call_bytes_max: 16 << 20,
        },
        reservation_max: Duration::from_millis(500),
        cache_bytes_max: plan.cache_bytes_max,
        letters: LetterBounds {
            letters_max: 10_000,
            bytes_max: 256 << 20,
            retention: Duration::from_secs(30 * 24 * 3600),
        },
        stall_wait_max: Duration::from_secs(60),
        due_per_second_max: 500,
    }
}
