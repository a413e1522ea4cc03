//! Races that only a whole host can lose (SEMANTICS.md, "Races"), on embedded topics. Invariant of all tests: what came
//! too early, twice or too late is in the saga's timeline, and took effect at most once.

use std::time::Duration;

use sagahost::host::Host;
use sagahost_saga::input::Command;
use sagahost_tests::{
    events::{event, tried},
    operator::{Operator, attempts},
    shop::{Shop, order_record},
    wait::until,
};
use serde_json::json;

use crate::shops::started;

const STOP: Duration = Duration::from_secs(10);

fn tokens(host: &Host) -> i64 {
    host.journal().counter(&"hostile".into(), "tokens").unwrap().unwrap_or(1_000_000)
}

fn read_of(shop: &Shop, topic: &str, saga: &str) -> usize {
    shop.read(&[topic]).iter().filter(|record| record.key.as_deref() == Some(saga.as_bytes())).count()
}

/// Race 14.
#[test]
fn the_same_event_twice_runs_once_and_another_payload_under_its_id_is_kept() {
    let (shop, host, operator) = started(&["hostile"], "");
    let first = tried("s-1", "none", "none");
    let data = json!({ "id": "another", "fault": "none" });
    let reused = event("HostileTried", "s-1", "s-1-tried", &data);
    for record in [&first, &first, &reused, &reused, &first] {
        shop.send(record);
    }
    // The next event of the saga stands behind them in the same partition.
    let next = event("HostileTried", "s-1", "next", &json!({ "id": "next", "fault": "none" }));
    shop.send(&next);
    let saga = operator.await_saga("s-1", "done twice", |saga| {
        saga.steps.len() == 2 && saga.steps.iter().all(|step| step.state == "done")
    });
    assert_eq!(attempts(&saga, "hostile").len(), 2);
    assert_eq!(tokens(&host), 1_000_000 - 2);

    let letters = operator.letters();
    let [letter] = letters.as_slice() else { panic!("{letters:#?}") };
    assert_eq!(letter.line.code, "event-id-reused");
    assert_eq!(letter.line.detail, "event tests/s-1-tried came before with other data");
    assert_eq!(letter.value.as_deref(), Some(data.to_string().as_str()), "what it said is not lost");
    until("both answers are out", || (read_of(&shop, "hostile-done", "s-1") == 2).then_some(()));

    let refused = operator.redrive(&letter.line.key).unwrap();
    assert!(!refused.done && refused.text.contains("discard"), "{refused:?}");
    assert!(operator.discard(&letter.line.key, "the producer was wrong").unwrap().done);
    assert_eq!(operator.letters(), []);
    assert_eq!(tokens(&host), 1_000_000 - 2);
    host.stop(STOP);
}

fn order(id: &str) -> sagahost_demo::workload::Order {
    sagahost_demo::workload::Order {
        order_id: id.to_owned(),
        customer_id: "c-1".to_owned(),
        sku: "apple".to_owned(),
        quantity: 1,
        amount_cents: 100,
        currency: "EUR".to_owned(),
    }
}

/// Races 9 and 3: the cancel is a tombstone, and what comes later is told that it never ran.
#[test]
fn a_cancel_before_the_first_event() {
    let (shop, host, operator) = started(&["order", "payment", "inventory"], "");
    assert!(operator.cancel("o-1", "changed their mind").done);
    assert_eq!(operator.await_status("o-1", "waiting").steps, []);
    shop.send(&order_record(&order("o-1")));
    let saga = operator.await_status("o-1", "compensated");
    assert_eq!(attempts(&saga, "order"), ["compensate undone"], "whoever sent it gets an answer");
    assert_eq!(attempts(&saga, "payment"), ["compensate nothing-to-undo"]);
    assert_eq!(attempts(&saga, "inventory"), [""; 0]);
    until("the cancellation is out", || (read_of(&shop, "order-cancelled", "o-1") == 1).then_some(()));
    assert_eq!(host.journal().counter(&"payment".into(), "balance/c-1").unwrap(), None, "nobody paid");
    assert_eq!(read_of(&shop, "payment-processed", "o-1"), 0);
    host.stop(STOP);
}

/// Race 9, by an event of another app, and across a restart.
#[test]
fn a_failure_of_another_app_before_the_first_event() {
    let (shop, host, operator) = started(&["order", "payment", "inventory"], "");
    let failed =
        json!({ "saga": "o-1", "app": "shipping", "participant": "truck", "code": "NO_TRUCK", "detail": "none" });
    shop.send(&event("SagaFailed", "o-1", "f-1", &failed));
    operator.await_status("o-1", "waiting");
    host.stop(STOP);
    let host = shop.start();
    let operator = Operator::of(&host);
    shop.send(&order_record(&order("o-1")));
    let saga = operator.await_status("o-1", "compensated");
    assert!(saga.cause.as_deref().unwrap_or_default().contains("shipping/truck: NO_TRUCK: none"), "{:?}", saga.cause);
    assert_eq!(attempts(&saga, "payment"), ["compensate nothing-to-undo"]);
    assert_eq!(shop.read(&["saga-failed"]).len(), 1, "nobody answers a failure with another");
    host.stop(STOP);
}

