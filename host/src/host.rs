//! A running host: its threads, how it begins and how it ends. Invariant: it ends in an order in which nothing that is
//! journaled can be lost: source, workers, committer, publisher.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, unbounded};
use sagahost_ingress::{Ingress, Reach};
use sagahost_journal::{Journal, JournalError, OutboxBatch};
use sagahost_journal_sqlite::{OpenOptions, SqliteJournal};
use sagahost_net::{Bounds, Client, ClientError, Runtime, Server, ServerError, ServerSettings, Serving};
use sagahost_operator::Live;
use sagahost_outbound::Senders;
use sagahost_processor::{
    Fatal, Processor, Settings,
    letters_kept::LetterBounds,
    outside::Outside,
    processor,
    read_ahead::ReadAhead,
    schedule::ScheduleBounds,
    stage::BatchBounds,
    start::{Begun, Decisions, Start, StartError},
    worker::ChainBounds,
};
use sagahost_remote::{Callers, Manifests};
use sagahost_sandbox::Compiler;
use sagahost_serving::{
    Board, Keeper, Plugins, PluginsError,
    keeper::{self, Configuration},
    plugins::{Readiness, Started},
};
use sagahost_transport::{Transport, TransportError};
use sagahost_transport_embedded::EmbeddedTransport;
use sagahost_transport_kafka::{KafkaSettings, KafkaTransport};
use sagahost_wire::{
    BatchNo, Epoch,
    clock::{Clock, SystemClock},
};
use tokio::task::AbortHandle;
use tracing::{info, warn};

use crate::{
    admission::{self, AdmissionError, Compiling, Services},
    config::{Config, ReloadedFile},
    crash, data_directory,
    live::Running,
    outside::Everybody,
    preflight::warned_strays,
    process,
    threads::{Clocks, ThreadError, Threads, await_until, begin, drive, join},
};

/// Why a host does not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("failed to open the journal in {}", dir.display())]
    Open { dir: PathBuf, source: JournalError },
    #[error("failed to read the journal")]
    Journal { source: JournalError },
    #[error("failed to set up the transport")]
    Transport { source: TransportError },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    #[error(transparent)]
    Plugins(#[from] PluginsError),
    #[error(transparent)]
    Thread(#[from] ThreadError),
    #[error("failed to start the threads that call services")]
    Runtime { source: io::Error },
    #[error("failed to prepare the calls of services")]
    Client { source: ClientError },
    #[error("failed to serve HTTP ([http])")]
    Server { source: ServerError },
}

/// What a host is made of. Tests put decorators around the journal and the transport.
pub struct Parts {
    pub config: Config,
    pub journal: Arc<dyn Journal>,
    pub transport: Arc<dyn Transport>,
    pub clock: Arc<dyn Clock>,
    pub compiler: Compiler,
    pub decisions: Decisions,
    /// Set: give up waiting for the broker, or for a compiler.
    pub stop_requested: Arc<AtomicBool>,
}

impl Parts {
    /// Opens the journal (which locks it) and the transport that the configuration names.
    pub fn open(config: Config) -> Result<Self, HostError> {
        let journal = data_directory::secure(&config)
            .and_then(|()| SqliteJournal::open(&config.data_dir, &config.app, OpenOptions::default()))
            .map_err(|source| HostError::Open { dir: config.data_dir.clone(), source })?;
        let transport = open_transport(&config).map_err(|source| HostError::Transport { source })?;
        Ok(Self {
            journal: Arc::new(journal),
            transport,
            clock: Arc::new(SystemClock),
            compiler: Compiler::Here,
            decisions: Decisions::default(),
            stop_requested: Arc::default(),
            config,
        })
    }
}

pub fn open_transport(config: &Config) -> Result<Arc<dyn Transport>, TransportError> {
    Ok(match &config.kafka {
        Some(kafka) => Arc::new(crash::Pointed(KafkaTransport::new(kafka, &config.app)?)),
        None => Arc::new(EmbeddedTransport::open_with(
            &config.data_dir,
            &config.app,
            sagahost_transport_embedded::Options {
                record_bytes_max: config.pipeline.record_bytes_max,
                kept_records_max: Some(config.embedded.kept_records_max),
                ..sagahost_transport_embedded::Options::default()
            },
            Arc::new(SystemClock),
        )?),
    })
}

/// Beyond the deadline, for threads that are about to end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Plugins that are compiled within this time serve from the first event on.
const COMPILING_PATIENCE: Duration = Duration::from_secs(5);
/// So long nobody wonders what is waited for.
const SILENCE: Duration = Duration::from_secs(1);

/// The plugins that serve first.
fn start_plugins(
    plugins: &mut Plugins,
    journal: &dyn Journal,
    clocks: &Clocks,
    stopped: impl Fn() -> bool,
) -> Result<Started, HostError> {
    let began = Instant::now();
    let mut said = false;
    loop {
        let patient = began.elapsed() < COMPILING_PATIENCE;
        let compiling = match plugins.start(journal, clocks.now().wall, patient)? {
            Readiness::Ready(started) => return Ok(started),
            Readiness::Compiling(compiling) => compiling,
        };
        if !await_until(Instant::now() + SILENCE, || stopped() || plugins.is_one_compiled(&compiling)) && !said {
            let files: Vec<String> = compiling.keys().map(|file| file.display().to_string()).collect();
            info!(
                files = files.join(", "),
                "compiling plugins: the host begins when that is done, or after some seconds with the versions that served \
                 last"
            );
            said = true;
        }
        if stopped() {
            return Err(StartError::Stopped.into());
        }
    }
}

/// How a host ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopReport {
    /// Journaled and not yet published: the next start publishes it.
    pub unpublished_batches: Vec<BatchNo>,
    pub unpublished_records: usize,
    /// Not everything that was read could be journaled within the deadline; it is read again.
    pub cut_off: bool,
}

