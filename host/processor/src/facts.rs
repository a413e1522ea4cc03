//! What happened, for whoever watches: one list with each batch that is journaled, and a word when it is out. Metrics,
//! spans and tapes are made of this and of nothing else. Invariant: nothing is told before it is durable, and nothing of a
//! chain that was thrown away.
//!
//! Nothing is gathered while nobody reads. Chains that changed nothing, or were run again, are counters (`stats`).

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use sagahost_manifest::host_calls::{Entries, Level};
use sagahost_saga::{
    event::Event,
    id::{Direction, EventKey, Kind, Participant, SagaId},
    input::Status,
    outcome::{Behaviour, Call, End},
};
use sagahost_wire::{BatchNo, Partition};

use crate::{mailbox::Item, step::Now};

/// Who watches. Its calls are made by the committer and the publisher, and return at once.
pub trait Reader: Send + Sync {
    fn journaled(&self, batch: &Batch);
    fn published(&self, batch: BatchNo, now: Now);
    /// The host began anew from its journal. That may hold a batch of which nobody was told.
    fn began_anew(&self);
    /// Outside of any batch: its record cannot be used.
    fn quarantined(&self, saga: &SagaId);
    /// Does it read what attempts asked of the host? That is gathered for whoever does.
    fn reads_calls(&self) -> bool;
}

/// A batch that is journaled, with its chains in the order in which they were staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub number: BatchNo,
    pub at: Now,
    pub chains: Vec<Chain>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub saga: SagaId,
    pub input: Input,
    pub began: Now,
    /// When its last call ended.
    pub ended: Now,
    /// How often it was thrown away before.
    pub reruns: u32,
    pub attempts: Vec<Attempt>,
    pub emitted: Vec<Emitted>,
    /// Of the saga, behind the chain.
    pub status: Status,
}

/// What the chain began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Event {
        kind: Kind,
        key: EventKey,
        /// Where its record stands; None: it came from a dead letter, or with a request.
        at: Option<(Partition, i64)>,
        attributes: Vec<(String, String)>,
    },
    Due,
    TopologyChanged,
    Command,
    /// A call outside was to leave, …
    Launch,
    /// … or ended.
    Answered,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub participant: Participant,
    pub kind: Kind,
    pub event: EventKey,
    pub direction: Direction,
    pub attempt: u32,
    pub by: Behaviour,
    pub ended: Now,
    pub took: Duration,
    /// `completed`, `rejected`, … and the code of its problem.
    pub outcome: &'static str,
    pub code: Option<String>,
    /// What it wrote counts.
    pub kept: bool,
    /// What it asked of the host, in order, with the answers.
    pub calls: Vec<HostCall>,
}

/// A host call of an attempt, and its answer. One that ended the attempt is not among them: the outcome says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostCall {
    Log { level: Level, message: String },
    StoreGet { key: String, value: Option<Arc<[u8]>> },
    StorePut { key: String, value: Arc<[u8]> },
    StoreDelete { key: String },
    StoreScan { prefix: String, after: Option<String>, limit: usize, entries: Entries },
    CounterEnsure { name: String, initial: i64 },
    CounterTake { name: String, amount: u64, taken: bool },
    CounterGive { name: String, amount: u64 },
    CounterRead { name: String, value: Option<i64> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    pub kind: Kind,
    pub key: EventKey,
    pub saga: SagaId,
    pub topic: Arc<str>,
    /// The chain took it in itself.
    pub fused: bool,
}

impl Input {
    fn of(item: &Item) -> Self {
        match item {
            Item::Delivery { event, receipt, .. } | Item::Redelivery { event, receipt, .. } => Self::Event {
                kind: event.kind.clone(),
                key: event.key.clone(),
                at: receipt.as_ref().map(|receipt| (receipt.partition.clone(), receipt.offset)),
                attributes: event.attributes.clone(),
            },
            Item::Requested { request, .. } => match request.asks.event() {
                Some(event) => Self::Event {
                    kind: event.kind.clone(),
                    key: event.key.clone(),
                    at: None,
                    attributes: event.attributes.clone(),
                },
                None => Self::Command,
            },
            Item::Due { .. } => Self::Due,
            Item::TopologyChanged => Self::TopologyChanged,
            Item::Launch { .. } => Self::Launch,
            Item::Answered { .. } => Self::Answered,
            Item::Operator { .. } => Self::Command,
        }
    }
}

/// What a chain gathers about itself while it runs.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub began: Now,
    pub attempts: Vec<Attempt>,
    pub emitted: Vec<Emitted>,
}

impl Gathered {
    pub fn attempt(
        &mut self,
        call: &Call,
        by: &Behaviour,
        end: &End,
        (took, now): (Duration, Now),
        calls: Vec<HostCall>,
    ) {
        self.attempts.push(Attempt {
            participant: call.participant.clone(),
            kind: call.event.kind.clone(),
            event: call.event.key.clone(),
            direction: call.direction,
            attempt: call.attempt,
            by: by.clone(),
            ended: now,
            took,
            outcome: end.name(),
            code: end.code().map(str::to_owned),
            kept: false,
            calls,
        });
    }

    pub fn emitted(&mut self, event: &Event, topic: &Arc<str>, fused: bool) {
        let (kind, key, saga) = (event.kind.clone(), event.key.clone(), event.saga.clone());
        self.emitted.push(Emitted { kind, key, saga, topic: topic.clone(), fused });
    }

    pub fn into_chain(self, saga: SagaId, item: &Item, ended: Now, status: Status) -> Chain {
        let Self { began, attempts, emitted } = self;
        Chain { saga, input: Input::of(item), began, ended, reruns: 0, attempts, emitted, status }
    }
}

/// The way to whoever watches.
#[derive(Default)]
pub struct Facts {
    readers: ArcSwap<Vec<Arc<dyn Reader>>>,
}

impl Facts {
    /// Before the first chain: of one that is under way it would miss what came before.
    pub fn read_by(&self, reader: Arc<dyn Reader>) {
        self.readers.rcu(|readers| readers.iter().cloned().chain([reader.clone()]).collect::<Vec<_>>());
    }

    /// Are host calls gathered?
    pub(crate) fn of_calls(&self) -> bool {
        self.readers.load().iter().any(|reader| reader.reads_calls())
    }

    fn tell(&self, tell: impl Fn(&dyn Reader)) {
        self.readers.load().iter().for_each(|reader| tell(&**reader));
    }

    pub(crate) fn quarantined(&self, saga: &SagaId) {
        self.tell(|reader| reader.quarantined(saga));
    }

    pub(crate) fn gather(&self, began: Now) -> Option<Gathered> {
        let read = !self.readers.load().is_empty();
        read.then(|| Gathered { began, attempts: Vec::new(), emitted: Vec::new() })
    }

    pub(crate) fn journaled(&self, number: BatchNo, chains: Vec<Chain>, at: Now) {
        let batch = Batch { number, at, chains };
        self.tell(|reader| reader.journaled(&batch));
    }

    pub(crate) fn began_anew(&self) {
        self.tell(|reader| reader.began_anew());
    }

    pub(crate) fn published(&self, batch: BatchNo, now: Now) {
        self.tell(|reader| reader.published(batch, now));
    }
}
