//! Records that are no events. Invariant of all tests: each is kept with where it stood and why, what comes behind it in
//! its partition is handled, and an operator has a way on.

use sagahost::host::Host;
use sagahost_operator::{
    protocol::Request,
    view::{LetterGroup, LetterView},
};
use sagahost_tests::{
    events::{event, plain, tried},
    operator::Operator,
    shop::Shop,
    wait::until,
};
use sagahost_wire::Outgoing;
use serde_json::json;

use crate::shops::await_done;

const RECORD_BYTES_MAX: usize = 20_000;

/// Everything in one partition: what holds up one record would hold up all behind it.
fn started(more: &str) -> (Shop, Host, Operator) {
    let shop = Shop::new(
        &["hostile"],
        &format!(
            "[pipeline]\nrecord-bytes-max = {RECORD_BYTES_MAX}\n[limits]\npayload-bytes-max = 10000\nattributes-bytes-max = 1000\n{more}"
        ),
    );
    sagahost_transport::Transport::create_topics(&shop.topics(), &["hostile-tried".into()], 1).unwrap();
    let host = shop.start();
    let operator = Operator::of(&host);
    (shop, host, operator)
}

fn without(header: &str, record: Outgoing) -> Outgoing {
    let headers = record.headers.into_iter().filter(|(name, _)| name != header).collect();
    Outgoing { headers, ..record }
}

fn with(header: &str, value: &[u8], record: Outgoing) -> Outgoing {
    let mut record = without(header, record);
    record.headers.push((header.to_owned(), Some(value.to_vec())));
    record
}

fn null(header: &str, record: Outgoing) -> Outgoing {
    let mut record = without(header, record);
    record.headers.push((header.to_owned(), None));
    record
}

/// The record, the code of its dead letter, and what its detail must say.
fn bad_records() -> Vec<(Outgoing, &'static str, &'static str)> {
    let kind = "HostileTried";
    let good = || tried("s-1", "none", "none");
    let large = vec![b' '; RECORD_BYTES_MAX];
    let cut_short = br#"{"id": "#;
    vec![
        (plain(kind, Some(b"s-1"), Some(cut_short)), "invalid-json", "EOF while parsing"),
        (plain(kind, Some(b"s-1"), Some(b"\xff\xfe{}")), "invalid-json", ""),
        (plain(kind, Some(b"s-1"), Some(b"{\"id\": \"\xc3\"}")), "invalid-json", ""),
        (null("content-type", plain(kind, Some(b"s-1"), Some(cut_short))), "invalid-json", "EOF while parsing"),
        (null("ce_id", good()), "invalid-header", "but not ce_id"),
        (plain(kind, None, Some(b"{}")), "missing-saga-id", "no header ce_sagaid, and the record has no key"),
        (plain(kind, Some(b""), Some(b"{}")), "missing-saga-id", "the record has no key"),
        (plain(kind, Some(b"s-\xff"), Some(b"{}")), "invalid-key", "is not text"),
        (plain(kind, Some(&[b's'; 2_000]), Some(b"{}")), "invalid-saga-id", "2000 bytes"),
        (plain(kind, Some(b"s-1"), None), "tombstone", "the record has no value"),
        (plain(kind, Some(b"s-1"), Some(&large)), "oversized-record", "20000 are allowed (record-bytes-max)"),
        (without("ce_id", good()), "invalid-header", "ce_id"),
        (with("ce_type", b"Hostile\xff", good()), "invalid-header", "ce_type"),
        (with("ce_specversion", b"0.3", good()), "invalid-header", "only 1.0 is read"),
        (with("ce_time", b"yesterday", good()), "bad-time", "RFC 3339"),
        (with("content-type", b"application/cloudevents-batch+json", good()), "unsupported-mode", "batch"),
    ]
}

