#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Instant;

use expect_test::{Expect, expect};
use sagahost_transport::{Assignment, Isolation, Polled, SinkError, contract, waiting::Waiting};
use sagahost_wire::{Headers, Record, clock::SimulatedClock};

use super::*;
use sagahost_saga::id::Time;

const SOON: Duration = Duration::from_millis(20);

struct Bench {
    directory: tempfile::TempDir,
    clock: Arc<SimulatedClock>,
    transport: EmbeddedTransport,
}

/// Topics `a` with one partition and `b` with three.
fn bench() -> Bench {
    bench_with(Options::default())
}

fn bench_with(options: Options) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(SimulatedClock::at(Time(1000)));
    let transport = EmbeddedTransport::open_with(directory.path(), "shop", options, clock.clone()).unwrap();
    transport.create_topics(&["a".into()], 1).unwrap();
    transport.create_topics(&["b".into()], 3).unwrap();
    Bench { directory, clock, transport }
}

impl Bench {
    /// As another process would open it.
    fn other(&self, app: &str) -> EmbeddedTransport {
        EmbeddedTransport::open(self.directory.path(), app).unwrap()
    }
    fn offer(&self, topic: &str, key: &str, value: &str) {
        self.transport.offer(&record(topic, key, value)).unwrap();
    }
    fn read(&self, assignments: &[Assignment]) -> Waiting {
        let mut source = Waiting::new(self.transport.source().unwrap());
        source.assign(assignments).unwrap();
        source
    }
}

fn record(topic: &str, key: &str, value: &str) -> Outgoing {
    Outgoing { topic: topic.into(), key: Some(key.into()), value: Some(value.into()), headers: Headers::new() }
}

fn from(topic: &str, number: i32, position: i64) -> Assignment {
    Assignment::new(Partition::new(topic, number), position)
}

fn line(polled: &Polled) -> String {
    match polled {
        Polled::Record(record) => {
            let text = |bytes: &Option<Vec<u8>>| {
                bytes.as_ref().map_or("-".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
            };
            format!("{}@{} {}={}", record.partition, record.offset, text(&record.key), text(&record.value))
        }
        Polled::End(partition, end) => format!("end of {partition} at {end}"),
        Polled::Held { partition, why } => format!("held {partition}: {why}"),
        Polled::Appeared(partitions) => format!("appeared {partitions:?}"),
        other => format!("{other:?}"),
    }
}

/// What a source brings until it has nothing more.
fn drain(source: &mut Waiting) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        match source.poll(SOON).unwrap() {
            None => return lines,
            Some(Polled::Verified(_)) => {}
            Some(polled) => lines.push(line(&polled)),
        }
    }
}

fn check(source: &mut Waiting, expected: Expect) {
    expected.assert_eq(&drain(source).join("\n"));
}

fn publish(sink: &mut dyn Sink, records: &[Outgoing], next: i64, metadata: &str) -> Result<(), SinkError> {
    contract::try_publish(sink, records, &[(Partition::new("a", 0), next)], metadata).map_err(|failed| failed.error)
}

#[test]
fn the_contract_of_transports() {
    contract::all(&bench().transport, "contract");
}

