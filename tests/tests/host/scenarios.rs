//! The reference saga where it goes wrong, and a plugin that cannot undo. Invariant of all tests: what was paid is back,
//! what was reserved is free, and what could not be undone is said by name until a person has settled it.

use std::time::Duration;

use sagahost::host::Host;
use sagahost_demo::workload::Order;
use sagahost_operator::{
    protocol::Request,
    view::{SagaPage, SagaView},
};
use sagahost_saga::input::Status;
use sagahost_tests::{
    events::tried,
    operator::{Operator, attempts},
    shop::{OPENING_BALANCE, OPENING_STOCK, Shop, THREE, order_record},
    wait::until,
};
use sagahost_wire::Outgoing;
use serde_json::Value;

use crate::shops::started;

const STOP: Duration = Duration::from_secs(10);

fn order(id: &str, quantity: u32, amount_cents: u64) -> Outgoing {
    order_record(&Order {
        order_id: id.to_owned(),
        customer_id: "c-1".to_owned(),
        sku: "apple".to_owned(),
        quantity,
        amount_cents,
        currency: "EUR".to_owned(),
    })
}

/// How often a kind was published for a saga, and the data of the last one.
fn published(shop: &Shop, topic: &str, saga: &str) -> (usize, Value) {
    let records = shop.read(&[topic]);
    let of_saga: Vec<_> = records.iter().filter(|record| record.key.as_deref() == Some(saga.as_bytes())).collect();
    let last = of_saga.last().and_then(|record| serde_json::from_slice(record.value.as_deref()?).ok());
    (of_saga.len(), last.unwrap_or_default())
}

fn await_published(shop: &Shop, topic: &str, saga: &str) -> Value {
    until(&format!("{topic} has a record of {saga}"), || {
        let (count, data) = published(shop, topic, saga);
        (count > 0).then_some(data)
    })
}

fn counter(host: &Host, participant: &str, name: &str, opening: i64) -> i64 {
    host.journal().counter(&participant.into(), name).unwrap().unwrap_or(opening)
}

fn step<'s>(saga: &'s SagaView, participant: &str) -> &'s str {
    saga.steps.iter().find(|step| step.participant == participant).map_or("", |step| &step.state)
}

#[test]
fn a_declined_payment_cancels_the_order_and_nobody_pays() {
    let (shop, host, operator) = started(&THREE, "");
    shop.send(&order("o-1", 1, 100_001));
    let saga = operator.await_status("o-1", "compensated");
    assert_eq!((step(&saga, "order"), step(&saga, "payment")), ("compensated", "rejected"));
    assert_eq!(attempts(&saga, "inventory"), [""; 0]);
    await_published(&shop, "payment-failed", "o-1");
    assert_eq!(await_published(&shop, "order-cancelled", "o-1")["reason"], "rejected");
    for topic in ["payment-processed", "payment-refunded", "order-completed"] {
        assert_eq!(published(&shop, topic, "o-1").0, 0, "{topic}");
    }
    assert_eq!(counter(&host, "payment", "balance/c-1", OPENING_BALANCE), OPENING_BALANCE);
    assert!(operator.letters().is_empty(), "a refusal is no dead letter");
    host.stop(STOP);
}

#[test]
fn an_order_of_more_than_there_is_is_refunded_and_cancelled() {
    let (shop, host, operator) = started(&THREE, "");
    shop.send(&order("o-1", 1 + OPENING_STOCK as u32, 500));
    let saga = operator.await_status("o-1", "compensated");
    assert_eq!((step(&saga, "order"), step(&saga, "payment")), ("compensated", "compensated"));
    assert_eq!(step(&saga, "inventory"), "rejected");
    assert_eq!(await_published(&shop, "payment-refunded", "o-1")["amountCents"], 500);
    await_published(&shop, "inventory-rejected", "o-1");
    await_published(&shop, "order-cancelled", "o-1");
    let undone: Vec<_> = saga.timeline.iter().filter(|line| line.direction.as_deref() == Some("compensate")).collect();
    let order: Vec<_> = undone.iter().map(|line| line.participant.as_deref().unwrap_or_default()).collect();
    assert_eq!(order, ["payment", "order"], "in reverse");
    for (topic, count) in
        [("payment-processed", 1), ("payment-refunded", 1), ("order-cancelled", 1), ("order-completed", 0)]
    {
        assert_eq!(published(&shop, topic, "o-1").0, count, "{topic}");
    }
    assert_eq!(counter(&host, "payment", "balance/c-1", OPENING_BALANCE), OPENING_BALANCE);
    assert_eq!(counter(&host, "inventory", "stock/apple", OPENING_STOCK), OPENING_STOCK);
    assert!(operator.letters().is_empty());
    host.stop(STOP);
}

