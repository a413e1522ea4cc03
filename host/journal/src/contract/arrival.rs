//! Batches arrive as a whole and in order, and leave by the outbox. Invariant: what is not confirmed is still there.

use sagahost_saga::{
    history::{Entry, EventNote, What},
    input::Command,
};

use crate::{CounterWrite, LetterWrite};

use super::*;

/// One of everything.
fn full(batch: &mut BatchWrite) {
    let entry = Entry {
        at: Time(3),
        what: What::Event {
            kind: Kind::from("OrderCreated"),
            key: EventKey::new("shop", "e-1"),
            note: EventNote::TakenIn,
        },
    };
    batch.sagas = vec![SagaWrite {
        status: Status::NeedsOperator,
        notes: vec![("customer".to_owned(), "ü-1".to_owned())],
        spilled_events: vec![([1; 16], [2; 16])],
        spilled_history: vec![entry],
        digests: BTreeSet::from([Arc::from("d1"), Arc::from("d2")]),
        ..saga("order-1")
    }];
    let (payment, inventory) = (Participant::from("payment"), Participant::from("inventory"));
    batch.store.insert((payment, "k".to_owned()), Some(Arc::from(&[0, 1, 255][..])));
    batch.counters.insert((inventory, "sku".to_owned()), CounterWrite::new(-5));
    batch.letters = vec![LetterWrite::Open(letter("l-1", Some("order-1")))];
    batch.positions = positions(&[(0, 10, Some((9, 1_000))), (1, 0, None)]);
    batch.outbox = vec![record("a"), record("b")];
}

fn assert_full(owner: &Owner, key: SagaKey) {
    let Owner { journal, .. } = owner;
    let row = journal.saga(&SagaId::from("order-1")).unwrap().unwrap();
    assert_eq!((row.key, &*row.bytes), (key, &b"order-1"[..]));
    let listed = journal.sagas(&SagaFilter { limit: 5, ..SagaFilter::default() }).unwrap();
    let expected = SagaListRow {
        key,
        id: SagaId::from("order-1"),
        status: Status::NeedsOperator,
        updated: Time(5),
        notes: vec![("customer".to_owned(), "ü-1".to_owned())],
    };
    assert_eq!(listed, [expected]);
    assert_eq!(journal.spilled_event(key, [1; 16]).unwrap(), Some([2; 16]));
    assert_eq!(journal.spilled_history(key, 0, usize::MAX).unwrap().len(), 1);
    assert_eq!(journal.referenced_digests().unwrap(), BTreeMap::from([(Arc::from("d1"), 1), (Arc::from("d2"), 1)]));
    let value = journal.store_get(&Participant::from("payment"), "k").unwrap();
    assert_eq!(value.map(|row| row.value).as_deref(), Some(&[0, 1, 255][..]));
    assert_eq!(journal.counter(&Participant::from("inventory"), "sku").unwrap(), Some(-5));
    assert_eq!(journal.letter("l-1").unwrap(), Some(letter("l-1", Some("order-1"))));
    assert_eq!(journal.positions().unwrap(), positions(&[(0, 10, Some((9, 1_000))), (1, 0, None)]));
}

fn assert_empty(journal: &dyn Journal) {
    assert_eq!(journal.saga(&SagaId::from("order-1")).unwrap(), None);
    assert_eq!(journal.sagas(&SagaFilter { limit: 5, ..SagaFilter::default() }).unwrap(), []);
    assert_eq!(journal.referenced_digests().unwrap(), BTreeMap::new());
    assert_eq!(journal.store_get(&Participant::from("payment"), "k").unwrap(), None);
    assert_eq!(journal.counters(None).unwrap(), []);
    assert_eq!(journal.letters(&LetterFilter { limit: 5, ..LetterFilter::default() }).unwrap(), []);
    assert_eq!(journal.positions().unwrap(), BTreeMap::new());
    assert_eq!(journal.outbox(BatchNo(0), 5).unwrap(), []);
    assert_eq!(journal.identity().last_batch, BatchNo(0));
}

