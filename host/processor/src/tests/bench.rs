//! A processor on a bench: one participant, `till`, that is a function. Invariant: parts are stepped by the test, and by
//! nobody else.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sagahost_codec::{Codec, TopicSettings};
use sagahost_journal::CommitAnswer;
use sagahost_manifest::host_calls::HostCalls;
use sagahost_saga::{
    Saga,
    id::{Kind, Time},
    outcome::{Completion, Emission, End, Outcome, Progress, StateChange, Undo},
    topology::{Bounds, Member, OnDeadLetter, Retry, Role, Subscription, Topology, When},
};
use sagahost_wire::{BatchNo, Generation, Partition, Position, Record};

use super::{
    memory::{Commit, Memory},
    scripted::{Handler, Plugin},
};
use crate::{
    Processor, Serving, Settings,
    commit::Committer,
    letters_kept::LetterBounds,
    outside::Outside,
    overlay::Overlay,
    positions::Receipt,
    processor::At,
    read_ahead::ReadAhead,
    schedule::ScheduleBounds,
    stage::{BatchBounds, Due, Sealed, Staged, Staging},
    step::{Next, Now, Part, Steady, Wait},
    worker::ChainBounds,
};

pub const KIND: &str = "Sold";
pub const TOPIC: &str = "sold";

pub fn settings() -> Settings {
    Settings {
        batch: BatchBounds {
            chains_max: 100,
            bytes_max: 1 << 20,
            wait: Duration::from_millis(10),
            wait_max: Duration::from_millis(50),
            interval: Duration::ZERO,
            position_wait: Duration::from_secs(1),
            unpublished_max: 2,
        },
        schedule: ScheduleBounds { slots: 2, slow_max: 2, slow_after: Duration::from_millis(20) },
        read_ahead: ReadAhead { events_max: 100, bytes_max: 1 << 20, record_bytes_max: 1_000, queued_bytes_max: 0 },
        chain: ChainBounds { steps_max: 64, bytes_max: 1 << 20, call_bytes_max: 1 << 20 },
        reservation_max: Duration::from_secs(5),
        cache_bytes_max: 1 << 20,
        letters: LetterBounds { letters_max: 100, bytes_max: 1 << 20, retention: Duration::from_secs(60) },
        stall_wait_max: Duration::from_secs(60),
        due_per_second_max: 1000,
    }
}

/// Both clocks, in milliseconds since the host began.
pub fn at(ms: u64) -> Now {
    Now { wall: Time(1_000_000 + ms), steady: Steady(Duration::from_millis(ms)) }
}

pub fn partition() -> Partition {
    Partition::new(TOPIC, 0)
}

pub struct Bench {
    pub journal: Arc<Memory>,
    pub processor: Processor,
    pub at: At,
}

/// Does nothing, and completes.
pub fn idle() -> Arc<Handler> {
    Arc::new(|_, _| completed(Vec::new()))
}

pub fn completed(emit: Vec<Emission>) -> End {
    End::Outcome(Outcome::Completed(Completion {
        emit,
        state: StateChange::Keep,
        undo: Undo::NothingToUndo,
        progress: Progress::GoingOn,
        attributes: Vec::new(),
    }))
}

pub fn serving(run: Arc<Handler>, generation: u64) -> Serving {
    let subscription = Subscription {
        kind: KIND.into(),
        role: Role::NothingToUndo,
        when: When::Running,
        after: Vec::new(),
        retry: Retry::default(),
        undo_retry: Retry::default(),
        deadline: None,
        park_ttl: Duration::from_secs(60),
        on_dead_letter: OnDeadLetter::Compensate,
    };
    let till = Member {
        name: "till".into(),
        serving: true,
        unreachable: false,
        outside_effects: false,
        subscriptions: vec![subscription],
        compensate_on: Default::default(),
        finish_on: Default::default(),
        finishes: false,
    };
    let topics = TopicSettings::of_app("shop");
    Serving {
        topology: Topology {
            app: "shop".to_owned(),
            members: vec![till],
            bounds: Bounds { saga_deadline: None, ..Bounds::default() },
            saga_failed: None,
        },
        code: Arc::new(Arc::new(Plugin { run, now: at(0), digest: format!("d{generation}").into(), sends: false })),
        codec: Codec::new("shop", &topics, 1_000_000).with_kinds(&[Kind::new(KIND)]),
        generation: Generation(generation),
        since: BTreeMap::new(),
    }
}

impl Bench {
    /// The next commit goes wrong like that, and the host restarts from its journal.
    pub fn restarts_behind(&self, commit: Commit) -> Committer {
        self.journal.held.lock().commits.push_back(commit);
        let mut committer = self.processor.committer(&self.at);
        run(&mut committer, at(0));
        run(&mut committer, at(10_000));
        committer
    }

    pub fn new(settings: Settings, run: Arc<Handler>) -> Self {
        Self::on(Arc::default(), settings, run)
    }

    pub fn on(journal: Arc<Memory>, settings: Settings, run: Arc<Handler>) -> Self {
        Self::with(journal, settings, serving(run, 1), None)
    }

