//! Rows of sagas: found by id, by time, by mark, by status and note. Invariant: a key names one saga.

use sagahost_saga::history::{Entry, What};

use crate::JournalError;

use super::*;

const FOREVER: Time = Time(u64::MAX);

fn waking(id: &str, at: u64) -> SagaWrite {
    SagaWrite { wake: Wake { at: Some(Time(at)), ..Wake::default() }, ..saga(id) }
}

fn dying(id: &str, deadline: u64) -> SagaWrite {
    SagaWrite { wake: Wake { deadline: Some(Time(deadline)), ..Wake::default() }, ..saga(id) }
}

fn noted(id: &str, status: Status, notes: &[(&str, &str)]) -> SagaWrite {
    let notes = notes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    SagaWrite { status, notes, ..saga(id) }
}

fn names<T>(rows: &[(T, SagaId)]) -> Vec<&str> {
    rows.iter().map(|(_, id)| id.as_str()).collect()
}

pub fn keys_in_order_of_arrival(place: &dyn Place) {
    let owner = Owner::of(place);
    let keys = owner.sagas(vec![saga("b"), saga("a"), saga("日本")]);
    assert_eq!(keys.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["b", "a", "日本"]);
    assert!(keys.is_sorted_by_key(|(_, key)| *key));
    let later = owner.sagas(vec![saga("0")]);
    assert!(later[0].1 > keys[2].1);
    for (id, key) in keys.iter().chain(&later) {
        assert_eq!(owner.journal.saga(id).unwrap().unwrap().key, *key);
    }
    assert_eq!(owner.journal.saga(&SagaId::from("c")).unwrap(), None);
}

pub fn key_of_a_saga_that_has_one(place: &dyn Place) {
    let owner = Owner::of(place);
    let key = owner.sagas(vec![saga("a")])[0].1;
    let known = owner.sagas(vec![SagaWrite { key: Some(key), bytes: vec![1], ..saga("a") }]);
    assert_eq!(known, [], "nobody asked for a key");
    // The next batch may have been filled before this one's keys were known.
    let asked = owner.sagas(vec![SagaWrite { bytes: vec![2], ..saga("a") }]);
    assert_eq!(asked, [(SagaId::from("a"), key)]);
    assert_eq!(&*owner.journal.saga(&SagaId::from("a")).unwrap().unwrap().bytes, [2]);
    assert_eq!(owner.list(SagaFilter { limit: 5, ..SagaFilter::default() }), ["a"]);
}

pub fn wrong_key_is_refused(place: &dyn Place) {
    let owner = Owner::of(place);
    let key = owner.sagas(vec![saga("a")])[0].1;
    let batch = BatchWrite { sagas: vec![SagaWrite { key: Some(key), ..saga("b") }], ..owner.next() };
    let refused = owner.journal.commit(owner.identity.epoch, &batch);
    assert!(matches!(refused, Err(JournalError::Failed(_))), "{refused:?}");
    assert_eq!(&*owner.journal.saga(&SagaId::from("a")).unwrap().unwrap().bytes, b"a");
}

pub fn due_in_order(place: &dyn Place) {
    let owner = Owner::of(place);
    assert_eq!(owner.journal.next_due().unwrap(), (None, None));
    let keys = owner.sagas(vec![waking("c", 30), waking("a", 10), waking("b", 20), saga("never"), dying("d", 1)]);
    assert_eq!(names(&owner.journal.due(Time(9), 5).unwrap()), [""; 0]);
    assert_eq!(owner.journal.due(Time(20), 5).unwrap()[0], (Time(10), SagaId::from("a")));
    assert_eq!(names(&owner.journal.due(Time(20), 5).unwrap()), ["a", "b"]);
    assert_eq!(names(&owner.journal.due(FOREVER, 2).unwrap()), ["a", "b"]);
    assert_eq!(owner.journal.next_due().unwrap(), (Some(Time(10)), Some(Time(1))));
    owner.sagas(vec![SagaWrite { key: Some(keys[1].1), ..saga("a") }]);
    assert_eq!(names(&owner.journal.due(FOREVER, 5).unwrap()), ["b", "c"]);
}

pub fn deadlines_in_order(place: &dyn Place) {
    let owner = Owner::of(place);
    owner.sagas(vec![dying("b", 20), dying("a", 10), waking("w", 1), saga("never")]);
    assert_eq!(names(&owner.journal.deadlines(Time(10), 5).unwrap()), ["a"]);
    assert_eq!(names(&owner.journal.deadlines(FOREVER, 5).unwrap()), ["a", "b"]);
    assert_eq!(owner.journal.next_due().unwrap(), (Some(Time(1)), Some(Time(10))));
}

