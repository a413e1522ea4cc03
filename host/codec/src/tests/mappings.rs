//! What `[topics.records.TOPIC]` says of plain records: kinds and sagas from headers, envelopes, keys that are not text.

use super::*;

/// As a relay of an outbox table writes it: each record of `outbox` says its kind, and has its data in an envelope.
fn mappings() -> TopicSettings {
    let created = || Some(KindFrom::Fixed(Kind::new("OrderCreated")));
    let at = |place: &str| Locator::parse(place).unwrap();
    let mut topics = TopicSettings::of_app("shop");
    topics.of_kind = ["OrderCreated", "PaymentProcessed"].map(|kind| (Kind::new(kind), "outbox".into())).into();
    topics.records = [
        (
            "outbox",
            RecordMapping {
                kind: Some(KindFrom::At(at("header:eventType"))),
                event_id: EventIdFrom::Header("id".to_owned()),
                data: Some("/payload".to_owned()),
                ..RecordMapping::default()
            },
        ),
        (
            "by-pointer",
            RecordMapping {
                kind: Some(KindFrom::At(at("/type"))),
                saga_id: Some(at("header:aggregate")),
                ..RecordMapping::default()
            },
        ),
        (
            "inner",
            RecordMapping {
                kind: created(),
                saga_id: Some(at("/payload/orderId")),
                data: Some("/payload".to_owned()),
                ..RecordMapping::default()
            },
        ),
        (
            "text",
            RecordMapping {
                kind: created(),
                saga_id: Some(at("/orderId")),
                data: Some(String::new()),
                ..RecordMapping::default()
            },
        ),
        ("named", RecordMapping { kind: created(), ..RecordMapping::default() }),
        ("longs", RecordMapping { kind: created(), key: KeyForm::Long, ..RecordMapping::default() }),
        ("bytes", RecordMapping { kind: created(), key: KeyForm::BytesHex, ..RecordMapping::default() }),
    ]
    .map(|(topic, mapping)| (topic.into(), mapping))
    .into();
    topics
}

fn outbox() -> Codec {
    let kinds = ["OrderCreated", "PaymentProcessed"].map(Kind::new);
    Codec::new("shop", &mappings(), 1000).with_kinds(&kinds)
}

/// What a record becomes: kind, id, saga and data; or why it does not.
fn read(record: &Record) -> String {
    match outbox().decode(record) {
        Ok(Decoded { event, .. }) => {
            let data = String::from_utf8_lossy(&event.data);
            format!("{} {} of saga {}: {data}", event.kind, event.key.id, event.saga)
        }
        Err(why) => format!("{}: {} (saga {:?})", why.code, why.detail, why.saga.as_ref().map(SagaId::as_str)),
    }
}

