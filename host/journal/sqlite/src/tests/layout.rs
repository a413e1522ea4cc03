//! How the tables are used: by index, with a bounded log, in a format that stays. Invariant: no question that the
//! host asks again and again reads all sagas.

use sagahost_saga::id::hex;
use sagahost_wire::Outgoing;

use super::*;

#[test]
fn questions_asked_often_use_an_index() {
    let dir = Dir::new();
    let journal = dir.host().unwrap();
    let often = saga::DUE.into_iter().chain(saga::MARKED).chain([removal::FINISHED]).chain([
        "SELECT key, bytes FROM saga WHERE hash = ?1 AND id = ?2",
        "SELECT min(wake_at) FROM saga WHERE wake_at IS NOT NULL",
        "SELECT status, count(*) FROM saga GROUP BY status ORDER BY status",
        "SELECT key FROM saga WHERE key < ?1 AND status = 6 ORDER BY key DESC LIMIT ?2",
        "SELECT key FROM saga WHERE key < ?1 AND key IN (SELECT saga FROM note WHERE hash = 5) ORDER BY key DESC",
        letter_removal::CLOSED,
        letter_removal::UNDECODABLE,
        letter_removal::UNDECODABLE_TOTAL,
    ]);
    for sql in often {
        let plan: Vec<String> = journal
            .read(|conn| {
                let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let values = vec![1; statement.parameter_count()];
                let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get(3))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .unwrap();
        let scans = |step: &String| step.starts_with("SCAN") && !step.contains("INDEX");
        assert!(!plan.iter().any(scans), "{sql}: {plan:?}");
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE") && !sql.contains("note")), "{sql}: {plan:?}");
    }
}

#[test]
fn the_log_stays_bounded_and_goes_at_the_end() {
    let dir = Dir::new();
    let options = OpenOptions { wal_pages_max: 100, wal_bytes_kept: 1 << 20, ..OpenOptions::default() };
    let journal = dir.open_with(options).unwrap();
    let log = dir.path().join("journal.db-wal");
    for number in 1..=300 {
        commit(&journal, &batch(number, 20));
    }
    let bytes = std::fs::metadata(&log).unwrap().len();
    assert!(bytes < 2 << 20, "the log has {bytes} bytes");
    journal.close().unwrap();
    assert!(!log.exists());
}

#[test]
fn readers_read_while_a_batch_is_written() {
    let dir = Dir::new();
    let journal = dir.host().unwrap();
    commit(&journal, &batch(1, 10));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..200 {
                    let id = SagaId::from(format!("order-1-{}", n % 10));
                    assert!(journal.saga(&id).unwrap().is_some());
                }
            });
        }
        for number in 2..=50 {
            commit(&journal, &batch(number, 10));
        }
    });
}

/// What was written in a format must be readable for as long as the format is known.
#[test]
fn the_formats_of_the_outbox_stay() {
    let mut records = [Outgoing {
        topic: "t".into(),
        key: Some(b"k".to_vec()),
        value: None,
        headers: vec![("h".to_owned(), Some(vec![0, 255])), ("n".to_owned(), None)],
    }];
    let positions = BTreeMap::from([
        (Partition::new("t", 0), Position { next: 300, last: Some((299, 1_700_000_000_000)), topic_id: None }),
        (Partition::new("t", 1), Position::new(0, None)),
    ]);
    let cell = format::outbox_cell(&records, &positions).unwrap();
    expect_test::expect![
        "5a26000000260000000201017401016b00020168010200ff016e0002017400d80401d60480d095ffbc310174020000"
    ]
    .assert_eq(&hex(&cell));
    assert_eq!(format::outbox(&cell).unwrap(), (records.to_vec(), positions.clone()));
    let unpacked = bytes("0201017401016b00020168010200ff016e0002017400d80401d60480d095ffbc310174020000");
    assert_eq!(format::outbox(&unpacked).unwrap(), (records.to_vec(), positions.clone()));
    let format_1 = bytes("0101017401016b000101680200ff02017400d80401d60480d095ffbc310174020000");
    records[0].headers.pop();
    assert_eq!(format::outbox(&format_1).unwrap(), (records.to_vec(), positions));
    let newer = format::outbox(&[3]).unwrap_err();
    assert!(format!("{newer:?}").contains("it has the format 3, this host knows 1 and 2"), "{newer:?}");
}

#[test]
fn the_formats_of_a_letters_record_stay() {
    let mut record = Outgoing {
        topic: "t".into(),
        key: None,
        value: Some(b"v".to_vec()),
        headers: vec![("e".to_owned(), Some(vec![])), ("n".to_owned(), None)],
    };
    let cell = format::record_cell(&record).unwrap();
    expect_test::expect!["020174000101760201650100016e00"].assert_eq(&hex(&cell));
    assert_eq!(format::record(&cell).unwrap(), record);
    record.headers.pop();
    assert_eq!(format::record(&bytes("0101740001017601016500")).unwrap(), record);
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}
