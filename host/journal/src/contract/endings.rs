//! How sagas leave: after their retention, or into quarantine. Invariant: nothing of a saga stays behind, and its key
//! is not given again.

use crate::{LetterWrite, requests};

use super::*;

const FOREVER: Time = Time(u64::MAX);

fn finished(id: &str, remove_at: u64) -> SagaWrite {
    let wake = Wake { remove_at: Some(Time(remove_at)), ..Wake::default() };
    SagaWrite { status: Status::Completed, wake, ..saga(id) }
}

pub fn digests_while_needed(place: &dyn Place) {
    let owner = Owner::of(place);
    let set = |digests: &[&str]| -> BTreeSet<Arc<str>> { digests.iter().map(|digest| Arc::from(*digest)).collect() };
    let needing = |id, key, digests: &[&str]| SagaWrite { key, digests: set(digests), ..saga(id) };
    let keys = owner.sagas(vec![
        needing("a", None, &["d1", "d2"]),
        needing("b", None, &["d1", "d2"]),
        needing("c", None, &["d3"]),
    ]);
    let counted = |counts: &[(&str, u64)]| -> BTreeMap<Arc<str>, u64> {
        counts.iter().map(|(digest, sagas)| (Arc::from(*digest), *sagas)).collect()
    };
    let referenced = || owner.journal.referenced_digests().unwrap();
    assert_eq!(referenced(), counted(&[("d1", 2), ("d2", 2), ("d3", 1)]));
    owner.sagas(vec![needing("a", Some(keys[0].1), &["d2"])]);
    assert_eq!(referenced(), counted(&[("d1", 1), ("d2", 2), ("d3", 1)]));
    owner.sagas(vec![needing("b", Some(keys[1].1), &[]), needing("c", Some(keys[2].1), &["d3"])]);
    assert_eq!(referenced(), counted(&[("d2", 1), ("d3", 1)]));
    assert_eq!(place.open().referenced_digests().unwrap(), counted(&[("d2", 1), ("d3", 1)]));
    let owner = Owner::of(place);
    owner.sagas(vec![SagaWrite { key: Some(keys[2].1), digests: set(&["d3"]), ..finished("c", 1) }]);
    owner.journal.remove_finished(owner.identity.epoch, FOREVER, 9).unwrap();
    assert_eq!(owner.journal.referenced_digests().unwrap(), counted(&[("d2", 1)]));
}

pub fn removed_in_bites(place: &dyn Place) {
    let owner = Owner::of(place);
    let epoch = owner.identity.epoch;
    let mut first = finished("a", 10);
    first.notes = vec![("n".to_owned(), "v".to_owned())];
    first.spilled_events = vec![([1; 16], [2; 16])];
    let key = owner.sagas(vec![first, finished("b", 20), finished("c", 30), finished("late", 50), saga("runs")])[0].1;
    let remove = |now, limit| owner.journal.remove_finished(epoch, Time(now), limit).unwrap();
    assert_eq!(remove(9, 5), 0);
    assert_eq!(remove(40, 2), 2);
    assert_eq!(owner.list(SagaFilter { limit: 9, ..SagaFilter::default() }), ["runs", "late", "c"], "oldest go first");
    assert_eq!(remove(40, 2), 1);
    assert_eq!(remove(40, 2), 0);
    assert_eq!(owner.list(SagaFilter { limit: 9, ..SagaFilter::default() }), ["runs", "late"]);
    assert_eq!(owner.journal.saga(&SagaId::from("a")).unwrap(), None);
    assert_eq!(owner.journal.spilled_event(key, [1; 16]).unwrap(), None);
    let noted = SagaFilter { notes: vec![("n".to_owned(), "v".to_owned())], limit: 9, ..SagaFilter::default() };
    assert_eq!(owner.list(noted), [""; 0]);
}

/// What the saga was asked over HTTP, whatever its id looks like; and nothing of another saga, nor of a plugin.
pub fn requests_go_with_their_saga(place: &dyn Place) {
    let owner = Owner::of(place);
    let epoch = owner.identity.epoch;
    let of = |saga: &str, request: &str| {
        let id = SagaId::from(saga);
        [requests::key(request), requests::of_saga(&id, request), requests::answer(request), requests::undone(request)]
    };
    let many: Vec<String> = (0..250).map(|n| format!("{n:032x}")).collect();
    let mut gone: Vec<_> = many.iter().flat_map(|request| of("a", request)).collect();
    gone.push(requests::of_principal(&"a".into(), "ann/of/the shop"));
    let mut stays: Vec<_> = of("a/b", "f0").into();
    stays.push(requests::of_principal(&"a/b".into(), "ann"));
    stays.push(("payment".into(), requests::key(&many[0]).1));
    let all = || gone.iter().chain(&stays).cloned();
    owner.commit(|batch| {
        batch.sagas = vec![finished("a", 1), saga("a/b")];
        batch.store = all().map(|name| (name, Some(Arc::from(&b"v"[..])))).collect();
    });
    let there = |(participant, key): &crate::Name| owner.journal.store_get(participant, key).unwrap().is_some();
    assert!(all().all(|name| there(&name)));
    assert_eq!(owner.journal.remove_finished(epoch, FOREVER, 9).unwrap(), 1);
    assert!(!gone.iter().any(there), "a key begins something new");
    assert!(stays.iter().all(there));
}