#[test]
fn an_outbox_relay_is_read_with_kind_and_id_from_headers() {
    let headers: [(&str, &[u8]); 2] = [("eventType", b"PaymentProcessed"), ("id", b"e-1")];
    let bare = |value: &str| record("outbox", Some(b"o-1"), Some(value.as_bytes()), &headers);
    for value in [
        r#"{"schema": {"type": "string"}, "payload": "{\"orderId\": \"o-1\"}"}"#,
        r#"{"payload": {"orderId": "o-1"}, "beside": 1e999}"#,
    ] {
        assert_eq!(read(&bare(value)), r#"PaymentProcessed e-1 of saga o-1: {"orderId": "o-1"}"#);
    }
    let by_pointer = record("by-pointer", None, Some(br#"{"type": "OrderCreated"}"#), &[("Aggregate", b"o-2")]);
    assert!(read(&by_pointer).ends_with(r#"of saga o-2: {"type": "OrderCreated"}"#), "{}", read(&by_pointer));
}

/// A pointer continues into data that is the text of a string.
#[test]
fn pointers_begin_at_the_value_and_reach_into_its_data() {
    for (topic, value) in [
        ("inner", r#"{"payload": {"orderId": 7}}"#),
        ("inner", r#"{"payload": "{\"orderId\": 7}"}"#),
        ("text", r#""{\"orderId\": 7}""#),
    ] {
        let read = read(&plain(topic, value));
        assert!(read.ends_with(r#"of saga 7: {"orderId": 7}"#), "{topic}: {read}");
    }
}

#[test]
fn a_record_that_lacks_what_its_mapping_asks_for_is_told_what_that_is() {
    let headers = |kind: &'static [u8]| -> [(&'static str, &'static [u8]); 2] { [("eventType", kind), ("id", b"e-1")] };
    let of = |kind, value: &str| record("outbox", Some(b"o-1"), Some(value.as_bytes()), &headers(kind));
    let said = [
        read(&plain("outbox", r#"{"payload": {}}"#)),
        read(&of(b"", r#"{"payload": {}}"#)),
        read(&of(b"order created", r#"{"payload": {}}"#)),
        read(&of(b"OrderCreated", "{}")),
        read(&of(b"OrderCreated", r#"{"payload": null}"#)),
        read(&of(b"OrderCreated", r#"{"payload": "text"}"#)),
        read(&plain("by-pointer", r#"{"type": ["A"]}"#)),
        read(&plain("by-pointer", r#"{"type": "A"}"#)),
    ];
    expect![[r#"
        unknown-kind: the record does not say its kind: there is no header eventtype; kind = "header:eventtype" in [topics.records."outbox"] asks for it (saga Some("o1"))
        unknown-kind: the record does not say its kind: the header eventtype is empty; kind = "header:eventtype" in [topics.records."outbox"] asks for it (saga Some("o-1"))
        unknown-kind: the record does not say its kind: "order created" at header:eventtype is not a kind (letters, digits and . _ - / : only); kind = "header:eventtype" in [topics.records."outbox"] asks for it (saga Some("o-1"))
        invalid-json: data = "/payload": there is nothing in the value (saga Some("o-1"))
        invalid-json: data = "/payload": there is null (saga Some("o-1"))
        invalid-json: data = "/payload": the text of the string there: the data is not JSON: expected ident at line 1 column 2 (saga Some("o-1"))
        unknown-kind: the record does not say its kind: the data has no string or integer at /type: at byte 9 is an array; kind = "/type" in [topics.records."by-pointer"] asks for it (saga None)
        missing-saga-id: there is no header aggregate (saga None)"#]].assert_eq(&said.join("\n"));
}

#[test]
fn a_key_that_is_not_text_is_decoded_as_configured_and_published_as_it_came() {
    let key = 42_i64.to_be_bytes();
    let came = record("longs", Some(&key), Some(b"{}"), &[]);
    let Decoded { event, formerly } = outbox().decode(&came).unwrap();
    assert_eq!((event.saga.as_str(), event.record_key.as_deref()), ("42", Some(&key[..])));
    // A host that took every key for text knew the record under another name.
    assert_eq!(formerly.unwrap().saga.as_str(), "\0\0\0\0\0\0\0*");
    // In whichever topic the answer goes.
    let answer = Event { kind: Kind::new("Unmapped"), ..event };
    assert_eq!(outbox().encode(&answer).key.as_deref(), Some(&key[..]));
    // And our own record is known by its key again.
    let published = outbox().encode(&answer);
    let back = record("longs", published.key.as_deref(), Some(b"{}"), &[]);
    assert_eq!(outbox().decode(&back).unwrap().event.saga.as_str(), "42");
}

/// Another saga's key is made in the form of the topic; a saga id that has none keeps its text.
#[test]
fn the_key_of_another_saga_has_the_form_of_the_topic() {
    let mut topics = TopicSettings::of_app("shop");
    let longs = RecordMapping { key: KeyForm::Long, ..RecordMapping::default() };
    topics.records = BTreeMap::from([("order-created".into(), longs)]);
    let codec = Codec::new("shop", &topics, 1000);
    for (saga, key) in [("7", &7_i64.to_be_bytes()[..]), ("o-7", b"o-7")] {
        let event = Event { saga: SagaId::new(saga), kind: Kind::new("OrderCreated"), ..emitted() };
        assert_eq!(codec.encode(&event).key.as_deref(), Some(key), "{saga}");
    }
}

#[test]
fn a_key_that_is_not_text_where_text_is_expected_names_the_setting() {
    let of = |key: &[u8]| read(&record("named", Some(key), Some(b"{}"), &[]));
    let said = [of(&42_i64.to_be_bytes()), of(b"\xff\xfe"), of(b"\0\0\0\0\x07\x06o-1abc")];
    expect![[r#"
        invalid-key: no header ce_sagaid, and the key (8 bytes) is not text: if it is a long, set key = "long" in [topics.records."named"] (saga None)
        invalid-key: no header ce_sagaid, and the key (2 bytes) is not text: set key = "bytes-hex", or saga-id to a JSON pointer or "header:NAME", in [topics.records."named"] (saga None)
        invalid-key: no header ce_sagaid, and the key (12 bytes) is not text: it looks like a key of a schema registry, which is not read: set saga-id to a JSON pointer or "header:NAME" in [topics.records."named"], or key = "bytes-hex" (saga None)"#]]
    .assert_eq(&said.join("\n"));
    // Where the record says its saga itself, its key is nobody's business.
    let key = 42_i64.to_be_bytes();
    let said = record("named", Some(&key), Some(b"{}"), &[("ce_sagaid", b"o-1")]);
    assert!(read(&said).ends_with("of saga o-1: {}"), "{}", read(&said));
    let wrong = read(&record("longs", Some(b"o-1"), Some(b"{}"), &[]));
    assert!(wrong.starts_with("invalid-key: the key has 3 bytes, and key = \"long\" needs 8"), "{wrong}");
    assert!(read(&record("bytes", Some(b"\0\xff"), Some(b"{}"), &[])).contains("of saga 00ff:"));
}
