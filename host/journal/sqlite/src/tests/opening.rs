//! Opening: who may, and what becomes of an older journal. Invariant: what is refused is left untouched.

use sagahost_journal::LetterFilter;
use sagahost_journal::Version;
use sagahost_saga::input::Command;
use sagahost_wire::{StreamNo, TopicId};

use super::*;

const OLD: &str = include_str!("../../tests/fixtures/journal-v1.sql");
const OLD_V4: &str = include_str!("../../tests/fixtures/journal-v4.sql");
const OLD_V8: &str = include_str!("../../tests/fixtures/journal-v8.sql");
const LETTER: &str = include_str!("../../tests/fixtures/letter-v6.sql");

fn refused(outcome: Result<SqliteJournal, JournalError>) -> String {
    match outcome {
        Err(JournalError::Unusable(why) | JournalError::InUse(why)) => why,
        Err(other) => panic!("refused for another reason: {other:?}"),
        Ok(_) => panic!("opened"),
    }
}

fn execute(dir: &Dir, sql: &str) {
    Connection::open(dir.path().join(FILE)).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_second_owner_is_told_who_holds_it() {
    let dir = Dir::new();
    let first = dir.host().unwrap();
    let why = refused(dir.host());
    assert!(why.contains(&format!("process {}", std::process::id())) && why.contains("stop that host"), "{why}");
    assert_eq!(commit(&first, &batch(1, 1)).len(), 1, "the first is undisturbed");
    first.close().unwrap();
    assert_eq!(dir.host().unwrap().identity().epoch, Epoch(2));
}

#[test]
fn the_lock_goes_with_its_holder() {
    let dir = Dir::new();
    drop(dir.host().unwrap());
    std::fs::write(dir.path().join("journal.lock"), "4194304999\n").unwrap();
    dir.host().unwrap();
}

#[test]
fn another_app_is_refused() {
    let dir = Dir::new();
    dir.host().unwrap().close().unwrap();
    let why = refused(SqliteJournal::open(dir.path(), "bakery", OpenOptions::default()));
    assert!(why.contains(r#"belongs to the app "shop", this host is the app "bakery""#), "{why}");
    assert_eq!(dir.host().unwrap().identity().epoch, Epoch(2), "the refused one left no trace");
}

#[test]
fn a_newer_schema_is_refused() {
    let dir = Dir::new();
    dir.host().unwrap().close().unwrap();
    execute(&dir, "PRAGMA user_version = 99");
    let why = refused(dir.host());
    assert!(why.contains("schema version 99") && why.contains("newer sagahost"), "{why}");
}

#[test]
fn a_database_of_another_program_is_refused() {
    let dir = Dir::new();
    execute(&dir, "CREATE TABLE cookies (name TEXT)");
    let why = refused(dir.host());
    assert!(why.contains("another program"), "{why}");
}

#[test]
fn an_older_schema_is_brought_up_to_date() {
    let dir = Dir::new();
    execute(&dir, OLD);
    let journal = dir.host().unwrap();
    let identity = journal.identity();
    assert_eq!((&*identity.journal, identity.epoch), ("00112233445566778899aabbccddeeff", Epoch(4)));
    assert_eq!((identity.last_batch, identity.confirmed), (BatchNo(7), BatchNo(6)));
    assert_eq!(identity.anchor, Some(Partition::new("order-created", 0)));
    assert_eq!(journal.batch_incarnation(BatchNo(4)).unwrap().as_deref(), Some("first"));
    assert_eq!(journal.outbox(BatchNo(6), 9).unwrap()[0].records[0].key.as_deref(), Some(&b"order-1"[..]));
    assert_eq!(journal.outbox(BatchNo(6), 9).unwrap()[0].at, Time(0), "not known");
    assert_eq!(journal.publication_notes().unwrap(), PublicationNotes::default());
    assert_eq!(journal.positions().unwrap().values().next().unwrap().last, Some((11, 1_700_000_000_000)));
    assert_eq!(&*journal.saga(&SagaId::from("order-1")).unwrap().unwrap().bytes, [1, 2]);
    let noted = SagaFilter { notes: vec![("customer".into(), "c1".into())], limit: 9, ..SagaFilter::default() };
    assert_eq!(journal.sagas(&noted).unwrap().len(), 1);
    assert_eq!(journal.in_doubt(SagaKey(0), 9).unwrap().len(), 1);
    assert_eq!(journal.queued_commands().unwrap()[0].command, Command::Retry { by: "ann".into() });
    // What the new version added works on what the old one wrote.
    let letters = journal.letters(&LetterFilter { limit: 9, ..LetterFilter::default() }).unwrap();
    assert_eq!(letters[0].origin, Some((Partition::new("order-created", 0), 11)));
    let may_go = LetterRetention {
        closed_before: Time(1_700_000_000_001),
        undecodable_before: Time(0),
        undecodable_max: 0,
        undecodable_bytes_max: 0,
    };
    assert_eq!(journal.remove_letters(identity.epoch, Time(1), &may_go, 9).unwrap().closed, 1);
    journal.quarantine(identity.epoch, &SagaId::from("order-1"), "why").unwrap();
    let before = Version { stream: StreamNo(0), batch: BatchNo(0) };
    assert_eq!(journal.store_get(&Participant::from("payment"), "k").unwrap().unwrap().version, before);
    assert_eq!(commit(&journal, &batch(8, 1))[0].1, SagaKey(3));
    journal.close().unwrap();
    dir.host().unwrap();
}

/// What a saga kept of a record stands in a letter as JSON, and the record in a cell of format 1.
#[test]
fn a_letter_from_before_null_headers_is_read_as_it_was() {
    let dir = Dir::new();
    execute(&dir, OLD);
    execute(&dir, LETTER);
    let journal = dir.host().unwrap();
    let letter = journal.letter("web/e-1|payment").unwrap().unwrap();
    assert_eq!(letter.record.headers, [("h".to_owned(), Some(vec![0, 255]))]);
    let event = letter.letter.unwrap().event;
    assert_eq!((&*event.data, event.record_key), (&b"{}"[..], None));
    let came = event.origin.unwrap().record.unwrap();
    assert_eq!(came.headers, [("h".to_owned(), Some(vec![0, 255])), ("e".to_owned(), Some(vec![]))]);
}

#[test]
fn a_row_that_was_skipped_before_rows_could_lose_their_value_alone_stays_out() {
    let dir = Dir::new();
    execute(&dir, OLD_V4);
    let journal = dir.host().unwrap();
    let outbox = journal.outbox(BatchNo(6), 9).unwrap();
    assert_eq!(outbox[0].skipped, BTreeMap::from([(0, "ann: too large".to_owned())]));
    assert_eq!((&outbox[0].valueless, outbox[0].at), (&BTreeMap::new(), Time(0)));
    journal.leave_out(journal.identity().epoch, BatchNo(7), 0, LeftOut::Value, "why").unwrap();
    assert_eq!(journal.outbox(BatchNo(6), 9).unwrap()[0].valueless.len(), 1);
}

#[test]
fn positions_of_an_older_host_belong_to_no_known_topic() {
    let dir = Dir::new();
    execute(&dir, OLD_V4);
    let journal = dir.host().unwrap();
    let (first, second) = (Partition::new("order-created", 0), Partition::new("order-created", 1));
    let last = Some((11, 1_700_000_000_000));
    let before = [(first, Position { next: 12, last, topic_id: None }), (second.clone(), Position::new(5, None))];
    assert_eq!(journal.positions().unwrap(), BTreeMap::from(before));
    let moved = Position::new(6, Some(TopicId("a".into())));
    let write = BatchWrite { positions: BTreeMap::from([(second.clone(), moved.clone())]), ..batch(8, 1) };
    commit(&journal, &write);
    assert_eq!(journal.positions().unwrap()[&second], moved);
}

#[test]
fn letters_of_a_host_without_bounds_are_counted_with_their_bytes() {
    let dir = Dir::new();
    execute(&dir, OLD_V8);
    let journal = dir.host().unwrap();
    assert_eq!(journal.removed_letters().unwrap(), []);
    let may_go = LetterRetention {
        closed_before: Time(0),
        undecodable_before: Time(0),
        undecodable_max: 9,
        undecodable_bytes_max: 30,
    };
    let removal = journal.remove_letters(journal.identity().epoch, Time(70), &may_go, 9).unwrap();
    // The record of the other one names a saga that has not ended.
    let expected = RemovedLetters { code: "invalid-json".to_owned(), letters: 1, bytes: 25, last: Time(70) };
    assert_eq!(removal, LetterRemoval { closed: 0, undecodable: vec![expected] });
    assert!(journal.letter("order-created[2]@42").unwrap().is_some());
    journal.close().unwrap();
    assert_eq!(dir.host().unwrap().removed_letters().unwrap()[0].letters, 1);
}

#[test]
fn a_failed_migration_leaves_the_old_schema() {
    let dir = Dir::new();
    execute(&dir, OLD);
    // In the way of the new table.
    execute(&dir, "CREATE TABLE quarantine (mine TEXT)");
    assert!(dir.host().is_err());
    let version: i64 = Connection::open(dir.path().join(FILE))
        .unwrap()
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    assert_eq!(version, 1);
    execute(&dir, "DROP TABLE quarantine");
    dir.host().unwrap();
}

#[test]
fn a_copy_has_the_same_id_and_another_incarnation() {
    let (dir, copy) = (Dir::new(), Dir::new());
    let first = dir.host().unwrap();
    commit(&first, &batch(1, 1));
    first.close().unwrap();
    std::fs::copy(dir.path().join(FILE), copy.path().join(FILE)).unwrap();
    let (a, b) = (dir.host().unwrap(), copy.host().unwrap());
    commit(&a, &batch(2, 1));
    commit(&b, &batch(2, 1));
    assert_eq!(a.identity().journal, b.identity().journal);
    assert_eq!(a.batch_incarnation(BatchNo(1)).unwrap(), b.batch_incarnation(BatchNo(1)).unwrap());
    assert_ne!(a.batch_incarnation(BatchNo(2)).unwrap(), b.batch_incarnation(BatchNo(2)).unwrap());
}

#[test]
fn a_lost_journal_is_another_journal() {
    let dir = Dir::new();
    let before = dir.host().unwrap().identity().journal;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    assert_ne!(dir.host().unwrap().identity().journal, before);
}