pub fn removed_key_is_not_given_again(place: &dyn Place) {
    let owner = Owner::of(place);
    let old = owner.sagas(vec![finished("a", 1)])[0].1;
    owner.journal.remove_finished(owner.identity.epoch, FOREVER, 9).unwrap();
    let new = owner.sagas(vec![saga("b")])[0].1;
    assert!(new > old);
    // A chain may have loaded the row before it went: it comes back under the key that it had.
    owner.sagas(vec![SagaWrite { key: Some(old), bytes: vec![7], ..saga("a") }]);
    let row = owner.journal.saga(&SagaId::from("a")).unwrap().unwrap();
    assert_eq!((row.key, &*row.bytes), (old, &[7][..]));
}

pub fn quarantine(place: &dyn Place) {
    let owner = Owner::of(place);
    let (epoch, id) = (owner.identity.epoch, SagaId::from("a"));
    let wake = Wake { at: Some(Time(1)), deadline: Some(Time(2)), in_doubt: true, ..Wake::default() };
    owner.sagas(vec![SagaWrite { wake, ..saga("a") }, saga("b")]);
    assert_eq!(owner.journal.quarantined(&id).unwrap(), None);
    owner.journal.quarantine(epoch, &id, "its record cannot be read").unwrap();
    owner.journal.quarantine(epoch, &id, "still").unwrap();
    assert_eq!(owner.journal.quarantined(&id).unwrap().as_deref(), Some("still"));
    assert_eq!(&*owner.journal.saga(&id).unwrap().unwrap().bytes, b"a", "kept for analysis");
    let listed = SagaFilter { status: Some(Status::Quarantined), limit: 5, ..SagaFilter::default() };
    assert_eq!(owner.list(listed), ["a"]);
    assert_eq!(owner.journal.next_due().unwrap(), (None, None), "its timers stand");
    assert_eq!(owner.journal.in_doubt(SagaKey(0), 5).unwrap(), []);
    let staged_before = Wake { at: Some(Time(4)), deadline: Some(Time(5)), in_doubt: true, ..Wake::default() };
    owner.sagas(vec![SagaWrite { wake: staged_before, bytes: vec![9], ..saga("a") }]);
    let listed = SagaFilter { status: Some(Status::Quarantined), limit: 5, ..SagaFilter::default() };
    assert_eq!(owner.list(listed), ["a"], "a batch that was on its way does not end the quarantine");
    assert_eq!(owner.journal.next_due().unwrap(), (None, None));
    owner.journal.release(epoch, &id).unwrap();
    assert_eq!(owner.journal.quarantined(&id).unwrap(), None);
    assert_eq!(owner.journal.next_due().unwrap(), (Some(Time(4)), Some(Time(5))));
    assert_eq!(&*owner.journal.saga(&id).unwrap().unwrap().bytes, [9]);
    assert_eq!(owner.journal.in_doubt(SagaKey(0), 5).unwrap().len(), 1);
    assert_eq!(owner.list(SagaFilter { status: Some(Status::Running), limit: 5, ..SagaFilter::default() }), ["b", "a"]);
    assert!(owner.journal.release(epoch, &id).is_err(), "it is not there any more");
}

pub fn quarantine_without_a_row(place: &dyn Place) {
    let owner = Owner::of(place);
    let (epoch, id) = (owner.identity.epoch, SagaId::from("new"));
    owner.journal.quarantine(epoch, &id, "an invariant broke").unwrap();
    assert_eq!(owner.list(SagaFilter { limit: 5, ..SagaFilter::default() }), ["new"]);
    assert_eq!(owner.journal.quarantined(&id).unwrap().as_deref(), Some("an invariant broke"));
    owner.journal.release(epoch, &id).unwrap();
    assert_eq!(owner.journal.saga(&id).unwrap(), None);
    let letter = LetterWrite::Open(letter("l", Some("new")));
    owner.commit(|batch| (batch.sagas, batch.letters) = (vec![saga("new")], vec![letter]));
    assert!(owner.journal.saga(&id).unwrap().is_some());
}
