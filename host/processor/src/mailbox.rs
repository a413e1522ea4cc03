//! One mailbox per saga, shared by all workers. Invariant: at most one worker is in a saga at a time, and what enters
//! a saga's mailbox leaves it in the same order.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use sagahost_codec::Formerly;
use sagahost_journal::LetterWrite;
use sagahost_saga::{
    event::Event,
    id::SagaId,
    input::{Answer, CallRef, Command},
};
use sagahost_wire::StoredLetter;

use crate::{
    outside,
    planted::{self, Planted},
    positions::Receipt,
    reply::Reply,
    step::Signal,
};

/// A dead letter that no saga knows of is opened or closed: it has no order to keep.
pub struct Loose {
    pub letter: LetterWrite,
    pub receipt: Option<Receipt>,
    pub reply: Option<(Reply, Answer)>,
}

/// A piece of work for a worker.
#[expect(clippy::large_enum_variant, reason = "nearly all tasks are of sagas")]
pub enum Task {
    Saga(SagaId, Item),
    Loose(Box<Loose>),
}

/// What enters a saga's mailbox.
pub enum Item {
    /// A record that was decoded.
    Delivery {
        event: Event,
        formerly: Option<Box<Formerly>>,
        receipt: Option<Receipt>,
    },
    /// Something may be due. `deadlines`: deadlines and park expiries too.
    Due {
        deadlines: bool,
    },
    TopologyChanged,
    /// That a call outside began is durable: it may leave. `interrupted`: the host begins, and does not know its end.
    Launch {
        call: CallRef,
        interrupted: bool,
    },
    /// A call outside ended.
    Answered {
        call: CallRef,
        answer: outside::Answer,
    },
    Operator {
        command: Command,
        queued: Option<i64>,
        reply: Option<Reply>,
        /// It is given by a record: that of a dead letter, sent again.
        receipt: Option<Receipt>,
    },
    /// The record of a dead letter without a saga is taken in again: an operator asks for it, or it was sent again.
    Redelivery {
        event: Event,
        formerly: Option<Box<Formerly>>,
        letter: Box<StoredLetter>,
        receipt: Option<Receipt>,
        reply: Option<Reply>,
    },
}

#[derive(Default)]
struct Lane {
    items: VecDeque<Item>,
    taken: bool,
}

enum Ready {
    Saga(SagaId),
    Loose(Box<Loose>),
}

#[derive(Default)]
struct Inner {
    lanes: HashMap<SagaId, Lane>,
    ready: VecDeque<Ready>,
    queued: usize,
}

#[derive(Default)]
pub struct Mailboxes {
    inner: Mutex<Inner>,
    /// Moves with each saga that a worker can be in.
    pub ready: Arc<Signal>,
}

impl Item {
    /// Does one of these do what the other would?
    fn repeats(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Due { deadlines }, Self::Due { deadlines: others }) => deadlines == others,
            (Self::TopologyChanged, Self::TopologyChanged) => true,
            (Self::Launch { call, .. }, Self::Launch { call: other, .. }) => call == other,
            (Self::Answered { call, .. }, Self::Answered { call: other, .. }) => call == other,
            _ => false,
        }
    }
}

impl Mailboxes {
    /// False: one like it waits there already.
    pub fn put(&self, saga: &SagaId, item: Item) -> bool {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let lane = inner.lanes.entry(saga.clone()).or_default();
        if lane.items.iter().any(|waiting| item.repeats(waiting)) {
            return false;
        }
        lane.items.push_back(item);
        inner.queued += 1;
        if !lane.taken && lane.items.len() == 1 {
            inner.ready.push_back(Ready::Saga(saga.clone()));
            drop(guard);
            if !planted::on(Planted::NoReadySignal) {
                self.ready.raise();
            }
        }
        true
    }

    pub fn put_loose(&self, loose: Box<Loose>) {
        let mut inner = self.inner.lock();
        inner.ready.push_back(Ready::Loose(loose));
        inner.queued += 1;
        drop(inner);
        self.ready.raise();
    }

    /// What is to be done next. A saga is its worker's until `done`.
    pub fn take(&self) -> Option<Task> {
        let mut inner = self.inner.lock();
        let ready = inner.ready.pop_front()?;
        inner.queued -= 1;
        let saga = match ready {
            Ready::Loose(loose) => return Some(Task::Loose(loose)),
            Ready::Saga(saga) => saga,
        };
        let lane = inner.lanes.get_mut(&saga).expect("a ready saga has a lane");
        lane.taken = !planted::on(Planted::ShareSagas);
        let item = lane.items.pop_front().expect("a ready saga has an item");
        Some(Task::Saga(saga, item))
    }

    /// The worker leaves the saga. It looks for its next task anyhow, so nobody is woken for what waits there.
    pub fn done(&self, saga: &SagaId) {
        let mut inner = self.inner.lock();
        let Some(lane) = inner.lanes.get_mut(saga) else { return };
        lane.taken = false;
        if lane.items.is_empty() {
            inner.lanes.remove(saga);
        } else {
            inner.ready.push_back(Ready::Saga(saga.clone()));
        }
    }

    /// What waits for a worker.
    pub fn queued(&self) -> usize {
        self.inner.lock().queued
    }

    /// Everything that waits is void. Returns how much it was.
    pub fn empty(&self) -> usize {
        let mut inner = self.inner.lock();
        inner.ready.clear();
        inner.lanes.retain(|_, lane| {
            lane.items.clear();
            lane.taken
        });
        std::mem::take(&mut inner.queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(task: Option<Task>) -> Option<(String, bool)> {
        task.map(|task| match task {
            Task::Saga(saga, Item::Due { deadlines }) => (saga.to_string(), deadlines),
            _ => unreachable!("only timers are put here"),
        })
    }

    #[test]
    fn a_saga_that_is_taken_is_given_to_nobody_else_and_keeps_its_order() {
        let boxes = Mailboxes::default();
        let (a, b) = (SagaId::new("a"), SagaId::new("b"));
        assert!(boxes.put(&a, Item::Due { deadlines: false }));
        assert!(boxes.put(&a, Item::Due { deadlines: true }));
        assert!(!boxes.put(&a, Item::Due { deadlines: true }), "one is enough");
        assert!(boxes.put(&b, Item::Due { deadlines: false }));
        assert_eq!(boxes.ready.seen(), 2, "one wake-up for each saga");
        assert_eq!(due(boxes.take()), Some(("a".into(), false)));
        assert_eq!(due(boxes.take()), Some(("b".into(), false)));
        assert_eq!(due(boxes.take()), None);
        boxes.done(&a);
        assert_eq!(due(boxes.take()), Some(("a".into(), true)));
        boxes.done(&a);
        boxes.done(&b);
        assert_eq!((boxes.queued(), boxes.empty()), (0, 0));
    }

    #[test]
    fn what_is_void_is_counted_and_a_saga_stays_its_workers() {
        let boxes = Mailboxes::default();
        let a = SagaId::new("a");
        boxes.put(&a, Item::Due { deadlines: false });
        assert!(boxes.take().is_some());
        boxes.put(&a, Item::Due { deadlines: true });
        boxes.put(&SagaId::new("b"), Item::TopologyChanged);
        assert_eq!(boxes.empty(), 2);
        boxes.put(&a, Item::TopologyChanged);
        assert!(boxes.take().is_none(), "its worker is still in it");
        boxes.done(&a);
        assert!(boxes.take().is_some());
    }
}
