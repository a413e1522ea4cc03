//! What the parts of one stream share, and the parts themselves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use sagahost_codec::TopicSettings;
use sagahost_journal::{Identity, Journal, JournalError, OutboxBatch, PublicationNotes, SagaFilter};
use sagahost_saga::{input::Status, notation};
use sagahost_transport::{Assignment, Sink, Source, Transport};
use sagahost_wire::{BatchNo, Epoch, Partition};
use tracing::warn;

use crate::{
    commit::{self, Committer},
    drain::{Drain, Feeding},
    facts::Facts,
    inbox::Inbox,
    intake::Intake,
    letters_kept::{LetterBounds, LettersKept},
    mailbox::Mailboxes,
    open_transactions::OpenTransactions,
    outbox::Outbox,
    outside::{Answers, Outside},
    parked::Parked,
    planted::{self, Planted},
    publish::{self, Publisher},
    read_ahead::ReadAhead,
    reader::{self, Reader},
    release::Releases,
    schedule::ScheduleBounds,
    serving::{Serving, Switch},
    stage::{BatchBounds, Stage},
    stats::Stats,
    step::{Backoff, Steady, Stop},
    timers::{Deadlines, Timers, Waker},
    touch::Touch,
    worker::{self, ChainBounds, Worker},
};

/// Bounds and times of the journey.
#[derive(Clone, Debug)]
pub struct Settings {
    pub batch: BatchBounds,
    /// What runs at once.
    pub schedule: ScheduleBounds,
    /// How much is in memory.
    pub read_ahead: ReadAhead,
    pub chain: ChainBounds,
    /// How long a chain that was thrown away twice may hold what it conflicted on.
    pub reservation_max: Duration,
    /// Sagas, store entries and counters kept in memory.
    pub cache_bytes_max: usize,
    /// Dead letters that no saga keeps.
    pub letters: LetterBounds,
    /// After a stall: how long deadlines wait for queued results.
    pub stall_wait_max: Duration,
    /// After a stall: deadlines and park expiries fired per second.
    pub due_per_second_max: u32,
}

/// Each group is told to end by itself: what one has begun the next ones finish.
#[derive(Clone, Default)]
pub struct Stops {
    pub reading: Stop,
    pub working: Stop,
    pub committing: Stop,
    pub publishing: Stop,
}

pub struct Processor {
    pub stage: Arc<Stage>,
    pub inbox: Inbox,
    outside: Option<Arc<dyn Outside>>,
    pub serving: Arc<ArcSwap<Serving>>,
    pub topics: Arc<TopicSettings>,
    pub settings: Settings,
    pub journal: Arc<dyn Journal>,
    pub stats: Arc<Stats>,
    /// What happened, for whoever watches.
    pub facts: Arc<Facts>,
    pub intake: Arc<Intake>,
    pub outbox: Arc<Outbox>,
    pub stops: Stops,
    chains: Arc<AtomicU64>,
    /// Numbers workers.
    workers: AtomicU64,
    /// The parts that read or wake.
    pub feeding: Feeding,
}

/// Where a stream goes on.
pub struct At {
    pub identity: Identity,
    pub anchor: Partition,
    /// The last batch that is known to be out.
    pub published: BatchNo,
    pub notes: PublicationNotes,
    /// Named moments, for tests that end the process there.
    pub reached: fn(&'static str),
}

impl Processor {
    /// `outside`: where calls outside run; None: nothing outside is granted.
    pub fn new(
        journal: Arc<dyn Journal>,
        serving: Serving,
        topics: TopicSettings,
        settings: Settings,
        outside: Option<Arc<dyn Outside>>,
    ) -> Self {
        let stage = Arc::new(Stage::new(journal.clone(), settings.batch, settings.cache_bytes_max));
        let feeding = Feeding::new(&stage);
        let serving = Arc::new(ArcSwap::from_pointee(serving));
        let mailboxes = Arc::new(Mailboxes::new(settings.schedule));
        let inbox = Inbox { stage: stage.clone(), serving: serving.clone(), mailboxes, calls: Arc::default() };
        Self {
            stage,
            inbox,
            outside,
            serving,
            topics: Arc::new(topics),
            settings,
            journal,
            stats: Arc::default(),
            facts: Arc::default(),
            intake: Arc::default(),
            outbox: Arc::default(),
            stops: Stops::default(),
            chains: Arc::default(),
            workers: AtomicU64::default(),
            feeding,
        }
    }

    /// Takes up what the journal holds: positions, sagas that stand still, batches that are not out, what waits for a
    /// host to run.
    pub fn take_up(&self, at: &At, backlog: Vec<OutboxBatch>) -> Result<(), JournalError> {
        let positions = self.journal.positions()?;
        self.stage.restart(at.identity.last_batch, at.published, &positions, Some(at.anchor.clone()));
        for batch in backlog.into_iter().filter(|_| !planted::on(Planted::ForgetOutbox)) {
            self.outbox.hand_over(batch);
        }
        let filter = SagaFilter { status: Some(Status::Quarantined), limit: usize::MAX, ..SagaFilter::default() };
        for row in self.journal.sagas(&filter)? {
            let why = self.journal.quarantined(&row.id)?.unwrap_or_default();
            warn!(saga = %row.id, why, "in quarantine: its events are kept aside; `sagahost sagas retry {}`", notation::id_word(row.id.as_str()));
            self.stage.quarantine(&row.id, why);
        }
        self.inbox.resume(&*self.journal, true)
    }