#[test]
fn a_publication_is_visible_as_a_whole() {
    let bench = bench();
    let mut source = bench.read(&[from("a", 0, 0), from("b", 0, 0), from("b", 1, 0), from("b", 2, 0)]);
    assert_eq!(drain(&mut source).len(), 4);
    let mut sink = bench.transport.sink().unwrap();
    sink.claim().unwrap();
    publish(&mut *sink, &[record("a", "k", "1"), record("b", "k", "2"), record("a", "k", "3")], 7, "j/i/1").unwrap();
    check(
        &mut source,
        expect![[r#"
            a[0]@0 k=1
            b[2]@0 k=2
            end of b[2] at 1
            a[0]@1 k=3
            end of a[0] at 2"#]],
    );
    let anchor = Partition::new("a", 0);
    let committed = sink.committed(&[anchor.clone(), Partition::new("b", 0)], Isolation::Stable).unwrap();
    expect![[r#"{a[0]: Committed { offset: 7, metadata: "j/i/1" }}"#]].assert_eq(&format!("{committed:?}"));

    bench.transport.reset_offset(&anchor, 2).unwrap();
    let committed = sink.committed(&[anchor], Isolation::Uncommitted).unwrap();
    expect![[r#"{a[0]: Committed { offset: 2, metadata: "" }}"#]].assert_eq(&format!("{committed:?}"));
}

#[test]
fn a_refused_record_takes_its_publication_with_it() {
    let bench = bench_with(Options { record_bytes_max: 200, ..Options::default() });
    let mut source = bench.read(&[from("a", 0, 0)]);
    let mut sink = bench.transport.sink().unwrap();
    sink.claim().unwrap();
    let large = "x".repeat(200);
    let batches = [
        vec![record("a", "k", "1"), record("missing", "k", "2")],
        vec![record("a", "k", "1"), record("a", "k", "2"), record("a", "k", &large)],
    ];
    let errors: Vec<String> =
        batches.iter().filter_map(|batch| publish(&mut *sink, batch, 1, "m").err()).map(|e| e.to_string()).collect();
    expect![[r#"
        record 1 was refused: there is no such topic; make it with `sagahost topics create missing`
        record 2 was refused: it has 271 bytes, more than the 200 that a record may have"#]]
    .assert_eq(&errors.join("\n"));
    assert!(sink.committed(&[Partition::new("a", 0)], Isolation::Stable).unwrap().is_empty());
    check(&mut source, expect!["end of a[0] at 0"]);
    publish(&mut *sink, &[record("a", "k", "after")], 1, "m").unwrap();
    check(
        &mut source,
        expect![[r#"
            a[0]@0 k=after
            end of a[0] at 1"#]],
    );

    let refusal = bench.transport.offer(&record("missing", "k", "v")).unwrap_err();
    expect!["the record for topic missing was refused: there is no such topic; make it with `sagahost topics create missing`"]
        .assert_eq(&refusal.to_string());
}

#[test]
fn the_newest_claim_wins() {
    let bench = bench();
    let other = bench.other("shop");
    let (mut first, mut second) = (bench.transport.sink().unwrap(), other.sink().unwrap());
    let unclaimed = publish(&mut *first, &[], 0, "").unwrap_err();
    first.claim().unwrap();
    publish(&mut *first, &[record("a", "k", "first")], 1, "1").unwrap();
    second.claim().unwrap();
    let fenced = publish(&mut *first, &[record("a", "k", "zombie")], 2, "2").unwrap_err();
    assert!(matches!(fenced, SinkError::Fenced(_)));
    expect![[r#"
        nothing can be published before a claim
        fenced by another producer with the same transactional id: claim Some(2) of shop is newer than 1"#]]
    .assert_eq(&format!("{unclaimed}\n{fenced}"));
    publish(&mut *second, &[record("a", "k", "second")], 3, "3").unwrap();

    // Another app has claims of its own.
    let mut stranger = bench.other("warehouse").sink().unwrap();
    stranger.claim().unwrap();
    publish(&mut *second, &[], 4, "4").unwrap();
    first.claim().unwrap();
    publish(&mut *first, &[record("a", "k", "first again")], 5, "5").unwrap();
    check(
        &mut bench.read(&[from("a", 0, 0)]),
        expect![[r#"
            a[0]@0 k=first
            a[0]@1 k=second
            a[0]@2 k=first again
            end of a[0] at 3"#]],
    );
}

#[test]
fn records_come_back_as_they_were() {
    let bench = bench();
    let headers: Headers = vec![
        ("ce_id".into(), Some(b"1".to_vec())),
        ("h".into(), Some(vec![0xff, 0])),
        ("h".into(), Some(Vec::new())),
        ("h".into(), None),
    ];
    let tombstone = Outgoing { topic: "a".into(), key: Some(vec![0xff]), value: None, headers: headers.clone() };
    let empty = Outgoing { topic: "a".into(), key: None, value: Some(Vec::new()), headers: Headers::new() };
    bench.transport.offer_all(&[tombstone, empty]).unwrap();
    let mut source = bench.read(&[from("a", 0, 0)]);
    assert!(matches!(source.poll(SOON).unwrap(), Some(Polled::Verified(_))));
    let mut read = || match source.poll(SOON).unwrap().unwrap() {
        Polled::Record(record) => record,
        other => panic!("{other:?}"),
    };
    let partition = Partition::new("a", 0);
    let (key, value) = (Some(vec![0xff]), None);
    assert_eq!(
        read(),
        Record { partition: partition.clone(), offset: 0, timestamp_ms: Some(1000), key, value, headers }
    );
    let (key, value, headers) = (None, Some(Vec::new()), Headers::new());
    assert_eq!(read(), Record { partition, offset: 1, timestamp_ms: Some(1000), key, value, headers });
}

#[test]
fn keys_go_where_kafka_puts_them_and_keyless_records_take_turns() {
    let bench = bench();
    let keyless = Outgoing { key: None, ..record("b", "", "v") };
    let place = |record: &Outgoing| bench.transport.offer(record).unwrap().0.number;
    let numbers: Vec<i32> = (0..6).map(|_| place(&keyless)).collect();
    assert_eq!(numbers, [0, 1, 2, 0, 1, 2]);
    for key in ["21", "foobar", "order-7", ""] {
        assert_eq!(place(&record("b", key, "v")), partition_of(key.as_bytes(), 3) as i32, "{key}");
    }
}

#[test]
fn what_cannot_be_read_on_is_held_and_the_rest_is_read() {
    let bench = bench();
    for value in ["0", "1", "2"] {
        bench.offer("a", "k", value);
        bench.clock.advance(Duration::from_millis(1));
    }
    bench.transport.create_topics(&["c".into(), "d".into()], 1).unwrap();
    bench.transport.offer_all(&[record("c", "k", "0"), record("c", "k", "1"), record("d", "k", "0")]).unwrap();
    bench.transport.delete_before(&Partition::new("c", 0), 1).unwrap();
    let made_anew = Assignment { last: Some((0, 999)), ..from("d", 0, 1) };
    let unknown_last = Assignment { last: Some((9, 999)), ..from("b", 2, 0) };
    let same = Assignment { last: Some((1, 1001)), ..from("a", 0, 2) };
    let assigned =
        [from("b", 1, 4), from("c", 0, 0), made_anew, from("b", 7, 0), from("gone", 0, 0), unknown_last, same];
    let mut source = bench.read(&assigned);
    check(
        &mut source,
        expect![[r#"
            held b[1]: the position 4 is beyond the end 0: the topic was recreated, or the database is an older copy; restore the right one, or resume from `earliest` as with a new topic
            held c[0]: the position 0 is below the first record still kept, 1: records were deleted before they were read; resume from `earliest` to read what is left
            held d[0]: the record at 0 has another timestamp than the one handled there: the topic was recreated; from `earliest` it is read from its beginning
            held b[7]: there is no such partition; if the topic is missing, make it with `sagahost topics create b`
            held gone[0]: there is no such partition; if the topic is missing, make it with `sagahost topics create gone`
            a[0]@2 k=2
            end of b[2] at 0
            end of a[0] at 3"#]],
    );
    source.seek(&[(Partition::new("c", 0), 1), (Partition::new("a", 0), 9)]).unwrap();
    check(
        &mut source,
        expect![[r#"
            c[0]@1 k=1
            end of c[0] at 2
            held a[0]: the position 9 is beyond the end 3: the topic was recreated, or the database is an older copy; restore the right one, or resume from `earliest` as with a new topic"#]],
    );
}

#[test]
fn a_topic_made_anew_while_it_is_read_is_held() {
    let bench = bench();
    bench.offer("a", "k", "old");
    let mut source = bench.read(&[from("a", 0, 0)]);
    drain(&mut source);
    let id = bench.transport.topic_ids(&["a".into()]).unwrap()["a"].clone();
    bench.transport.delete_topic("a").unwrap();
    bench.transport.create_topics(&["a".into()], 1).unwrap();
    bench.offer("a", "k", "new");
    bench.offer("a", "k", "newer");
    check(&mut source, expect!["held a[0]: the topic was deleted while it was read; create it again, then resume"]);
    let verified = |assignment: Assignment| match bench.read(&[assignment]).poll(SOON).unwrap().unwrap() {
        Polled::Verified(mut of) => Ok(of.remove(0).topic_id),
        other => Err(line(&other)),
    };
    let known = |position| Assignment { topic_id: Some(id.clone()), ..from("a", 0, position) };
    let why = verified(known(1)).unwrap_err();
    assert!(why.contains(&format!("the topic was recreated (its id was {id}, now it is ")), "{why}");
    let new = verified(known(0)).expect("nothing of the topic before was handled");
    assert_ne!(new, id);
    assert_eq!(verified(from("a", 0, 1)), Ok(new), "a position without an id takes the one that is there");
    assert_eq!(
        bench.transport.bounds(&[Partition::new("a", 0), Partition::new("z", 0)]).unwrap(),
        BTreeMap::from([(Partition::new("a", 0), (0, 2))])
    );
}

#[test]
fn pause_resume_and_seek() {
    let bench = bench();
    (0..3).for_each(|n| bench.offer("a", "k", &n.to_string()));
    let a = Partition::new("a", 0);
    let mut source = bench.read(&[from("a", 0, 0), from("b", 0, 0)]);
    assert!(matches!(source.poll(SOON).unwrap(), Some(Polled::Verified(both)) if both.len() == 2));
    let first = source.poll(SOON).unwrap().unwrap();
    assert_eq!(line(&first), "a[0]@0 k=0");
    source.pause(std::slice::from_ref(&a)).unwrap();
    check(&mut source, expect!["end of b[0] at 0"]);
    source.resume(std::slice::from_ref(&a)).unwrap();
    check(
        &mut source,
        expect![[r#"
            a[0]@1 k=1
            a[0]@2 k=2
            end of a[0] at 3"#]],
    );
    source.pause(std::slice::from_ref(&a)).unwrap();
    source.seek(&[(a.clone(), 2)]).unwrap();
    check(&mut source, expect![""]);
    source.resume(&[a]).unwrap();
    check(
        &mut source,
        expect![[r#"
            a[0]@2 k=2
            end of a[0] at 3"#]],
    );
    source.assign(&[from("a", 0, 3)]).unwrap();
    check(&mut source, expect!["end of a[0] at 3"]);
}

#[test]
fn a_long_partition_does_not_starve_a_short_one() {
    let bench = bench();
    let many: Vec<Outgoing> = (0..2000).map(|n| record("a", "k", &n.to_string())).collect();
    bench.transport.offer_all(&many).unwrap();
    let mut source = bench.read(&[from("a", 0, 0), from("b", 2, 0)]);
    assert!(matches!(source.poll(SOON).unwrap(), Some(Polled::Verified(_))));
    source.poll(SOON).unwrap();
    bench.offer("b", "k", "short");
    let lines = drain(&mut source);
    let place = lines.iter().position(|line| line == "b[2]@0 k=short").unwrap();
    assert!(place < 1100, "{place}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("a[0]@")).count(), 1999);
}

#[test]
fn new_partitions_are_announced() {
    let bench = bench();
    let mut source = bench.read(&[from("a", 0, 0)]);
    drain(&mut source);
    bench.transport.create_topics(&["elsewhere".into()], 2).unwrap();
    bench.transport.create_topics(&["a".into()], 2).unwrap();
    check(&mut source, expect![""]);
    bench.other("shop").grow_topic("a", 3).unwrap();
    check(&mut source, expect!["appeared [a[1], a[2]]"]);
    assert_eq!(
        bench.transport.topics(&["a".into(), "b".into(), "z".into()]).unwrap(),
        Topics::from([("a".into(), 3), ("b".into(), 3)])
    );
}

#[test]
fn writers_of_several_processes_leave_no_gaps() {
    let bench = bench();
    let offers = 40;
    let mut sink = bench.transport.sink().unwrap();
    sink.claim().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let other = bench.other("shop");
            scope.spawn(move || {
                for n in 0..offers {
                    other.offer(&record("a", "k", &format!("{writer}.{n}"))).unwrap();
                }
            });
        }
        for n in 0..offers {
            publish(&mut *sink, &[record("a", "k", "batch"), record("a", "k", "batch")], n, "m").unwrap();
        }
    });
    let total = 5 * offers;
    let lines = drain(&mut bench.read(&[from("a", 0, 0)]));
    assert_eq!(lines.len() as i64, total + 1);
    for (n, line) in lines[..total as usize].iter().enumerate() {
        assert!(line.starts_with(&format!("a[0]@{n} ")), "{line}");
    }
}

#[test]
fn a_record_of_another_process_is_noticed_soon() {
    let bench = bench();
    let mut source = bench.read(&[from("a", 0, 0)]);
    drain(&mut source);
    let other = bench.other("shop");
    let mut waits = Vec::new();
    for _ in 0..20 {
        std::thread::scope(|scope| {
            let polling = scope.spawn(|| {
                loop {
                    if let Some(Polled::Record(_)) = source.poll(Duration::from_secs(5)).unwrap() {
                        return Instant::now();
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(15));
            other.offer(&record("a", "k", "v")).unwrap();
            let offered = Instant::now();
            waits.push(polling.join().unwrap().saturating_duration_since(offered));
        });
    }
    waits.sort_unstable();
    // Ten milliseconds at most on an idle machine; who is not told by the database waits for five seconds.
    assert!(waits[10] < Duration::from_millis(500), "{waits:?}");
}

#[test]
fn old_records_go_when_everybody_has_passed_them() {
    let bench = bench_with(Options { kept_records_max: Some(5), ..Options::default() });
    let a = Partition::new("a", 0);
    let first = || bench.transport.bounds(std::slice::from_ref(&a)).unwrap()[&a];
    bench.transport.reset_offset(&a, 0).unwrap();
    bench.other("warehouse").reset_offset(&a, 3).unwrap();
    (0..10).for_each(|n| bench.offer("a", "k", &n.to_string()));
    assert_eq!(first(), (0, 10));
    bench.transport.reset_offset(&a, 10).unwrap();
    bench.offer("a", "k", "10");
    assert_eq!(first(), (3, 11));
    bench.other("warehouse").reset_offset(&a, 11).unwrap();
    bench.offer("a", "k", "11");
    assert_eq!(first(), (7, 12));
    assert_eq!(drain(&mut bench.read(&[from("a", 0, 7)])).len(), 6);
}

#[test]
fn files_that_are_not_ours_are_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("topics.db");
    let open = || EmbeddedTransport::open(directory.path(), "shop").map(|_| ()).unwrap_err().to_string();
    let place = directory.path().display().to_string();

    std::fs::write(&path, "this is no database, but it is long enough to look like one at first sight".repeat(20))
        .unwrap();
    expect!["DIR/topics.db is corrupt: file is not a database; restore it from a copy"]
        .assert_eq(&open().replace(&place, "DIR"));

    std::fs::remove_file(&path).unwrap();
    EmbeddedTransport::open(directory.path(), "shop").unwrap();
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    expect!["DIR/topics.db has tables of version 99, this host knows version 2: use the newer host that wrote it"]
        .assert_eq(&open().replace(&place, "DIR"));

    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    expect!["DIR/topics.db cannot be opened for writing: unable to open database file: DIR/topics.db; check that its directory exists and belongs to this user"].assert_eq(&open().replace(&place, "DIR"));
}

#[test]
fn impossible_topics_are_refused() {
    let bench = bench();
    let errors = [
        bench.transport.create_topics(&["a b".into()], 1).unwrap_err(),
        bench.transport.create_topics(&["c".into()], 0).unwrap_err(),
        bench.transport.reset_offset(&Partition::new("c", 0), 0).unwrap_err(),
    ];
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    expect![[r#"
        `a b` has ' ' in it; a topic's name consists of letters, digits, `.`, `_` and `-`
        a topic has 1 to 1024 partitions, not 0
        there is no partition c[0]"#]]
    .assert_eq(&lines.join("\n"));
}