fn followed(saga: &str) -> sagahost_wire::Outgoing {
    event("HostileFollowed", saga, &format!("{saga}-followed"), &json!({ "id": saga }))
}

/// Race 8.
#[test]
fn an_event_before_its_predecessor_waits_for_it() {
    let (shop, host, operator) = started(&["hostile"], "");
    shop.send(&followed("s-1"));
    let early = operator.await_saga("s-1", "early", |saga| !saga.parked.is_empty());
    assert_eq!(early.parked[0].why, "its predecessor is missing");
    assert_eq!(attempts(&early, "hostile"), [""; 0]);
    shop.send(&tried("s-1", "none", "none"));
    let saga = operator.await_saga("s-1", "done", |saga| saga.parked.is_empty() && saga.steps.len() == 2);
    let kinds: Vec<_> =
        saga.timeline.iter().filter(|line| line.what == "attempt").map(|line| line.kind.clone()).collect();
    assert_eq!(kinds, [Some("HostileTried".to_owned()), Some("HostileFollowed".to_owned())]);
    assert!(operator.letters().is_empty());
    host.stop(STOP);
}

/// Race 8, when the predecessor does not come in time; a person sends the event again when it has come.
#[test]
fn an_event_whose_predecessor_does_not_come_is_a_dead_letter() {
    let (shop, host, operator) = started(&["hostile"], "[plugin.hostile.on.HostileFollowed]\npark-ttl = \"300ms\"\n");
    shop.send(&followed("s-1"));
    let letter = operator.await_letters(1).remove(0).line;
    assert_eq!((letter.code.as_str(), letter.participant.as_deref()), ("orphan", Some("hostile")));
    assert!(letter.detail.contains("HostileTried"), "{}", letter.detail);
    shop.send(&tried("s-1", "none", "none"));
    operator.await_saga("s-1", "done", |saga| saga.steps.iter().any(|step| step.state == "done"));
    assert!(operator.redrive(&letter.key).unwrap().done);
    let saga = operator.await_saga("s-1", "done", |saga| saga.steps.iter().all(|step| step.state == "done"));
    assert_eq!(attempts(&saga, "hostile").len(), 2);
    assert!(operator.letters().is_empty());
    host.stop(STOP);
}

/// Race 24, and rule 11: a failure passes an event that waits for its next attempt.
#[test]
fn a_failure_while_a_retry_backs_off() {
    let retry = "[plugin.hostile.on.HostileTried]\nretry = { attempts-max = 1000, base = \"1s\", cap = \"1s\" }\n";
    let (shop, host, operator) = started(&["hostile"], retry);
    let taken = event("HostileTried", "s-1", "taken", &json!({ "id": "taken", "fault": "none" }));
    shop.send(&taken);
    shop.send(&tried("s-1", "retry", "none"));
    operator.await_saga("s-1", "retrying", |saga| {
        saga.steps.iter().any(|step| step.state == "retrying" && step.attempts >= 2)
    });
    shop.send(&event("HostileFailed", "s-1", "f-1", &json!({})));
    let saga = operator.await_status("s-1", "compensated");
    let ran = attempts(&saga, "hostile");
    let tries = ran.iter().filter(|attempt| *attempt == "handle retry").count();
    let undone = ran.iter().filter(|attempt| attempt.starts_with("compensate")).count();
    assert!(tries >= 2 && undone == 2, "{ran:?}");
    assert_eq!(ran.len(), 1 + tries + undone);
    assert_eq!(tokens(&host), 1_000_000, "what was taken is given back");
    // Another saga's next attempts come later than one of this saga would.
    shop.send(&tried("s-2", "retry", "none"));
    operator.await_saga("s-2", "retrying", |saga| saga.steps.iter().any(|step| step.attempts >= 3));
    assert_eq!(attempts(&operator.saga("s-1").unwrap(), "hostile"), ran, "the retry is void");
    assert!(operator.letters().is_empty());
    host.stop(STOP);
}

/// Race 19: an operator's retry and the automatic one are one attempt.
#[test]
fn an_operators_retry_of_what_waits_for_its_next_attempt() {
    let retry = "[plugin.hostile.on.HostileTried]\nretry = { attempts-max = 9, base = \"1h\", cap = \"1h\" }\n";
    let (shop, host, operator) = started(&["hostile"], retry);
    shop.send(&tried("s-1", "retry-until:3", "none"));
    for attempt in 1..=2 {
        operator.await_saga("s-1", "retrying", |saga| {
            saga.steps.iter().any(|step| step.state == "retrying" && step.attempts == attempt)
        });
        assert!(operator.retry("s-1").done);
    }
    let saga = operator.await_saga("s-1", "done", |saga| saga.steps[0].state == "done");
    assert_eq!(attempts(&saga, "hostile"), ["handle retry", "handle retry", "handle completed"]);
    let late = host.live().command(&"s-1".into(), Command::Retry { by: "anna".to_owned() }).unwrap();
    assert!(!late.done && late.text.contains("nothing is stuck, blocked or waiting"), "{late:?}");
    host.stop(STOP);
}
