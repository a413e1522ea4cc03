//! One mailbox per saga, shared by all workers. Invariant: at most one worker is in a saga at a time, and what enters
//! a saga's mailbox leaves it in the same order. Which saga is next, the schedule says.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use sagahost_codec::Formerly;
use sagahost_journal::LetterWrite;
use sagahost_saga::{
    event::Event,
    id::{Participant, SagaId},
    input::{Answer, CallRef, Command},
};
use sagahost_wire::StoredLetter;

use crate::{
    outside,
    planted::{self, Planted},
    positions::Receipt,
    reply::Reply,
    request::{Admission, Request},
    schedule::{Class, Schedule, ScheduleBounds, Turn, WorkerNo},
    step::{Now, Signal},
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
    /// A request over HTTP brings an event, or asks for a step.
    Requested {
        request: Request,
        reply: Reply<Admission>,
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

/// What waits for one saga.
#[derive(Default)]
struct Mailbox {
    items: VecDeque<(Class, Item)>,
    taken: bool,
}

enum Ready {
    Saga(SagaId),
    Loose(Box<Loose>),
}

struct Inner {
    boxes: HashMap<SagaId, Mailbox>,
    schedule: Schedule<Ready>,
    queued: usize,
}

pub struct Mailboxes {
    inner: Mutex<Inner>,
    /// Moves when a worker may find something to do.
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
    pub fn new(bounds: ScheduleBounds) -> Self {
        let inner = Inner { boxes: HashMap::new(), schedule: Schedule::new(bounds), queued: 0 };
        Self { inner: Mutex::new(inner), ready: Arc::default() }
    }

    /// Leaves the lock, and wakes a worker where one would find something to do.
    fn leave(&self, inner: MutexGuard<'_, Inner>) {
        let wanted = inner.schedule.wants_worker();
        drop(inner);
        if wanted && !planted::on(Planted::NoReadySignal) {
            self.ready.raise();
        }
    }

    /// False: one like it waits there already.
    pub fn put(&self, saga: &SagaId, class: Class, item: Item) -> bool {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let mailbox = inner.boxes.entry(saga.clone()).or_default();
        if mailbox.items.iter().any(|(_, waiting)| item.repeats(waiting)) {
            return false;
        }
        inner.queued += 1;
        let ready = !mailbox.taken && mailbox.items.is_empty();
        if ready {
            inner.schedule.push(&class, Ready::Saga(saga.clone()));
        }
        mailbox.items.push_back((class, item));
        if ready {
            self.leave(guard);
        }
        true
    }

    pub fn put_loose(&self, loose: Box<Loose>) {
        let mut inner = self.inner.lock();
        inner.schedule.push(&Class::default(), Ready::Loose(loose));
        inner.queued += 1;
        self.leave(inner);
    }

    /// What the worker is to do next; what it had is done. A saga is its worker's until `done`.
    pub fn take(&self, worker: WorkerNo, now: Now) -> Turn<Task> {
        let mut inner = self.inner.lock();
        let ready = match inner.schedule.next(worker, now) {
            Turn::Run(ready) => ready,
            Turn::Wait { until } => return Turn::Wait { until },
        };
        inner.queued -= 1;
        let task = match ready {
            Ready::Loose(loose) => Task::Loose(loose),
            Ready::Saga(saga) => {
                let mailbox = inner.boxes.get_mut(&saga).expect("a ready saga has a mailbox");
                mailbox.taken = !planted::on(Planted::ShareSagas);
                let (_, item) = mailbox.items.pop_front().expect("a ready saga has an item");
                Task::Saga(saga, item)
            }
        };
        self.leave(inner);
        Turn::Run(task)
    }

    /// See [`Schedule::has_room`].
    pub fn has_room(&self, participant: &Participant, now: Now) -> bool {
        self.inner.lock().schedule.has_room(participant, now)
    }

    /// The worker's chain calls that participant. False: its first call is to wait, and the chain is to be put aside.
    pub fn calls(&self, worker: WorkerNo, participant: &Participant, first: bool, now: Now) -> bool {
        let mut inner = self.inner.lock();
        if first && !inner.schedule.may_begin(worker, participant, now) {
            return false;
        }
        inner.schedule.calls(worker, participant, now);
        self.leave(inner);
        true
    }

    /// The worker's chain waits for others.
    pub fn waits(&self, worker: WorkerNo, now: Now) {
        self.inner.lock().schedule.waits(worker, now);
    }

    /// The worker gives back what it took, for its turn among what waits for that participant. False: it is void.
    pub fn put_aside(&self, worker: WorkerNo, saga: &SagaId, item: Item, participant: &Participant, now: Now) -> bool {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let Some(mailbox) = inner.boxes.get_mut(saga) else { return false };
        if planted::on(Planted::LoseAside)
            || !inner.schedule.put_aside(worker, participant.clone(), Ready::Saga(saga.clone()), now)
        {
            return false;
        }
        mailbox.taken = false;
        mailbox.items.push_front((Class::default(), item));
        inner.queued += 1;
        true
    }

    /// The worker leaves the saga. It looks for its next task anyhow, so nobody is woken for what waits there.
    pub fn done(&self, saga: &SagaId) {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let Some(mailbox) = inner.boxes.get_mut(saga) else { return };
        mailbox.taken = false;
        match mailbox.items.front() {
            None => drop(inner.boxes.remove(saga)),
            Some((class, _)) => inner.schedule.push(class, Ready::Saga(saga.clone())),
        }
    }

    /// What waits for a worker.
    pub fn queued(&self) -> usize {
        self.inner.lock().queued
    }

    /// Everything that waits is void. Returns how much it was.
    pub fn empty(&self) -> usize {
        let mut inner = self.inner.lock();
        inner.schedule.clear();
        inner.boxes.retain(|_, mailbox| {
            mailbox.items.clear();
            mailbox.taken
        });
        std::mem::take(&mut inner.queued)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn boxes() -> Mailboxes {
        Mailboxes::new(ScheduleBounds { slots: 3, slow_max: 0, slow_after: Duration::from_millis(20) })
    }

    fn put(boxes: &Mailboxes, saga: &SagaId, item: Item) -> bool {
        boxes.put(saga, Class::default(), item)
    }

    fn take(boxes: &Mailboxes, worker: WorkerNo) -> Option<(String, bool)> {
        match boxes.take(worker, Now::default()) {
            Turn::Run(Task::Saga(saga, Item::Due { deadlines })) => Some((saga.to_string(), deadlines)),
            Turn::Run(_) => unreachable!("only timers are put here"),
            Turn::Wait { .. } => None,
        }
    }

    #[test]
    fn a_saga_that_is_taken_is_given_to_nobody_else_and_keeps_its_order() {
        let boxes = boxes();
        let (a, b) = (SagaId::new("a"), SagaId::new("b"));
        assert!(put(&boxes, &a, Item::Due { deadlines: false }));
        assert!(put(&boxes, &a, Item::Due { deadlines: true }));
        assert!(!put(&boxes, &a, Item::Due { deadlines: true }), "one is enough");
        assert!(put(&boxes, &b, Item::Due { deadlines: false }));
        assert_eq!(take(&boxes, 1), Some(("a".into(), false)));
        assert_eq!(take(&boxes, 2), Some(("b".into(), false)));
        assert_eq!(take(&boxes, 3), None);
        boxes.done(&a);
        assert_eq!(take(&boxes, 1), Some(("a".into(), true)));
        boxes.done(&a);
        boxes.done(&b);
        assert_eq!((boxes.queued(), boxes.empty()), (0, 0));
    }

    #[test]
    fn what_is_void_is_counted_and_a_saga_stays_its_workers() {
        let boxes = boxes();
        let a = SagaId::new("a");
        put(&boxes, &a, Item::Due { deadlines: false });
        assert!(take(&boxes, 1).is_some());
        put(&boxes, &a, Item::Due { deadlines: true });
        put(&boxes, &SagaId::new("b"), Item::TopologyChanged);
        assert_eq!(boxes.empty(), 2);
        put(&boxes, &a, Item::Due { deadlines: true });
        assert_eq!(take(&boxes, 2), None, "its worker is still in it");
        boxes.done(&a);
        assert!(take(&boxes, 1).is_some());
    }

    /// What was put aside comes before what came later for the same saga.
    #[test]
    fn what_is_put_aside_keeps_its_place_in_its_saga() {
        let boxes = boxes();
        let a = SagaId::new("a");
        put(&boxes, &a, Item::Due { deadlines: false });
        assert!(take(&boxes, 1).is_some());
        put(&boxes, &a, Item::Due { deadlines: true });
        assert!(boxes.put_aside(1, &a, Item::Due { deadlines: false }, &"slow".into(), Now::default()));
        assert_eq!(boxes.queued(), 2);
        assert_eq!(take(&boxes, 1), Some(("a".into(), false)));
        assert_eq!(take(&boxes, 2), None);
        boxes.done(&a);
        assert_eq!(take(&boxes, 1), Some(("a".into(), true)));
        boxes.empty();
        assert!(!boxes.put_aside(1, &a, Item::Due { deadlines: true }, &"slow".into(), Now::default()), "it is void");
    }
}
