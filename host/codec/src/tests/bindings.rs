//! CloudEvents in the spellings of all bindings, whole, in part and in contradiction; and without any.

use super::*;

/// A CloudEvent of kind OrderRefused and saga `other`, spelled with this prefix, whose key is `o1`.
fn spelled(prefix: &str) -> Record {
    let attributes = [
        ("specversion", "1.0"),
        ("id", "e1"),
        ("source", "web"),
        ("type", "OrderRefused"),
        ("sagaid", "other"),
        ("subject", "s"),
    ];
    let named = attributes.map(|(name, value)| (format!("{prefix}{name}"), value));
    with(&named.each_ref().map(|(name, value)| (name.as_str(), value.as_bytes())))
}

fn with(headers: &[(&str, &[u8])]) -> Record {
    record("order-created", Some(b"o1"), Some(b"{}"), headers)
}

fn plus(mut record: Record, header: &str, value: &[u8]) -> Record {
    record.headers.push((header.to_owned(), Some(value.to_vec())));
    record
}

#[test]
fn one_event_in_the_spelling_of_each_binding() {
    check(
        &["ce_", "ce-", "cloudEvents:", "cloudEvents_", "CE-", "CloudEvents:", "CE_"].map(spelled),
        expect![[r#"
        OrderRefused web/e1 saga other at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("subject", "s")] from order-created[1]@7
        OrderRefused web/e1 saga other at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("subject", "s")] from order-created[1]@7, formerly order-created/2fad7efe2453b3ea4d200949660cd65e of saga o1
        OrderRefused web/e1 saga other at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("subject", "s")] from order-created[1]@7, formerly order-created/2fad7efe2453b3ea4d200949660cd65e of saga o1
        OrderRefused web/e1 saga other at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("subject", "s")] from order-created[1]@7, formerly order-created/2fad7efe2453b3ea4d200949660cd65e of saga o1
        OrderRefused web/e1 saga other at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("subject", "s")] from order-created[1]@7, formerly order-created/2fad7efe2453b3ea4d200949660cd65e of saga o1
        OrderRefused web/e1 saga other at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("subject", "s")] from order-created[1]@7, formerly order-created/2fad7efe2453b3ea4d200949660cd65e of saga o1
        OrderRefused web/e1 saga other at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("subject", "s")] from order-created[1]@7"#]],
    );
}

#[test]
fn spellings_may_be_mixed_and_must_agree() {
    check(
        &[
            plus(spelled("ce_"), "ce-id", b"e1"),
            plus(spelled("ce_"), "ce-id", b"e2"),
            plus(spelled("ce-"), "cloudEvents:type", b"OrderCreated"),
            plus(spelled("cloudEvents_"), "CE_SAGAID", b"o1"),
            plus(spelled("ce_"), "ce-subject", b"t"),
            plus(spelled("ce_"), "ce_subject", b"t"),
            plus(spelled("ce_"), "subject", b"t"),
            plus(plus(spelled("ce_"), "ce-traceparent", b"00-a"), "ce_traceparent", b"00-b"),
            plus(spelled("ce-"), "ce-colour", b"Euro%20%E2%82%AC"),
            plus(spelled("ce-"), "ce-colour", b"50%"),
            plus(spelled("ce_"), "ce_colour", b"50%"),
        ],
        expect![[r#"
            OrderRefused web/e1 saga other at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("subject", "s")] from order-created[1]@7
            invalid-header: ce_id and ce-id disagree: they are spellings of one attribute and must have one value (saga o1)
            invalid-header: ce-type and cloudEvents:type disagree: they are spellings of one attribute and must have one value (saga o1)
            invalid-header: cloudEvents_sagaid and CE_SAGAID disagree: they are spellings of one attribute and must have one value (saga o1)
            invalid-header: ce_subject and ce-subject disagree: they are spellings of one attribute and must have one value (saga o1)
            OrderRefused web/e1 saga other at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("subject", "t")] from order-created[1]@7
            OrderRefused web/e1 saga other at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("subject", "s")] from order-created[1]@7
            OrderRefused web/e1 saga other at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("subject", "s"), ("traceparent", "00-b")] from order-created[1]@7
            OrderRefused web/e1 saga other at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("subject", "s"), ("colour", "Euro €")] from order-created[1]@7, formerly order-created/2fad7efe2453b3ea4d200949660cd65e of saga o1
            invalid-header: ce-colour has a % that is not followed by two hexadecimal digits (saga o1)
            OrderRefused web/e1 saga other at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("subject", "s"), ("colour", "50%")] from order-created[1]@7"#]],
    );
}