    pub fn with(journal: Arc<Memory>, settings: Settings, serving: Serving, outside: Option<Arc<dyn Outside>>) -> Self {
        use sagahost_journal::Journal as _;
        let identity = journal.identity();
        journal.held.lock().positions.entry(partition()).or_insert(Position::new(0, None));
        let topics = TopicSettings::of_app("shop");
        let processor = Processor::new(journal.clone(), serving, topics, settings, outside);
        let published = identity.last_batch;
        let at = At { identity, anchor: partition(), published, notes: Default::default(), reached: |_| {} };
        processor.take_up(&at, Vec::new()).unwrap();
        processor.stage.source_follows();
        Self { journal, processor, at }
    }

    pub fn overlay(&self) -> Overlay {
        Overlay::new(self.processor.stage.clone())
    }

    /// A chain that did nothing but what is in the overlay.
    pub fn staging(&self, chain: u64, mut overlay: Overlay) -> Box<Staging> {
        overlay.end_attempt(true);
        Box::new(Staging {
            life: self.processor.stage.life(),
            chain,
            serving: self.processor.serving.load_full(),
            taken: Default::default(),
            id: None,
            change: None,
            overlay,
            letters: Vec::new(),
            departures: Vec::new(),
            receipt: None,
            command_done: None,
            launches: Vec::new(),
            settled: None,
            facts: None,
            reply: None,
            now: at(0).wall,
        })
    }

    pub fn stage(&self, chain: u64, overlay: Overlay) -> Staged {
        self.processor.stage.stage(self.staging(chain, overlay), at(0))
    }

    #[track_caller]
    pub fn joins(&self, chain: u64, overlay: Overlay) {
        let staged = self.stage(chain, overlay);
        assert!(matches!(staged, Staged::Joined), "chain {chain} did not join: {}", said(&staged));
    }

    /// The open batch, journaled and published.
    #[track_caller]
    pub fn commit(&self, now: Now) -> BatchNo {
        let sealed = self.sealed(now).expect("a batch is due");
        self.finish(&sealed);
        sealed.write.number
    }

    pub fn sealed(&self, now: Now) -> Option<Sealed> {
        match self.processor.stage.due(now) {
            Due::Commit(sealed) => Some(*sealed),
            Due::Restart(_) | Due::Move(_) | Due::Nothing(_) => None,
        }
    }

    pub fn finish(&self, sealed: &Sealed) {
        use sagahost_journal::Journal as _;
        let keys = match self.journal.commit(self.at.identity.epoch, &sealed.write) {
            Ok(CommitAnswer::Done(keys)) => keys,
            other => panic!("not journaled: {other:?}"),
        };
        self.processor.stage.journaled(sealed.write.number, &keys);
        self.processor.stage.published(sealed.write.number);
    }

    pub fn saga(&self, id: &str) -> Arc<Saga> {
        self.processor.stage.saga(&id.into()).unwrap().saga.expect("it has begun")
    }

    pub fn counter(&self, name: &str) -> Option<i64> {
        self.processor.stage.counter(&("till".into(), name.to_owned())).unwrap()
    }

    /// A record as another service writes it: its saga is its key.
    pub fn record(&self, offset: i64, saga: &str) -> Record {
        Record {
            partition: partition(),
            offset,
            timestamp_ms: Some(1),
            key: Some(saga.as_bytes().to_vec()),
            value: Some(format!("{{\"n\":{offset}}}").into_bytes()),
            headers: Vec::new(),
        }
    }

    /// As the reader does it.
    pub fn deliver(&self, offset: i64, saga: &str) {
        self.deliver_as(offset, offset, saga);
    }

    /// The record of another offset, once more.
    pub fn deliver_as(&self, offset: i64, of: i64, saga: &str) {
        let record = Record { offset, ..self.record(of, saga) };
        let receipt = Receipt { partition: partition(), offset, timestamp_ms: Some(1) };
        assert!(self.processor.stage.delivered(&receipt, record.size_bytes()));
        let decoded = self.processor.serving.load().codec.decode(&record).unwrap();
        let item =
            crate::mailbox::Item::Delivery { event: decoded.event, formerly: decoded.formerly, receipt: Some(receipt) };
        self.processor.inbox.post(&saga.into(), item);
    }
}

pub fn said(staged: &Staged) -> String {
    match staged {
        Staged::Joined => "joined".to_owned(),
        Staged::Void => "void".to_owned(),
        Staged::Full(..) => "full".to_owned(),
        Staged::Reread(..) => "reread".to_owned(),
        Staged::Stale(conflicts) => format!("stale: {conflicts:?}"),
    }
}

/// Steps until it waits or ends.
#[track_caller]
pub fn run(part: &mut dyn Part, now: Now) -> Option<Wait> {
    for _ in 0..10_000 {
        match part.step(now) {
            Next::Again => {}
            Next::Wait(wait) => return Some(wait),
            Next::Ended(Ok(())) => return None,
            Next::Ended(Err(fatal)) => panic!("{fatal:?}"),
        }
    }
    panic!("it never waits");
}

/// For plugins of tests.
pub fn take(host: &mut dyn HostCalls, counter: &str, amount: u64) -> bool {
    host.counter_take(counter, amount).map_err(|_| "no counter").unwrap()
}