#[test]
fn each_bad_record_is_kept_with_its_origin_and_the_others_flow() {
    let (shop, host, operator) = started("");
    let bad = bad_records();
    for (number, (record, ..)) in bad.iter().enumerate() {
        let (partition, offset) = shop.send(record);
        assert_eq!((partition.number, offset), (0, 2 * number as i64));
        shop.send(&tried(&format!("good-{number}"), "none", "none"));
    }
    let letters = operator.await_letters(bad.len());
    assert_eq!(letters.len(), bad.len());
    for (number, (record, code, detail)) in bad.iter().enumerate() {
        let key = format!("hostile-tried[0]@{}", 2 * number);
        let LetterView { line, value, topic, headers, .. } = operator.letter(&key);
        assert_eq!((line.code.as_str(), line.origin.as_deref()), (*code, Some(key.as_str())), "{line:?}");
        assert!(line.detail.contains(detail), "{line:?} does not say {detail:?}");
        assert_eq!(topic, "hostile-tried");
        let shown: Vec<_> = headers.iter().map(|(name, value)| (name, value.is_none())).collect();
        let sent: Vec<_> = record.headers.iter().map(|(name, value)| (name, value.is_none())).collect();
        assert_eq!(shown, sent, "{key}: null headers are shown as null");
        assert_eq!(value.is_none(), record.value.is_none(), "{key}: the value stays as it came");
        await_done(&operator, &format!("good-{number}"));
    }
    assert_published(&shop, &bad);
    assert!(operator.status().waiting_for.is_empty());

    // None of them is read again by the next start.
    host.stop(std::time::Duration::from_secs(10));
    let host = shop.start();
    let operator = Operator::of(&host);
    shop.send(&tried("later", "none", "none"));
    await_done(&operator, "later");
    assert_eq!(operator.letters().len(), bad.len());
    assert_eq!(host.live().status().events, 1, "the only event since the start");
    host.stop(std::time::Duration::from_secs(10));
}

