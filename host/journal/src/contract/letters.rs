//! Dead letters. Invariant: one letter a key, an open one keeps its saga, and what goes open is counted.

use crate::LetterWrite;

use super::*;

const ALL: LetterFilter =
    LetterFilter { saga: None, code: None, participant: None, open_only: false, limit: 100, offset: 0 };

/// Nothing may go.
pub(super) const UNBOUNDED: LetterRetention = LetterRetention {
    closed_before: Time(0),
    undecodable_before: Time(0),
    undecodable_max: u64::MAX,
    undecodable_bytes_max: u64::MAX,
};

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
        |before, limit| remove(&owner, LetterRetention { closed_before: Time(before), ..UNBOUNDED }, limit).closed;
    assert_eq!(remove(40, 5), 0);
    assert_eq!(remove(60, 1), 1);
    assert_eq!(owner.letters(ALL), ["1", "3"]);
    assert_eq!(remove(60, 5), 1);
    assert_eq!(owner.letters(ALL), ["3"]);
}

fn remove(owner: &Owner, may_go: LetterRetention, limit: usize) -> LetterRemoval {
    owner.journal.remove_letters(owner.identity.epoch, Time(500), &may_go, limit).unwrap()
}

fn undecodable(key: &str, saga: Option<&str>, at: u64) -> StoredLetter {
    let letter = letter(key, saga);
    StoredLetter {
        participant: None,
        kind: None,
        code: "invalid-json".to_owned(),
        at: Time(at),
        letter: None,
        ..letter
    }
}

fn removed(letters: u64, bytes: u64) -> RemovedLetters {
    RemovedLetters { code: "invalid-json".to_owned(), letters, bytes, last: Time(500) }
}

fn large(key: &str, at: u64, bytes: usize) -> StoredLetter {
    let mut letter = undecodable(key, None, at);
    letter.record.value = Some(vec![b'x'; bytes]);
    letter
}

pub fn undecodable_letters_beyond_their_bounds_go(place: &dyn Place) {
    let owner = Owner::of(place);
    // Not in the order of their age.
    open(&owner, [3, 1, 2, 4].map(|at| large(&at.to_string(), at, 10_000)).to_vec());
    let others = [letter("of-a-saga", Some("a")), StoredLetter { letter: None, ..letter("kept-aside", Some("b")) }];
    open(&owner, others.to_vec());
    let at_most = |n| LetterRetention { undecodable_max: n, ..UNBOUNDED };
    assert_eq!(remove(&owner, at_most(4), 9), LetterRemoval::default(), "there are four");
    let went = remove(&owner, at_most(2), 1).undecodable;
    assert_eq!((went.len(), went[0].letters), (1, 1), "at most one at once");
    assert_eq!(owner.letters(ALL), ["3", "2", "4", "of-a-saga", "kept-aside"]);
    assert_eq!(remove(&owner, at_most(2), 9).undecodable[0].letters, 1);
    let bytes = |n| LetterRetention { undecodable_bytes_max: n, ..UNBOUNDED };
    assert_eq!(remove(&owner, bytes(30_000), 9), LetterRemoval::default());
    assert_eq!(remove(&owner, bytes(15_000), 9).undecodable[0].letters, 1);
    assert_eq!(owner.letters(ALL), ["4", "of-a-saga", "kept-aside"]);
    close(&owner, "4", 50);
    assert_eq!(remove(&owner, at_most(0), 9), LetterRemoval::default(), "a closed one goes by its own time");
    open(&owner, vec![undecodable("5", None, 5)]);
    assert_eq!(remove(&owner, at_most(0), 9).undecodable[0].letters, 1);
    assert_eq!(owner.letters(ALL), ["4", "of-a-saga", "kept-aside"], "those of a saga are not meant");
}

pub fn old_undecodable_letters_go(place: &dyn Place) {
    let owner = Owner::of(place);
    open(&owner, vec![undecodable("1", None, 10), undecodable("2", Some("no-saga"), 20), undecodable("3", None, 30)]);
    open(&owner, vec![StoredLetter { at: Time(5), ..letter("of-a-saga", Some("a")) }]);
    let before = |at| LetterRetention { undecodable_before: Time(at), ..UNBOUNDED };
    assert_eq!(remove(&owner, before(10), 9), LetterRemoval::default());
    assert_eq!(remove(&owner, before(21), 9).undecodable[0].letters, 2);
    assert_eq!(owner.letters(ALL), ["3", "of-a-saga"]);
}

/// Although it could not be decoded, a record may say for which saga it was.
pub fn letters_of_open_sagas_stay(place: &dyn Place) {
    let owner = Owner::of(place);
    let ended = Wake { remove_at: Some(Time(900)), ..Wake::default() };
    owner.sagas(vec![saga("open"), SagaWrite { wake: ended.clone(), ..saga("ended") }, saga("ill")]);
    owner.journal.quarantine(owner.identity.epoch, &SagaId::from("ill"), "a test").unwrap();
    open(
        &owner,
        vec![
            undecodable("1", Some("open"), 1),
            undecodable("2", Some("ended"), 2),
            undecodable("3", Some("ill"), 3),
            undecodable("4", Some("unknown"), 4),
        ],
    );
    let all = LetterRetention { undecodable_max: 0, undecodable_before: Time(99), ..UNBOUNDED };
    assert_eq!(remove(&owner, all, 9).undecodable[0].letters, 2);
    assert_eq!(owner.letters(ALL), ["1", "3"]);
    let key = owner.journal.saga(&SagaId::from("open")).unwrap().unwrap().key;
    owner.sagas(vec![SagaWrite { key: Some(key), wake: ended, ..saga("open") }]);
    assert_eq!(remove(&owner, all, 9).undecodable[0].letters, 1);
    assert_eq!(owner.letters(ALL), ["3"]);
}

pub fn removed_letters_are_counted(place: &dyn Place) {
    let owner = Owner::of(place);
    assert_eq!(owner.journal.removed_letters().unwrap(), []);
    let tombstone = StoredLetter { code: "tombstone".to_owned(), ..undecodable("3", None, 3) };
    open(&owner, vec![large("1", 1, 1_000), large("2", 2, 1_000), tombstone]);
    let none = LetterRetention { undecodable_max: 0, ..UNBOUNDED };
    let first = remove(&owner, none, 2).undecodable;
    let [RemovedLetters { letters: 2, bytes: bytes @ 2_000..2_500, .. }] = first[..] else { panic!("{first:?}") };
    remove(&owner, none, 2);
    open(&owner, vec![large("1", 9, 1_000)]);
    remove(&owner, none, 2);
    let again = Owner::of(place);
    let so_far = again.journal.removed_letters().unwrap();
    assert_eq!(so_far[0], removed(3, bytes / 2 * 3), "a new owner knows it");
    assert_eq!((so_far[1].code.as_str(), so_far[1].letters), ("tombstone", 1));
}