impl StopReport {
    pub fn of(left: &[OutboxBatch]) -> Self {
        Self {
            unpublished_batches: left.iter().map(|batch| batch.number).collect(),
            unpublished_records: left.iter().map(|batch| batch.records.len()).sum(),
            cut_off: false,
        }
    }
}

pub struct Host {
    processor: Arc<Processor>,
    clocks: Clocks,
    /// None: no service takes part.
    outside: Arc<Everybody>,
    runtime: Option<Arc<Runtime>>,
    /// None: nobody hears of them.
    alerts: Option<AbortHandle>,
    /// None: there is no way in over HTTP.
    ingress: Option<Arc<Ingress>>,
    http: Option<Serving>,
    http_address: Option<SocketAddr>,
    board: Arc<Board>,
    journal: Arc<dyn Journal>,
    transport: Arc<dyn Transport>,
    /// The journal's owner is this host as long as it has this epoch.
    epoch: Epoch,
    live: Arc<dyn Live>,
    config: Config,
    fatal: Receiver<Fatal>,
    readers: Vec<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    committer: Option<JoinHandle<()>>,
    publisher: Option<JoinHandle<()>>,
}

impl Host {
    pub fn start(config: Config) -> Result<Self, HostError> {
        Self::start_with(Parts::open(config)?)
    }

