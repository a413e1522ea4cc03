//! Each row of what an answer means, in both directions; and the bytes of a request.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use expect_test::{Expect, expect};
use http::{Response, Uri};
use hyper::body::Bytes;
use sagahost_manifest::{Limits, Manifest};
use sagahost_net::{Failed, Secret, SentHeader};
use sagahost_saga::{
    event::Event,
    id::{Direction, EventKey, Kind, SagaId, Time, idempotency_key},
    outcome::{Call, Cause, End, Evidence, Outcome, Runs, Saved, Undo, UndoCall, UndoOutcome},
};
use serde_json::json;

use crate::{
    answer::{Meaning, Reach, Terms, of_failure, of_response},
    manifests::faults,
    request::{Unasked, request},
    settings::RemoteSettings,
};

fn event(data: &[u8]) -> Event {
    Event {
        key: EventKey::new("/web", "o-1 ü"),
        saga: SagaId::new("o-1"),
        kind: Kind::new("OrderCreated"),
        time: Time(1_700_000_000_123),
        content_type: "application/json".into(),
        data: Arc::from(data),
        attributes: vec![
            ("traceparent".into(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
            ("tenant".into(), "blue \"north\" 100%".into()),
            ("X-Header".into(), "no attribute of CloudEvents".into()),
        ],
        hops: 0,
        origin: None,
        record_key: None,
    }
}

fn call(direction: Direction) -> Call {
    let undo = || UndoCall {
        evidence: Evidence::Done(Saved { data: Arc::from(*br#"{"paymentId":"p-1"}"#), format: 1 }),
        cause: Cause {
            code: "rejected".into(),
            detail: "no apples".into(),
            participant: Some("inventory".into()),
            event_kind: Some("PaymentProcessed".into()),
        },
        plugin_version: "1.0.0".into(),
    };
    Call {
        participant: "payment".into(),
        step_id: "payment:/web/o-1".into(),
        direction,
        ordinal: 0,
        attempt: 3,
        idempotency_key: idempotency_key(&SagaId::new("o-1"), "payment:/web/o-1", direction, 0),
        event: event(br#"{"orderId": "o-1"}"#),
        state: None,
        undo: (direction == Direction::Undo).then(undo),
        now: Time(1_700_000_001_000),
        runs: Runs::Outside,
        send: 0,
    }
}

fn manifest(emits: &[&str]) -> Manifest {
    let subscription = json!({ "kind": "OrderCreated", "undo-bytes-max": 40 });
    let json = json!({ "name": "payment", "version": "1.0.0", "subscriptions": [subscription], "emits": emits });
    Manifest::of_service(json.to_string().as_bytes()).unwrap()
}

fn limits() -> Arc<Limits> {
    Arc::new(Limits { payload_bytes_max: 1_000, ..Limits::default() })
}

fn terms<'t>(manifest: &'t Manifest, rejected: &'t [u16], limits: &'t Arc<Limits>) -> Terms<'t> {
    Terms { manifest, rejected, limits }
}

fn settings() -> RemoteSettings {
    let header = |name: &'static str, value: &str, shown: &str| SentHeader {
        name: http::HeaderName::from_static(name),
        value: Secret::new(value),
        shown: shown.into(),
    };
    RemoteSettings {
        manifest: "payment.json".into(),
        url: Uri::from_static("https://pay.internal/payments"),
        undo_url: Some(Uri::from_static("https://pay.internal/payments/cancel")),
        timeout: Duration::from_secs(10),
        calls_at_once_max: 64,
        rejected: Vec::new(),
        headers: vec![header("authorization", "Bearer s3cret", "(env PAY_TOKEN)"), header("x-shop", "eu", "eu")],
    }
}

fn told(call: &Call) -> String {
    let request = request(call, &settings()).unwrap();
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text += &format!("{name}: {value:?}\n");
    }
    text + std::str::from_utf8(request.body()).unwrap() + "\n"
}

#[test]
fn a_step_is_its_events_data_with_the_context_in_headers() {
    expect![[r#"
        POST https://pay.internal/payments
        content-type: "application/json"
        ce-specversion: "1.0"
        ce-id: "o-1%20%C3%BC"
        ce-source: "/web"
        ce-type: "OrderCreated"
        ce-time: "2023-11-14T22:13:20.123Z"
        ce-sagaid: "o-1"
        ce-tenant: "blue%20%22north%22%20100%25"
        accept: "application/json, application/cloudevents+json, */*;q=0.1"
        idempotency-key: "b9acff2d5971bb9a97dc6f92b5354c3f1fe19d226f4e61361cab1add07e97f1d"
        sagahost-attempt: "3"
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        authorization: Sensitive
        x-shop: "eu"
        {"orderId": "o-1"}
    "#]]
    .assert_eq(&told(&call(Direction::Forward)));
}

#[test]
fn an_undoing_says_what_is_known_of_the_step() {
    expect![[r#"
        POST https://pay.internal/payments/cancel
        content-type: "application/json"
        accept: "application/json, application/cloudevents+json, */*;q=0.1"
        idempotency-key: "09595d0eeac5cab1cf8d681793dabdffd69b5cb305e622b5fd4ac584376f6a23"
        sagahost-attempt: "3"
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        authorization: Sensitive
        x-shop: "eu"
        {"sagaId":"o-1","kind":"OrderCreated","event":{"orderId": "o-1"},"evidence":"done","undo":{"paymentId":"p-1"},"cause":{"code":"rejected","detail":"no apples","participant":"inventory","eventKind":"PaymentProcessed"}}
    "#]].assert_eq(&told(&call(Direction::Undo)));
    let mut uncertain = call(Direction::Undo);
    let body = |call: &Call| String::from_utf8(request(call, &settings()).unwrap().body().to_vec()).unwrap();
    let mut told = String::new();
    for evidence in [
        Evidence::Uncertain,
        Evidence::Done(Saved { data: Arc::from([]), format: 1 }),
        Evidence::Done(Saved { data: Arc::from(*b"receipt 7"), format: 1 }),
        Evidence::Done(Saved { data: Arc::from([0, 159, 146, 150]), format: 1 }),
    ] {
        uncertain.undo.as_mut().unwrap().evidence = evidence;
        let body: serde_json::Value = serde_json::from_str(&body(&uncertain)).unwrap();
        told += &format!("{} {} {}\n", body["evidence"], body["undo"], body["truncated"]);
    }
    expect![[r#"
        "uncertain" null null
        "done" null true
        "done" "receipt 7" null
        "done" "AJ+Slg==" null
    "#]]
    .assert_eq(&told);
}

#[test]
fn every_attempt_has_the_same_bytes_and_the_same_key_and_only_its_number_differs() {
    for direction in [Direction::Forward, Direction::Undo] {
        let of = |attempt| {
            let request = request(&Call { attempt, now: Time(5), ..call(direction) }, &settings()).unwrap();
            let mut headers = request.headers().clone();
            let number = headers.remove("sagahost-attempt").unwrap();
            (headers, request.body().clone(), number.to_str().unwrap().to_owned())
        };
        let ((first, body, number), (again, same_body, other)) = (of(1), of(2));
        assert_eq!((first, body), (again, same_body));
        assert_eq!((&*number, &*other), ("1", "2"));
    }
    let key = |call: Call| request(&call, &settings()).unwrap().headers()["idempotency-key"].clone();
    assert_ne!(key(call(Direction::Forward)), key(call(Direction::Undo)), "they are two things");
}

#[test]
fn what_was_never_asked_for_and_what_has_no_place_is_not_undone_over_there() {
    let mut never = call(Direction::Undo);
    never.undo.as_mut().unwrap().evidence = Evidence::NeverRan;
    assert_eq!(request(&never, &settings()).unwrap_err(), Unasked::NeverRan);
    let settings = RemoteSettings { undo_url: None, ..settings() };
    assert_eq!(request(&call(Direction::Undo), &settings).unwrap_err(), Unasked::NoUndoUrl, "it stays to be undone");
    assert!(request(&call(Direction::Forward), &settings).is_ok());
}

/// `402`, `200 completed`, `429 retry-after=7`, `404 problem`.
fn response(row: &str) -> Response<Bytes> {
    let mut words = row.split(' ');
    let mut response = Response::builder().status(words.next().unwrap().parse::<u16>().unwrap());
    let mut body = Bytes::new();
    for word in words {
        response = match word.split_once('=') {
            Some((name, value)) => response.header(name, value.replace('_', " ")),
            None if word == "problem" => {
                body = br#"{"type": "https://example.com/probs/out-of-credit", "detail": "30, and 50 are asked for"}"#
                    [..]
                    .into();
                response.header("content-type", "application/problem+json; charset=utf-8")
            }
            None => response.header("sagahost-outcome", word),
        };
    }
    response.body(body).unwrap()
}

fn meaning(direction: Direction, response: &Response<Bytes>) -> Meaning {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    of_response(&call(direction), terms(&manifest(&["PaymentProcessed"]), &[], &limits()), response, at)
}

fn line(Meaning { end, left, reach }: &Meaning) -> String {
    let wait = match end {
        End::Outcome(Outcome::Retry(delay)) | End::Undo(UndoOutcome::Retry(delay)) => delay.after,
        _ => None,
    };
    let mut text = end.name().to_owned();
    if *left {
        text += ", left";
    }
    if let Some(wait) = wait {
        text += &format!(", after {wait:?}");
    }
    if *reach != Reach::Answers {
        text += &format!(", {reach:?}").to_lowercase();
    }
    text
}

fn rows(direction: Direction, rows: &[&str], expected: &Expect) {
    let table: String =
        rows.iter().map(|row| format!("{row}: {}\n", line(&meaning(direction, &response(row))))).collect();
    expected.assert_eq(&table);
}

const ROWS: [&str; 52] = [
    "200",
    "201",
    "204",
    "202",
    "203",
    "301 location=https://elsewhere",
    "302",
    "307",
    "400",
    "401",
    "402",
    "403",
    "404",
    "404 problem",
    "405",
    "405 problem",
    "406",
    "408",
    "409",
    "410",
    "410 problem",
    "412",
    "413",
    "415",
    "422",
    "422 problem",
    "425",
    "429",
    "429 retry-after=7",
    "429 retry-after=Tue,_14_Nov_2023_22:13:50_GMT",
    "429 retry-after=Tue,_14_Nov_2000_22:13:50_GMT",
    "429 retry-after=soon",
    "429 retry-after=99999999999",
    "500",
    "501",
    "502",
    "503 retry-after=30",
    "504",
    "500 completed",
    "422 completed",
    "503 unsent",
    "500 retry",
    "404 rejected",
    "200 invalid",
    "200 running",
    "500 uncertain",
    "500 needs-operator",
    "409 compensated",
    "404 nothing-to-undo",
    "200 undone",
    "200 stuck",
    "500 a-name-of-tomorrow",
];

#[test]
fn what_each_answer_to_a_step_means() {
    rows(
        Direction::Forward,
        &ROWS,
        &expect![[r#"
            200: completed, left
            201: completed, left
            204: completed, left
            202: retry, left
            203: retry, left
            301 location=https://elsewhere: unsent, misdirected
            302: unsent, misdirected
            307: unsent, misdirected
            400: invalid
            401: unsent, misdirected
            402: rejected
            403: unsent, misdirected
            404: unsent, misdirected
            404 problem: invalid
            405: unsent, misdirected
            405 problem: invalid
            406: invalid
            408: retry, left
            409: retry, left
            410: unsent, misdirected
            410 problem: invalid
            412: invalid
            413: invalid
            415: invalid
            422: rejected
            422 problem: rejected
            425: retry
            429: retry
            429 retry-after=7: retry, after 7s
            429 retry-after=Tue,_14_Nov_2023_22:13:50_GMT: retry, after 30s
            429 retry-after=Tue,_14_Nov_2000_22:13:50_GMT: retry, after 0ns
            429 retry-after=soon: retry
            429 retry-after=99999999999: retry, after 86400s
            500: retry, left
            501: retry, left
            502: retry, left, away
            503 retry-after=30: retry, left, after 30s, away
            504: retry, left, away
            500 completed: completed, left
            422 completed: completed, left
            503 unsent: unsent, away
            500 retry: retry
            404 rejected: rejected
            200 invalid: invalid
            200 running: retry, left
            500 uncertain: retry, left
            500 needs-operator: retry, left
            409 compensated: rejected
            404 nothing-to-undo: uncertain, left
            200 undone: uncertain, left
            200 stuck: uncertain, left
            500 a-name-of-tomorrow: retry, left
        "#]],
    );
}

#[test]
fn what_each_answer_to_an_undoing_means() {
    rows(
        Direction::Undo,
        &ROWS,
        &expect![[r#"
            200: undone
            201: undone
            204: undone
            202: retry, left
            203: retry, left
            301 location=https://elsewhere: unsent, misdirected
            302: unsent, misdirected
            307: unsent, misdirected
            400: stuck
            401: unsent, misdirected
            402: stuck
            403: unsent, misdirected
            404: unsent, misdirected
            404 problem: stuck
            405: unsent, misdirected
            405 problem: stuck
            406: stuck
            408: retry, left
            409: retry, left
            410: unsent, misdirected
            410 problem: stuck
            412: stuck
            413: stuck
            415: stuck
            422: stuck
            422 problem: stuck
            425: retry
            429: retry
            429 retry-after=7: retry, after 7s
            429 retry-after=Tue,_14_Nov_2023_22:13:50_GMT: retry, after 30s
            429 retry-after=Tue,_14_Nov_2000_22:13:50_GMT: retry, after 0ns
            429 retry-after=soon: retry
            429 retry-after=99999999999: retry, after 86400s
            500: retry, left
            501: retry, left
            502: retry, left, away
            503 retry-after=30: retry, left, after 30s, away
            504: retry, left, away
            500 completed: unknown, left
            422 completed: unknown, left
            503 unsent: unsent, away
            500 retry: retry
            404 rejected: stuck
            200 invalid: stuck
            200 running: retry, left
            500 uncertain: retry, left
            500 needs-operator: stuck
            409 compensated: undone
            404 nothing-to-undo: nothing-to-undo
            200 undone: undone
            200 stuck: stuck
            500 a-name-of-tomorrow: retry, left
        "#]],
    );
    rows(
        Direction::Undo,
        &["500 undone", "500 stuck", "200 stuck"],
        &expect![[r#"
        500 undone: undone
        500 stuck: stuck
        200 stuck: stuck
    "#]],
    );
}

/// Where 409 means "there is one already, and nothing was done", an operator says so.
#[test]
fn an_operator_can_say_which_answers_reject() {
    let told = |direction, row: &str| {
        let (manifest, limits) = (manifest(&[]), limits());
        line(&of_response(
            &call(direction),
            terms(&manifest, &[409, 410], &limits),
            &response(row),
            SystemTime::UNIX_EPOCH,
        ))
    };
    assert_eq!(told(Direction::Forward, "409"), "rejected");
    assert_eq!(told(Direction::Forward, "410"), "rejected");
    assert_eq!(told(Direction::Forward, "409 running"), "retry, left", "what the service says itself comes first");
    assert_eq!(told(Direction::Undo, "409"), "retry, left");
}

#[test]
fn without_an_answer_it_is_known_only_whether_anything_left() {
    let failures = [
        Failed::Unsent { code: "unreachable", what: "connection refused".into() },
        Failed::Sent { code: "timeout", what: "no whole answer within 10s".into() },
    ];
    let mut table = String::new();
    for direction in [Direction::Forward, Direction::Undo] {
        for failed in &failures {
            let meaning = of_failure(&call(direction), failed);
            table += &format!("{}: {:?}\n", line(&meaning), meaning.end.why().unwrap());
        }
    }
    expect![[r#"
        unsent, away: ("away", "connection refused")
        uncertain, left, away: ("timeout", "no whole answer within 10s")
        unsent, away: ("away", "connection refused")
        unknown, left, away: ("timeout", "no whole answer within 10s")
    "#]]
    .assert_eq(&table);
}

fn done(emits: &[&str], content_type: &str, body: &[u8]) -> String {
    let response = Response::builder().header("content-type", content_type).body(Bytes::copy_from_slice(body)).unwrap();
    let meaning = of_response(
        &call(Direction::Forward),
        terms(&manifest(emits), &[], &limits()),
        &response,
        SystemTime::UNIX_EPOCH,
    );
    match meaning.end {
        End::Outcome(Outcome::Completed(completion)) => {
            let events: Vec<String> = completion
                .emit
                .iter()
                .map(|event| {
                    let data = String::from_utf8_lossy(&event.data);
                    format!("{} {data} {}", event.kind, event.content_type.as_deref().unwrap_or("-"))
                })
                .collect();
            let Undo::Data(undo) = completion.undo else { return events.join(", ") };
            format!("[{}], undo data {:?}", events.join(", "), String::from_utf8_lossy(&undo.data))
        }
        end => format!("{}: {}", end.name(), end.why().unwrap().1),
    }
}

#[test]
fn what_follows_from_a_step_that_is_done() {
    const EVENT: &str = "application/cloudevents+json; charset=utf-8";
    let one = ["PaymentProcessed"];
    let two = ["PaymentProcessed", "PaymentRefunded"];
    let cases = [
        done(&one, "application/json", br#"{"paymentId": "p-1"}"#),
        done(&one, "application/json", b""),
        done(&[], "text/plain", b"thank you"),
        done(&one, "text/plain", b"thank you"),
        done(&one, "application/json", br#"{"much": "more than the forty bytes that may be kept of it"}"#),
        done(&two, "application/json", br#"{"paymentId": "p-1"}"#),
        done(&two, "", b"1"),
        done(&two, EVENT, br#"{"specversion": "1.0", "type": "PaymentRefunded", "data": {"a": 1}}"#),
        done(&two, EVENT, br#"{"specversion": "1.0", "type": "PaymentRefunded", "data_base64": "AAE="}"#),
        done(&two, EVENT, br#"{"specversion": "1.0", "type": "PaymentRefunded"}"#),
        done(&two, EVENT, br#"{"specversion": "1.0", "type": "OrderLost"}"#),
        done(&two, EVENT, br#"{"specversion": "0.3", "type": "PaymentRefunded"}"#),
        done(&two, EVENT, b"<html>"),
        done(
            &two,
            "application/cloudevents-batch+json",
            br#"[{"specversion": "1.0", "type": "PaymentProcessed", "data": 1}, {"specversion": "1.0", "type": "PaymentRefunded", "data": 2}]"#,
        ),
        done(&two, "application/cloudevents-batch+json", b"[]"),
        done(&two, EVENT, br#"{"specversion": "1.0", "type": "PaymentRefunded", "sagaid": "o-1", "data": 3}"#),
        done(&two, EVENT, br#"{"specversion": "1.0", "type": "PaymentRefunded", "sagaid": "o-2", "data": 3}"#),
        done(&two, EVENT, br#"{"specversion": "1.0", "type": "PaymentRefunded", "datacontenttype": "text/plain", "data": "x"}"#),
        done(&one, "application/json", b"<html>"),
        done(&one, "text/plain", &[b'x'; 1_001]),
    ];
    expect![[r#"
        [PaymentProcessed {"paymentId": "p-1"} application/json], undo data "{\"paymentId\": \"p-1\"}"
        [], undo data "null"
        [], undo data "\"thank you\""
        [PaymentProcessed thank you text/plain], undo data "\"thank you\""
        [PaymentProcessed {"much": "more than the forty bytes that may be kept of it"} application/json], undo data ""
        uncertain: its manifest names several kinds (PaymentProcessed, PaymentRefunded), so the answer must be CloudEvents (application/cloudevents+json or application/cloudevents-batch+json), and it is application/json
        uncertain: its manifest names several kinds (PaymentProcessed, PaymentRefunded), so the answer must be CloudEvents (application/cloudevents+json or application/cloudevents-batch+json), and it is of no content type
        [PaymentRefunded {"a": 1} -], undo data ""
        uncertain: emitted event 0 (PaymentRefunded) claims to be JSON and is not: expected value at line 1 column 1
        [PaymentRefunded null -], undo data ""
        uncertain: emitted event 0 (OrderLost): its manifest does not name OrderLost in `emits`
        uncertain: its event is of CloudEvents 0.3, and 1.0 is understood
        uncertain: its body is no CloudEvent: expected value at line 1 column 1
        [PaymentProcessed 1 -, PaymentRefunded 2 -], undo data ""
        [], undo data "[]"
        [PaymentRefunded 3 -], undo data ""
        uncertain: emitted event 0 (PaymentRefunded): its manifest does not name PaymentRefunded in `starts`
        [PaymentRefunded x text/plain], undo data ""
        uncertain: emitted event 0 (PaymentProcessed) claims to be JSON and is not: expected value at line 1 column 1
        uncertain: emitted event 0 (PaymentProcessed): 1001 bytes, 1000 are allowed (payload-bytes-max)"#]].assert_eq(&cases.join("\n"));
}

#[test]
fn a_rejection_has_its_code_its_words_and_its_events() {
    let body = json!({
        "code": "DECLINED", "title": "declined", "detail": "30 cents are there, and 50 are asked for",
        "events": [{ "specversion": "1.0", "type": "PaymentProcessed", "data": { "orderId": "o-1" } }],
    });
    let rejected = |body: &serde_json::Value| {
        let response = Response::builder()
            .status(422)
            .header("content-type", "application/problem+json")
            .body(Bytes::from(body.to_string()))
            .unwrap();
        let meaning = meaning(Direction::Forward, &response);
        match &meaning.end {
            End::Outcome(Outcome::Rejected(rejection)) => {
                let kinds: Vec<&str> = rejection.emit.iter().map(|event| event.kind.as_str()).collect();
                format!("{}: {}; emits {kinds:?}", rejection.problem.code, rejection.problem.detail)
            }
            end => format!("{}: {:?}", end.name(), end.why().unwrap()),
        }
    };
    let mut stranger = body.clone();
    stranger["events"][0]["type"] = json!("OrderLost");
    let cases = [rejected(&body), rejected(&json!({ "title": "declined" })), rejected(&json!(7)), rejected(&stranger)];
    expect![[r#"
        DECLINED: 30 cents are there, and 50 are asked for; emits ["PaymentProcessed"]
        http-422: declined; emits []
        http-422: it answered 422 Unprocessable Entity; emits []
        unknown: ("bad-outcome", "emitted event 0 (OrderLost): its manifest does not name OrderLost in `emits`")"#]]
    .assert_eq(&cases.join("\n"));
}

#[test]
fn what_a_service_cannot_be() {
    let json = json!({
        "name": "stock", "version": "1", "finishes": true, "grants": ["http:https://a"],
        "config": { "limit": { "type": "integer" } },
        "subscriptions": [{ "kind": "OrderCreated" }, { "kind": "OrderPaid", "role": "nothing-to-undo" }],
    });
    let manifest = Manifest::of_service(json.to_string().as_bytes()).unwrap();
    let settings = RemoteSettings { undo_url: None, ..settings() };
    let told: Vec<String> = faults(&manifest, "inventory", &settings)
        .iter()
        .map(|fault| format!("{} ({}): {}", fault.what, fault.place, fault.fix))
        .collect();
    expect![[r#"
        it is named stock, and its table is [participant.inventory] (manifest, name): call both the same: the table of the configuration names the participant
        a service cannot end sagas (manifest, finishes): let a plugin end the saga on an event of the service
        nobody hands it any configuration (manifest, config): remove it: a service has its configuration where it runs
        a service needs no grants (manifest, grants): remove them
        its steps for OrderCreated are to be undone, and nobody says where (manifest, subscriptions): write undo-url in [participant.inventory], or declare the role nothing-to-undo, pivot or retriable"#]].assert_eq(&told.join("\n"));
    assert_eq!(faults(&self::manifest(&[]), "payment", &self::settings()).len(), 0);
}
