//! A running host: its threads, how it begins and how it ends. Invariant: it ends in an order in which nothing that is
//! journaled can be lost: source, workers, committer, publisher.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, bounded, unbounded};
use sagahost_codec::Decoded;
use sagahost_journal::{Identity, Journal, JournalError, LeftOut, LetterWrite, OutboxBatch};
use sagahost_journal_sqlite::{OpenOptions, SqliteJournal};
use sagahost_processor::{
    Fatal, Processor, Settings, lookalike,
    mailbox::{Item, Loose},
    processor,
    reader::Slices,
    reply::{Declined, Reply},
    stage::{BatchBounds, Move},
    start::{Begun, Decisions, Start, StartError},
    stats::Stats,
    unhandled::Sort,
};
use sagahost_saga::{
    id::{Participant, SagaId},
    input::{Answer, Command},
    notation,
};
use sagahost_sandbox::{Report, directory::DirectorySnapshot};
use sagahost_serving::{
    Board, Keeper, Order, Plugins, PluginsError,
    code::NowFn,
    keeper::{Configuration, Reach},
    plugins::Started,
};
use sagahost_transport::{Transport, TransportError};
use sagahost_transport_embedded::EmbeddedTransport;
use sagahost_transport_kafka::KafkaTransport;
use sagahost_wire::{
    BatchNo, Partition, StoredLetter, TopicId,
    clock::{Clock, SystemClock},
};
use tracing::{info, warn};