#[test]
fn a_part_of_a_cloud_event_is_refused_by_name() {
    let parts: [(&str, &[u8]); 8] = [
        ("ce-type", b"OrderRefused"),
        ("cloudEvents:type", b"OrderRefused"),
        ("cloudEvents_id", b"1"),
        ("CE_Source", b"web"),
        ("ce-specversion", b"1.0"),
        ("ce_subject", b"s"),
        ("ce-anything", b"x"),
        ("ce_traceparent", b"00-ab"),
    ];
    let mut records: Vec<Record> = parts.iter().map(|part| with(&[*part])).collect();
    records.push(with(&[("ce-type", b"OrderRefused"), ("ce-sagaid", b"other")]));
    check(
        &records,
        expect![[r#"
        invalid-header: the record has ce-type, but not ce_id, ce_source, ce_specversion: a CloudEvent must have all four of ce_id, ce_source, ce_type and ce_specversion, and a plain record no header of CloudEvents but ce_sagaid, ce_time and ce_datacontenttype (saga o1)
        invalid-header: the record has cloudEvents:type, but not ce_id, ce_source, ce_specversion: a CloudEvent must have all four of ce_id, ce_source, ce_type and ce_specversion, and a plain record no header of CloudEvents but ce_sagaid, ce_time and ce_datacontenttype (saga o1)
        invalid-header: the record has cloudEvents_id, but not ce_source, ce_type, ce_specversion: a CloudEvent must have all four of ce_id, ce_source, ce_type and ce_specversion, and a plain record no header of CloudEvents but ce_sagaid, ce_time and ce_datacontenttype (saga o1)
        invalid-header: the record has CE_Source, but not ce_id, ce_type, ce_specversion: a CloudEvent must have all four of ce_id, ce_source, ce_type and ce_specversion, and a plain record no header of CloudEvents but ce_sagaid, ce_time and ce_datacontenttype (saga o1)
        invalid-header: the record has ce-specversion, but not ce_id, ce_source, ce_type: a CloudEvent must have all four of ce_id, ce_source, ce_type and ce_specversion, and a plain record no header of CloudEvents but ce_sagaid, ce_time and ce_datacontenttype (saga o1)
        invalid-header: the record has ce_subject, but not ce_id, ce_source, ce_type, ce_specversion: a CloudEvent must have all four of ce_id, ce_source, ce_type and ce_specversion, and a plain record no header of CloudEvents but ce_sagaid, ce_time and ce_datacontenttype (saga o1)
        invalid-header: the record has ce-anything, but not ce_id, ce_source, ce_type, ce_specversion: a CloudEvent must have all four of ce_id, ce_source, ce_type and ce_specversion, and a plain record no header of CloudEvents but ce_sagaid, ce_time and ce_datacontenttype (saga o1)
        OrderCreated order-created/2fad7efe2453b3ea4d200949660cd65e saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("traceparent", "00-ab")] from order-created[1]@7
        invalid-header: the record has ce-type, but not ce_id, ce_source, ce_specversion: a CloudEvent must have all four of ce_id, ce_source, ce_type and ce_specversion, and a plain record no header of CloudEvents but ce_sagaid, ce_time and ce_datacontenttype (saga other)"#]],
    );
}

#[test]
fn a_plain_record_may_say_its_saga_time_and_content_type() {
    check(
        &[
            with(&[("ce-sagaid", b"other")]),
            with(&[("cloudEvents:sagaid", b"other"), ("ce_time", b"2026-01-01T00:00:00Z")]),
            with(&[("ce-time", b"2026-01-01T00:00:00Z"), ("ce-datacontenttype", b"application/json; v=1")]),
            // The configuration names the header.
            record("legacy-http", None, Some(br#"{"order": {"id": "o1"}}"#), &[("ce-id", b"m-1")]),
            record("legacy-http", None, Some(br#"{"order": {"id": "o1"}}"#), &[("ce-id", b"m-1"), ("ce-type", b"T")]),
        ],
        expect![[r#"
            OrderCreated order-created/381ae9f29bf519ff94f016f384a94ec2 saga other at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7, formerly order-created/2fad7efe2453b3ea4d200949660cd65e of saga o1
            OrderCreated order-created/381ae9f29bf519ff94f016f384a94ec2 saga other at 2026-01-01T00:00:00.000Z application/json "{}" hops 0 [] from order-created[1]@7, formerly order-created/2fad7efe2453b3ea4d200949660cd65e of saga o1
            OrderCreated order-created/2fad7efe2453b3ea4d200949660cd65e saga o1 at 2026-01-01T00:00:00.000Z application/json; v=1 "{}" hops 0 [] from order-created[1]@7
            OrderCreated legacy-http/m-1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{\"order\": {\"id\": \"o1\"}}" hops 0 [] from legacy-http[1]@7
            invalid-header: the record has ce-type, but not ce_source, ce_specversion: a CloudEvent must have all four of ce_id, ce_source, ce_type and ce_specversion, and a plain record no header of CloudEvents but ce_sagaid, ce_time and ce_datacontenttype (saga -)"#]],
    );
}

#[test]
fn content_types_in_all_spellings() {
    let of = |headers: &[(&str, &[u8])], value: &str| {
        record("order-created", Some(b"o1"), Some(value.as_bytes()), &[&ENVELOPE[..], headers].concat())
    };
    let structured = r#"{"specversion":"1.0","id":"1","source":"web","type":"T","data":{}}"#;
    let plain = |name: &str, value: &str| {
        record("order-created", Some(b"o1"), Some(structured.as_bytes()), &[(name, value.as_bytes())])
    };
    check(
        &[
            of(&[("contentType", b"text/plain")], "hello"),
            of(&[("contentType", b"\"text/plain\"")], "hello"),
            of(&[("Content-Type", b" \"application/json; charset=utf-8\" ")], "hello"),
            of(&[("ce_datacontenttype", b"text/plain")], "hello"),
            of(&[("ce-datacontenttype", b"text/plain"), ("content-type", b"Text/Plain; charset=utf-8")], "hello"),
            of(&[("ce-datacontenttype", b"text/plain"), ("content-type", b"application/json")], "hello"),
            of(&[("contentType", b"text/plain"), ("content-type", b"application/json")], "hello"),
            of(&[("content-type", b"")], "hello"),
            plain("contentType", "\"application/cloudevents+json\""),
            plain("Content-Type", "\"application/cloudevents+json; charset=utf-8\""),
            plain("contentType", "application/cloudevents-batch+json"),
            plain("ce_datacontenttype", "application/cloudevents+json"),
        ],
        expect![[r#"
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z text/plain "hello" hops 0 [] from order-created[1]@7
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z text/plain "hello" hops 0 [] from order-created[1]@7
            invalid-json: the data is not JSON: expected value at line 1 column 1 (saga o1)
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z text/plain "hello" hops 0 [] from order-created[1]@7
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z Text/Plain; charset=utf-8 "hello" hops 0 [] from order-created[1]@7
            invalid-header: content-type and ce-datacontenttype disagree: they are spellings of one attribute and must have one value (saga o1)
            invalid-header: contentType and content-type disagree: they are spellings of one attribute and must have one value (saga o1)
            invalid-json: the data is not JSON: expected value at line 1 column 1 (saga o1)
            T web/1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7, formerly order-created/a4078e938335eedd9329a962d5ab5051 of saga o1
            T web/1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7, formerly order-created/a4078e938335eedd9329a962d5ab5051 of saga o1
            unsupported-mode: the content type is application/cloudevents-batch+json; a record carries one event: send each event of the batch as a record of its own (saga o1)
            T web/1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7, formerly order-created/a4078e938335eedd9329a962d5ab5051 of saga o1"#]],
    );
}

#[test]
fn a_structured_event_is_known_by_its_specversion() {
    let of = |value: &str| plain("order-created", value);
    let event = r#"{"specversion":"1.0","id":"1","source":"web","type":"T","sagaid":"o2","data":{"a":1}}"#;
    let json = |value: &str| {
        record("order-created", Some(b"o1"), Some(value.as_bytes()), &[("content-type", b"application/json")])
    };
    check(
        &[
            of(event),
            json(event),
            of(&format!("\u{feff} {event}")),
            of(r#"{"specversion":"1.0","id":"1","type":"T","data":{}}"#),
            of(r#"{"specversion":1.0,"id":"1","source":"web","type":"T","data":{}}"#),
            of(&format!("[{event}]")),
            of(r#"{"about":{"specversion":"1.0"}}"#),
            of(r#"["specversion"]"#),
            plain("legacy-offset", &event.replace("{\"a\":1}", "1, \"order\": {\"id\": \"o3\"}")),
            plain(
                "legacy-structured",
                &event.replace("\"sagaid\":\"o2\",", "").replace("{\"a\":1}", r#"{"order":{"id":7}}"#),
            ),
            // A part of it in headers as well, for those who route by it.
            record("order-created", Some(b"o1"), Some(event.as_bytes()), &[("ce_type", b"T")]),
            record("order-created", Some(b"o1"), Some(event.as_bytes()), &[("ce_type", b"U")]),
        ],
        expect![[r#"
            T web/1 saga o2 at 2001-09-09T01:46:40.000Z application/json "{\"a\":1}" hops 0 [] from order-created[1]@7, formerly order-created/ca01250b2a7dcd0408c19d77b1588f76 of saga o1
            T web/1 saga o2 at 2001-09-09T01:46:40.000Z application/json "{\"a\":1}" hops 0 [] from order-created[1]@7, formerly order-created/ca01250b2a7dcd0408c19d77b1588f76 of saga o1
            T web/1 saga o2 at 2001-09-09T01:46:40.000Z application/json "{\"a\":1}" hops 0 [] from order-created[1]@7, formerly order-created/e075f3a1452658c0a9abcc0c7e5d20f9 of saga o1
            invalid-header: a CloudEvent must have `source` (it is read as a CloudEvent because it has `specversion`; if it is a plain record, set `structured = false` in [topics.records."order-created"]) (saga o1)
            invalid-json: the value is not a CloudEvent in JSON: `specversion` is 1.0, not a string (it is read as a CloudEvent because it has `specversion`; if it is a plain record, set `structured = false` in [topics.records."order-created"]) (saga o1)
            unsupported-mode: the value is a batch of CloudEvents; a record carries one event: send each as a record of its own (saga o1)
            OrderCreated order-created/451f5bdc893b9b9dad6e40abeaf37473 saga o1 at 2001-09-09T01:46:40.000Z application/json "{\"about\":{\"specversion\":\"1.0\"}}" hops 0 [] from order-created[1]@7
            OrderCreated order-created/0317b30dd784fd165350caac8aee3853 saga o1 at 2001-09-09T01:46:40.000Z application/json "[\"specversion\"]" hops 0 [] from order-created[1]@7
            OrderCreated legacy-offset/1-7 saga o3 at 2001-09-09T01:46:40.000Z application/json "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"web\",\"type\":\"T\",\"sagaid\":\"o2\",\"data\":1, \"order\": {\"id\": \"o3\"}}" hops 0 [] from legacy-offset[1]@7
            T web/1 saga 7 at 2001-09-09T01:46:40.000Z application/json "{\"order\":{\"id\":7}}" hops 0 [] from legacy-structured[1]@7
            T web/1 saga o2 at 2001-09-09T01:46:40.000Z application/json "{\"a\":1}" hops 0 [] from order-created[1]@7
            invalid-header: ce_type and `type` in the value disagree: they are spellings of one attribute and must have one value (it is read as a CloudEvent because it has `specversion`; if it is a plain record, set `structured = false` in [topics.records."order-created"]) (saga o1)"#]],
    );
}

#[test]
fn attributes_of_all_types() {
    let of = |members: &str| {
        let value = format!(r#"{{"specversion":"1.0","id":"1","source":"web","type":"T","data":{{}},{members}}}"#);
        record(
            "order-created",
            Some(b"o1"),
            Some(value.as_bytes()),
            &[("content-type", b"application/cloudevents+json")],
        )
    };
    check(
        &[
            of(r#""sagaid":1016"#),
            of(r#""sagaid":true"#),
            of(r#""sagaid":99999999999999999999999"#),
            of(r#""sagaid":null"#),
            of(r#""sagaid":1.5"#),
            of(r#""sagaid":["1"]"#),
            of(r#""sagaid":"\ud800""#),
            of(r#""n":99999999999999999999999,"f":1.50,"h":1e400,"b":false,"o":{},"\ud800":1"#),
            of(r#""colour":"\udfff""#),
            of(r#""time":5"#),
            of(r#""id":"2""#),
            of(r#""n":1,"n":2"#),
        ],
        expect![[r#"
            T web/1 saga 1016 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7
            T web/1 saga true at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7
            T web/1 saga 99999999999999999999999 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7
            T web/1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7
            invalid-json: the value is not a CloudEvent in JSON: `sagaid` is 1.5; it must be a string, an integer or a boolean (saga o1)
            invalid-json: the value is not a CloudEvent in JSON: `sagaid` is an array; it must be a string, an integer or a boolean (saga o1)
            invalid-json: the value is not a CloudEvent in JSON: `sagaid` is a string with a lone surrogate (half of a \u escape pair), which is not text; it must be a string, an integer or a boolean (saga o1)
            T web/1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("b", "false"), ("f", "1.5"), ("h", "1e400"), ("n", "99999999999999999999999")] from order-created[1]@7
            invalid-json: the value is not a CloudEvent in JSON: `colour` is a string with a lone surrogate (half of a \u escape pair), which is not text (saga o1)
            invalid-json: the value is not a CloudEvent in JSON: `time` is 5, not a string (saga o1)
            invalid-json: the value is not a CloudEvent in JSON: `id` appears twice (saga o1)
            T web/1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [("n", "2")] from order-created[1]@7"#]],
    );
}

#[test]
fn a_null_header_is_absent() {
    let null = |record: Record, name: &str| {
        let mut record = record;
        record.headers.retain(|(known, _)| known != name);
        record.headers.push((name.to_owned(), None));
        record
    };
    let message = record("legacy-header", None, Some(br#"{"order": {"id": "o1"}}"#), &[]);
    check(
        &[
            null(event(&[]), "ce_time"),
            null(event(&[]), "ce_sagaid"),
            null(record("order-created", Some(b"o1"), Some(b"hello"), &ENVELOPE), "content-type"),
            null(event(&[("ce_colour", b"red")]), "ce_colour"),
            null(event(&[]), "sagahost-hops"),
            null(event(&[]), "ce_id"),
            null(with(&[]), "ce_type"),
            null(with(&[]), "tenant"),
            null(message, "message-id"),
        ],
        expect![[r#"
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7
            invalid-json: the data is not JSON: expected value at line 1 column 1 (saga o1)
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7
            OrderCreated web/e1 saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7
            invalid-header: the record has ce_source, ce_type, ce_specversion, but not ce_id: a CloudEvent must have all four of ce_id, ce_source, ce_type and ce_specversion, and a plain record no header of CloudEvents but ce_sagaid, ce_time and ce_datacontenttype (saga o1)
            OrderCreated order-created/2fad7efe2453b3ea4d200949660cd65e saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7
            OrderCreated order-created/2fad7efe2453b3ea4d200949660cd65e saga o1 at 2001-09-09T01:46:40.000Z application/json "{}" hops 0 [] from order-created[1]@7
            missing-event-id: there is no header message-id (saga -)"#]],
    );
    let own = delivered(codec().encode(&emitted()));
    assert_eq!(codec().handled(&null(own, HANDLED)), None);
}

/// What a host that read no spelling but Kafka's made of a record is what `formerly` says.
#[test]
fn what_has_another_identity_today_says_which_it_had() {
    let codec = codec();
    let formerly = |record: &Record| codec.decode(record).unwrap().formerly.map(|was| (was.saga, was.key));
    // Read as plain: the same bytes without the headers that were not read.
    let plainly = |topic: &str, value: &[u8]| {
        let event = codec.decode(&record(topic, Some(b"o1"), Some(value), &[])).unwrap().event;
        Some((event.saga, event.key))
    };
    for prefix in ["ce-", "cloudEvents:", "cloudEvents_"] {
        assert_eq!(formerly(&spelled(prefix)), plainly("order-created", b"{}"), "{prefix}");
        // An event of its own all the same, but in the saga of its key.
        let mut saga_only = event(&[]);
        saga_only.headers.push((format!("{prefix}sagaid"), Some(b"other".to_vec())));
        let was = Some((SagaId::new("o1"), EventKey::new("web", "e1")));
        assert_eq!(formerly(&saga_only), was, "{prefix}");
    }
    assert_eq!(formerly(&spelled("ce_")), None);
    // The kind is told by nothing else: such a record was refused.
    assert_eq!(formerly(&Record { partition: Partition::new("unheard", 0), ..spelled("ce-") }), None);
}
