//! One script of events, natively, as compiled components, and on the real host. Invariant: the same sagas go the same
//! way everywhere, and what a plugin may not do is refused in the same words.

use std::{path::PathBuf, time::Duration};

use guests::{Hostile, HostileTried};
use inventory::Inventory;
use order::Orders;
use payment::Payment;
use payment_gateway::PaymentGateway;
use sagahost_journal::Journal;
use sagahost_saga::Saga;
use sagahost_testkit::{
    MockHost, Sent, json,
    protocol::{Requested, SagaReport},
    timeline::{self, Line},
};
use sagahost_tests::{
    built,
    events::event,
    shop::{OPENING_BALANCE, OPENING_STOCK, Shop},
    wait::until,
};
use serde_json::Value;
use shipping::Shipping;

const PLUGINS: [&str; 4] = ["order", "payment", "inventory", "shipping"];
const SAGAS: [&str; 4] = [CRASHES, "o-2", "o-3", "o-4"];
/// The first attempt to ship this order crashes; that of `o-1`, the plugin's own example, does not.
const CRASHES: &str = "o-5";
const STOP: Duration = Duration::from_secs(10);

/// So many of 1,000 orders crash, that the one to crash does and the example does not.
fn crash_permille() -> u64 {
    let drawn = shipping::permille(CRASHES) + 1;
    assert!(drawn <= shipping::permille("o-1"), "another order would do better");
    drawn
}

/// Kind, saga, id, data.
fn script() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let order = |id: &str, quantity: u32, cents: u32| {
        json!({
            "orderId": id, "customerId": "c-1", "sku": "apple", "quantity": quantity, "amountCents": cents,
            "currency": "EUR"
        })
    };
    vec![
        ("OrderCreated", CRASHES, "happy", order(CRASHES, 2, 1_998)),
        ("OrderCreated", "o-2", "out-of-stock", order("o-2", 5_000, 4_995)),
        ("OrderCreated", "o-3", "declined", order("o-3", 1, 100_001)),
        // The first one once more: same id, same content.
        ("OrderCreated", CRASHES, "happy", order(CRASHES, 2, 1_998)),
        // A second one in a saga that goes on, or is over.
        ("OrderCreated", "o-2", "again", order("o-2", 1, 1)),
        ("OrderCreated", "o-4", "invalid", order("o-4", 0, 1)),
    ]
}

fn mocked(mut host: MockHost) -> Vec<Vec<Line>> {
    host.plugin("payment").config("limit-cents", 100_000).config("opening-balance-cents", OPENING_BALANCE);
    host.plugin("inventory").config("opening-stock", OPENING_STOCK);
    host.plugin("shipping").config("crash-permille", crash_permille()).config("refuse-permille", 0);
    for (kind, saga, id, data) in script() {
        let sent = Sent { source: Some("tests".to_owned()), ..Sent::json(kind, data) };
        host.send(sent.in_saga(saga).with_id(id));
        host.advance(Duration::from_secs(30));
    }
    SAGAS.map(|saga| host.saga(saga).report().timeline).into()
}

fn files(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| built::all().join(format!("{name}.wasm"))).collect()
}

/// What must differ is taken out: points of time, and where in the code a plugin stopped.
fn normalised(timelines: Vec<Vec<Line>>) -> Vec<String> {
    let without_times = |text: &str| text.split(" until ").next().unwrap_or_default().to_owned();
    let without_places = |text: &str| text.split(" (").next().unwrap_or_default().to_owned();
    let line = |line: Line| Line {
        after_ms: 0,
        what: without_times(&line.what),
        why: without_places(&line.why),
        who: line.who,
        outcome: line.outcome,
    };
    timelines.into_iter().map(|lines| timeline::text(&lines.into_iter().map(line).collect::<Vec<_>>())).collect()
}

fn on_the_real_host() -> Vec<Vec<Line>> {
    let config = format!("[plugin.shipping.config]\ncrash-permille = {}\nrefuse-permille = 0\n", crash_permille());
    let shop = Shop::new(&PLUGINS, &config);
    let host = shop.start();
    let journal = host.journal();
    for (number, (kind, saga, id, data)) in script().into_iter().enumerate() {
        let (partition, offset) = shop.send(&event(kind, saga, id, &data));
        until(&format!("event {number} is handled and its saga is at rest"), || {
            let passed = journal.positions().ok()?.get(&partition).is_some_and(|position| position.next > offset);
            (passed && over(&*journal, saga)).then_some(())
        });
    }
    let timelines = SAGAS.map(|saga| {
        let row = journal.saga(&saga.into()).unwrap().expect("the saga is in the journal");
        let mut history = journal.spilled_history(row.key, 0, usize::MAX).unwrap();
        history.extend_from_slice(Saga::decode(&row.bytes).unwrap().history());
        timeline::lines(&history)
    });
    host.stop(STOP);
    timelines.into()
}

fn over(journal: &dyn Journal, saga: &str) -> bool {
    let row = journal.saga(&saga.into()).unwrap();
    row.is_some_and(|row| Saga::decode(&row.bytes).unwrap().status().terminal())
}

#[test]
fn one_script_goes_the_same_way_natively_compiled_and_on_the_real_host() {
    let native = MockHost::native::<Orders>().with::<Payment>().with::<Inventory>().with::<Shipping>();
    let native = normalised(mocked(native));
    assert!(native[0].contains("it panicked: the label printer is out of paper"), "{}", native[0]);
    assert!(native[1].contains("OUT_OF_STOCK"), "{}", native[1]);
    assert!(native[2].contains("LIMIT_EXCEEDED"), "{}", native[2]);
    let compiled = normalised(mocked(MockHost::components_in(built::sagahost(), files(&PLUGINS))));
    let real = normalised(on_the_real_host());
    for (index, saga) in SAGAS.iter().enumerate() {
        assert!(native[index] == compiled[index], "{saga}:\n{}\ncompiled:\n{}", native[index], compiled[index]);
        assert!(native[index] == real[index], "{saga}:\n{}\nthe real host:\n{}", native[index], real[index]);
    }
}