pub fn everything_comes_back(place: &dyn Place) {
    let owner = Owner::of(place);
    let keys = owner.commit(full);
    assert_eq!(keys.len(), 1);
    assert_full(&owner, keys[0].1);
    owner.journal.close().unwrap();
    let again = Owner::of(place);
    assert_eq!(again.identity.last_batch, BatchNo(1));
    assert_full(&again, keys[0].1);
    let expected = OutboxBatch {
        number: BatchNo(1),
        incarnation: owner.identity.incarnation,
        records: vec![record("a"), record("b")],
        positions: positions(&[(0, 10, Some((9, 1_000))), (1, 0, None)]),
        skipped: BTreeMap::new(),
        valueless: BTreeMap::new(),
        at: Time(1),
    };
    assert_eq!(again.outbox(), [expected]);
}

pub fn gap_is_refused(place: &dyn Place) {
    let owner = Owner::of(place);
    owner.commit(|_| {});
    for number in [0, 1, 3] {
        let batch = BatchWrite { number: BatchNo(number), ..owner.next() };
        let refused = owner.journal.commit(owner.identity.epoch, &batch);
        assert!(matches!(refused, Err(JournalError::Failed(_))), "{number}: {refused:?}");
    }
    owner.commit(|batch| assert_eq!(batch.number, BatchNo(2)));
}

pub fn failed_commit_leaves_nothing(place: &dyn Place) {
    let owner = Owner::of(place);
    let mut batch = owner.next();
    full(&mut batch);
    // A batch cannot know that itself is published. And a saga's row cannot be given to another saga.
    let early = BatchWrite { confirmed: batch.number, ..batch.clone() };
    assert!(owner.journal.commit(owner.identity.epoch, &early).is_err());
    assert_empty(&*owner.journal);
    let taken = owner.sagas(vec![saga("other")])[0].1;
    batch.number = BatchNo(2);
    batch.sagas.push(SagaWrite { key: Some(taken), ..saga("thief") });
    assert!(owner.journal.commit(owner.identity.epoch, &batch).is_err());
    assert_eq!(owner.journal.identity().last_batch, BatchNo(1));
    assert_eq!(owner.list(SagaFilter { limit: 5, ..SagaFilter::default() }), ["other"]);
    assert_eq!(owner.journal.counters(None).unwrap(), []);
    // The handle works on.
    batch.sagas.pop();
    let keys = done(owner.journal.commit(owner.identity.epoch, &batch));
    assert_full_but_listed(&owner, keys[0].1);
}

fn assert_full_but_listed(owner: &Owner, key: SagaKey) {
    assert_eq!(owner.journal.spilled_event(key, [1; 16]).unwrap(), Some([2; 16]));
    assert_eq!(owner.journal.spilled_history(key, 0, usize::MAX).unwrap().len(), 1);
    assert_eq!(owner.outbox().len(), 2);
}

pub fn outbox_in_order(place: &dyn Place) {
    let owner = Owner::of(place);
    for n in 1..=12 {
        owner.commit(|batch| batch.outbox = vec![record(&format!("r-{n}")); n % 3]);
    }
    let numbers = |above, limit| -> Vec<u64> {
        owner.journal.outbox(BatchNo(above), limit).unwrap().iter().map(|batch| batch.number.0).collect()
    };
    assert_eq!(numbers(0, 100), (1..=12).collect::<Vec<_>>(), "batches without records too");
    assert_eq!(numbers(8, 3), [9, 10, 11]);
    assert_eq!(owner.outbox()[1].records, vec![record("r-2"); 2]);
}

pub fn confirmation_removes_and_never_goes_back(place: &dyn Place) {
    let owner = Owner::of(place);
    let epoch = owner.identity.epoch;
    for _ in 0..4 {
        owner.commit(|batch| batch.outbox = vec![record("x")]);
    }
    owner.journal.confirm(epoch, BatchNo(2)).unwrap();
    owner.journal.confirm(epoch, BatchNo(1)).unwrap();
    assert_eq!(owner.journal.identity().confirmed, BatchNo(2));
    assert_eq!(owner.outbox().iter().map(|batch| batch.number.0).collect::<Vec<_>>(), [3, 4]);
    owner.commit(|batch| batch.confirmed = BatchNo(3));
    assert_eq!(owner.outbox().iter().map(|batch| batch.number.0).collect::<Vec<_>>(), [4, 5]);
    assert!(owner.journal.confirm(epoch, BatchNo(6)).is_err(), "not journaled yet");
    assert_eq!(place.open().identity().confirmed, BatchNo(3));
}