use crate::{
    admin::{
        Live, LiveStatus, OutboxAction, PluginAction, ResumeFrom,
        plugin_view::PluginsView,
        protocol::{Refusal, Why},
    },
    config::{Config, PipelineSettings, ReloadedFile},
    crash,
    preflight::warned_strays,
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
    Plugins(#[from] PluginsError),
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

/// What a host is made of. Tests put decorators around the journal and the transport.
pub struct Parts {
    pub config: Config,
    pub journal: Arc<dyn Journal>,
    pub transport: Arc<dyn Transport>,
    pub clock: Arc<dyn Clock>,
    pub decisions: Decisions,
    /// Set: give up waiting for the broker.
    pub stop_requested: Arc<AtomicBool>,
}

impl Parts {
    /// Opens the journal (which locks it) and the transport that the configuration names.
    pub fn open(config: Config) -> Result<Self, HostError> {
        let journal = SqliteJournal::open(&config.data_dir, &config.app, OpenOptions::default())
            .map_err(|source| HostError::Open { dir: config.data_dir.clone(), source })?;
        let transport = open_transport(&config).map_err(|source| HostError::Transport { source })?;
        Ok(Self {
            journal: Arc::new(journal),
            transport,
            clock: Arc::new(SystemClock),
            decisions: Decisions::default(),
            stop_requested: Arc::default(),
            config,
        })
    }
}

pub fn open_transport(config: &Config) -> Result<Arc<dyn Transport>, TransportError> {
    Ok(match &config.kafka {
        Some(kafka) => Arc::new(KafkaTransport::with_points(kafka, &config.app, crash::point)?),
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
    shared: Arc<Shared>,
    config: Config,
    fatal: Receiver<Fatal>,
    readers: Vec<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    committer: Option<JoinHandle<()>>,
    publisher: Option<JoinHandle<()>>,
}

/// What operators' commands reach.
struct Shared {
    processor: Arc<Processor>,
    clocks: Clocks,
    board: Arc<Board>,
    transport: Arc<dyn Transport>,
    journal: Arc<dyn Journal>,
    identity: Identity,
    app: String,
    data: PathBuf,
}

impl Host {
    pub fn start(config: Config) -> Result<Self, HostError> {
        Self::start_with(Parts::open(config)?)
    }

    pub fn start_with(parts: Parts) -> Result<Self, HostError> {
        let Parts { config, journal, transport, clock, decisions, stop_requested } = parts;
        let clocks = Clocks::new(clock);
        let mut plugins = Plugins::open(config.serving())?;
        let snapshot = plugins.look();
        let started = plugins.start(&*journal, clocks.now().wall)?;
        warned_strays(&config, &plugins.rows);
        let wanted = plugins.wanted(&plugins.serving);
        let start = Start::new(&config.app, journal.clone(), transport.clone(), wanted, decisions);
        let begun = begin(start, &clocks, || stop_requested.load(Ordering::Relaxed))?;
        plugins.record_start(&started, &*journal, clocks.now().wall)?;
        let identity = begun.identity.clone();
        info!(
            app = %config.app, journal = %identity.journal, incarnation = %identity.incarnation,
            batch = identity.last_batch.0, transport = transport.describe(), "started"
        );

        let processor = Arc::new(Processor::new(
            journal.clone(),
            plugins.serve(&now_fn(&clocks))?,
            config.topics.clone(),
            settings(&config.pipeline),
            // Nothing outside is granted.
            None,
        ));
        let (sender, fatal) = unbounded();
        let threads = Threads { clocks: clocks.clone(), fatal: sender };
        let shared = Arc::new(Shared {
            processor,
            clocks,
            board: Arc::default(),
            transport: transport.clone(),
            journal: journal.clone(),
            identity: identity.clone(),
            app: config.app.to_string(),
            data: config.data_dir.clone(),
        });
        let mut host =
            Self { shared, config, fatal, readers: Vec::new(), workers: Vec::new(), committer: None, publisher: None };
        host.spawn(begun, &threads, &stop_requested)?;
        host.keep(plugins, snapshot, started, &threads)?;
        Ok(host)
    }

    fn spawn(&mut self, begun: Begun, threads: &Threads, stop_requested: &AtomicBool) -> Result<(), HostError> {
        const SLICES: Slices =
            Slices { poll: Duration::from_millis(100), paused: Duration::from_millis(2), idle: Duration::ZERO };
        let Shared { processor, transport, journal, .. } = &*self.shared;
        let failed = |source| HostError::Journal { source };
        let Begun { identity, sink, anchor, assignments, backlog, published } = begun;
        let (last, notes) = (identity.last_batch, journal.publication_notes().map_err(failed)?);
        let at = processor::At { identity, anchor, published, notes, reached: crash::point };
        processor.take_up(&at, backlog).map_err(failed)?;
        self.publisher = Some(threads.part("publisher", processor.publisher(sink, &at))?);
        self.await_claim(last, stop_requested);
        self.committer = Some(threads.part("committer", processor.committer(&at))?);
        for number in 0..self.config.pipeline.workers.max(1) {
            self.workers.push(threads.part(&format!("worker-{number}"), processor.worker())?);
        }
        let source = transport.source().map_err(|source| HostError::Transport { source })?;
        let reader = processor.reader(source, assignments, &at, SLICES);
        self.readers.push(threads.part("reader", reader)?);
        self.readers.push(threads.part("timers", processor.timers())?);
        self.readers.push(threads.part("parked", processor.parked())?);
        self.readers.push(threads.part("deadlines", processor.deadlines(transport.clone()))?);
        Ok(())
    }

    /// What was journaled before this start goes out before anything runs; a broker that is away, or refuses a row,
    /// does not keep the host from answering its operator.
    fn await_claim(&self, last: BatchNo, stop_requested: &AtomicBool) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let processor = &self.shared.processor;
        await_until(Instant::now() + PATIENCE, || {
            processor.stage.published_batch() >= last
                || processor.outbox.refused().is_some()
                || stop_requested.load(Ordering::Relaxed)
        });
    }

    /// Plugins that change from now on.
    fn keep(
        &mut self,
        plugins: Plugins,
        snapshot: Result<DirectorySnapshot, Report>,
        started: Started,
        threads: &Threads,
    ) -> Result<(), HostError> {
        let Shared { processor, transport, board, clocks, .. } = &*self.shared;
        let assigned = plugins.wanted(&plugins.serving).inputs.into_keys().collect();
        processor.intake.read_also(Vec::new(), plugins.idle_topics(assigned));
        let file = ReloadedFile::of(&self.config).map(|file| Box::new(file) as Box<dyn Configuration>);
        let reach = Reach {
            processor: processor.clone(),
            clock: now_fn(clocks),
            transport: transport.clone(),
            board: board.clone(),
            configuration: file,
        };
        let keeper = Keeper::new(plugins, (snapshot, started), reach);
        self.readers.push(threads.part("plugins", keeper)?);
        Ok(())
    }

    /// Shared with the admin socket and the tests.
    pub fn live(&self) -> Arc<dyn Live> {
        self.shared.clone()
    }

    pub fn journal(&self) -> Arc<dyn Journal> {
        self.shared.journal.clone()
    }

    pub fn transport(&self) -> Arc<dyn Transport> {
        self.shared.transport.clone()
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
        let Shared { processor, journal, clocks, .. } = &*self.shared.clone();
        self.stop_reading();
        let drained = {
            let quiet = || self.readers.iter().all(JoinHandle::is_finished);
            let until = clocks.now().steady.after(deadline);
            let mut drain = processor.drain(quiet, until);
            drive(&mut drain, clocks).is_ok() && drain.drained
        };
        self.end(Some(end + FAREWELL));
        let published = processor.stage.published_batch();
        if published > journal.identity().confirmed
            && let Err(error) = journal.confirm(self.shared.identity.epoch, published)
        {
            warn!(%error, "failed to confirm what is published; the next start finds it out");
        }
        let left = journal.outbox(published, usize::MAX).unwrap_or_default();
        if let Err(error) = journal.close() {
            warn!(%error, "failed to close the journal in good order; the next start recovers it");
        }
        StopReport { cut_off: !drained, ..StopReport::of(&left) }
    }

    fn stop_reading(&self) {
        self.shared.processor.stop_reading();
        self.shared.board.changed.raise_all();
    }

    /// Ends as if the process had been killed: nothing is finished, nothing is written any more.
    pub fn abort(self) {
        drop(self);
    }

    /// `until`: threads that still wait for an answer by then are left to themselves. What they do is safe at any
    /// moment, as for a host that is killed.
    fn end(&mut self, until: Option<Instant>) {
        self.stop_reading();
        self.shared.processor.stop();
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

fn now_fn(clocks: &Clocks) -> NowFn {
    let clocks = clocks.clone();
    Arc::new(move || clocks.now())
}

fn settings(pipeline: &PipelineSettings) -> Settings {
    Settings {
        batch: BatchBounds {
            chains_max: pipeline.batch_chains_max,
            bytes_max: pipeline.batch_bytes_max,
            wait: pipeline.batch_wait,
            position_wait: pipeline.position_wait,
            unpublished_max: pipeline.unpublished_batches_max as u64,
        },
        queue_events_max: pipeline.queue_events_max,
        chain_steps_max: pipeline.chain_steps_max,
        reservation_max: pipeline.reservation_max,
        cache_bytes_max: pipeline.cache_bytes_max,
        stall_wait_max: pipeline.stall_wait_max,
        due_per_second_max: pipeline.due_per_second_max,
    }
}

/// An answer that somebody waits for.
fn reply() -> (Reply, Receiver<Result<Answer, Declined>>) {
    let (sender, answer) = bounded(1);
    let tell = move |answer| {
        let _ = sender.try_send(answer);
    };
    (Reply::new(tell), answer)
}

impl Shared {
    fn ask(&self, saga: &SagaId, item: impl FnOnce(Reply) -> Item) -> Result<Answer, Refusal> {
        let (reply, answer) = reply();
        self.processor.inbox.post(saga, item(reply));
        self.await_answer(&answer)
    }

    fn await_answer(&self, answer: &Receiver<Result<Answer, Declined>>) -> Result<Answer, Refusal> {
        let answer = await_answer_or(answer, "the host could not journal it in time; look at `sagahost status`")?;
        answer.map_err(Refusal::from)
    }

    /// An offset in the topic before says nothing of this one.
    fn refuse_made_anew(&self, partition: &Partition, topic_id: Option<&TopicId>) -> Result<(), Refusal> {
        let journaled = self.journal.positions()?;
        let known = journaled.get(partition).filter(|position| position.next > 0).and_then(|at| at.topic_id.as_ref());
        match (known, topic_id) {
            (Some(known), Some(now)) if known != now => Err(Refusal::refused(format!(
                "{partition}: the topic was made anew (its id was {known}, now it is {now}), so there is no place where \
                 it stood: add --from earliest, --from latest or --from OFFSET"
            ))),
            _ => Ok(()),
        }
    }

    /// The keeper does one thing after the other, and compiling may be one of them.
    fn keeper(&self, order: Order) -> Result<Answer, Refusal> {
        const QUEUED: &str = "the plugins are being changed just now (compiled, or still copied); this is done behind \
                              that, unless too much waits there: look at `sagahost plugins list`";
        Ok(await_answer_or(&self.board.order(order), QUEUED)??)
    }

    fn release(&self, saga: &SagaId) -> Result<Answer, Refusal> {
        let mut release = self.processor.release(self.identity.epoch, saga);
        let ended = drive(&mut release, &self.clocks).map(|()| release.released);
        let count = ended.ok().flatten().ok_or_else(|| Refusal::new(Why::Failed, "the host ends"))??;
        let id = notation::id(saga.as_str());
        let text = format!("saga {id} is out of quarantine; {count} events that were kept aside are taken in again");
        Ok(Answer { done: true, text })
    }
}

fn await_answer_or<T>(answer: &Receiver<T>, otherwise: &str) -> Result<T, Refusal> {
    const PATIENCE: Duration = Duration::from_secs(25);
    answer.recv_timeout(PATIENCE).map_err(|_| Refusal::new(Why::TimedOut, otherwise))
}

impl Live for Shared {
    fn command(&self, saga: &SagaId, command: Command) -> Result<Answer, Refusal> {
        if matches!(command, Command::Retry { .. }) && self.processor.stage.is_quarantined(saga) {
            return self.release(saga);
        }
        self.ask(saga, |reply| Item::Operator { command, queued: None, reply: Some(reply), receipt: None })
    }

    fn outbox(&self, action: OutboxAction) -> Result<Answer, Refusal> {
        let done = match action {
            OutboxAction::Retry => self.processor.outbox.retry(),
            OutboxAction::Skip { batch, index, by, reason } => {
                let refused =
                    self.processor.outbox.refused().is_some_and(|row| row.batch == batch && row.index == index);
                if !refused {
                    return Err(Refusal::not_found(format!("row {index} of batch {} is not refused", batch.0)));
                }
                let reason = format!("{by}: {reason}");
                self.journal.leave_out(self.identity.epoch, batch, index, LeftOut::Row, &reason)?;
                self.processor.outbox.skip(batch, index, &reason)
            }
        };
        let text = if done { "publication resumes" } else { "no outbox row is refused" };
        Ok(Answer { done, text: text.to_owned() })
    }

    fn redrive_record(&self, letter: StoredLetter) -> Result<Answer, Refusal> {
        let serving = self.processor.serving.load();
        let decoded = serving.codec.decode_letter(&letter);
        let Decoded { event, formerly } = decoded
            .map_err(|why| Refusal::refused(format!("it still cannot be decoded: {}: {}", why.code, why.detail)))?;
        if !serving.topology.concerns(&event.kind) {
            let hint = serving.meant(&event.kind).map(|meant| format!(": {}", lookalike::hint(&meant)));
            let kind = notation::id(event.kind.as_str());
            let text = format!("no plugin of this app handles {kind}{}", hint.unwrap_or_default());
            return Err(Refusal::refused(text));
        }
        self.ask(&event.saga.clone(), |reply| Item::Redelivery {
            event,
            formerly,
            letter: Box::new(letter),
            receipt: None,
            reply: Some(reply),
        })
    }

    fn discard_record(&self, letter: StoredLetter, by: String, reason: String) -> Result<Answer, Refusal> {
        let (reply, answer) = reply();
        let how = format!("discarded by {by}: {reason}");
        let done = Answer { done: true, text: how.clone() };
        let letter = LetterWrite::Close { key: letter.key, how, at: self.clocks.now().wall };
        self.processor.inbox.post_loose(Loose { letter, receipt: None, reply: Some((reply, done)) });
        self.await_answer(&answer)
    }

    fn resume(&self, partition: &Partition, from: Option<ResumeFrom>) -> Result<Answer, Refusal> {
        if !self.processor.intake.is_held(partition) {
            let text = format!("{partition} is not held; `sagahost status` lists those that are");
            return Err(Refusal::not_found(text));
        }
        // The id first: then a topic made anew in between is noticed.
        let ids = self.transport.topic_ids(std::slice::from_ref(&partition.topic))?;
        let topic_id = ids.get(&partition.topic).cloned();
        let Some(from) = from else {
            self.refuse_made_anew(partition, topic_id.as_ref())?;
            self.processor.intake.assign_again(partition);
            return Ok(Answer { done: true, text: format!("{partition} is read from where it stood, if it can be") });
        };
        let bounds = self.transport.bounds(std::slice::from_ref(partition))?;
        let missing = || Refusal::not_found(format!("{partition} does not exist"));
        let (first, end) = bounds.get(partition).copied().ok_or_else(missing)?;
        let next = match from {
            ResumeFrom::Earliest => first,
            ResumeFrom::Latest => end,
            ResumeFrom::Offset(offset) if (first..=end).contains(&offset) => offset,
            ResumeFrom::Offset(offset) => {
                let text = format!("{partition} holds {first} to {end}; {offset} is outside of that");
                return Err(Refusal::invalid(text));
            }
        };
        let (reply, answer) = reply();
        self.processor.stage.move_position(Move { partition: partition.clone(), next, topic_id, reply });
        self.await_answer(&answer)
    }

    fn change_plugin(&self, plugin: &Participant, action: PluginAction) -> Result<Answer, Refusal> {
        self.keeper(Order::Plugin(plugin.clone(), action))
    }

    fn reload_config(&self) -> Result<Answer, Refusal> {
        self.keeper(Order::ReloadConfig)
    }

    fn plugins(&self) -> PluginsView {
        self.board.view(&self.processor.stats)
    }

    fn status(&self) -> LiveStatus {
        let (stats, now) = (&self.processor.stats, self.clocks.now());
        let mut waiting_for = self.processor.intake.waiting();
        waiting_for.extend(self.processor.intake.held_up());
        // The publisher's trouble is the broker's.
        waiting_for.extend(
            self.processor.outbox.waiting(now).filter(|waiting| !self.processor.intake.waiting().contains(waiting)),
        );
        let batch = self.processor.stage.last_sealed().0;
        LiveStatus {
            app: self.app.clone(),
            transport: self.transport.describe(),
            journal: format!("{} in {}", self.identity.journal, self.data.display()),
            incarnation: self.identity.incarnation.to_string(),
            batch,
            published: self.processor.stage.published_batch().0,
            records: Stats::get(&stats.records),
            records_skipped: Stats::get(&stats.records_skipped),
            events: Stats::get(&stats.events),
            duplicates: Stats::get(&stats.duplicates),
            calls: Stats::get(&stats.calls),
            chains_rerun: Stats::get(&stats.chains_rerun),
            journal_commits: Stats::get(&stats.journal_commits),
            publications: Stats::get(&stats.publications),
            waiting_for,
            held: self.processor.intake.held(),
            events_unhandled: stats.unhandled.events(Sort::Unhandled),
            events_ignored: stats.unhandled.events(Sort::Ignored),
            unhandled: stats.unhandled.lines().into_iter().map(Into::into).collect(),
        }
    }
}