    pub fn start_with(parts: Parts) -> Result<Self, HostError> {
        let Parts { config, journal, transport, clock, compiler, decisions, stop_requested } = parts;
        let clocks = Clocks::new(clock.clone());
        // What compiles in this process would have to wait for it in any case.
        let compiling = match compiler {
            Compiler::Here => Compiling::Awaited,
            Compiler::Process { .. } => Compiling::Beside,
        };
        let services = Services::of(&config, &clocks);
        let runtime = runtime(&config)?;
        let callers = callers(&config, runtime.as_ref(), services.manifests.clone())?;
        let senders = Senders::new(runtime.clone(), &config.grants(), config.limits.response_bytes_max);
        let senders = senders.map_err(|source| HostError::Client { source })?;
        let outside = Arc::new(Everybody::new(callers, senders));
        // An address that is taken is said before anything else is.
        let server = server(&config, runtime.as_deref())?;
        let (serving, key) = (config.serving(), config.code_key());
        let mut plugins = admission::plugins(serving, key, clocks.clone(), compiler, compiling, services)?;
        let stopped = || stop_requested.load(Ordering::Relaxed);
        let started = start_plugins(&mut plugins, &*journal, &clocks, stopped)?;
        warned_strays(&config, &plugins.rows);
        let wanted = plugins.wanted(&plugins.serving);
        let start = Start::new(&config.app, journal.clone(), transport.clone(), wanted, decisions);
        let begun = begin(start, &clocks, stopped)?;
        plugins.record_start(&started, &*journal, clocks.now().wall)?;
        let identity = begun.identity.clone();
        info!(
            app = %config.app, journal = %identity.journal, incarnation = %identity.incarnation,
            batch = identity.last_batch.0, transport = transport.describe(), "started"
        );

        let processor = Arc::new(Processor::new(
            journal.clone(),
            plugins.serve()?,
            config.topics.clone(),
            settings(&config),
            Some(outside.clone() as Arc<dyn Outside>),
        ));
        let (sender, fatal) = unbounded();
        let threads = Threads { clocks: clocks.clone(), fatal: sender };
        let board = Arc::<Board>::default();
        outside.begin(&processor.answers(), board.changed.clone());
        let mut host = Self {
            live: Arc::new(Running::of(&processor, &board, &transport, &identity, &clocks, &config)),
            processor,
            clocks,
            outside,
            runtime,
            alerts: None,
            ingress: None,
            http: None,
            http_address: None,
            board,
            journal,
            transport,
            epoch: identity.epoch,
            config,
            fatal,
            readers: Vec::new(),
            workers: Vec::new(),
            committer: None,
            publisher: None,
        };
        // It hears of every batch, and so it is there before the first.
        host.ingress = host.way_in(clock.clone());
        host.spawn(begun, &threads, &stop_requested)?;
        host.keep(plugins, started, &threads)?;
        host.serve(server);
        host.tell_of_alerts(clock)?;
        Ok(host)
    }

    fn way_in(&self, clock: Arc<dyn Clock>) -> Option<Arc<Ingress>> {
        let settings = self.config.http.clone()?;
        let reach = Reach {
            app: self.config.app.clone(),
            inbox: self.processor.inbox.clone(),
            intake: self.processor.intake.clone(),
            journal: self.journal.clone(),
            clock,
            queue_events_max: self.config.pipeline.queue_events_max,
        };
        Some(Ingress::new(settings, reach, &self.processor.facts))
    }

    /// Requests are answered from now on.
    fn serve(&mut self, server: Option<Server>) {
        let (Some(server), Some(ingress), Some(runtime)) = (server, &self.ingress, &self.runtime) else { return };
        let tls = self.config.http.as_ref().is_some_and(|settings| settings.tls.is_some());
        let scheme = if tls { "https" } else { "http" };
        info!("requests are answered at {scheme}://{}", server.address());
        self.http_address = Some(server.address());
        self.http = Some(server.serve(runtime, sagahost_ingress::service(ingress)));
    }

    /// What needs a person, from now on.
    fn tell_of_alerts(&mut self, clock: Arc<dyn Clock>) -> Result<(), HostError> {
        const TIMEOUT: Duration = Duration::from_secs(10);
        const ANSWER_BYTES_MAX: usize = 64 << 10;
        let Some(runtime) = self.runtime.as_ref().filter(|_| !self.config.alerts.is_off()) else { return Ok(()) };
        let bounds = Bounds { timeout: TIMEOUT, connect_timeout: TIMEOUT / 2, body_bytes_max: ANSWER_BYTES_MAX };
        let client = Client::new(bounds).map_err(|source| HostError::Client { source })?;
        let (settings, app) = (self.config.alerts.clone(), self.config.app.clone());
        let config = self.config.clone();
        let command = move |words: &str| config.command_line(words);
        let watch = sagahost_alerts::watch(settings, app, self.journal.clone(), clock, client, command);
        self.alerts = Some(runtime.spawn(watch).abort_handle());
        Ok(())
    }