pub fn rows_left_out(place: &dyn Place) {
    let owner = Owner::of(place);
    let epoch = owner.identity.epoch;
    owner.commit(|batch| batch.outbox = vec![record("a"), record("b")]);
    let leave_out = |batch, row, what, why| owner.journal.leave_out(epoch, BatchNo(batch), row, what, why);
    assert!(leave_out(1, 2, LeftOut::Row, "why").is_err(), "no such record");
    assert!(leave_out(2, 0, LeftOut::Row, "why").is_err(), "no such batch");
    leave_out(1, 1, LeftOut::Row, "too large").unwrap();
    leave_out(1, 0, LeftOut::Value, "too large").unwrap();
    let outbox = owner.outbox();
    assert_eq!(outbox[0].skipped, BTreeMap::from([(1, "too large".to_owned())]));
    assert_eq!(outbox[0].valueless, BTreeMap::from([(0, "too large".to_owned())]));
    leave_out(1, 0, LeftOut::Row, "still too large").unwrap();
    assert_eq!((owner.outbox()[0].skipped.len(), owner.outbox()[0].valueless.len()), (2, 0), "the row instead");
    assert_eq!(outbox[0].records.len(), 2);
    owner.journal.confirm(epoch, BatchNo(1)).unwrap();
    assert_eq!(owner.outbox(), []);
}

pub fn positions_are_replaced(place: &dyn Place) {
    let owner = Owner::of(place);
    owner.commit(|batch| batch.positions = positions(&[(0, 10, Some((9, 1_000))), (1, 5, None)]));
    owner.commit(|batch| batch.positions = positions(&[(0, 3, None)]));
    assert_eq!(owner.journal.positions().unwrap(), positions(&[(0, 3, None), (1, 5, None)]));
}

pub fn commands_wait_until_done(place: &dyn Place) {
    let owner = Owner::of(place);
    let id = SagaId::from("order-1");
    let cancel = Command::Cancel { by: "ann".to_owned(), reason: "changed her mind".to_owned() };
    let retry = Command::Retry { by: "ann".to_owned() };
    let first = owner.journal.queue_command(&id, &cancel).unwrap();
    let second = owner.journal.queue_command(&id, &retry).unwrap();
    let queued = owner.journal.queued_commands().unwrap();
    assert_eq!(queued.iter().map(|queued| queued.id).collect::<Vec<_>>(), [first, second]);
    assert_eq!((&queued[0].saga, &queued[0].command), (&id, &cancel));
    owner.commit(|batch| batch.commands_done = vec![first]);
    assert_eq!(place.open().queued_commands().unwrap()[0].command, retry);
}

pub fn publication_notes(place: &dyn Place) {
    let owner = Owner::of(place);
    let epoch = owner.identity.epoch;
    assert_eq!(owner.journal.publication_notes().unwrap(), PublicationNotes::default());
    owner.commit(|_| {});
    owner.journal.set_not_out(epoch, Some(BatchNo(1))).unwrap();
    owner.journal.set_touch_due(epoch, Time(5_000)).unwrap();
    let notes = PublicationNotes { not_out: Some(BatchNo(1)), touch_due: Some(Time(5_000)) };
    assert_eq!(owner.journal.publication_notes().unwrap(), notes);
    let next = Owner::of(place);
    assert_eq!(next.journal.publication_notes().unwrap(), notes, "also for the next owner");
    next.journal.set_not_out(next.identity.epoch, None).unwrap();
    assert_eq!(next.journal.publication_notes().unwrap(), PublicationNotes { not_out: None, ..notes });
}
