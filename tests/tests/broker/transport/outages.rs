//! A broker that is away, or is killed while it takes a batch. Invariant: nothing is lost, and nothing comes twice.

use std::collections::BTreeMap;

use super::*;
use crate::brokers::fragile;

#[test]
fn a_broker_that_is_away_at_the_start_is_named() {
    let transport = with("127.0.0.1:1".to_owned(), "nowhere", &[]);
    for error in [
        transport.topics(&["any".into()]).map(drop).unwrap_err(),
        transport.bounds(&[at("any", 0)]).map(drop).unwrap_err(),
        transport.sink().unwrap().claim().unwrap_err(),
        contract::source(&transport).assign(&[Assignment::new(at("any", 0), 0)]).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(matches!(error, TransportError::Away(_)), "{error:?}");
        assert!(text.contains("127.0.0.1:1") && text.contains("bootstrap-servers"), "{text}");
    }
}

#[test]
fn a_broker_that_is_killed_loses_and_doubles_nothing() {
    let broker = fragile();
    let transport = broker.transport("restart").unwrap();
    let topic = topic(&transport, "restart", 2);
    let anchor = at(&topic, 0);
    publish(&mut *claimed(&transport), &[], &[(anchor.clone(), 0)], "j/i/0");
    let batches = 100;
    let (publisher_topic, publisher_anchor) = (topic.clone(), anchor.clone());
    let publisher = std::thread::spawn(move || {
        let mut sink = claimed(&transport);
        for batch in 1..=batches {
            let record = |n| outgoing(&publisher_topic, &format!("{n}"), &format!("{batch}.{n}"));
            let records: Vec<_> = (0..20).map(record).collect();
            publish_through(&mut *sink, batch, &publisher_anchor, &records);
            std::thread::sleep(Duration::from_millis(10));
        }
        transport
    });
    let reader = broker.transport("restart").unwrap();
    let mut source = contract::source(&reader);
    assign(&mut source, &[(anchor, 0), (at(&topic, 1), 0)]);
    let (mut seen, mut away, mut back, mut killed) = (BTreeMap::<String, usize>::new(), 0, 0, false);
    let wanted = usize::try_from(batches).unwrap() * 20;
    let started = Instant::now();
    while seen.len() < wanted {
        assert!(started.elapsed() < 2 * LONG, "{} of {wanted} came", seen.len());
        match source.poll(Duration::from_millis(50)).unwrap() {
            Some(Polled::Record(record)) => *seen.entry(values(&[record]).remove(0)).or_default() += 1,
            Some(Polled::Away(why)) => {
                assert!(why.contains("bootstrap-servers"), "{why}");
                away += 1;
            }
            Some(Polled::Back) => back += 1,
            Some(Polled::Held { partition, why }) => panic!("{partition}: {why}"),
            _ => {}
        }
        // In the middle.
        if !killed && seen.len() > wanted / 4 {
            killed = true;
            broker.kill();
            until(&mut source, "the broker to be missed", |polled| match polled {
                Polled::Record(record) => {
                    *seen.entry(values(&[record]).remove(0)).or_default() += 1;
                    None
                }
                Polled::Away(_) => Some(()),
                _ => None,
            });
            away += 1;
            broker.restart().unwrap();
        }
    }
    publisher.join().unwrap();
    assert!(killed && away >= 1 && back >= 1, "away {away} times, back {back} times");
    assert!(seen.values().all(|times| *times == 1), "a record came twice");
}

#[test]
fn publishing_with_the_broker_away_says_so_and_goes_through_later() {
    let broker = fragile();
    let transport = with(broker.bootstrap(), "away", &[("transaction.timeout.ms", "6000")]);
    let topic = topic(&transport, "away", 1);
    let partition = at(&topic, 0);
    let mut sink = claimed(&transport);
    publish(&mut *sink, &[outgoing(&topic, "k", "before")], &[(partition.clone(), 1)], "j/i/1");
    broker.kill();
    let records = [outgoing(&topic, "k", "later")];
    let offsets = [(partition.clone(), 2)];
    let started = Instant::now();
    let away = publish_once(&mut *sink, &records, &offsets, "j/i/2");
    assert!(matches!(away, Err(PublishError::Lost { .. })), "{away:?}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    let claim = sink.claim().unwrap_err();
    assert!(matches!(claim, TransportError::Away(_)), "{claim:?}");
    broker.restart().unwrap();
    publish_through(&mut *sink, 2, &partition, &records);
    let mut source = contract::source(&transport);
    assign(&mut source, &[(partition, 0)]);
    assert_eq!(values(&to_the_end(&mut source, 1).0), ["before", "later"]);
}
