#![expect(clippy::unwrap_used, reason = "a test")]

mod bindings;
mod mappings;

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use sagahost_saga::id::Participant;
use sagahost_wire::{Headers, Outgoing};

use super::*;
use crate::{EventIdFrom, RecordMapping};

/// Reads OrderCreated and PaymentProcessed; `shared` is the topic of two kinds, and `legacy` is mapped.
fn codec() -> Codec {
    let mut topics = TopicSettings::of_app("shop");
    let shared: Arc<str> = "shared".into();
    topics.of_kind = BTreeMap::from([(Kind::new("A"), shared.clone()), (Kind::new("B"), shared)]);
    topics.headers = vec!["tenant".to_owned(), "x-region".to_owned()];
    let mapping = |event_id| RecordMapping {
        kind: Some(KindFrom::Fixed(Kind::new("OrderCreated"))),
        saga_id: Some(Locator::Pointer("/order/id".to_owned())),
        event_id,
        ..RecordMapping::default()
    };
    topics.records = BTreeMap::from([
        ("legacy".into(), mapping(EventIdFrom::Pointer("/uuid".to_owned()))),
        ("legacy-header".into(), mapping(EventIdFrom::Header("message-id".to_owned()))),
        ("legacy-http".into(), mapping(EventIdFrom::Header("ce-id".to_owned()))),
        ("legacy-offset".into(), mapping(EventIdFrom::Offset)),
        ("legacy-structured".into(), RecordMapping { structured: true, ..mapping(EventIdFrom::Offset) }),
    ]);
    Codec::new("shop", &topics, 1000).with_kinds(&[Kind::new("OrderCreated"), Kind::new("PaymentProcessed")])
}

/// A record at offset 7 of partition 1, written at 2001-09-09T01:46:40Z.
fn record(topic: &str, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, &[u8])]) -> Record {
    Record {
        partition: Partition::new(topic, 1),
        offset: 7,
        timestamp_ms: Some(1_000_000_000_000),
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.to_vec()))).collect(),
    }
}

fn plain(topic: &str, value: &str) -> Record {
    record(topic, Some(b"o1"), Some(value.as_bytes()), &[])
}

const ENVELOPE: [(&str, &[u8]); 4] =
    [("ce_specversion", b"1.0"), ("ce_id", b"e1"), ("ce_source", b"web"), ("ce_type", b"OrderCreated")];

/// A good CloudEvent, with `changes` to its headers: an empty value removes, another replaces or adds.
fn event(changes: &[(&str, &[u8])]) -> Record {
    let changed = |name: &str| changes.iter().any(|(other, _)| *other == name);
    let kept = ENVELOPE.into_iter().filter(|(name, _)| !changed(name));
    let added = changes.iter().copied().filter(|(_, value)| !value.is_empty());
    record("order-created", Some(b"o1"), Some(b"{}"), &kept.chain(added).collect::<Vec<_>>())
}

fn line(decoded: &Result<Decoded, Undecodable>) -> String {
    match decoded {
        Ok(Decoded { event, formerly }) => {
            let formerly = formerly.as_ref().map(|was| format!(", formerly {} of saga {}", was.key, was.saga));
            let origin = event.origin.as_ref().map(|at| format!("{}[{}]@{}", at.topic, at.partition, at.offset));
            format!(
                "{} {} saga {} at {} {} {:?} hops {} {:?} from {}{}",
                event.kind,
                event.key,
                event.saga,
                timestamp::format(event.time),
                event.content_type,
                String::from_utf8_lossy(&event.data),
                event.hops,
                event.attributes,
                origin.unwrap_or_default(),
                formerly.unwrap_or_default(),
            )
        }
        Err(why) => format!("{why} (saga {})", why.saga.as_ref().map_or("-", SagaId::as_str)),
    }
}

