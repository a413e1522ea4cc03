//! One owner at a time, known by epoch; batches are named by who journaled them. Invariant: a replaced owner can
//! change nothing.

use sagahost_saga::input::Command;
use sagahost_wire::{Epoch, TopicId};

use crate::PluginWrite;

use super::*;

pub fn stale_epoch(place: &dyn Place) {
    let old = Owner::of(place);
    old.sagas(vec![saga("order-1")]);
    let new = Owner::of(place);
    assert!(new.identity.epoch > old.identity.epoch);
    let refused = |outcome: Result<(), JournalError>| match outcome {
        Err(JournalError::StaleEpoch { newest, ours }) => {
            assert_eq!((newest, ours), (new.identity.epoch, old.identity.epoch));
        }
        other => panic!("a stale epoch was taken: {other:?}"),
    };
    let epoch = old.identity.epoch;
    let id = SagaId::from("order-1");
    let partition = Partition::new("order-created", 0);
    refused(old.journal.reread().map(drop));
    refused(old.journal.commit(epoch, &old.next()).map(drop));
    refused(old.journal.confirm(epoch, BatchNo(1)));
    refused(old.journal.set_anchor(epoch, &partition));
    refused(old.journal.set_position(epoch, &partition, &Position::new(5, None)));
    refused(old.journal.new_lineage(epoch).map(drop));
    refused(old.journal.change_plugins(epoch, &PluginWrite::default()));
    refused(old.journal.leave_out(epoch, BatchNo(1), 0, LeftOut::Row, "why"));
    refused(old.journal.set_not_out(epoch, Some(BatchNo(1))));
    refused(old.journal.set_touch_due(epoch, Time(9)));
    refused(old.journal.quarantine(epoch, &id, "why"));
    refused(old.journal.release(epoch, &id));
    refused(old.journal.remove_finished(epoch, Time(9), 5).map(drop));
    refused(old.journal.remove_letters(epoch, Time(9), &letters::UNBOUNDED, 5).map(drop));
    // The new owner was not disturbed.
    new.sagas(vec![saga("order-2")]);
    assert_eq!(new.journal.reread().unwrap(), new.journal.identity());
    assert_eq!(new.list(SagaFilter { limit: 5, ..SagaFilter::default() }), ["order-2", "order-1"]);
    let future = Epoch(new.identity.epoch.0 + 1);
    assert!(matches!(new.journal.commit(future, &new.next()), Err(JournalError::StaleEpoch { .. })));
}

pub fn incarnations_by_batch(place: &dyn Place) {
    let mut names = vec![None];
    for batches in [2, 0, 3] {
        let owner = Owner::of(place);
        for _ in 0..batches {
            owner.commit(|batch| batch.outbox = vec![record("x")]);
            names.push(Some(owner.identity.incarnation.clone()));
        }
    }
    let owner = Owner::of(place);
    for (number, name) in names.iter().enumerate() {
        assert_eq!(&owner.journal.batch_incarnation(BatchNo(number as u64)).unwrap(), name, "batch {number}");
    }
    assert_eq!(owner.journal.batch_incarnation(BatchNo(6)).unwrap(), None, "not journaled yet");
    let outbox: Vec<_> = owner.outbox().into_iter().map(|batch| Some(batch.incarnation)).collect();
    assert_eq!(outbox, names[1..], "also when another incarnation reads it");
}

pub fn owner_without_batch(place: &dyn Place) {
    let first = place.open().identity();
    let second = place.open().identity();
    assert_eq!((&first.journal, &*second.app), (&second.journal, "shop"));
    assert_eq!(second.epoch.0, first.epoch.0 + 1);
    assert_ne!(first.incarnation, second.incarnation);
    assert_eq!((second.last_batch, second.confirmed, second.anchor), (BatchNo(0), BatchNo(0), None));
}

pub fn new_lineage(place: &dyn Place) {
    let owner = Owner::of(place);
    owner.commit(|batch| batch.outbox = vec![record("x")]);
    owner.commit(|batch| batch.confirmed = BatchNo(1));
    let identity = owner.journal.new_lineage(owner.identity.epoch).unwrap();
    assert_ne!(identity.journal, owner.identity.journal);
    assert_eq!((identity.last_batch, identity.confirmed), (BatchNo(2), BatchNo(1)));
    assert_eq!(owner.journal.identity(), identity);
    assert_eq!(owner.outbox().iter().map(|batch| batch.number.0).collect::<Vec<_>>(), [2]);
    assert_eq!(place.open().identity().journal, identity.journal);
}

pub fn anchor(place: &dyn Place) {
    let owner = Owner::of(place);
    let anchor = Partition::new("order-created", 3);
    owner.journal.set_anchor(owner.identity.epoch, &anchor).unwrap();
    assert_eq!(owner.journal.identity().anchor.as_ref(), Some(&anchor));
    assert_eq!(place.open().identity().anchor, Some(anchor));
}

pub fn moved_position(place: &dyn Place) {
    let owner = Owner::of(place);
    let partition = Partition::new("order-created", 3);
    for topic_id in [Some(TopicId("a".into())), Some(TopicId("b".into())), None] {
        let position = Position::new(12, topic_id);
        owner.journal.set_position(owner.identity.epoch, &partition, &position).unwrap();
        assert_eq!(owner.journal.positions().unwrap(), BTreeMap::from([(partition.clone(), position)]));
    }
    assert_eq!(place.open().positions().unwrap(), BTreeMap::from([(partition, Position::new(12, None))]));
}

pub fn closed_handle(place: &dyn Place) {
    let owner = Owner::of(place);
    owner.sagas(vec![saga("order-1")]);
    owner.journal.close().unwrap();
    owner.journal.close().unwrap();
    assert!(owner.journal.saga(&SagaId::from("order-1")).is_err());
    let retry = Command::Retry { by: "ann".to_owned() };
    assert!(owner.journal.queue_command(&SagaId::from("order-1"), &retry).is_err());
    assert!(owner.journal.commit(owner.identity.epoch, &BatchWrite::default()).is_err());
}
