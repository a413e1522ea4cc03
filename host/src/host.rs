//! A running host: its threads, how it begins and how it ends. Invariant: it ends in an order in which nothing that is
//! journaled can be lost: source, workers, committer, publisher.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use sagahost_codec::Decoded;
use sagahost_journal::{Identity, Journal, LeftOut, OutboxBatch, SagaFilter};
use sagahost_journal_sqlite::{OpenOptions, SqliteJournal};
use sagahost_saga::{
    id::{Participant, SagaId},
    input::{Answer, Command, Status},
    notation,
};
use sagahost_sandbox::{Report, directory::Looks};
use sagahost_transport::Transport;
use sagahost_transport_embedded::EmbeddedTransport;
use sagahost_transport_kafka::KafkaTransport;
use sagahost_wire::{
    BatchNo, Partition, StoredLetter, TopicId,
    clock::{Clock, SystemClock},
};
use tracing::{error, info, warn};

use crate::{
    admin::{
        Live, LiveStatus, OutboxAction, PluginAction, ResumeFrom,
        plugin_view::PluginsView,
        protocol::{Refusal, Why},
    },
    commit::{Committer, Fatal},
    config::Config,
    crash,
    intake::{Intake, Reader},
    keeper::{Board, Keeper, What},
    lookalike,
    mailbox::Item,
    outbox::Outbox,
    pipeline::Pipeline,
    plugins::{self, Plugins},
    publish::Publisher,
    stage::{BatchBounds, Move, Reply, Stage},
    start::{Beginning, Begun, Decisions},
    stats::Stats,
    timers::Timers,
    touch::Touch,
    unhandled::Sort,
};

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
    pub fn open(config: Config) -> Result<Self> {
        let journal = SqliteJournal::open(&config.data_dir, &config.app, OpenOptions::default())
            .with_context(|| format!("failed to open the journal in {}", config.data_dir.display()))?;
        let transport = open_transport(&config)?;
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

pub fn open_transport(config: &Config) -> Result<Arc<dyn Transport>> {
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
    stop: Stops,
    /// The publisher ends when this is gone and everything is published.
    batches: Option<Sender<OutboxBatch>>,
}

#[derive(Clone, Default)]
struct Stops {
    reading: Arc<AtomicBool>,
    committing: Arc<AtomicBool>,
    publishing: Arc<AtomicBool>,
}

/// What operators' commands reach.
struct Shared {
    pipeline: Arc<Pipeline>,
    intake: Arc<Intake>,
    outbox: Arc<Outbox>,
    board: Arc<Board>,
    transport: Arc<dyn Transport>,
    journal: Arc<dyn Journal>,
    identity: Identity,
    app: String,
    data: PathBuf,
}

impl Host {
    pub fn start(config: Config) -> Result<Self> {
        Self::start_with(Parts::open(config)?)
    }

    pub fn start_with(parts: Parts) -> Result<Self> {
        let Parts { config, journal, transport, clock, decisions, stop_requested } = parts;
        let mut plugins = Plugins::open(config.clone())?;
        let looks = plugins.look();
        let beginning = plugins.start(&*journal, &*clock)?;
        let wanted = plugins.wanted(&plugins.serving);
        let begun = Beginning {
            app: &config.app,
            journal: &*journal,
            transport: &*transport,
            clock: &*clock,
            wanted: &wanted,
            decisions: &decisions,
            stopped: &|| stop_requested.load(Ordering::Relaxed),
        }
        .begin()?;
        plugins.begun(&beginning, &*journal, &*clock)?;
        let identity = begun.identity.clone();
        info!(
            app = %config.app, journal = %identity.journal, incarnation = %identity.incarnation,
            batch = identity.last_batch.0, transport = transport.describe(), "started"
        );

        let settings = config.pipeline.clone();
        let bounds = BatchBounds {
            chains_max: settings.batch_chains_max,
            bytes_max: settings.batch_bytes_max,
            wait: settings.batch_wait,
            position_wait: settings.position_wait,
            unpublished_max: settings.unpublished_batches_max as u64,
        };
        let stage = Arc::new(Stage::new(journal.clone(), bounds, settings.cache_bytes_max));
        stage.restart(identity.last_batch, begun.published, &journal.positions()?, Some(begun.anchor.clone()));
        let pipeline = Arc::new(Pipeline::new(
            stage,
            plugins.surroundings()?,
            config.topics.clone(),
            settings.clone(),
            clock,
            journal.clone(),
        ));
        let shared = Arc::new(Shared {
            pipeline: pipeline.clone(),
            intake: Arc::new(Intake::default()),
            outbox: Arc::new(Outbox::default()),
            board: Arc::default(),
            transport: transport.clone(),
            journal: journal.clone(),
            identity: identity.clone(),
            app: config.app.to_string(),
            data: config.data_dir.clone(),
        });
        let (fatal_sender, fatal) = unbounded();
        let stop = Stops::default();
        let mut host = Self {
            shared,
            config,
            fatal,
            readers: Vec::new(),
            workers: Vec::new(),
            committer: None,
            publisher: None,
            stop,
            batches: None,
        };
        host.quarantined()?;
        host.shared.pipeline.resume()?;
        host.spawn(begun, &fatal_sender, settings.workers, &stop_requested)?;
        host.keep(plugins, looks, beginning, &fatal_sender)?;
        Ok(host)
    }

    fn spawn(
        &mut self,
        begun: Begun,
        fatal: &Sender<Fatal>,
        workers: usize,
        stop_requested: &AtomicBool,
    ) -> Result<()> {
        let Shared { pipeline, intake, outbox, transport, identity, .. } = &*self.shared;
        let (sender, batches) = bounded::<OutboxBatch>(begun.backlog.len() + 16);
        for batch in begun.backlog {
            sender.send(batch).expect("the receiver is held");
        }
        let notes = pipeline.journal.publication_notes()?;
        let publisher = Publisher {
            pipeline: pipeline.clone(),
            intake: intake.clone(),
            sink: begun.sink,
            batches,
            identity: identity.clone(),
            anchor: begun.anchor.clone(),
            outbox: outbox.clone(),
            stop: self.stop.publishing.clone(),
            fatal: fatal.clone(),
            last: begun.published,
            fenced: Vec::new(),
            not_out_noted: notes.not_out.is_some(),
        };
        self.publisher = Some(named("publisher", fatal, move || publisher.run())?);
        self.await_claim(begun.identity.last_batch, stop_requested);
        let committer = Committer {
            pipeline: pipeline.clone(),
            intake: intake.clone(),
            publisher: sender.clone(),
            identity: identity.clone(),
            anchor: Some(begun.anchor),
            stop: self.stop.committing.clone(),
            fatal: fatal.clone(),
            confirmed: begun.published,
            handed: begun.identity.last_batch,
            again_after: Committer::AGAIN_AFTER,
            touch: Touch::new(notes.touch_due),
        };
        self.batches = Some(sender);
        self.committer = Some(named("committer", fatal, move || committer.run())?);
        for number in 0..workers.max(1) {
            let pipeline = pipeline.clone();
            self.workers.push(named(&format!("worker-{number}"), fatal, move || pipeline.work())?);
        }
        let reader = Reader::new(
            pipeline.clone(),
            intake.clone(),
            transport.source()?,
            identity.clone(),
            self.stop.reading.clone(),
        );
        let assignments = begun.assignments;
        self.readers.push(named("reader", fatal, move || reader.run(assignments))?);
        let timers = Timers {
            pipeline: pipeline.clone(),
            intake: intake.clone(),
            transport: transport.clone(),
            stop: self.stop.reading.clone(),
        };
        let deadlines = timers.clone();
        self.readers.push(named("timers", fatal, move || timers.run())?);
        self.readers.push(named("deadlines", fatal, move || deadlines.run_deadlines())?);
        Ok(())
    }

    /// What was journaled before this start goes out before anything runs; a broker that is away, or refuses a row,
    /// does not keep the host from answering its operator.
    fn await_claim(&self, last: BatchNo, stop_requested: &AtomicBool) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let end = Instant::now() + PATIENCE;
        let stage = &self.shared.pipeline.stage;
        while !stage.await_published(last, Duration::from_millis(100)) && Instant::now() < end {
            if self.shared.outbox.refused().is_some() || stop_requested.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Sagas that stand still since an earlier life of this host.
    fn quarantined(&self) -> Result<()> {
        let Shared { pipeline, journal, .. } = &*self.shared;
        let filter = SagaFilter { status: Some(Status::Quarantined), limit: usize::MAX, ..SagaFilter::default() };
        for row in journal.sagas(&filter)? {
            let why = journal.quarantined(&row.id)?.unwrap_or_default();
            warn!(saga = %row.id, why, "in quarantine: its events are kept aside; `sagahost sagas retry {}`", notation::id_word(row.id.as_str()));
            pipeline.stage.quarantine(&row.id, why);
        }
        Ok(())
    }

    /// Plugins that change from now on.
    fn keep(
        &mut self,
        plugins: Plugins,
        looks: Result<Looks, Report>,
        beginning: plugins::Beginning,
        fatal: &Sender<Fatal>,
    ) -> Result<()> {
        let Shared { pipeline, intake, transport, .. } = &*self.shared;
        let assigned = plugins.wanted(&plugins.serving).inputs.into_keys().collect();
        intake.read_also(Vec::new(), plugins.idle_topics(assigned));
        let stop = self.stop.reading.clone();
        let board = self.shared.board.clone();
        let keeper = Keeper::new(plugins, beginning, pipeline.clone(), intake.clone(), transport.clone(), stop, board);
        self.readers.push(named("plugins", fatal, move || keeper.run(looks))?);
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
        let Shared { pipeline, journal, .. } = &*self.shared.clone();
        self.stop.reading.store(true, Ordering::SeqCst);
        let mut cut_off = false;
        while !self.readers.iter().all(JoinHandle::is_finished) || !pipeline.stage.drained() {
            pipeline.stage.urge();
            if Instant::now() >= end {
                cut_off = true;
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        while pipeline.stage.unpublished() > 0 && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        self.end(Some(end + FAREWELL));
        let published = pipeline.stage.published_batch();
        if published > journal.identity().confirmed
            && let Err(error) = journal.confirm(self.shared.identity.epoch, published)
        {
            warn!(%error, "failed to confirm what is published; the next start finds it out");
        }
        let left = journal.outbox(published, usize::MAX).unwrap_or_default();
        if let Err(error) = journal.close() {
            warn!(%error, "failed to close the journal in good order; the next start recovers it");
        }
        StopReport { cut_off, ..StopReport::of(&left) }
    }

    /// Ends as if the process had been killed: nothing is finished, nothing is written any more.
    pub fn abort(self) {
        drop(self);
    }

    /// `until`: threads that still wait for an answer by then are left to themselves. What they do is safe at any
    /// moment, as for a host that is killed.
    fn end(&mut self, until: Option<Instant>) {
        let pipeline = &self.shared.pipeline;
        self.stop.committing.store(true, Ordering::SeqCst);
        self.stop.publishing.store(true, Ordering::SeqCst);
        self.stop.reading.store(true, Ordering::SeqCst);
        pipeline.stopping.store(true, Ordering::SeqCst);
        pipeline.stage.close();
        pipeline.mailboxes.close();
        drop(self.batches.take());
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

/// A thread that the host cannot do without: should it panic, the host ends.
fn named(name: &str, fatal: &Sender<Fatal>, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let (fatal, thread) = (fatal.clone(), name.to_owned());
    let body = move || {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            error!(thread, "a thread of the host panicked");
            let _ = fatal.send(Fatal::Panicked(thread));
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(body).with_context(|| format!("failed to start thread {name}"))
}

fn join(threads: impl Iterator<Item = JoinHandle<()>>, until: Option<Instant>) {
    for thread in threads {
        while until.is_some_and(|until| Instant::now() < until) && !thread.is_finished() {
            thread::sleep(Duration::from_millis(2));
        }
        if until.is_some() && !thread.is_finished() {
            let name = thread.thread().name().unwrap_or_default();
            warn!(thread = name, "does not end in time (it waits for the broker); it is left to itself");
        } else if thread.join().is_err() {
            error!("a thread of the host panicked");
        }
    }
}

impl Shared {
    fn ask(&self, saga: &SagaId, item: impl FnOnce(Reply) -> Item) -> Result<Answer, Refusal> {
        let (reply, answer) = bounded(1);
        self.pipeline.post(saga, item(reply));
        self.patiently(&answer)
    }

    fn patiently(&self, answer: &Receiver<Result<Answer, Refusal>>) -> Result<Answer, Refusal> {
        self.patiently_or(answer, "the host could not journal it in time; look at `sagahost status`")
    }

    fn patiently_or(&self, answer: &Receiver<Result<Answer, Refusal>>, otherwise: &str) -> Result<Answer, Refusal> {
        const PATIENCE: Duration = Duration::from_secs(25);
        answer.recv_timeout(PATIENCE).map_err(|_| Refusal::new(Why::Failed, otherwise))?
    }

    /// An offset in the topic before says nothing of this one.
    fn refuse_made_anew(&self, partition: &Partition, topic_id: Option<&TopicId>) -> Result<(), Refusal> {
        let journaled = self.journal.positions()?;
        let known = journaled.get(partition).filter(|position| position.next > 0).and_then(|at| at.topic_id.as_ref());
        match (known, topic_id) {
            (Some(known), Some(now)) if known != now => Err(Refusal::invalid(format!(
                "{partition}: the topic was made anew (its id was {known}, now it is {now}), so there is no place where \
                 it stood: add --from earliest, --from latest or --from OFFSET"
            ))),
            _ => Ok(()),
        }
    }

    /// The keeper does one thing after the other, and compiling may be one of them.
    fn keeper(&self, what: What) -> Result<Answer, Refusal> {
        const QUEUED: &str = "the plugins are being changed just now (compiled, or still copied); this is done behind \
                              that, unless too much waits there: look at `sagahost plugins list`";
        self.patiently_or(&self.board.order(what), QUEUED)
    }

    fn release(&self, saga: &SagaId) -> Result<Answer, Refusal> {
        self.journal.release(self.identity.epoch, saga)?;
        // What was kept aside a moment ago is in the journal with the next batch.
        let staged = BatchNo(self.pipeline.stage.last_sealed().0 + 1);
        self.pipeline.stage.release(saga);
        let patience = Instant::now() + Duration::from_secs(5);
        while !self.pipeline.stage.drained() && self.journal.identity().last_batch < staged {
            if Instant::now() > patience {
                break;
            }
            self.pipeline.stage.urge();
            thread::sleep(Duration::from_millis(5));
        }
        let count = self.pipeline.take_in_again(Some(saga))?;
        self.pipeline.post(saga, Item::TopologyChanged);
        let id = notation::id(saga.as_str());
        let text = format!("saga {id} is out of quarantine; {count} events that were kept aside are taken in again");
        Ok(Answer { done: true, text })
    }
}

impl Live for Shared {
    fn command(&self, saga: &SagaId, command: Command) -> Result<Answer, Refusal> {
        if matches!(command, Command::Retry { .. }) && self.pipeline.stage.is_quarantined(saga) {
            return self.release(saga);
        }
        self.ask(saga, |reply| Item::Operator { command, queued: None, reply: Some(reply), receipt: None })
    }

    fn outbox(&self, action: OutboxAction) -> Result<Answer, Refusal> {
        let done = match action {
            OutboxAction::Retry => self.outbox.retry(),
            OutboxAction::Skip { batch, index, by, reason } => {
                let refused = self.outbox.refused().is_some_and(|row| row.batch == batch && row.index == index);
                if !refused {
                    return Err(Refusal::not_found(format!("row {index} of batch {} is not refused", batch.0)));
                }
                let reason = format!("{by}: {reason}");
                self.journal.leave_out(self.identity.epoch, batch, index, LeftOut::Row, &reason)?;
                self.outbox.skip(batch, index, &reason)
            }
        };
        let text = if done { "publication goes on" } else { "no outbox row is refused" };
        Ok(Answer { done, text: text.to_owned() })
    }

    fn redrive_record(&self, letter: StoredLetter) -> Result<Answer, Refusal> {
        let surroundings = self.pipeline.surroundings.load();
        let decoded = surroundings.codec.decode_letter(&letter);
        let Decoded { event, formerly } = decoded.map_err(|why| {
            Refusal::new(Why::Failed, format!("it still cannot be decoded: {}: {}", why.code, why.detail))
        })?;
        if !surroundings.topology.concerns(&event.kind) {
            let hint = surroundings.meant(&event.kind).map(|meant| format!(": {}", lookalike::hint(&meant)));
            let kind = notation::id(event.kind.as_str());
            let text = format!("no plugin of this app handles {kind}{}", hint.unwrap_or_default());
            return Err(Refusal::new(Why::Failed, text));
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
        let (reply, answer) = bounded(1);
        self.pipeline.close_letter(&letter.key, format!("discarded by {by}: {reason}"), reply);
        self.patiently(&answer)
    }

    fn resume(&self, partition: &Partition, from: Option<ResumeFrom>) -> Result<Answer, Refusal> {
        if !self.intake.is_held(partition) {
            let text = format!("{partition} is not held; `sagahost status` lists those that are");
            return Err(Refusal::not_found(text));
        }
        // The id first: then a topic made anew in between is noticed.
        let ids = self.transport.topic_ids(std::slice::from_ref(&partition.topic))?;
        let topic_id = ids.get(&partition.topic).cloned();
        let Some(from) = from else {
            self.refuse_made_anew(partition, topic_id.as_ref())?;
            self.intake.assign_again(partition);
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
        let (reply, answer) = bounded(1);
        self.pipeline.stage.move_position(Move { partition: partition.clone(), next, topic_id, reply });
        self.patiently(&answer)
    }

    fn change_plugin(&self, plugin: &Participant, action: PluginAction) -> Result<Answer, Refusal> {
        self.keeper(What::Plugin(plugin.clone(), action))
    }

    fn reload_config(&self) -> Result<Answer, Refusal> {
        self.keeper(What::ReloadConfig)
    }

    fn plugins(&self) -> PluginsView {
        self.board.view(&self.pipeline.stats)
    }

    fn status(&self) -> LiveStatus {
        let stats = &self.pipeline.stats;
        let mut waiting_for = self.intake.waiting();
        waiting_for.extend(self.intake.held_up());
        // The publisher's trouble is the broker's.
        waiting_for.extend(self.outbox.waiting().filter(|waiting| !self.intake.waiting().contains(waiting)));
        let batch = self.pipeline.stage.last_sealed().0;
        LiveStatus {
            app: self.app.clone(),
            transport: self.transport.describe(),
            journal: format!("{} in {}", self.identity.journal, self.data.display()),
            incarnation: self.identity.incarnation.to_string(),
            batch,
            published: self.pipeline.stage.published_batch().0,
            records: Stats::get(&stats.records),
            records_skipped: Stats::get(&stats.records_skipped),
            events: Stats::get(&stats.events),
            duplicates: Stats::get(&stats.duplicates),
            calls: Stats::get(&stats.calls),
            chains_rerun: Stats::get(&stats.chains_rerun),
            journal_commits: Stats::get(&stats.journal_commits),
            publications: Stats::get(&stats.publications),
            waiting_for,
            held: self.intake.held(),
            events_unhandled: stats.unhandled.events(Sort::Unhandled),
            events_ignored: stats.unhandled.events(Sort::Ignored),
            unhandled: stats.unhandled.lines(),
        }
    }
}