fn check(records: &[Record], expected: Expect) {
    let codec = codec();
    let lines: Vec<String> = records.iter().map(|record| line(&codec.decode(record))).collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn cloud_events_say_what_they_are() {
    check(
        &[
            event(&[]),
            event(&[("ce_sagaid", b"other"), ("ce_time", b"2026-11-22T20:00:00.5+01:00")]),
            event(&[("ce_type", b"com.example.Unheard"), ("content-type", b"application/order+json; charset=utf-8")]),
            event(&[("Content-Type", b"text/plain"), ("CE_SAGAID", b"upper")]),
            event(&[("sagahost-hops", b"3"), ("traceparent", b"00-ab-cd-01"), ("tracestate", b"\xff")]),
            event(&[
                ("ce_subject", b"s"),
                ("ce_tenant", b"1"),
                ("tenant", b"2"),
                ("X-Region", b"eu"),
                ("cookie", b"c"),
            ]),
            event(&[("ce_b", b"1"), ("ce_b", b"2"), ("ce_sagahost-x", b"1"), ("ce_ce_x", b"1"), ("ce_", b"1")]),
        ],
        expect![[r#"
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7
            OrderCreated web/e1 saga other at 2026-11-22T19:00:00.500Z application/json "{}" hops 0 [] from order-created[1]@7
            com.example.Unheard web/e1 saga o1 at 2001-09-09T01:46:40.000Z application/order+json; charset=utf-8 "{}" hops 0 [] from order-created[1]@7
            OrderCreated web/e1 saga upper at 2001-09-09T01:46:40.000Z text/plain "{}" hops 0 [] from order-created[1]@7
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 3 [("traceparent", "00-ab-cd-01")] from order-created[1]@7
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("subject", "s"), ("tenant", "2"), ("x-region", "eu")] from order-created[1]@7
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("b", "2")] from order-created[1]@7"#]],
    );
}

#[test]
fn cloud_events_with_faults() {
    check(
        &[
            event(&[("ce_specversion", b"")]),
            event(&[("ce_specversion", b"0.3")]),
            event(&[("ce_specversion", b"2.0")]),
            event(&[("ce_id", b"")]),
            event(&[("ce_source", b"")]),
            event(&[("ce_type", b"")]),
            event(&[("ce_id", b"\xff")]),
            event(&[("ce_id", b"e1"), ("ce_id", b"e2")]),
            event(&[("ce_sagaid", b"o1"), ("ce_sagaid", b"o2")]),
            event(&[("ce_sagaid", &[b'x'; 1025])]),
            event(&[("ce_id", &[b'x'; 1025])]),
            event(&[("ce_time", b"yesterday")]),
            event(&[("ce_colour", b"\xff")]),
            event(&[("sagahost-hops", b"-1")]),
            event(&[("sagahost-hops", b"4294967296")]),
            event(&[("content-type", b"application/cloudevents-batch+json")]),
            event(&[("content-type", b"application/cloudevents+avro")]),
            event(&[("big", &[b'x'; 70_000])]),
            event(&[("n", b"x".as_slice()); 300]),
        ],
        expect![[r#"
            invalid-header: the record has ce_id, ce_source, ce_type, but not ce_specversion: a CloudEvent must have all four of ce_id, ce_source, ce_type and ce_specversion, and a plain record no header of CloudEvents but ce_sagaid, ce_time and ce_datacontenttype (saga o1)
            invalid-header: CloudEvents version "0.3"; only 1.0 is read (saga o1)
            invalid-header: CloudEvents version "2.0"; only 1.0 is read (saga o1)
            invalid-header: the record has ce_source, ce_type, ce_specversion, but not ce_id: a CloudEvent must have all four of ce_id, ce_source, ce_type and ce_specversion, and a plain record no header of CloudEvents but ce_sagaid, ce_time and ce_datacontenttype (saga o1)
            invalid-header: the record has ce_id, ce_type, ce_specversion, but not ce_source: a CloudEvent must have all four of ce_id, ce_source, ce_type and ce_specversion, and a plain record no header of CloudEvents but ce_sagaid, ce_time and ce_datacontenttype (saga o1)
            invalid-header: the record has ce_id, ce_source, ce_specversion, but not ce_type: a CloudEvent must have all four of ce_id, ce_source, ce_type and ce_specversion, and a plain record no header of CloudEvents but ce_sagaid, ce_time and ce_datacontenttype (saga o1)
            invalid-header: ce_id is not UTF-8 (saga o1)
            invalid-header: ce_id appears twice, with different values (saga o1)
            invalid-header: ce_sagaid appears twice, with different values (saga o1)
            invalid-saga-id: the saga id has 1025 bytes, 1024 are allowed (saga -)
            invalid-header: source and id of the event have 1028 bytes, 1024 are allowed (saga o1)
            bad-time: "yesterday" is not a valid RFC 3339 time (saga o1)
            invalid-header: ce_colour is not UTF-8 (saga o1)
            invalid-header: sagahost-hops is "-1", which is not a count (saga o1)
            invalid-header: sagahost-hops is "4294967296", which is not a count (saga o1)
            unsupported-mode: the content type is application/cloudevents-batch+json; a record carries one event: send each event of the batch as a record of its own (saga o1)
            unsupported-mode: the content type is application/cloudevents+avro; CloudEvents are read in binary mode and as application/cloudevents+json (saga o1)
            invalid-header: 70058 bytes of headers, 65536 are allowed (saga o1)
            invalid-header: 304 headers, 256 are allowed (saga o1)"#]],
    );
}

#[test]
fn the_same_header_twice_is_no_fault_when_it_says_the_same() {
    let mut record = event(&[]);
    record.headers.extend(record.headers.clone());
    assert!(codec().decode(&record).is_ok());
}

#[test]
fn data_that_is_not_there_or_not_json() {
    let of = |value: Option<&[u8]>, headers: &[(&str, &[u8])]| {
        record("order-created", Some(b"o1"), value, &[&ENVELOPE[..], headers].concat())
    };
    check(
        &[
            of(None, &[]),
            record("order-created", None, None, &[("ce_sagaid", b"o9")]),
            of(Some(b""), &[]),
            of(Some(b""), &[("content-type", b"text/plain")]),
            of(Some(b"{"), &[]),
            of(Some(b"{} {}"), &[]),
            of(Some(b"\"\xff\""), &[]),
            of(Some(b"\xff"), &[("content-type", b"application/octet-stream")]),
            of(Some(b"\0\0\0\0\x01{}"), &[]),
            of(Some(b"\xef\xbb\xbf{}"), &[]),
            of(Some(b"\xef\xbb\xbf{}"), &[("content-type", b"text/plain")]),
            of(Some(b"\xff\xfe{\0}\0"), &[]),
            of(Some(&[b'1'; 1001]), &[]),
        ],
        expect![[r#"
            tombstone: the record has no value; an event has data (saga o1)
            tombstone: the record has no value; an event has data (saga o9)
            invalid-json: the data is empty (saga o1)
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z text/plain "" hops 0 [] from order-created[1]@7
            invalid-json: the data is not JSON: EOF while parsing an object at line 1 column 1 (saga o1)
            invalid-json: the data is not JSON: trailing characters at line 1 column 4 (saga o1)
            invalid-json: the data is not UTF-8: invalid utf-8 sequence of 1 bytes from index 1 (saga o1)
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z application/octet-stream "�" hops 0 [] from order-created[1]@7
            invalid-json: the data begins with a zero byte, as records of a schema registry do; only JSON is read (saga o1)
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z text/plain "\u{feff}{}" hops 0 [] from order-created[1]@7
            invalid-json: the data begins with the byte order mark of UTF-16; only UTF-8 is read (saga o1)
            oversized-record: key and value have 1003 bytes, 1000 are allowed (record-bytes-max) (saga o1)"#]],
    );
}

#[test]
fn the_saga_is_named_by_header_pointer_or_key() {
    let keyed = |key: Option<&[u8]>| record("order-created", key, Some(b"{}"), &[]);
    check(
        &[
            keyed(Some(b"o1")),
            keyed(None),
            keyed(Some(b"")),
            keyed(Some(b"\xff")),
            record("order-created", None, Some(b"{}"), &[("ce_sagaid", b"o2")]),
            plain("legacy-offset", r#"{"order": {"id": "o3"}}"#),
            plain("legacy-offset", r#"{"order": {"id": 42}}"#),
            plain("legacy-offset", r#"{"order": {"id": 1.5}}"#),
            plain("legacy-offset", r#"{"order": {"id": ""}}"#),
            plain("legacy-offset", r#"{"order": null}"#),
            plain("legacy-offset", r#"{"a": "\ud800", "b": 1e400, "order": {"id": 18446744073709551616}}"#),
            plain(
                "legacy-offset",
                &format!(r#"{{"a": {}{}, "order": {{"id": "o3"}}}}"#, "[".repeat(150), "]".repeat(150)),
            ),
            plain("legacy-offset", r#"{"order": {"id": "\udfff"}}"#),
            plain("legacy-offset", "\u{feff}{\"order\": {\"id\": \"o3\"}}"),
        ],
        expect![[r#"
            OrderCreated order-created/2fad7efe2453b3ea4d200949660cd65e saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7
            missing-saga-id: no header ce_sagaid, and the record has no key (saga -)
            missing-saga-id: no header ce_sagaid, and the record has no key (saga -)
            invalid-key: no header ce_sagaid, and the key (1 bytes) is not text: set key = "bytes-hex", or saga-id to a JSON pointer or "header:NAME", in [topics.records."order-created"] (saga -)
            OrderCreated order-created/9f8a423c73fa0d7c25befbfa749b3e5c saga o2 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7
            OrderCreated legacy-offset/1-7 saga o3 at 2001-09-09T01:46:40.000Z application/json "{\"order\": {\"id\": \"o3\"}}" hops 0 [] from legacy-offset[1]@7
            OrderCreated legacy-offset/1-7 saga 42 at 2001-09-09T01:46:40.000Z application/json "{\"order\": {\"id\": 42}}" hops 0 [] from legacy-offset[1]@7
            missing-saga-id: the data has no string or integer at /order/id: at byte 17 is 1.5 (saga -)
            missing-saga-id: the data has no string or integer at /order/id: the string there is empty (saga -)
            missing-saga-id: the data has no string or integer at /order/id: there is nothing (saga -)
            OrderCreated legacy-offset/1-7 saga 18446744073709551616 at 2001-09-09T01:46:40.000Z application/json "{\"a\": \"\\ud800\", \"b\": 1e400, \"order\": {\"id\": 18446744073709551616}}" hops 0 [] from legacy-offset[1]@7
            OrderCreated legacy-offset/1-7 saga o3 at 2001-09-09T01:46:40.000Z application/json "{\"a\": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]], \"order\": {\"id\": \"o3\"}}" hops 0 [] from legacy-offset[1]@7
            missing-saga-id: the data has no string or integer at /order/id: at byte 17 is a string with a lone surrogate (half of a \u escape pair), which is not text (saga -)
            OrderCreated legacy-offset/1-7 saga o3 at 2001-09-09T01:46:40.000Z application/json "{\"order\": {\"id\": \"o3\"}}" hops 0 [] from legacy-offset[1]@7"#]],
    );
}

#[test]
fn plain_records_are_what_their_topic_says() {
    check(
        &[
            plain("order-created", r#"{"a": 1}"#),
            plain("payment-processed", r#"{"a": 1}"#),
            plain("saga-failed", "{}"),
            plain("shared", "{}"),
            plain("unheard", "{}"),
            plain("order-created", "order o1"),
            record("order-created", Some(b"o1"), Some(b"[]"), &[("content-type", b"text/plain"), ("tenant", b"t")]),
            plain("legacy", r#"{"order": {"id": "o1"}, "uuid": "u-1"}"#),
            plain("legacy", r#"{"order": {"id": "o1"}}"#),
            record("legacy-header", None, Some(br#"{"order": {"id": "o1"}}"#), &[("Message-Id", b"m-1")]),
            plain("legacy-header", r#"{"order": {"id": "o1"}}"#),
        ],
        expect![[r#"
            OrderCreated order-created/cb12f33999f75b98255348a2e0c1a2fe saga o1 at 2001-09-09T01:46:40.000Z application/json "{\"a\": 1}" hops 0 [] from order-created[1]@7
            PaymentProcessed payment-processed/3d3c0ccc41a2b15c7706da437a94f2b5 saga o1 at 2001-09-09T01:46:40.000Z application/json "{\"a\": 1}" hops 0 [] from payment-processed[1]@7
            SagaFailed saga-failed/8f431a9f8b0660f04e3878ae128753ad saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from saga-failed[1]@7
            unknown-kind: topic shared carries several kinds, and the record does not say which (["A", "B"]): send it as a CloudEvent, or set `kind` in [topics.records."shared"] (saga o1)
            unknown-kind: the record does not say its kind, and no plugin reads one from topic unheard: send it as a CloudEvent, or set `kind` in [topics.records."unheard"] (saga o1)
            invalid-json: the data is not JSON: expected value at line 1 column 1 (saga o1)
            OrderCreated order-created/0e9fa94539cf4296349bb7e4c951b419 saga o1 at 2001-09-09T01:46:40.000Z application/json "[]" hops 0 [("tenant", "t")] from order-created[1]@7
            OrderCreated legacy/u-1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{\"order\": {\"id\": \"o1\"}, \"uuid\": \"u-1\"}" hops 0 [] from legacy[1]@7
            missing-event-id: the data has no string or integer at /uuid: there is nothing (saga -)
            OrderCreated legacy-header/m-1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{\"order\": {\"id\": \"o1\"}}" hops 0 [] from legacy-header[1]@7
            missing-event-id: there is no header message-id (saga -)"#]],
    );
}

#[test]
fn a_producers_double_is_one_event() {
    let codec = codec();
    let key = |record: &Record| codec.decode(record).unwrap().event.key;
    let first = plain("order-created", r#"{"a": 1}"#);
    let mut again = first.clone();
    (again.offset, again.partition.number, again.timestamp_ms) = (99, -1, None);
    assert_eq!(key(&first), key(&again));
    let others = [
        plain("order-created", r#"{"a":1}"#),
        plain("payment-processed", r#"{"a": 1}"#),
        record("order-created", Some(b"o2"), Some(br#"{"a": 1}"#), &[]),
    ];
    assert!(others.iter().all(|other| key(other) != key(&first)));
}

#[test]
fn structured_mode() {
    let of = |value: &str| {
        let headers: [(&str, &[u8]); 2] =
            [("content-type", b"application/cloudevents+json; charset=UTF-8"), ("traceparent", b"00-ab")];
        record("order-created", Some(b"o1"), Some(value.as_bytes()), &headers)
    };
    check(
        &[
            of(r#"{"specversion":"1.0","id":"1","source":"web","type":"OrderCreated","data":{"b": 1.50, "a":[]}}"#),
            of(r#"{"specversion":"1.0","id":"1","source":"web","type":"T","sagaid":"o2","time":"2026-01-01T00:00:00Z",
                "datacontenttype":"text/plain","data":"caf\u00e9","colour":"red","traceparent":"00-cd","n":5,"ok":true,"no":null}"#),
            of(
                r#"{"specversion":"1.0","id":"1","source":"web","type":"T","datacontenttype":"image/png","data_base64":"AAEC"}"#,
            ),
            of(r#"{"specversion":"1.0","id":"1","source":"web","type":"T"}"#),
            of(r#"{"specversion":"1.0","id":"1","source":"web","data":{}}"#),
            of(r#"{"id":"1","source":"web","type":"T","data":{}}"#),
            of(r#"{"specversion":"1.0","id":1,"source":"web","type":"T","data":{}}"#),
            of(r#"{"specversion":"1.0","id":"1","source":"w","type":"T","data":{},"data_base64":"AA=="}"#),
            of(r#"{"specversion":"1.0","id":"1","source":"w","type":"T","data_base64":"%"}"#),
            of("[]"),
        ],
        expect![[r#"
            OrderCreated web/1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{\"b\": 1.50, \"a\":[]}" hops 0 [("traceparent", "00-ab")] from order-created[1]@7
            T web/1 saga o2 at 2026-01-01T00:00:00.000Z text/plain "café" hops 0 [("colour", "red"), ("n", "5"), ("ok", "true"), ("traceparent", "00-cd")] from order-created[1]@7
            T web/1 saga o1 at 2001-09-09T01:46:40.000Z image/png "\0\u{1}\u{2}" hops 0 [("traceparent", "00-ab")] from order-created[1]@7
            invalid-json: the data is empty (saga o1)
            invalid-header: a CloudEvent must have `type` (saga o1)
            invalid-header: CloudEvents version ""; only 1.0 is read (saga o1)
            invalid-json: the value is not a CloudEvent in JSON: `id` is 1, not a string (saga o1)
            invalid-json: both `data` and `data_base64` are there (saga o1)
            invalid-json: `data_base64` is not base64: Invalid symbol 37, offset 0. (saga o1)
            invalid-json: the value is not a CloudEvent in JSON: invalid type: sequence, expected a JSON object at line 1 column 0 (saga o1)"#]],
    );
}

fn emitted() -> Event {
    Event {
        key: EventKey::new("sagahost/shop/payment", "abc"),
        saga: SagaId::new("o1"),
        kind: Kind::new("PaymentProcessed"),
        time: Time(1_700_000_000_123),
        content_type: "application/json".into(),
        data: b"{\"paymentId\":1}".as_slice().into(),
        attributes: Vec::new(),
        hops: 2,
        origin: None,
        record_key: None,
    }
}

/// As a broker hands it back.
fn delivered(outgoing: Outgoing) -> Record {
    Record {
        partition: Partition { topic: outgoing.topic, number: 0 },
        offset: 5,
        timestamp_ms: Some(1),
        key: outgoing.key,
        value: outgoing.value,
        headers: outgoing.headers,
    }
}

fn shown(outgoing: &Outgoing) -> String {
    let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or("-".into(), |b| String::from_utf8_lossy(b).into_owned());
    let shown = |value: &Option<Vec<u8>>| match value {
        Some(value) => String::from_utf8_lossy(value).into_owned(),
        None => "(null)".to_owned(),
    };
    let headers = outgoing.headers.iter().map(|(name, value)| format!("\n{name}: {}", shown(value)));
    format!("{} {}={}{}", outgoing.topic, text(&outgoing.key), text(&outgoing.value), headers.collect::<String>())
}

#[test]
fn an_event_on_the_wire() {
    let attributes = [
        ("traceparent", "00-ab"),
        ("colour", "red"),
        ("x-region", "eu"),
        ("not_so.simple", "1"),
        ("id", "forged"),
        ("ce_id", "forged"),
        ("sagahost-handled", "forged"),
    ];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let codec = codec();
    let mut outgoing = codec.encode(&Event { attributes, ..emitted() });
    codec.mark_handled(&mut outgoing, "j/i/1", "abc");
    codec.mark_handled(&mut outgoing, "j/i/17.3", "abc");
    expect![[r#"
        payment-processed o1={"paymentId":1}
        ce_specversion: 1.0
        ce_id: abc
        ce_source: sagahost/shop/payment
        ce_type: PaymentProcessed
        ce_time: 2023-11-14T22:13:20.123Z
        ce_sagaid: o1
        content-type: application/json
        sagahost-hops: 2
        traceparent: 00-ab
        ce_colour: red
        x-region: eu
        sagahost-attribute-not_so.simple: 1
        sagahost-handled: j/i/17.3/abc"#]]
    .assert_eq(&shown(&outgoing));
}

#[test]
fn a_mark_counts_only_where_it_fits() {
    let codec = codec();
    let marked = |change: &dyn Fn(&mut Outgoing)| {
        let mut outgoing = codec.encode(&emitted());
        codec.mark_handled(&mut outgoing, "j/i/17.3", "abc");
        change(&mut outgoing);
        let record = delivered(outgoing);
        codec.handled(&record).map(|handled| format!("{handled:?}"))
    };
    let set = |outgoing: &mut Outgoing, name: &str, value: &[u8]| {
        outgoing.headers.retain(|(known, _)| known != name);
        outgoing.headers.push((name.to_owned(), Some(value.to_vec())));
    };
    assert_eq!(
        marked(&|_| {}).unwrap(),
        r#"Handled { journal: "j", incarnation: "i", batch: 17, generation: Some(3), event_id: "abc" }"#
    );
    assert_eq!(
        marked(&|outgoing| set(outgoing, "sagahost-handled", b"j/i/17/abc")).unwrap(),
        r#"Handled { journal: "j", incarnation: "i", batch: 17, generation: None, event_id: "abc" }"#,
        "of a host before generations"
    );
    // Somebody else copied the headers of what it read.
    assert_eq!(marked(&|outgoing| set(outgoing, "ce_id", b"abd")), None);
    assert_eq!(marked(&|outgoing| set(outgoing, "ce_source", b"payment-service")), None);
    assert_eq!(marked(&|outgoing| set(outgoing, "ce_source", b"sagahost/shopping/payment")), None);
    for mark in
        [&b""[..], b"j/i/17", b"j/i/x/abc", b"j/i/-1/abc", b"j/i/17./abc", b"j/i/17.3/abd", b"j/i/17/abc/", b"\xff"]
    {
        assert_eq!(marked(&|outgoing| set(outgoing, "sagahost-handled", mark)), None, "{mark:?}");
    }
    assert_eq!(marked(&|outgoing| outgoing.headers.extend(outgoing.headers.clone())), None);
    assert_eq!(marked(&|outgoing| outgoing.headers.clear()), None);
}

#[test]
fn a_dead_letter_keeps_the_record_and_adds_the_reason() {
    let codec = codec();
    let mut outgoing = codec.encode(&emitted());
    codec.mark_handled(&mut outgoing, "j/i/17.3", "abc");
    outgoing.headers.push(("sagahost-dlq-code".to_owned(), Some(b"of an earlier time".to_vec())));
    outgoing.headers.push(("cookie".to_owned(), Some(vec![0xff])));
    outgoing.headers.push(("null".to_owned(), None));
    let letter = StoredLetter {
        key: "sagahost/shop/payment/abc|inventory".to_owned(),
        saga: Some(SagaId::new("o1")),
        participant: Some(Participant::new("inventory")),
        kind: Some("PaymentProcessed".into()),
        code: "attempts-spent".to_owned(),
        detail: "é".repeat(3000),
        attempts: 5,
        plugin_version: "1.2.0".into(),
        at: Time(1_700_000_000_000),
        origin: Some((Partition::new("payment-processed", 3), 12)),
        record: outgoing,
        letter: None,
        closed: None,
    };
    // The bound of this codec is small: the detail alone is larger.
    let larger = Codec::new("shop", &TopicSettings::of_app("shop"), 100_000);
    let published = larger.dead_letter(&letter);
    let detail = |outgoing: &Outgoing| {
        outgoing
            .headers
            .iter()
            .find(|(name, _)| name == "sagahost-dlq-detail")
            .and_then(|(_, value)| Some(value.as_ref()?.len()))
    };
    assert_eq!(detail(&published), Some(4096));
    expect![[r#"
        shop.dead-letters o1={"paymentId":1}
        ce_specversion: 1.0
        ce_id: abc
        ce_source: sagahost/shop/payment
        ce_type: PaymentProcessed
        ce_time: 2023-11-14T22:13:20.123Z
        ce_sagaid: o1
        content-type: application/json
        sagahost-hops: 2
        cookie: �
        null: (null)
        sagahost-dlq-letter: sagahost/shop/payment/abc|inventory
        sagahost-dlq-code: attempts-spent
        sagahost-dlq-detail: ééé
        sagahost-dlq-time: 2023-11-14T22:13:20.000Z
        sagahost-dlq-topic: payment-processed
        sagahost-dlq-partition: 3
        sagahost-dlq-offset: 12
        sagahost-dlq-saga: o1
        sagahost-dlq-participant: inventory
        sagahost-dlq-attempts: 5
        sagahost-dlq-plugin-version: 1.2.0"#]]
    .assert_eq(&shown(&published).replace(&"é".repeat(2048), "ééé"));

    let short = StoredLetter { detail: "no".to_owned(), ..letter.clone() };
    let mut large = short.clone();
    large.record.value = Some(vec![b'x'; 900]);
    expect![[r#"
        shop.dead-letters o1=
        ce_specversion: 1.0
        ce_id: abc
        ce_source: sagahost/shop/payment
        ce_type: PaymentProcessed
        ce_time: 2023-11-14T22:13:20.123Z
        ce_sagaid: o1
        content-type: application/json
        sagahost-hops: 2
        cookie: �
        null: (null)
        sagahost-dlq-omitted: value
        sagahost-dlq-letter: sagahost/shop/payment/abc|inventory
        sagahost-dlq-code: attempts-spent
        sagahost-dlq-detail: no
        sagahost-dlq-time: 2023-11-14T22:13:20.000Z
        sagahost-dlq-topic: payment-processed
        sagahost-dlq-partition: 3
        sagahost-dlq-offset: 12
        sagahost-dlq-saga: o1
        sagahost-dlq-participant: inventory
        sagahost-dlq-attempts: 5
        sagahost-dlq-plugin-version: 1.2.0"#]]
    .assert_eq(&shown(&codec.dead_letter(&large)));
    large.record.headers.push(("large".to_owned(), Some(vec![b'x'; 900])));
    expect![[r#"
        shop.dead-letters -=
        sagahost-dlq-omitted: key, value and headers
        sagahost-dlq-letter: sagahost/shop/payment/abc|inventory
        sagahost-dlq-code: attempts-spent
        sagahost-dlq-detail: no
        sagahost-dlq-time: 2023-11-14T22:13:20.000Z
        sagahost-dlq-topic: payment-processed
        sagahost-dlq-partition: 3
        sagahost-dlq-offset: 12
        sagahost-dlq-saga: o1
        sagahost-dlq-participant: inventory
        sagahost-dlq-attempts: 5
        sagahost-dlq-plugin-version: 1.2.0"#]]
    .assert_eq(&shown(&codec.dead_letter(&large)));

    let mut event = codec.decode_letter(&short).unwrap().event;
    let came = event.origin.as_mut().and_then(|origin| origin.record.take()).unwrap();
    let headers = short.record.headers.iter().filter(|(name, _)| name != HANDLED);
    assert!(came.headers.iter().eq(headers), "should it fail again, it is kept as it came");
    let origin = Some(Origin { topic: "payment-processed".into(), partition: 3, offset: 12, record: None });
    assert_eq!(event, Event { origin, ..emitted() });
    let decoded = codec.decode_letter(&StoredLetter { origin: None, ..short }).unwrap();
    assert_eq!(decoded, Decoded { event: emitted(), formerly: None });
}

#[test]
fn topics_and_kinds() {
    let codec = codec();
    let topics = ["OrderCreated", "SagaFailed", "A", "NeverHeardOf"].map(|kind| codec.topic_of(&Kind::new(kind)));
    expect![[r#"["order-created", "saga-failed", "shared", "never-heard-of"]"#]].assert_eq(&format!("{topics:?}"));
    let kinds = ["order-created", "legacy", "shared", "never-heard-of"].map(|topic| codec.kind_of_topic(topic));
    expect![[r#"[Some("OrderCreated"), Some("OrderCreated"), None, None]"#]].assert_eq(&format!("{kinds:?}"));
}

/// Numbers from one seed.
pub struct Draw(pub u64);

impl Draw {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
    /// All 64 bits.
    pub fn number(&mut self) -> u64 {
        (0..4).fold(0, |number, _| number << 16 | self.below(1 << 16) as u64)
    }
    pub fn text(&mut self, alphabet: &str, length_max: usize) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..1 + self.below(length_max)).map(|_| letters[self.below(letters.len())]).collect()
    }
    fn event(&mut self) -> Event {
        const ANY: &str = "aZ0-_/. é日\u{0}\"\\|:";
        let mut attributes: Vec<(String, String)> = Vec::new();
        for _ in 0..self.below(6) {
            let name = self.text("ab0-_.", 6);
            if is_free(&name) && attributes.iter().all(|(known, _)| *known != name) {
                attributes.push((name, self.text(ANY, 12)));
            }
        }
        let json = self.below(2) == 0;
        let text = self.text(ANY, 30);
        let data = if json { serde_json::to_vec(&text).unwrap() } else { text.into_bytes() };
        Event {
            key: EventKey::new(self.text(ANY, 20), self.text(ANY, 20)),
            saga: SagaId::new(self.text(ANY, 20)),
            kind: Kind::new(self.text("AbC.é ", 10)),
            time: Time(self.below(1 << 30) as u64 * 100_000 + self.below(1000) as u64),
            content_type: if json { "application/json" } else { "text/plain" }.into(),
            data: data.into(),
            attributes,
            hops: self.below(5) as u32,
            origin: None,
            record_key: None,
        }
    }
}

fn is_free(name: &str) -> bool {
    !name.is_empty() && headers::is_attribute_name(name)
}

#[test]
fn what_is_encoded_is_decoded() {
    let codec = codec();
    for seed in 0..3000 {
        let event = Draw(seed).event();
        let record = delivered(codec.encode(&event));
        let mut decoded = codec.decode(&record).unwrap().event;
        assert_eq!(decoded.origin.take().unwrap().offset, 5);
        assert_eq!(decoded, event, "seed {seed}");
    }
}

#[test]
fn no_record_is_too_strange() {
    let codec = codec();
    let names = [
        "ce_id",
        "ce-source",
        "ce_source",
        "ce_type",
        "cloudEvents:type",
        "ce_specversion",
        "ce_time",
        "ce_sagaid",
        "content-type",
        "contentType",
        "ce-datacontenttype",
        "sagahost-hops",
    ];
    let values: [&[u8]; 9] =
        [b"", b"1.0", b"\xff\xfe", b"application/cloudevents+json", b"2026-01-01T00:00:00Z", b"7", b"{}", b"\"", b"%"];
    for seed in 0..5000 {
        let mut draw = Draw(seed);
        let mut some = || Some(values[draw.below(values.len())].to_vec()).filter(|_| draw.below(9) > 0);
        let (key, value) = (some(), some());
        let headers: Headers = (0..draw.below(10))
            .map(|_| {
                let value = Some(values[draw.below(values.len())].to_vec()).filter(|_| draw.below(9) > 0);
                (names[draw.below(names.len())].to_owned(), value)
            })
            .collect();
        let topic = ["order-created", "legacy", "shared", "legacy-offset"][draw.below(4)];
        let record = Record { key, value, headers, ..record(topic, None, None, &[]) };
        let first = codec.decode(&record);
        assert_eq!(first, codec.decode(&record), "seed {seed}");
    }
}
