//! Topics that change while they are read: deleted, recreated, cut by retention, grown. Invariant: what cannot be read as
//! it was is held by name.

use super::*;

#[test]
fn a_topic_that_is_deleted_is_refused_for_writing_and_held_for_reading() {
    let transport = transport("gone");
    let (gone, stays) = (topic(&transport, "gone-soon", 1), topic(&transport, "gone-not", 1));
    let mut sink = claimed(&transport);
    let offsets = [(at(&stays, 0), 1)];
    publish(&mut *sink, &[outgoing(&gone, "k", "v"), outgoing(&stays, "k", "v")], &offsets, "j/i/1");
    let mut source = contract::source(&transport);
    assign(&mut source, &[(at(&gone, 0), 0), (at(&stays, 0), 0)]);
    to_the_end(&mut source, 2);
    broker().delete_topic(&gone).unwrap();
    let records = [outgoing(&stays, "k", "v"), outgoing(&gone, "k", "v")];
    let refused = publish_once(&mut *sink, &records, &offsets, "j/i/2");
    assert!(matches!(refused, Err(PublishError::Refused { index: 1, .. })), "{refused:?}");
    let (partition, why) = held(&mut source);
    assert_eq!(partition, at(&gone, 0));
    assert!(why.contains("deleted"), "{why}");
    publish(&mut *sink, &[outgoing(&stays, "k", "after")], &offsets, "j/i/2");
    assert_eq!(values(&records_of(&mut source)), ["after"], "the other is served");
    let offered = transport.offer(&outgoing(&gone, "k", "v")).unwrap_err();
    assert!(matches!(&offered, TransportError::Refused(why) if why.contains("does not exist")), "{offered:?}");
}

fn records_of(source: &mut Waiting) -> Vec<sagahost_wire::Record> {
    records(source, 1)
}

/// Deleted, and made again once the broker has forgotten it, which takes it a moment.
fn make_anew(transport: &dyn Transport, topic: &Arc<str>) {
    broker().delete_topic(topic).unwrap();
    let started = Instant::now();
    while !transport.topics(std::slice::from_ref(topic)).unwrap().is_empty() {
        assert!(started.elapsed() < Duration::from_secs(60), "{topic} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
    self::topic(transport, topic, 1);
}

#[test]
fn a_topic_made_anew_is_held() {
    let transport = transport("anew");
    let topic = topic(&transport, "anew", 1);
    for n in 0..5 {
        transport.offer(&outgoing(&topic, "k", &n.to_string())).unwrap();
    }
    let mut source = contract::source(&transport);
    assign(&mut source, &[(at(&topic, 0), 0)]);
    let read = records(&mut source, 3);
    let last = (read[2].offset, read[2].timestamp_ms.unwrap());
    let (position, _) = (read[2].offset + 1, drop(source));
    make_anew(&transport, &topic);
    // Shorter than what was handled, then as long.
    let assignment = Assignment { last: Some(last), ..Assignment::new(at(&topic, 0), position) };
    for (records, said) in [(1, "ends at"), (4, "another record")] {
        for n in 0..records {
            transport.offer(&outgoing(&topic, "k", &format!("anew {n}"))).unwrap();
        }
        let mut source = contract::source(&transport);
        source.assign(std::slice::from_ref(&assignment)).unwrap();
        let (_, why) = held(&mut source);
        assert!(why.contains(said) && why.contains("recreated"), "{why}");
    }
}

#[test]
fn a_topic_made_anew_while_it_is_read_is_held() {
    let transport = transport("anew-live");
    let topic = topic(&transport, "anew-live", 1);
    for n in 0..5 {
        transport.offer(&outgoing(&topic, "k", &n.to_string())).unwrap();
    }
    let mut source = contract::source(&transport);
    assign(&mut source, &[(at(&topic, 0), 0)]);
    records(&mut source, 5);
    make_anew(&transport, &topic);
    let (partition, why) = held(&mut source);
    assert_eq!(partition, at(&topic, 0));
    assert!(why.contains("recreated") || why.contains("deleted"), "{why}");
}

#[test]
fn retention_ahead_of_the_position_is_held_with_what_is_lost() {
    let transport = transport("retention");
    let topic = topic(&transport, "retention", 1);
    for n in 0..20 {
        transport.offer(&outgoing(&topic, "k", &n.to_string())).unwrap();
    }
    broker().delete_records(&topic, 0, 12).unwrap();
    assert_eq!(transport.bounds(&[at(&topic, 0)]).unwrap()[&at(&topic, 0)], (12, 20));
    let mut source = contract::source(&transport);
    assign(&mut source, &[(at(&topic, 0), 4)]);
    let (partition, why) = held(&mut source);
    assert_eq!(partition, at(&topic, 0));
    assert!(why.contains("8 offsets are lost") && why.contains("Resume from `earliest`"), "{why}");
    // The record to compare with is gone as well, which proves nothing.
    let last = Some((11, 1));
    source.assign(&[Assignment { last, ..Assignment::new(at(&topic, 0), 12) }]).unwrap();
    assert_eq!(values(&records(&mut source, 2)), ["12", "13"]);
}

#[test]
fn retention_that_overtakes_a_paused_reader_is_noticed_when_it_reads_on() {
    let transport = with(
        broker().bootstrap(),
        "overtaken",
        &[("queued.max.messages.kbytes", "1"), ("queued.min.messages", "1"), ("fetch.message.max.bytes", "1000")],
    );
    let topic = topic(&transport, "overtaken", 1);
    let payload = "x".repeat(500);
    for _ in 0..100 {
        transport.offer(&outgoing(&topic, "k", &payload)).unwrap();
    }
    let mut source = contract::source(&transport);
    assign(&mut source, &[(at(&topic, 0), 0)]);
    records(&mut source, 1);
    source.pause(&[at(&topic, 0)]).unwrap();
    broker().delete_records(&topic, 0, 90).unwrap();
    source.resume(&[at(&topic, 0)]).unwrap();
    let (_, why) = held(&mut source);
    assert!(why.contains("were removed before"), "{why}");
}

#[test]
fn partitions_that_appear_are_reported_once() {
    let transport = transport("grow");
    let (one, other) = (topic(&transport, "grow", 1), topic(&transport, "grow-too", 1));
    let mut source = contract::source(&transport);
    let mut assigned = vec![(at(&one, 0), 0), (at(&other, 0), 0)];
    assign(&mut source, &assigned);
    broker().alter_partitions(&one, 3).unwrap();
    broker().alter_partitions(&other, 2).unwrap();
    // Assigning anew, as a host does with what appeared, forgets nothing of what is not told yet.
    let mut appeared = Vec::new();
    while appeared.len() < 3 {
        let more = until(&mut source, "partitions to appear", |polled| match polled {
            Polled::Appeared(partitions) => Some(partitions),
            _ => None,
        });
        assigned.extend(more.iter().map(|partition| (partition.clone(), 0)));
        assign(&mut source, &assigned);
        appeared.extend(more);
    }
    appeared.sort();
    assert_eq!(appeared, [at(&one, 1), at(&one, 2), at(&other, 1)]);
}