    fn spawn(&mut self, begun: Begun, threads: &Threads, stop_requested: &AtomicBool) -> Result<(), HostError> {
        let (processor, transport, journal) = (self.processor.clone(), self.transport.clone(), self.journal.clone());
        let failed = |source| HostError::Journal { source };
        let Begun { identity, sink, anchor, assignments, backlog, published } = begun;
        let (last, notes) = (identity.last_batch, journal.publication_notes().map_err(failed)?);
        let at = processor::At { identity, anchor, published, notes, reached: crash::point };
        processor.take_up(&at, backlog).map_err(failed)?;
        self.publisher = Some(threads.part("publisher", processor.publisher(sink, &at))?);
        self.await_claim(last, stop_requested);
        self.committer = Some(threads.part("committer", processor.committer(&at))?);
        for number in 0..processor.workers() {
            self.workers.push(threads.part(&format!("worker-{number}"), processor.worker())?);
        }
        let source = transport.source().map_err(|source| HostError::Transport { source })?;
        let reader = processor.reader(source, assignments, &at);
        let feeding = &processor.feeding;
        self.readers.push(threads.part("reader", feeding.by(reader))?);
        self.readers.push(threads.part("timers", feeding.by(processor.timers()))?);
        self.readers.push(threads.part("parked", feeding.by(processor.parked()))?);
        self.readers.push(threads.part("deadlines", feeding.by(processor.deadlines(transport.clone())))?);
        Ok(())
    }

    /// What was journaled before this start goes out before anything runs; a broker that is away, or refuses a row,
    /// does not keep the host from answering its operator.
    fn await_claim(&self, last: BatchNo, stop_requested: &AtomicBool) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let processor = &self.processor;
        await_until(Instant::now() + PATIENCE, || {
            processor.stage.published_batch() >= last
                || processor.outbox.refused().is_some()
                || stop_requested.load(Ordering::Relaxed)
        });
    }

    /// Plugins that change from now on.
    fn keep(&mut self, plugins: Plugins, started: Started, threads: &Threads) -> Result<(), HostError> {
        let Self { processor, transport, board, clocks, .. } = self;
        let assigned = plugins.wanted(&plugins.serving).inputs.into_keys().collect();
        processor.intake.read_also(Vec::new(), plugins.idle_topics(assigned));
        let file = ReloadedFile::of(&self.config, &self.outside).map(|file| Box::new(file) as Box<dyn Configuration>);
        let reach = keeper::Reach {
            switch: processor.switch(),
            transport: transport.clone(),
            board: board.clone(),
            configuration: file,
            services: self.outside.callers.clone().map(|callers| callers as Arc<dyn keeper::Services>),
        };
        let keeper = Keeper::new(plugins, started, reach, clocks.now());
        self.readers.push(threads.part("plugins", self.processor.feeding.by(keeper))?);
        Ok(())
    }

    /// Shared with the admin socket and the tests.
    pub fn live(&self) -> Arc<dyn Live> {
        self.live.clone()
    }

    pub fn journal(&self) -> Arc<dyn Journal> {
        self.journal.clone()
    }

    pub fn transport(&self) -> Arc<dyn Transport> {
        self.transport.clone()
    }

    /// Where requests are answered. None: nowhere.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Why the host has to stop by itself, if it has.
    pub fn fatal(&self, timeout: Duration) -> Option<Fatal> {
        self.fatal.recv_timeout(timeout).ok()
    }

    /// Reads nothing more, finishes what was read, journals and publishes it, and closes the journal: within
    /// `deadline`.
    pub fn stop(mut self, deadline: Duration) -> StopReport {
        let end = Instant::now() + deadline;
        self.ingress.iter().for_each(|ingress| ingress.stop());
        self.stop_reading();
        let drained = {
            let mut drain = self.processor.drain(self.clocks.now().steady.after(deadline));
            drive(&mut drain, &self.clocks).is_ok() && drain.drained
        };
        self.end(Some(end + FAREWELL));
        let (journal, published) = (self.journal.clone(), self.processor.stage.published_batch());
        if published > journal.identity().confirmed
            && let Err(error) = journal.confirm(self.epoch, published)
        {
            warn!(%error, "failed to confirm what is published; the next start finds out");
        }
        let left = journal.outbox(published, usize::MAX).unwrap_or_default();
        if let Err(error) = journal.close() {
            warn!(%error, "failed to close the journal cleanly; the next start recovers it");
        }
        StopReport { cut_off: !drained, ..StopReport::of(&left) }
    }

    fn stop_reading(&self) {
        self.processor.stop_reading();
        self.outside.stop();
        self.alerts.iter().for_each(AbortHandle::abort);
        self.board.changed.raise_all();
    }

    /// Ends as if the process had been killed: nothing is finished, nothing is written any more.
    pub fn abort(self) {
        drop(self);
    }

    /// `until`: threads that still wait for an answer by then are left to themselves. What they do is safe at any
    /// moment, as for a host that is killed.
    fn end(&mut self, until: Option<Instant>) {
        const ANSWERS: Duration = Duration::from_millis(500);
        self.ingress.iter().for_each(|ingress| ingress.end());
        if let (Some(serving), Some(until)) = (self.http.take(), until) {
            // What is cut takes as long as a farewell.
            let left = until.saturating_duration_since(Instant::now()).saturating_sub(FAREWELL);
            serving.end(ANSWERS.min(left));
        }
        self.stop_reading();
        self.processor.stop();
        join(self.workers.drain(..), until);
        join(self.committer.take().into_iter(), until);
        join(self.publisher.take().into_iter(), until);
        join(self.readers.drain(..), until);
    }
}

