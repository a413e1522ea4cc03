//! Dead letters. Invariant: one letter a key, and an open one keeps its saga.

use crate::LetterWrite;

use super::*;

const ALL: LetterFilter =
    LetterFilter { saga: None, code: None, participant: None, open_only: false, limit: 100, offset: 0 };

fn open(owner: &Owner, letters: Vec<StoredLetter>) {
    owner.commit(|batch| batch.letters = letters.into_iter().map(LetterWrite::Open).collect());
}

fn close(owner: &Owner, key: &str, at: u64) {
    let close = LetterWrite::Close { key: key.to_owned(), how: "discarded by ann".to_owned(), at: Time(at) };
    owner.commit(|batch| batch.letters = vec![close]);
}

pub fn round_trip(place: &dyn Place) {
    let owner = Owner::of(place);
    let undecodable = StoredLetter {
        participant: None,
        kind: None,
        origin: None,
        record: Outgoing { key: None, value: Some(Vec::new()), headers: Vec::new(), topic: Arc::from("t") },
        ..letter("at|0|9", None)
    };
    open(&owner, vec![letter("l-1", Some("a")), undecodable.clone()]);
    assert_eq!(owner.journal.letter("l-1").unwrap(), Some(letter("l-1", Some("a"))));
    assert_eq!(owner.journal.letter("at|0|9").unwrap(), Some(undecodable));
    assert_eq!(owner.journal.letter("l-2").unwrap(), None);
    close(&owner, "l-1", 50);
    close(&owner, "nobody", 50);
    let closed = owner.journal.letter("l-1").unwrap().unwrap();
    assert_eq!(closed.closed.as_deref(), Some("discarded by ann"));
}

pub fn reopened_under_its_key(place: &dyn Place) {
    let owner = Owner::of(place);
    open(&owner, vec![letter("l-1", Some("a")), letter("l-2", Some("a"))]);
    close(&owner, "l-1", 50);
    let again = StoredLetter { code: "trap".to_owned(), attempts: 9, at: Time(60), ..letter("l-1", Some("a")) };
    open(&owner, vec![again.clone()]);
    assert_eq!(owner.journal.letter("l-1").unwrap(), Some(again));
    assert_eq!(owner.letters(ALL), ["l-1", "l-2"], "it keeps its place");
}

pub fn filtered_and_grouped(place: &dyn Place) {
    let owner = Owner::of(place);
    let coded = |key: &str, saga, code: &str| StoredLetter { code: code.to_owned(), ..letter(key, saga) };
    open(
        &owner,
        vec![
            coded("1", Some("a"), "trap"),
            coded("2", Some("b"), "trap"),
            coded("3", Some("a"), "declined"),
            StoredLetter { participant: None, ..coded("4", None, "undecodable") },
            StoredLetter { participant: Some(Participant::from("order")), ..coded("5", Some("b"), "trap") },
        ],
    );
    close(&owner, "3", 50);
    assert_eq!(owner.letters(ALL), ["1", "2", "3", "4", "5"]);
    assert_eq!(owner.letters(LetterFilter { limit: 2, offset: 1, ..ALL }), ["2", "3"]);
    assert_eq!(owner.letters(LetterFilter { saga: Some(SagaId::from("a")), ..ALL }), ["1", "3"]);
    assert_eq!(owner.letters(LetterFilter { saga: Some(SagaId::from("a")), open_only: true, ..ALL }), ["1"]);
    assert_eq!(owner.letters(LetterFilter { code: Some("trap".to_owned()), ..ALL }), ["1", "2", "5"]);
    assert_eq!(owner.letters(LetterFilter { participant: Some(Participant::from("order")), ..ALL }), ["5"]);
    let group = |code: &str, participant: Option<&str>, n| (code.to_owned(), participant.map(Participant::from), n);
    let groups = owner.journal.letter_groups().unwrap();
    let expected = [group("trap", Some("payment"), 2), group("trap", Some("order"), 1), group("undecodable", None, 1)];
    assert_eq!(groups, expected);
}

pub fn open_letter_keeps_its_saga(place: &dyn Place) {
    let owner = Owner::of(place);
    let wake = Wake { remove_at: Some(Time(10)), ..Wake::default() };
    owner.sagas(vec![SagaWrite { wake: wake.clone(), ..saga("a") }, SagaWrite { wake, ..saga("b") }]);
    open(&owner, vec![letter("l-1", Some("a"))]);
    let remove = || owner.journal.remove_finished(owner.identity.epoch, Time(99), 1).unwrap();
    assert_eq!((remove(), remove()), (1, 0), "the one that is kept does not stand in the way of the other");
    assert_eq!(owner.list(SagaFilter { limit: 5, ..SagaFilter::default() }), ["a"]);
    close(&owner, "l-1", 50);
    assert_eq!(remove(), 1);
    assert_eq!(owner.letters(ALL), [""; 0], "closed letters go with their saga");
}

pub fn closed_letters_go(place: &dyn Place) {
    let owner = Owner::of(place);
    open(&owner, vec![letter("1", None), letter("2", None), letter("3", None)]);
    close(&owner, "1", 50);
    close(&owner, "2", 40);
    let remove =
        |before, limit| owner.journal.remove_closed_letters(owner.identity.epoch, Time(before), limit).unwrap();
    assert_eq!(remove(40, 5), 0);
    assert_eq!(remove(60, 1), 1);
    assert_eq!(owner.letters(ALL), ["1", "3"]);
    assert_eq!(remove(60, 5), 1);
    assert_eq!(owner.letters(ALL), ["3"]);
}