/// What becomes of charges whose answers are lost, late, or no, and all that was asked.
fn charged(mut host: MockHost) -> (Vec<String>, Vec<Requested>) {
    let [charges, refunds] = ["charges", "refunds"].map(|what| format!("https://gateway.example/v1/{what}"));
    host.plugin("payment-gateway").config("gateway", "https://gateway.example/v1");
    let (charge, long) = (json!({"id": "ch-1"}), Duration::from_secs(300));
    let ordered = |saga: &str| {
        let data = json!({
            "orderId": saga, "customerId": "c-1", "sku": "apple", "quantity": 1, "amountCents": 999, "currency": "EUR"
        });
        Sent { source: Some("tests".to_owned()), ..Sent::json("OrderCreated", data) }.in_saga(saga).with_id(saga)
    };
    host.http("POST", &charges)
        .is_unreachable_once()
        .answers_once(503, "later")
        .loses_answer()
        .answers(201, charge.clone());
    host.send(ordered("o-1"));
    host.advance(long);
    host.http("POST", &refunds).answers_once(503, "later").answers(201, charge);
    host.compensate("o-1");
    host.advance(long);
    host.http("POST", &charges).answers_once(402, json!({"code": "LIMIT", "detail": "too much"}));
    host.send(ordered("o-2"));
    host.http("POST", &charges).loses_answer();
    host.send(ordered("o-3"));
    host.compensate("o-3");
    let timelines = ["o-1", "o-2", "o-3"].map(|saga| host.saga(saga).report().timeline).into();
    (normalised(timelines), host.requests())
}

#[test]
fn requests_are_answered_the_same_way_natively_and_compiled() {
    let (native, asked) = charged(MockHost::native::<PaymentGateway>());
    let (compiled, asked_compiled) = charged(MockHost::components_in(built::sagahost(), files(&["payment-gateway"])));
    assert_eq!(native, compiled);
    assert_eq!(asked, asked_compiled);
    let answers: Vec<_> = asked.iter().map(|request| (request.saga.as_str(), request.answered.as_str())).collect();
    let first = ["unreachable", "503", "lost", "201", "503", "201"].map(|answer| ("o-1", answer));
    assert_eq!(answers, [&first[..], &[("o-2", "402"), ("o-3", "lost"), ("o-3", "201")]].concat());
    for saga in ["o-1", "o-3"] {
        let keys = asked.iter().filter(|request| request.saga == saga && request.url.ends_with("/charges"));
        assert!(
            keys.map(|request| &request.key).collect::<Vec<_>>().windows(2).all(|two| two[0] == two[1]),
            "{asked:#?}"
        );
    }
}

/// Faults that a native plugin can commit without ending the test.
const FAULTS: &[&str] = &[
    "none",
    "panic",
    "guest-error",
    "retry",
    "not-yet",
    "reject",
    "invalid",
    "large-problem",
    "log-flood",
    "log-bytes",
    "large-payload",
    "large-undo",
    "large-state",
    "large-store",
    "long-key",
    "many-keys",
    "many-notes",
    "invalid-json",
    "unknown-kind",
    "empty-kind",
    "other-saga",
    "reserved-attribute",
    "reserved-header",
    "bad-attribute",
    "finishes",
    "missing-counter",
    "counter-overflow",
    "binary",
    "many-emissions",
];

fn hostile(mut host: MockHost, fault: &str) -> (SagaReport, Vec<String>) {
    let tried = HostileTried { id: "h-1".into(), fault: Some(fault.into()), undo_fault: None };
    let answer = host.saga("h-1").send(tried);
    let emitted = answer.by_plugins().map(|emitted| format!("{} {}", emitted.kind, emitted.data)).collect();
    (host.saga("h-1").report(), emitted)
}

#[test]
fn every_fault_is_refused_in_the_same_words() {
    for fault in FAULTS {
        let (native, native_emitted) = hostile(MockHost::native::<Hostile>(), fault);
        let component = MockHost::components_in(built::sagahost(), files(&["hostile"]));
        let (compiled, compiled_emitted) = hostile(component, fault);
        assert_eq!(native.status, compiled.status, "{fault}");
        assert_eq!(native_emitted, compiled_emitted, "{fault}");
        assert_eq!(native.state, compiled.state, "{fault}");
        let [native, compiled] = [native, compiled].map(|report| normalised(vec![report.timeline]).concat());
        assert!(native == compiled, "{fault}:\n{native}\ncompiled:\n{compiled}");
    }
}

#[test]
fn a_host_that_is_not_there_says_what_to_do() {
    let told = std::panic::catch_unwind(|| MockHost::components_in("/nowhere/sagahost", files(&["payment"])));
    let told = told.err().expect("there is no such host");
    let told = told.downcast_ref::<String>().expect("a panic has a text");
    assert!(told.contains("put `sagahost` into PATH, or set SAGAHOST to its path"), "{told}");
}

#[test]
fn a_plugin_that_is_not_admitted_is_told_with_all_its_faults() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("payment.wasm");
    std::fs::write(&file, "(module)").unwrap();
    let told = std::panic::catch_unwind(|| MockHost::components_in(built::sagahost(), [&file]));
    let told = told.err().expect("it is no component");
    let told = told.downcast_ref::<String>().expect("a panic has a text");
    assert!(told.contains("it is a text file, not a component"), "{told}");
}