    pub fn reader(&self, mut source: Box<dyn Source>, assignments: Vec<Assignment>, at: &At) -> Reader {
        let stirred = self.intake.stirred.clone();
        source.on_ready(Arc::new(move || stirred.raise()));
        Reader {
            stage: self.stage.clone(),
            inbox: self.inbox.clone(),
            serving: self.serving.clone(),
            journal: self.journal.clone(),
            intake: self.intake.clone(),
            stats: self.stats.clone(),
            source,
            identity: at.identity.clone(),
            read_ahead: self.settings.read_ahead,
            stop: self.stops.reading.clone(),
            state: reader::State::new(assignments, self.settings.read_ahead),
        }
    }

    /// As many are needed as there are slots, and as slow calls are allowed beside them.
    pub fn workers(&self) -> usize {
        let ScheduleBounds { slots, slow_max, .. } = self.settings.schedule;
        slots + slow_max
    }

    pub fn worker(&self) -> Worker {
        Worker {
            number: self.workers.fetch_add(1, Ordering::Relaxed),
            stage: self.stage.clone(),
            inbox: self.inbox.clone(),
            outside: self.outside.clone(),
            serving: self.serving.clone(),
            topics: self.topics.clone(),
            journal: self.journal.clone(),
            stats: self.stats.clone(),
            facts: self.facts.clone(),
            chain_bounds: self.settings.chain,
            reservation_max: self.settings.reservation_max,
            stop: self.stops.working.clone(),
            chains: self.chains.clone(),
            state: worker::State::default(),
        }
    }

    pub fn committer(&self, at: &At) -> Committer {
        Committer {
            stage: self.stage.clone(),
            inbox: self.inbox.clone(),
            serving: self.serving.clone(),
            journal: self.journal.clone(),
            intake: self.intake.clone(),
            outbox: self.outbox.clone(),
            stats: self.stats.clone(),
            facts: self.facts.clone(),
            identity: at.identity.clone(),
            anchor: Some(at.anchor.clone()),
            stop: self.stops.committing.clone(),
            reached: at.reached,
            confirmed: at.published,
            handed: at.identity.last_batch,
            touch: Touch::new(at.notes.touch_due),
            letters: LettersKept::new(self.settings.letters),
            state: commit::State::default(),
        }
    }

    pub fn publisher(&self, sink: Box<dyn Sink>, at: &At) -> Publisher {
        Publisher {
            stage: self.stage.clone(),
            intake: self.intake.clone(),
            journal: self.journal.clone(),
            sink,
            outbox: self.outbox.clone(),
            stats: self.stats.clone(),
            facts: self.facts.clone(),
            identity: at.identity.clone(),
            anchor: at.anchor.clone(),
            stop: self.stops.publishing.clone(),
            last: at.published,
            fenced: Vec::new(),
            not_out_noted: at.notes.not_out.is_some(),
            state: publish::State::default(),
        }
    }

    fn waker(&self) -> Waker {
        Waker {
            inbox: self.inbox.clone(),
            journal: self.journal.clone(),
            queue_events_max: self.settings.read_ahead.events_max,
            stop: self.stops.reading.clone(),
            stirred: self.stage.settled.clone(),
            woken: Default::default(),
            next_look: Steady::default(),
        }
    }

    pub fn timers(&self) -> Timers {
        Timers { waker: self.waker(), intake: self.intake.clone(), clock: None }
    }

    pub fn deadlines(&self, transport: Arc<dyn Transport>) -> Deadlines {
        Deadlines {
            waker: self.waker(),
            stage: self.stage.clone(),
            intake: self.intake.clone(),
            transport,
            stall_wait_max: self.settings.stall_wait_max,
            due_per_second_max: self.settings.due_per_second_max,
            open_transactions: OpenTransactions::default(),
        }
    }

    pub fn parked(&self) -> Parked {
        Parked {
            stage: self.stage.clone(),
            inbox: self.inbox.clone(),
            journal: self.journal.clone(),
            serving: self.serving.clone(),
            queue_events_max: self.settings.read_ahead.events_max,
            stop: self.stops.reading.clone(),
            known: None,
            again_at: None,
            after: None,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(1)),
            not_before: Steady::default(),
        }
    }

    /// For what runs outside.
    pub fn answers(&self) -> Answers {
        Answers { inbox: self.inbox.clone() }
    }

    /// The ways out of quarantine, for the journal's owner.
    pub fn releases(&self, epoch: Epoch) -> Releases {
        let (stage, inbox) = (self.stage.clone(), self.inbox.clone());
        Releases { stage, inbox, journal: self.journal.clone(), epoch }
    }

    /// Ends when everything that was read is out, or `until`.
    pub fn drain(&self, until: Steady) -> Drain {
        Drain {
            stage: self.stage.clone(),
            feeding: self.feeding.clone(),
            calls: self.inbox.calls.clone(),
            until,
            drained: false,
        }
    }

    /// For whoever decides over what serves.
    pub fn switch(&self) -> Switch {
        Switch {
            journal: self.journal.clone(),
            intake: self.intake.clone(),
            stats: self.stats.clone(),
            stop: self.stops.reading.clone(),
            serving: self.serving.clone(),
            settled: self.stage.settled.clone(),
        }
    }

    /// Nothing more is read, and no time fires. What was read is finished.
    pub fn stop_reading(&self) {
        self.stops.reading.ask();
        self.intake.stirred.raise_all();
        self.stage.settled.raise_all();
    }

    /// Everything ends with the step that it is in.
    pub fn stop(&self) {
        self.stop_reading();
        self.stops.working.ask();
        self.stops.committing.ask();
        self.stops.publishing.ask();
        self.stage.close();
        self.inbox.mailboxes.ready.raise_all();
        self.stage.stirred.raise_all();
        self.outbox.stirred.raise_all();
    }
}
