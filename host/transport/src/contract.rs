//! What every transport must do, as functions that panic where it does not. Both transports run them, and a third
//! one can. Invariant: only the traits are used, so what passes here holds for the pipeline.
//!
//! `prefix` makes the names of topics unique: several runs may share one broker.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use sagahost_wire::{Outgoing, Partition, Record};

use super::{
    Assignment, Committed, Found, Isolation, Polled, Progress, REPORTED_WITHIN, SLICE, Sink, SinkError, Source,
    Transport, TransportError, waiting::Waiting,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// A call may take so long on a busy machine: a bound that no call without one keeps.
const CALL_MAX: Duration = Duration::from_secs(8);

/// All of them.
pub fn all(transport: &dyn Transport, prefix: &str) {
    topics_are_made_and_counted(transport, &format!("{prefix}-count"));
    records_come_back_as_they_went(transport, &format!("{prefix}-same"));
    a_publication_carries_offsets_and_metadata(transport, &format!("{prefix}-meta"));
    a_refused_publication_leaves_no_trace(transport, &format!("{prefix}-refused"));
    a_transaction_can_be_aborted_at_any_moment(transport, &format!("{prefix}-abort"));
    a_transaction_that_is_open_is_ended_by_a_claim(transport, &format!("{prefix}-open"));
    a_claim_fences_the_other_sink(transport, &format!("{prefix}-claim"));
    the_end_is_reported(transport, &format!("{prefix}-end"));
    a_paused_partition_waits(transport, &format!("{prefix}-pause"));
    no_more_is_brought_than_is_asked_for(transport, &format!("{prefix}-most"));
    what_comes_rings(transport, &format!("{prefix}-ring"));
    a_seek_goes_back(transport, &format!("{prefix}-seek"));
    positions_are_checked(transport, &format!("{prefix}-check"));
    an_offer_says_where_it_stands(transport, &format!("{prefix}-offer"));
    a_search_finds_what_was_published(transport, &format!("{prefix}-search"));
}

pub fn topics_are_made_and_counted(transport: &dyn Transport, prefix: &str) {
    let (one, two): (Arc<str>, Arc<str>) = (format!("{prefix}-1").into(), format!("{prefix}-2").into());
    let names = [one.clone(), two.clone()];
    assert_eq!(transport.topics(&names).expect("topics"), BTreeMap::new(), "nothing there yet");
    transport.create_topics(&names[..1], 3).expect("create");
    assert_eq!(transport.topics(&names).expect("topics"), BTreeMap::from([(one.clone(), 3)]));
    transport.create_topics(&names, 2).expect("a topic that exists already is left as it is");
    assert_eq!(transport.topics(&names).expect("topics"), BTreeMap::from([(one, 3), (two.clone(), 2)]));
    assert!(transport.create_command(&two).contains(&*two), "the command names the topic");
}

pub fn records_come_back_as_they_went(transport: &dyn Transport, prefix: &str) {
    let topic = topic(transport, prefix, 4);
    let mut sent = Vec::new();
    for key in ["a", "b", "c", "d", "e"] {
        for round in 0..3 {
            let mut record = outgoing(&topic, key, &format!("{key}{round}"));
            record.headers = vec![
                ("ce_id".into(), Some(b"1".to_vec())),
                ("x".into(), Some(vec![0, 255])),
                ("x".into(), Some(vec![])),
                ("x".into(), None),
            ];
            sent.push(record);
        }
    }
    sent.push(Outgoing { topic: topic.clone(), key: Some(b"gone".to_vec()), value: None, headers: vec![] });
    sent.push(Outgoing { topic: topic.clone(), key: None, value: Some(b"keyless".to_vec()), headers: vec![] });
    sent.push(Outgoing { topic: topic.clone(), key: Some(vec![]), value: Some(vec![]), headers: vec![] });
    let mut sink = claimed(transport);
    publish(&mut *sink, &sent, &[(Partition::new(&topic, 0), 0)], "j/i/1");

    let mut source = source(transport);
    assign(&mut source, &(0..4).map(|number| (Partition::new(&topic, number), 0)).collect::<Vec<_>>());
    let read = records(&mut source, sent.len());
    for record in &read {
        assert!(record.timestamp_ms.is_some(), "a record has a time");
    }
    for key in ["a", "b", "c", "d", "e"] {
        let of_key: Vec<_> = read.iter().filter(|record| record.key.as_deref() == Some(key.as_bytes())).collect();
        let values: Vec<_> = of_key.iter().map(|record| text(record.value.as_deref())).collect();
        assert_eq!(values, [format!("{key}0"), format!("{key}1"), format!("{key}2")], "a key keeps its order");
        assert!(of_key.iter().all(|record| record.partition == of_key[0].partition), "a key has one partition");
        assert_eq!(of_key[0].headers, sent[0].headers, "headers keep order, doubles, bytes and nulls");
    }
    let find = |key: Option<&[u8]>| read.iter().find(|record| record.key.as_deref() == key).expect("it was published");
    assert_eq!(find(Some(b"gone")).value, None, "a tombstone has no value");
    assert_eq!(text(find(None).value.as_deref()), "keyless");
}

pub fn a_publication_carries_offsets_and_metadata(transport: &dyn Transport, prefix: &str) {
    let topic = topic(transport, prefix, 2);
    let partitions = [Partition::new(&topic, 0), Partition::new(&topic, 1)];
    let mut sink = claimed(transport);
    assert_eq!(committed(&mut *sink, &partitions), BTreeMap::new(), "nothing committed yet");
    let records = [outgoing(&topic, "k", "v")];
    publish(&mut *sink, &records, &[(partitions[0].clone(), 7)], "journal/incarnation/1");
    publish(&mut *sink, &[], &[(partitions[0].clone(), 7), (partitions[1].clone(), 3)], "journal/incarnation/2");
    let expected = BTreeMap::from([
        (partitions[0].clone(), Committed { offset: 7, metadata: "journal/incarnation/2".into() }),
        (partitions[1].clone(), Committed { offset: 3, metadata: "journal/incarnation/2".into() }),
    ]);
    assert_eq!(committed(&mut *sink, &partitions), expected);
    let at_once = quick(|| sink.committed(&partitions, Isolation::Uncommitted)).expect("committed");
    assert_eq!(at_once, expected);
    let mut other = claimed(transport);
    assert_eq!(committed(&mut *other, &partitions), expected, "whoever comes next sees the same");
}

pub fn a_refused_publication_leaves_no_trace(transport: &dyn Transport, prefix: &str) {
    let topic = topic(transport, prefix, 1);
    let partition = Partition::new(&topic, 0);
    let mut sink = claimed(transport);
    publish(&mut *sink, &[outgoing(&topic, "k", "before")], &[(partition.clone(), 1)], "j/i/1");
    let gone: Arc<str> = format!("{prefix}-gone").into();
    let records = [outgoing(&topic, "k", "never"), outgoing(&gone, "k", "nowhere"), outgoing(&topic, "k", "never")];
    let refused = try_publish(&mut *sink, &records, &[(partition.clone(), 2)], "j/i/2");
    assert!(matches!(refused, Err(Failed { error: SinkError::Refused { index: 1, .. }, .. })), "{refused:?}");
    publish(&mut *sink, &[outgoing(&topic, "k", "after")], &[(partition.clone(), 3)], "j/i/3");
    assert_eq!(
        committed(&mut *sink, std::slice::from_ref(&partition))[&partition],
        Committed { offset: 3, metadata: "j/i/3".into() }
    );
    let mut source = source(transport);
    assign(&mut source, &[(partition, 0)]);
    let (read, _) = to_the_end(&mut source, 1);
    assert_eq!(values(&read), ["before", "after"]);
}

pub fn a_search_finds_what_was_published(transport: &dyn Transport, prefix: &str) {
    let topic = topic(transport, prefix, 3);
    let mut sink = claimed(transport);
    let marked = |key: &str, value: &str, id: &str| Outgoing {
        headers: vec![("ce_id".to_owned(), Some(id.as_bytes().to_vec()))],
        ..outgoing(&topic, key, value)
    };
    let (published, other) = (marked("a", "v", "1"), outgoing(&topic, "b", "v"));
    let offsets = [(Partition::new(&topic, 0), 0)];
    publish(&mut *sink, &[published.clone(), other.clone()], &offsets, "j/i/1");
    let mut search = |records: &[&Outgoing]| {
        let started = Instant::now();
        loop {
            match quick(|| sink.search(records, 0)).expect("the topics can be read") {
                Some(found) => return found,
                None => assert!(started.elapsed() < PATIENCE, "the search does not end"),
            }
        }
    };
    assert_eq!(search(&[&published]), Found::Committed);
    assert_eq!(search(&[&other]), Found::Committed, "without headers");
    assert_eq!(search(&[&marked("z", "v", "1")]), Found::Absent, "the key differs");
    // A topic may be compacted: another record under the key may have replaced the one that is looked for.
    let id_differs = search(&[&marked("a", "v", "2")]);
    assert!(matches!(id_differs, Found::Absent | Found::Unclear(_)), "{id_differs:?}");
    let elsewhere = Outgoing { topic: format!("{prefix}-none").into(), ..published };
    assert!(matches!(search(&[&elsewhere]), Found::Unclear(_) | Found::Absent));
}

type Call<'a> = dyn Fn(&mut dyn Sink) -> Result<Progress, SinkError> + 'a;

pub fn a_transaction_can_be_aborted_at_any_moment(transport: &dyn Transport, prefix: &str) {
    let topic = topic(transport, prefix, 2);
    let partitions = [Partition::new(&topic, 0), Partition::new(&topic, 1)];
    let offsets = |next| [(partitions[0].clone(), next), (partitions[1].clone(), next)];
    let mut sink = claimed(transport);
    publish(&mut *sink, &[outgoing(&topic, "k", "before")], &offsets(1), "j/i/1");
    let records = [outgoing(&topic, "k", "never"), outgoing(&topic, "l", "never")];
    for steps in 0..5 {
        sink.begin().expect("begin");
        let calls: [&Call; 4] = [
            &|sink| sink.offsets(&offsets(2), "j/i/2"),
            &|sink| Ok(all_sent(sink.send(&records[..1])?, 1)),
            &|sink| Ok(all_sent(sink.send(&records[1..])?, 1)),
            &|sink| sink.poll(),
        ];
        calls.iter().take(steps).for_each(|call| until_done(|| call(&mut *sink)).expect("a call"));
        until_done(|| sink.abort()).expect("abort");
    }
    // Once more, in pieces: nothing of it is out until it ends.
    sink.begin().expect("begin");
    until_done(|| sink.offsets(&offsets(3), "j/i/3")).expect("offsets");
    for value in ["one", "two"] {
        assert_eq!(sink.send(&[outgoing(&topic, "k", value)]).expect("send"), 1);
        until_done(|| sink.poll()).expect("poll");
    }
    let at_once = quick(|| sink.committed(&partitions, Isolation::Uncommitted)).expect("committed");
    assert_eq!(at_once[&partitions[0]], Committed { offset: 1, metadata: "j/i/1".into() }, "it has not ended");
    until_done(|| sink.end()).expect("end");
    for (_, committed) in committed(&mut *sink, &partitions) {
        assert_eq!(committed, Committed { offset: 3, metadata: "j/i/3".into() });
    }
    let mut source = source(transport);
    assign(&mut source, &[(partitions[0].clone(), 0), (partitions[1].clone(), 0)]);
    assert_eq!(values(&to_the_end(&mut source, 2).0), ["before", "one", "two"]);
}

pub fn a_transaction_that_is_open_is_ended_by_a_claim(transport: &dyn Transport, prefix: &str) {
    let topic = topic(transport, prefix, 1);
    let partition = Partition::new(&topic, 0);
    let mut sink = transport.sink().expect("sink");
    assert!(matches!(sink.begin(), Err(SinkError::Spent(_))), "nothing is claimed yet");
    claim(&mut *sink);
    let open = |sink: &mut dyn Sink, value: &str| {
        sink.begin().expect("begin");
        until_done(|| sink.offsets(&[(partition.clone(), 1)], "j/i/1")).expect("offsets");
        assert_eq!(sink.send(&[outgoing(&topic, "k", value)]).expect("send"), 1);
        until_done(|| sink.poll()).expect("poll");
    };
    open(&mut *sink, "left open");
    assert!(matches!(sink.begin(), Err(SinkError::Spent(_))), "one is open");
    assert!(matches!(sink.begin(), Err(SinkError::Spent(_))), "and who is spent stays so");
    claim(&mut *sink);
    open(&mut *sink, "left open, too");
    // Whoever comes next, and the one before for good.
    let mut next = claimed(transport);
    assert!(until_done(|| sink.end()).is_err(), "another sink claimed");
    assert_eq!(committed(&mut *next, std::slice::from_ref(&partition)), BTreeMap::new());
    publish(&mut *next, &[outgoing(&topic, "k", "out")], &[(partition.clone(), 2)], "j/i/2");
    let mut source = source(transport);
    assign(&mut source, &[(partition, 0)]);
    assert_eq!(values(&to_the_end(&mut source, 1).0), ["out"]);
}

fn all_sent(sent: usize, wanted: usize) -> Progress {
    assert_eq!(sent, wanted);
    Progress::Done
}

pub fn a_claim_fences_the_other_sink(transport: &dyn Transport, prefix: &str) {
    let topic = topic(transport, prefix, 1);
    let partition = Partition::new(&topic, 0);
    let mut old = claimed(transport);
    publish(&mut *old, &[outgoing(&topic, "k", "old")], &[(partition.clone(), 1)], "j/i/1");
    let mut new = claimed(transport);
    let late = [outgoing(&topic, "k", "late")];
    let fenced = try_publish(&mut *old, &late, &[(partition.clone(), 2)], "j/i/2");
    assert!(matches!(fenced, Err(Failed { error: SinkError::Fenced(_), .. })), "got {fenced:?}");
    publish(&mut *new, &[outgoing(&topic, "k", "new")], &[(partition.clone(), 2)], "j/k/2");
    let mut source = source(transport);
    assign(&mut source, &[(partition.clone(), 0)]);
    let (read, _) = to_the_end(&mut source, 1);
    assert_eq!(values(&read), ["old", "new"]);
    // What stopped the old one passes when it claims in its turn.
    claim(&mut *old);
    publish(&mut *old, &[outgoing(&topic, "k", "again")], &[(partition, 3)], "j/i/3");
}

pub fn the_end_is_reported(transport: &dyn Transport, prefix: &str) {
    let topic = topic(transport, prefix, 2);
    let (full, empty) = (Partition::new(&topic, 0), Partition::new(&topic, 1));
    let other = self::topic(transport, &format!("{prefix}-other"), 2);
    let elsewhere = Partition::new(&other, 0);
    let mut sink = claimed(transport);
    let key = key_for(transport, &mut *sink, &full);
    let records: Vec<_> = (0..5).map(|n| outgoing(&topic, &key, &n.to_string())).collect();
    publish(&mut *sink, &records, &[(full.clone(), 0)], "j/i/1");
    let mut source = source(transport);
    assign(&mut source, &[(full.clone(), 0), (empty.clone(), 0), (elsewhere.clone(), 0)]);
    let (read, ends) = to_the_end(&mut source, 3);
    assert!(read.iter().all(|record| record.partition == full));
    let bounds = transport.bounds(&[full.clone(), empty.clone(), elsewhere.clone()]).expect("bounds");
    for partition in [&full, &empty, &elsewhere] {
        assert_eq!(ends[partition], bounds[partition].1, "{partition}: the end is the end of the partition");
    }
    // Each time the end is reached again.
    publish(&mut *sink, &[outgoing(&topic, &key, "more")], &[(full.clone(), 0)], "j/i/2");
    let (more, ends) = to_the_end(&mut source, 1);
    assert_eq!(values(&more), ["more"]);
    assert_eq!(ends[&full], transport.bounds(std::slice::from_ref(&full)).expect("bounds")[&full].1);
}

pub fn a_paused_partition_waits(transport: &dyn Transport, prefix: &str) {
    let topic = topic(transport, prefix, 2);
    let (first, second) = (Partition::new(&topic, 0), Partition::new(&topic, 1));
    let mut sink = claimed(transport);
    let (to_first, to_second) = (key_for(transport, &mut *sink, &first), key_for(transport, &mut *sink, &second));
    let mut records = Vec::new();
    for n in 0..50 {
        records.push(outgoing(&topic, &to_first, &format!("first {n}")));
        records.push(outgoing(&topic, &to_second, &format!("second {n}")));
    }
    let start = transport.bounds(&[first.clone(), second.clone()]).expect("bounds");
    publish(&mut *sink, &records, &[(first.clone(), 0)], "j/i/1");
    let mut source = source(transport);
    assign(&mut source, &[(first.clone(), start[&first].1), (second.clone(), start[&second].1)]);
    let mut of_first = Vec::new();
    while of_first.len() < 3 {
        of_first.extend(self::records(&mut source, 1).into_iter().filter(|record| record.partition == first));
    }
    source.pause(std::slice::from_ref(&first)).expect("pause");
    quiet(&mut source, |record| assert_eq!(record.partition, second, "first is paused"));
    source.resume(std::slice::from_ref(&first)).expect("resume");
    while of_first.len() < 50 {
        of_first.extend(self::records(&mut source, 1));
    }
    let expected: Vec<_> = (0..50).map(|n| format!("first {n}")).collect();
    assert_eq!(values(&of_first), expected, "nothing lost, nothing twice");
}

pub fn no_more_is_brought_than_is_asked_for(transport: &dyn Transport, prefix: &str) {
    let topic = topic(transport, prefix, 3);
    let records: Vec<_> = (0..300).map(|n| outgoing(&topic, &n.to_string(), &n.to_string())).collect();
    publish(&mut *claimed(transport), &records, &[(Partition::new(&topic, 0), 0)], "j/i/1");
    let mut source = transport.source().expect("source");
    source.assign(&(0..3).map(|n| Assignment::new(Partition::new(&topic, n), 0)).collect::<Vec<_>>()).expect("assign");
    let (started, mut read, mut most) = (Instant::now(), Vec::new(), 0);
    while read.len() < records.len() {
        assert!(started.elapsed() < PATIENCE, "{} records came", read.len());
        let items = quick(|| source.poll(7)).expect("poll").items;
        assert!(items.len() <= 7, "{} items", items.len());
        most = items.len().max(most);
        let records =
            items.into_iter().filter_map(|item| if let Polled::Record(record) = item { Some(record) } else { None });
        read.extend(records);
    }
    assert_eq!(most, 7, "what is there comes together");
    let mut values = values(&read);
    values.sort_by_key(|value| value.parse::<u32>().expect("a number"));
    assert_eq!(values, (0..300).map(|n| n.to_string()).collect::<Vec<_>>(), "nothing lost, nothing twice");
}

/// Nobody polls while nothing rings: neither for what is published here nor for the rest of what was not taken at once.
pub fn what_comes_rings(transport: &dyn Transport, prefix: &str) {
    let topic = topic(transport, prefix, 2);
    let partitions = [Partition::new(&topic, 0), Partition::new(&topic, 1)];
    let (rung, rings) = std::sync::mpsc::channel();
    let mut source = transport.source().expect("source");
    source.on_ready(Arc::new(move || _ = rung.send(())));
    source.assign(&partitions.clone().map(|partition| Assignment::new(partition, 0))).expect("assign");
    let mut sink = claimed(transport);
    let mut taken = 0;
    let mut take = |source: &mut dyn Source, wanted: usize| {
        let started = Instant::now();
        loop {
            while let Ok(polls) = source.poll(2)
                && !polls.items.is_empty()
            {
                taken += polls.items.iter().filter(|item| matches!(item, Polled::Record(_))).count();
            }
            if taken >= wanted {
                return;
            }
            let left = PATIENCE.saturating_sub(started.elapsed());
            rings.recv_timeout(left).unwrap_or_else(|_| panic!("{taken} of {wanted} records, and nothing rings"));
            while rings.try_recv().is_ok() {}
        }
    };
    for round in 1..=20 {
        let value = round.to_string();
        publish(&mut *sink, &[outgoing(&topic, &value, &value)], &[(partitions[0].clone(), 0)], "j/i/1");
        take(&mut *source, round);
        // Where it is read from elsewhere, and where it was paused, it rings as before.
        match round {
            5 => source
                .seek(&partitions.clone().map(|at| {
                    let end = transport.bounds(std::slice::from_ref(&at)).expect("bounds")[&at].1;
                    (at, end)
                }))
                .expect("seek"),
            10 => source.pause(&partitions).expect("pause"),
            _ => {}
        }
        if round == 10 {
            source.resume(&partitions).expect("resume");
        }
    }
}

pub fn a_seek_goes_back(transport: &dyn Transport, prefix: &str) {
    let topic = topic(transport, prefix, 1);
    let partition = Partition::new(&topic, 0);
    let mut sink = claimed(transport);
    let records: Vec<_> = (0..200).map(|n| outgoing(&topic, "k", &n.to_string())).collect();
    publish(&mut *sink, &records, &[(partition.clone(), 0)], "j/i/1");
    let mut source = source(transport);
    assign(&mut source, &[(partition.clone(), 0)]);
    let from = |first: i32, count: i32| (first..first + count).map(|n| n.to_string()).collect::<Vec<_>>();
    for (read, back_to) in [(120, 100), (30, 10), (1, 0), (60, 150), (20, 20)] {
        self::records(&mut source, read);
        source.seek(&[(partition.clone(), i64::from(back_to))]).expect("seek");
        assert_eq!(values(&self::records(&mut source, 5)), from(back_to, 5), "after a seek to {back_to}");
    }
    // Paused, sought twice: silent until resumed, then from the last place asked for.
    source.pause(std::slice::from_ref(&partition)).expect("pause");
    source.seek(&[(partition.clone(), 150)]).expect("seek");
    source.seek(&[(partition.clone(), 40)]).expect("seek");
    quiet(&mut source, |record| panic!("{} is paused, and delivers {}", record.partition, record.offset));
    source.resume(std::slice::from_ref(&partition)).expect("resume");
    assert_eq!(values(&self::records(&mut source, 5)), from(40, 5));
}

pub fn positions_are_checked(transport: &dyn Transport, prefix: &str) {
    let topic = topic(transport, prefix, 2);
    let (partition, other) = (Partition::new(&topic, 0), Partition::new(&topic, 1));
    let mut sink = claimed(transport);
    let (key, to_other) = (key_for(transport, &mut *sink, &partition), key_for(transport, &mut *sink, &other));
    let start = transport.bounds(std::slice::from_ref(&partition)).expect("bounds")[&partition].1;
    let mut records: Vec<_> = (0..5).map(|n| outgoing(&topic, &key, &n.to_string())).collect();
    records.push(outgoing(&topic, &to_other, "served"));
    publish(&mut *sink, &records, &[(partition.clone(), 0)], "j/i/1");
    let mut source = source(transport);
    assign(&mut source, &[(partition.clone(), start)]);
    let second = self::records(&mut source, 2).remove(1);
    let seen = (second.offset, second.timestamp_ms.expect("a record has a time"));

    let assignment = |position, last| Assignment { last, ..Assignment::new(partition.clone(), position) };
    source.assign(&[assignment(seen.0 + 1, Some(seen))]).expect("assign");
    assert_eq!(values(&self::records(&mut source, 3)), ["2", "3", "4"], "the same record is there");

    let end = transport.bounds(std::slice::from_ref(&partition)).expect("bounds")[&partition].1;
    let earlier = (seen.0, seen.1 - 1_000);
    for wrong in [assignment(end + 1, None), assignment(end + 1_000, None), assignment(seen.0 + 1, Some(earlier))] {
        let beside = Assignment::new(other.clone(), 0);
        source.assign(&[wrong.clone(), beside]).expect("assign");
        let (mut held, mut served) = (None, false);
        let started = Instant::now();
        while held.is_none() || !served {
            assert!(started.elapsed() < PATIENCE, "{wrong:?}: held {held:?}, the other served: {served}");
            match source.poll(Duration::from_millis(100)).expect("poll") {
                Some(Polled::Held { partition: at, why }) => {
                    assert_eq!(at, partition);
                    held = Some(why);
                }
                Some(Polled::Record(record)) => {
                    assert_eq!(record.partition, other, "a held partition delivers nothing");
                    served |= text(record.value.as_deref()) == "served";
                }
                _ => {}
            }
        }
        let why = held.expect("it was held");
        assert!(why.len() > 20, "{why:?} tells an operator too little");
    }
    // At the end is right.
    source.assign(&[assignment(end, None)]).expect("assign");
    to_the_end(&mut source, 1);
}

pub fn an_offer_says_where_it_stands(transport: &dyn Transport, prefix: &str) {
    let topic = topic(transport, prefix, 2);
    let (partition, offset) = transport.offer(&outgoing(&topic, "k", "offered")).expect("offer");
    assert_eq!((&*partition.topic, offset), (&*topic, 0));
    let bounds = transport.bounds(std::slice::from_ref(&partition)).expect("bounds");
    assert_eq!(bounds[&partition], (0, 1));
    let mut source = source(transport);
    assign(&mut source, &[(partition, 0)]);
    assert_eq!(values(&records(&mut source, 1)), ["offered"]);
    let nowhere: Arc<str> = format!("{prefix}-nowhere").into();
    assert!(transport.offer(&outgoing(&nowhere, "k", "v")).is_err(), "a topic that does not exist");
}

pub fn outgoing(topic: &Arc<str>, key: &str, value: &str) -> Outgoing {
    Outgoing { topic: topic.clone(), key: Some(key.into()), value: Some(value.into()), headers: Vec::new() }
}

pub fn source(transport: &dyn Transport) -> Waiting {
    Waiting::new(transport.source().expect("source"))
}

pub fn claimed(transport: &dyn Transport) -> Box<dyn Sink> {
    let mut sink = transport.sink().expect("sink");
    claim(&mut *sink);
    sink
}

/// A call that keeps within its slice, or nearly.
pub fn quick<T>(call: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let answer = call();
    assert!(started.elapsed() < CALL_MAX, "a call took {:?}, where a slice is {SLICE:?}", started.elapsed());
    answer
}

/// As a host does it: a broker that does not answer in time is asked again.
pub fn claim(sink: &mut dyn Sink) {
    let started = Instant::now();
    while let Err(error) = quick(|| sink.claim()) {
        let may_wait = matches!(error, TransportError::Away(_)) && started.elapsed() < PATIENCE;
        assert!(may_wait, "failed to claim: {error:?}");
    }
}

/// A publication that is not out.
#[derive(Debug)]
pub struct Failed {
    pub error: SinkError,
    /// The end of the transaction was asked for, and it is not known to be aborted.
    pub asked: bool,
}

/// Repeats a call of a transaction until it is done, or for as long as a transaction may take.
pub fn until_done(call: impl FnMut() -> Result<Progress, SinkError>) -> Result<(), SinkError> {
    until_done_within(PATIENCE, call)
}

fn until_done_within(
    patience: Duration,
    mut call: impl FnMut() -> Result<Progress, SinkError>,
) -> Result<(), SinkError> {
    let started = Instant::now();
    loop {
        match quick(&mut call)? {
            Progress::Done => return Ok(()),
            Progress::NotYet(why) if started.elapsed() > patience => return Err(SinkError::Spent(why)),
            Progress::NotYet(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// One attempt; what fails is aborted, where that helps.
pub fn try_publish(
    sink: &mut dyn Sink,
    records: &[Outgoing],
    offsets: &[(Partition, i64)],
    metadata: &str,
) -> Result<(), Failed> {
    let mut asked = false;
    let sent = transaction(sink, records, offsets, metadata, &mut asked);
    let Err(error) = sent else { return Ok(()) };
    match error {
        SinkError::Spent(_) | SinkError::Fenced(_) => Err(Failed { error, asked }),
        SinkError::Refused { .. } | SinkError::Unclear { .. } | SinkError::Spoilt(_) => {
            match until_done(|| sink.abort()) {
                Ok(()) => Err(Failed { error, asked: false }),
                Err(error) => Err(Failed { error, asked }),
            }
        }
    }
}

fn transaction(
    sink: &mut dyn Sink,
    records: &[Outgoing],
    offsets: &[(Partition, i64)],
    metadata: &str,
    asked: &mut bool,
) -> Result<(), SinkError> {
    let patience = sink.patience();
    quick(|| sink.begin())?;
    until_done_within(patience.delivery, || sink.offsets(offsets, metadata))?;
    let mut sent = 0;
    while sent < records.len() {
        sent += quick(|| sink.send(&records[sent..]))?;
        until_done_within(patience.delivery + REPORTED_WITHIN, || sink.poll())?;
    }
    *asked = true;
    until_done_within(patience.end, || sink.end())
}

pub fn publish(sink: &mut dyn Sink, records: &[Outgoing], offsets: &[(Partition, i64)], metadata: &str) {
    let started = Instant::now();
    while let Err(failed) = try_publish(sink, records, offsets, metadata) {
        let may_wait = matches!(failed.error, SinkError::Spoilt(_)) && started.elapsed() < PATIENCE;
        assert!(may_wait, "failed to publish: {failed:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn committed(sink: &mut dyn Sink, partitions: &[Partition]) -> BTreeMap<Partition, Committed> {
    let started = Instant::now();
    loop {
        match quick(|| sink.committed(partitions, Isolation::Stable)) {
            Ok(committed) => return committed,
            Err(TransportError::Away(_)) if started.elapsed() < PATIENCE => {}
            Err(error) => panic!("failed to read what is committed: {error:?}"),
        }
    }
}

pub fn assign(source: &mut Waiting, positions: &[(Partition, i64)]) {
    let assignments: Vec<_> =
        positions.iter().map(|(partition, position)| Assignment::new(partition.clone(), *position)).collect();
    source.assign(&assignments).expect("assign");
}

/// The next `count` records.
pub fn records(source: &mut Waiting, count: usize) -> Vec<Record> {
    let started = Instant::now();
    let mut read = Vec::new();
    while read.len() < count {
        assert!(started.elapsed() < PATIENCE, "{} of {count} records came", read.len());
        match source.poll(Duration::from_millis(100)).expect("poll") {
            Some(Polled::Record(record)) => read.push(record),
            Some(Polled::Held { partition, why }) => panic!("{partition} was held: {why}"),
            _ => {}
        }
    }
    read
}

/// Reads until `ends` partitions reported their end, each behind all records that came.
pub fn to_the_end(source: &mut Waiting, ends: usize) -> (Vec<Record>, BTreeMap<Partition, i64>) {
    let started = Instant::now();
    let (mut read, mut at) = (Vec::<Record>::new(), BTreeMap::new());
    while at.len() < ends {
        assert!(started.elapsed() < PATIENCE, "{} of {ends} ends came: {at:?}", at.len());
        match source.poll(Duration::from_millis(100)).expect("poll") {
            Some(Polled::Record(record)) => read.push(record),
            Some(Polled::End(partition, offset)) => {
                let last = read.iter().filter(|record| record.partition == partition).map(|r| r.offset).max();
                assert!(last.is_none_or(|last| last < offset), "the end is behind the last record");
                at.insert(partition, offset);
            }
            Some(Polled::Held { partition, why }) => panic!("{partition} was held: {why}"),
            _ => {}
        }
    }
    (read, at)
}

fn quiet(source: &mut Waiting, mut seen: impl FnMut(&Record)) {
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(700) {
        if let Some(Polled::Record(record)) = source.poll(Duration::from_millis(50)).expect("poll") {
            seen(&record);
        }
    }
}

/// A key whose records go to this partition; found by offering some.
fn key_for(transport: &dyn Transport, sink: &mut dyn Sink, partition: &Partition) -> String {
    let probe = self::topic(transport, &format!("{}-keys-{}", partition.topic, partition.number), 2);
    let keys: Vec<String> = (0..16).map(|n| format!("key-{n}")).collect();
    let offers: Vec<_> = keys.iter().map(|key| outgoing(&probe, key, key)).collect();
    publish(sink, &offers, &[(Partition::new(&probe, 0), 0)], "j/i/0");
    let mut source = source(transport);
    assign(&mut source, &[(Partition::new(&probe, 0), 0), (Partition::new(&probe, 1), 0)]);
    let landed = records(&mut source, keys.len());
    let there = landed.iter().find(|record| record.partition.number == partition.number);
    text(there.expect("sixteen keys reach both partitions").value.as_deref())
}

fn topic(transport: &dyn Transport, name: &str, partitions: i32) -> Arc<str> {
    let name: Arc<str> = name.into();
    transport.create_topics(std::slice::from_ref(&name), partitions).expect("create");
    name
}

pub fn values(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| text(record.value.as_deref())).collect()
}

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "(none)".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}