pub fn parked_and_in_doubt(place: &dyn Place) {
    let owner = Owner::of(place);
    let parked = |id| SagaWrite { wake: Wake { waits_for_plugin: true, ..Wake::default() }, ..saga(id) };
    let doubtful = |id| SagaWrite { wake: Wake { in_doubt: true, ..Wake::default() }, ..saga(id) };
    owner.sagas(vec![parked("p1"), saga("x"), doubtful("d1"), parked("p2"), parked("p3"), doubtful("d2")]);
    let journal = &owner.journal;
    let page = journal.parked_sagas(SagaKey(0), 2).unwrap();
    assert_eq!(names(&page), ["p1", "p2"]);
    assert_eq!(names(&journal.parked_sagas(page[1].0, 2).unwrap()), ["p3"]);
    assert_eq!(names(&journal.in_doubt(SagaKey(0), 9).unwrap()), ["d1", "d2"]);
}

pub fn listed_by_status_and_notes(place: &dyn Place) {
    let owner = Owner::of(place);
    let keys = owner.sagas(vec![
        noted("a", Status::Running, &[("customer", "c1"), ("city", "Köln")]),
        noted("b", Status::Completed, &[("customer", "c1")]),
        noted("c", Status::Running, &[("customer", "c2")]),
        noted("d", Status::Running, &[("customer", "c1"), ("customer", "c2")]),
        saga("e"),
    ]);
    let list = |status, notes: &[(&str, &str)], before, limit| {
        let notes = noted("", Status::Running, notes).notes;
        owner.list(SagaFilter { status, notes, before, limit })
    };
    assert_eq!(list(None, &[], None, 9), ["e", "d", "c", "b", "a"], "newest first");
    assert_eq!(list(None, &[], None, 2), ["e", "d"]);
    assert_eq!(list(None, &[], Some(keys[3].1), 2), ["c", "b"]);
    assert_eq!(list(Some(Status::Running), &[], None, 9), ["e", "d", "c", "a"]);
    assert_eq!(list(None, &[("customer", "c1")], None, 9), ["d", "b", "a"]);
    assert_eq!(list(None, &[("customer", "c1")], None, 1), ["d"]);
    assert_eq!(list(Some(Status::Running), &[("customer", "c1"), ("city", "Köln")], None, 9), ["a"]);
    assert_eq!(list(None, &[("city", "Kö")], None, 9), [""; 0]);
    owner.sagas(vec![SagaWrite { key: Some(keys[0].1), ..noted("a", Status::Running, &[("city", "Bonn")]) }]);
    assert_eq!(list(None, &[("customer", "c1")], None, 9), ["d", "b"]);
    assert_eq!(list(None, &[("city", "Bonn")], None, 9), ["a"]);
}

pub fn counted_by_status(place: &dyn Place) {
    let owner = Owner::of(place);
    let all = [
        Status::Waiting,
        Status::Running,
        Status::Finishing,
        Status::Completed,
        Status::Compensating,
        Status::Compensated,
        Status::NeedsOperator,
        Status::Quarantined,
    ];
    for (n, status) in all.into_iter().enumerate() {
        owner.sagas((0..=n).map(|m| SagaWrite { status, ..saga(&format!("{n}-{m}")) }).collect());
    }
    let counts: BTreeMap<String, u64> =
        owner.journal.count_by_status().unwrap().into_iter().map(|(status, n)| (format!("{status:?}"), n)).collect();
    let expected = all.into_iter().zip(1..).map(|(status, n)| (format!("{status:?}"), n)).collect();
    assert_eq!(counts, expected);
}

pub fn spilled_rows(place: &dyn Place) {
    let owner = Owner::of(place);
    let entry =
        |n| Entry { at: Time(n), what: What::Operator { by: "ann".into(), did: "x".into(), reason: "y".into() } };
    let spill = |key, from: u64| SagaWrite {
        key,
        spilled_events: vec![([from as u8; 16], [9; 16])],
        spilled_history: (from..from + 30).map(entry).collect(),
        ..saga("a")
    };
    let key = owner.sagas(vec![spill(None, 1)])[0].1;
    owner.sagas(vec![spill(Some(key), 31)]);
    let history = |from, limit| owner.journal.spilled_history(key, from, limit).unwrap();
    assert_eq!(history(0, usize::MAX), (1..=60).map(entry).collect::<Vec<_>>(), "oldest first");
    assert_eq!(history(58, 1), [entry(59)]);
    assert_eq!(history(59, 9), [entry(60)]);
    assert_eq!(history(60, 9), []);
    assert_eq!(owner.journal.spilled_event(key, [31; 16]).unwrap(), Some([9; 16]));
    assert_eq!(owner.journal.spilled_event(key, [2; 16]).unwrap(), None);
    assert_eq!(owner.journal.spilled_event(SagaKey(key.0 + 1), [1; 16]).unwrap(), None);
}