/// Beside the journal each is in the topic for dead letters, with its origin in headers.
fn assert_published(shop: &Shop, bad: &[(Outgoing, &str, &str)]) {
    let published = until("all dead letters are published", || {
        Some(shop.read(&["shop.dead-letters"])).filter(|records| records.len() >= bad.len())
    });
    for (number, (record, code, _)) in bad.iter().enumerate() {
        let offset = (2 * number).to_string();
        let header = |of: &sagahost_wire::Record, name: &str| {
            let found = of.headers.iter().find(|(header, _)| header == name);
            found.and_then(|(_, value)| value.as_deref()).map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let of_this = |of: &&sagahost_wire::Record| header(of, "sagahost-dlq-offset").as_ref() == Some(&offset);
        let letters: Vec<_> = published.iter().filter(of_this).collect();
        let [letter] = letters.as_slice() else { panic!("{} letters of offset {offset}", letters.len()) };
        assert_eq!(header(letter, "sagahost-dlq-topic").as_deref(), Some("hostile-tried"));
        assert_eq!(header(letter, "sagahost-dlq-partition").as_deref(), Some("0"));
        assert_eq!(header(letter, "sagahost-dlq-code").as_deref(), Some(*code));
        assert!(letter.headers.starts_with(&record.headers), "offset {offset}: headers stay as they came");
        match *code {
            "oversized-record" => assert_eq!(header(letter, "sagahost-dlq-omitted").as_deref(), Some("value")),
            _ => assert_eq!((&letter.key, &letter.value), (&record.key, &record.value)),
        }
    }
}

#[test]
fn a_bad_record_can_be_discarded_and_not_redriven() {
    let (shop, host, operator) = started("");
    shop.send(&plain("HostileTried", Some(b"s-1"), Some(b"{")));
    let key = operator.await_letters(1)[0].line.key.clone();

    let refused = operator.redrive(&key).unwrap_err();
    assert!(refused.text.contains("it still cannot be decoded: invalid-json"), "{refused}");
    let refused = operator.discard(&key, " ").unwrap_err();
    assert!(refused.text.contains("a reason is needed"), "{refused}");
    assert_eq!(operator.letters().len(), 1, "neither has closed it");

    let deed = operator.discard(&key, "sent by mistake").unwrap();
    assert!(deed.done, "{deed:?}");
    assert_eq!(operator.letters(), []);
    assert_eq!(operator.letter(&key).line.closed.as_deref(), Some("discarded by anna: sent by mistake"));
    let refused = operator.discard(&key, "again").unwrap_err();
    assert!(refused.text.contains("closed: discarded by anna"), "{refused}");
    assert!(operator.saga("s-1").is_none(), "it began no saga");
    host.stop(std::time::Duration::from_secs(10));
}

#[test]
fn a_record_without_a_saga_id_is_redriven_once_the_configuration_says_where_it_is() {
    let (mut shop, host, operator) = started("");
    shop.send(&plain("HostileTried", None, Some(br#"{"id": "h-7"}"#)));
    let letter = operator.await_letters(1).remove(0);
    assert_eq!((letter.line.code.as_str(), letter.line.saga), ("missing-saga-id", None));
    host.stop(std::time::Duration::from_secs(10));

    shop.configure("[topics.records.hostile-tried]\nsaga-id = \"/id\"\n");
    let host = shop.start();
    let operator = Operator::of(&host);
    let deed = operator.redrive(&letter.line.key).unwrap();
    assert!(deed.done && deed.text.contains("taken in"), "{deed:?}");
    await_done(&operator, "h-7");
    assert_eq!(operator.letters(), []);
    let refused = operator.redrive(&letter.line.key).unwrap_err();
    assert!(refused.text.contains("the dead letter is closed: redriven"), "{refused}");
    host.stop(std::time::Duration::from_secs(10));
}

#[test]
fn a_plain_record_in_a_topic_of_several_kinds_must_say_which() {
    let (shop, host, operator) = started("[topics.of-kind]\nHostileFollowed = \"hostile-tried\"\n");
    shop.send(&plain("HostileTried", Some(b"s-1"), Some(b"{}")));
    shop.send(&tried("s-1", "none", "none"));
    await_done(&operator, "s-1");
    let letter = operator.await_letters(1).remove(0).line;
    assert_eq!(letter.code, "unknown-kind");
    for part in [
        "HostileTried",
        "HostileFollowed",
        "send it as a CloudEvent, or set `kind` in [topics.records.\"hostile-tried\"]",
    ] {
        assert!(letter.detail.contains(part), "{letter:?} does not say {part:?}");
    }
    host.stop(std::time::Duration::from_secs(10));
}

#[test]
fn bad_records_that_nobody_asks_for_are_bounded_and_what_went_is_counted() {
    let (shop, host, operator) = started("[dead-letters]\nundecodable-max = 3\n");
    let kept_and_gone = |operator: &Operator, kept, gone| {
        let groups: Vec<LetterGroup> = operator.ask(Request::LetterGroups).unwrap();
        let [group] = &groups[..] else { return None };
        (group.code == "invalid-json" && (group.open, group.removed) == (kept, gone)).then_some(())
    };
    for n in 0..10_u64 {
        // Most producers say the saga, whatever else is wrong. One after the other: what cannot be decoded has no order.
        shop.send(&plain("HostileTried", Some(format!("s-{n}").as_bytes()), Some(b"{")));
        until("no more than three are kept", || kept_and_gone(&operator, (n + 1).min(3), (n + 1).saturating_sub(3)));
    }
    let keys: Vec<_> = operator.letters().into_iter().map(|letter| letter.line.key).collect();
    assert_eq!(keys, ["hostile-tried[0]@7", "hostile-tried[0]@8", "hostile-tried[0]@9"]);
    assert_eq!(operator.status().removed_letters, 7);
    until("their copies stay", || Some(shop.read(&["shop.dead-letters"])).filter(|copies| copies.len() == 10));
    host.stop(std::time::Duration::from_secs(10));

    let host = shop.start();
    until("the next host knows it, too", || kept_and_gone(&Operator::of(&host), 3, 7));
    host.stop(std::time::Duration::from_secs(10));
}

/// A topic may carry kinds that are for others: no dead letter, and no saga begins.
#[test]
fn a_kind_that_nobody_here_handles_is_passed() {
    let (shop, host, operator) = started("");
    let stranger = Outgoing { topic: "hostile-tried".into(), ..event("ForOthers", "s-1", "e-1", &json!({})) };
    shop.send(&stranger);
    shop.send(&tried("s-2", "none", "none"));
    await_done(&operator, "s-2");
    assert!(operator.saga("s-1").is_none());
    assert_eq!(operator.letters(), []);
    until("its position has passed both", || {
        let positions = host.journal().positions().unwrap();
        positions.iter().find(|(at, _)| &*at.topic == "hostile-tried").filter(|(_, at)| at.next == 2).map(drop)
    });
    host.stop(std::time::Duration::from_secs(10));
}