/// A start that fails half-way leaves no thread behind, and no lock.
impl Drop for Host {
    fn drop(&mut self) {
        self.end(None);
    }
}

/// Where requests come. None: nowhere.
fn server(config: &Config, runtime: Option<&Runtime>) -> Result<Option<Server>, HostError> {
    const HEADER_BYTES_MAX: usize = 32 << 10;
    const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
    let (Some(http), Some(runtime)) = (&config.http, runtime) else { return Ok(None) };
    process::allow_descriptors(http.connections_max);
    let settings = ServerSettings {
        listen: http.listen,
        tls: http.tls.clone(),
        connections_max: http.connections_max,
        header_timeout: http.header_timeout,
        header_bytes_max: HEADER_BYTES_MAX,
        write_timeout: WRITE_TIMEOUT,
    };
    Server::bind(runtime, settings).map(Some).map_err(|source| HostError::Server { source })
}

/// The threads for HTTP. None: nobody calls, and nobody is called.
fn runtime(config: &Config) -> Result<Option<Arc<Runtime>>, HostError> {
    if config.participants.is_empty() && config.alerts.is_off() && config.http.is_none() && config.grants().is_empty() {
        return Ok(None);
    }
    let runtime = Runtime::start().map_err(|source| HostError::Runtime { source })?;
    Ok(Some(Arc::new(runtime)))
}

/// Whoever calls the services of the configuration.
fn callers(
    config: &Config,
    runtime: Option<&Arc<Runtime>>,
    manifests: Arc<Manifests>,
) -> Result<Option<Arc<Callers>>, HostError> {
    let Some(runtime) = runtime.filter(|_| !config.participants.is_empty()) else { return Ok(None) };
    let limits = Arc::new(config.limits.clone());
    let callers = Callers::new(runtime.clone(), &config.participants, manifests, limits);
    Ok(Some(Arc::new(callers.map_err(|source| HostError::Client { source })?)))
}