fn listed(operator: &Operator, status: Status) -> Vec<String> {
    let request = Request::Sagas { status: Some(status), notes: Vec::new(), before: None, limit: 10 };
    let page: SagaPage = operator.ask(request).unwrap();
    page.sagas.into_iter().map(|saga| saga.id).collect()
}

/// The plugin cannot undo until its configuration says otherwise: the operator mends it, restarts, and retries by hand.
#[test]
fn what_cannot_be_undone_needs_an_operator_and_is_retried_by_hand() {
    let (mut shop, host, operator) = started(&["hostile"], "[plugin.hostile.config]\nundo-fault = \"none\"\n");
    shop.send(&tried("s-1", "none", "stuck-until-configured"));
    shop.send(&tried("s-2", "none", "none"));
    for saga in ["s-1", "s-2"] {
        operator.await_saga(saga, "done", |saga| saga.steps[0].state == "done");
    }
    host.stop(STOP);
    shop.configure("[plugin.hostile.config]\nundo-fault = \"stuck-until-configured\"\n");
    let host = shop.start();
    let operator = Operator::of(&host);
    for saga in ["s-1", "s-2"] {
        assert!(operator.cancel(saga, "a test").done);
    }
    let stuck = operator.await_status("s-1", "needs-operator");
    operator.await_status("s-2", "compensated");
    assert_eq!(listed(&operator, Status::NeedsOperator), ["s-1"]);
    assert_eq!(stuck.steps[0].state, "compensation-failed");
    assert_eq!(stuck.steps[0].why.as_deref(), Some("HOSTILE: set undo-fault to none, then retry"));
    for words in ["sagas retry s-1", "sagas resolve s-1"] {
        assert!(stuck.next.iter().any(|next| next.contains(words)), "{:?}", stuck.next);
    }
    assert_eq!(published(&shop, "hostile-undone", "s-1").0, 0, "it is not called undone");

    // Retrying without mending it changes nothing.
    assert!(operator.retry("s-1").done);
    let again = operator
        .await_saga("s-1", "tried again", |saga| saga.steps[0].undo_attempts == 2 && saga.status == "needs-operator");
    assert_eq!(attempts(&again, "hostile"), ["handle completed", "compensate stuck", "compensate stuck"]);
    host.stop(STOP);

    shop.configure("[plugin.hostile.config]\nundo-fault = \"none\"\n");
    let host = shop.start();
    let operator = Operator::of(&host);
    assert_eq!(operator.saga("s-1").unwrap().status, "needs-operator", "a start does not hide it");
    assert!(operator.retry("s-1").done);
    let saga = operator.await_status("s-1", "compensated");
    assert_eq!(saga.steps[0].state, "compensated");
    assert!(listed(&operator, Status::NeedsOperator).is_empty());
    await_published(&shop, "hostile-undone", "s-1");
    assert_eq!(published(&shop, "hostile-undone", "s-1").0, 1);
    assert_eq!(counter(&host, "hostile", "tokens", 1_000_000), 1_000_000);
    host.stop(STOP);
}

#[test]
fn spent_attempts_announce_the_failure_and_undo_what_was_done() {
    let retry = "[plugin.hostile.on.HostileTried]\nretry = { attempts-max = 3, base = \"20ms\", cap = \"20ms\" }\n";
    let (shop, host, operator) = started(&["hostile"], retry);
    shop.send(&sagahost_tests::events::event("HostileTried", "s-1", "e-0", &serde_json::json!({ "id": "first" })));
    shop.send(&tried("s-1", "retry", "none"));
    let saga = operator.await_status("s-1", "compensated");
    let ran = attempts(&saga, "hostile");
    assert_eq!(ran[..4], ["handle completed", "handle retry", "handle retry", "handle retry"]);
    assert!(ran[4..].iter().all(|attempt| attempt == "compensate undone") && ran.len() == 6, "{ran:?}");
    let failed = await_published(&shop, "saga-failed", "s-1");
    assert_eq!((&failed["code"], &failed["detail"]), (&"HOSTILE".into(), &"always again".into()));
    assert_eq!(published(&shop, "saga-failed", "s-1").0, 1);
    let letter = operator.letters().remove(0).line;
    assert_eq!((letter.code.as_str(), letter.attempts), ("HOSTILE", 3));
    assert_eq!(counter(&host, "hostile", "tokens", 1_000_000), 1_000_000);
    // Too late for the letter (race 13); it is settled by hand.
    let late = operator.redrive(&letter.key).unwrap();
    assert!(!late.done && late.text.contains("too late: the saga is compensated"), "{late:?}");
    assert!(operator.discard(&letter.key, "settled").unwrap().done);
    host.stop(STOP);
}
