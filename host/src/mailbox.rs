//! One mailbox per saga, shared by all workers. Invariant: at most one worker is in a saga at a time, and what enters
//! a saga's mailbox leaves it in the same order.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use sagahost_codec::Formerly;
use sagahost_saga::{event::Event, id::SagaId, input::Command};
use sagahost_wire::StoredLetter;

use crate::{positions::Receipt, stage::Reply};

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

#[derive(Default)]
struct Inner {
    lanes: HashMap<SagaId, Lane>,
    ready: VecDeque<SagaId>,
    queued: usize,
    closed: bool,
}

#[derive(Default)]
pub struct Mailboxes {
    inner: Mutex<Inner>,
    stirred: Condvar,
}

impl Item {
    /// Does one of these do what the other would?
    fn repeats(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Due { deadlines }, Self::Due { deadlines: others }) => deadlines == others,
            (Self::TopologyChanged, Self::TopologyChanged) => true,
            _ => false,
        }
    }
}

impl Mailboxes {
    /// False: one like it waits there already.
    pub fn put(&self, saga: &SagaId, item: Item) -> bool {
        let mut inner = self.inner.lock();
        let lane = inner.lanes.entry(saga.clone()).or_default();
        if lane.items.iter().any(|waiting| item.repeats(waiting)) {
            return false;
        }
        lane.items.push_back(item);
        if !lane.taken && lane.items.len() == 1 {
            inner.ready.push_back(saga.clone());
            self.stirred.notify_one();
        }
        inner.queued += 1;
        true
    }

    /// The next saga with something to do, and that. None: nothing came within `timeout`, or closed.
    pub fn take(&self, timeout: Duration) -> Option<(SagaId, Item)> {
        let mut inner = self.inner.lock();
        if inner.ready.is_empty() && !inner.closed {
            self.stirred.wait_for(&mut inner, timeout);
        }
        let saga = inner.ready.pop_front()?;
        inner.queued -= 1;
        let lane = inner.lanes.get_mut(&saga).expect("a ready saga has a lane");
        lane.taken = true;
        let item = lane.items.pop_front().expect("a ready saga has an item");
        Some((saga, item))
    }

    /// The worker leaves the saga.
    pub fn done(&self, saga: &SagaId) {
        let mut inner = self.inner.lock();
        let Some(lane) = inner.lanes.get_mut(saga) else { return };
        lane.taken = false;
        if lane.items.is_empty() {
            inner.lanes.remove(saga);
        } else {
            inner.ready.push_back(saga.clone());
            self.stirred.notify_one();
        }
    }

    pub fn queued(&self) -> usize {
        self.inner.lock().queued
    }

    /// Everything that waits is handed back: it is void, or the host stops.
    pub fn empty(&self) -> Vec<(SagaId, Item)> {
        let mut inner = self.inner.lock();
        inner.ready.clear();
        inner.queued = 0;
        let mut items = Vec::new();
        inner.lanes.retain(|saga, lane| {
            items.extend(lane.items.drain(..).map(|item| (saga.clone(), item)));
            lane.taken
        });
        items
    }

    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.stirred.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(item: Option<(SagaId, Item)>) -> Option<(String, bool)> {
        item.map(|(saga, item)| match item {
            Item::Due { deadlines } => (saga.to_string(), deadlines),
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
        let none = Duration::ZERO;
        assert_eq!(due(boxes.take(none)), Some(("a".into(), false)));
        assert_eq!(due(boxes.take(none)), Some(("b".into(), false)));
        assert_eq!(due(boxes.take(none)), None);
        boxes.done(&a);
        assert_eq!(due(boxes.take(none)), Some(("a".into(), true)));
        boxes.done(&a);
        boxes.done(&b);
        assert_eq!(boxes.queued(), 0);
        assert!(boxes.empty().is_empty());
    }
}