fn settings(config: &Config) -> Settings {
    let (pipeline, letters) = (&config.pipeline, &config.dead_letters);
    Settings {
        batch: BatchBounds {
            chains_max: pipeline.batch_chains_max,
            bytes_max: pipeline.batch_bytes_max,
            wait: pipeline.batch_wait,
            wait_max: pipeline.batch_wait_max,
            interval: pipeline.batch_interval,
            position_wait: pipeline.position_wait,
            unpublished_max: pipeline.unpublished_batches_max as u64,
        },
        schedule: ScheduleBounds {
            slots: pipeline.workers,
            slow_max: pipeline.slow_calls_max,
            slow_after: pipeline.slow_call_after,
        },
        read_ahead: ReadAhead {
            events_max: pipeline.queue_events_max,
            bytes_max: pipeline.in_flight_bytes_max,
            record_bytes_max: pipeline.record_bytes_max,
            queued_bytes_max: config.kafka.as_ref().map_or(0, KafkaSettings::queued_bytes_max),
        },
        chain: ChainBounds {
            steps_max: pipeline.chain_steps_max,
            bytes_max: pipeline.chain_bytes_max,
            call_bytes_max: config.limits.call_bytes_max,
        },
        reservation_max: pipeline.reservation_max,
        cache_bytes_max: pipeline.cache_bytes_max,
        letters: LetterBounds {
            letters_max: letters.undecodable_max,
            bytes_max: letters.undecodable_bytes_max,
            retention: letters.undecodable_retention,
        },
        stall_wait_max: pipeline.stall_wait_max,
        due_per_second_max: pipeline.due_per_second_max,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use expect_test::expect;

    use super::settings;
    use crate::config::Config;

    /// What each of these bounds does is tested where the processor keeps it.
    #[test]
    fn each_bound_reaches_the_processor() {
        let text = "app = \"shop\"\n[kafka]\nbootstrap-servers = \"b:1\"\n[kafka.properties]\n\
                    \"queued.max.messages.kbytes\" = 262\n\"message.max.bytes\" = 1000007\n[pipeline]\nbatch-chains-max = 11\nbatch-bytes-max = 1000012\nbatch-wait = \"13ms\"\nbatch-wait-max = \"130ms\"\nbatch-interval = \"12ms\"\n\
                    position-wait = \"14ms\"\nunpublished-batches-max = 1\nworkers = 8\nslow-calls-max = 9\n\
                    slow-call-after = \"10ms\"\nqueue-events-max = 15\nin-flight-bytes-max = 1048577\nrecord-bytes-max = 1000007\n\
                    chain-steps-max = 16\nchain-bytes-max = 1000018\n\
                    reservation-max = \"17ms\"\ncache-bytes-max = 67108865\nstall-wait-max = \"19s\"\ndue-per-second-max = 20\n\
                    [dead-letters]\nundecodable-max = 21\nundecodable-bytes-max = 1048598\nundecodable-retention = \"23h\"\n";
        let config = Config::parse(text, Path::new("sagahost.toml")).unwrap_or_else(|faults| panic!("{faults}"));
        expect![[r#"
            Settings { batch: BatchBounds { chains_max: 11, bytes_max: 1000012, wait: 13ms, wait_max: 130ms, interval: 12ms, position_wait: 14ms, unpublished_max: 1 }, schedule: ScheduleBounds { slots: 8, slow_max: 9, slow_after: 10ms }, read_ahead: ReadAhead { events_max: 15, bytes_max: 1048577, record_bytes_max: 1000007, queued_bytes_max: 262000 }, chain: ChainBounds { steps_max: 16, bytes_max: 1000018, call_bytes_max: 16777216 }, reservation_max: 17ms, cache_bytes_max: 67108865, letters: LetterBounds { letters_max: 21, bytes_max: 1048598, retention: 82800s }, stall_wait_max: 19s, due_per_second_max: 20 }
        "#]]
        .assert_eq(&format!("{:?}\n", settings(&config)));
    }
}
