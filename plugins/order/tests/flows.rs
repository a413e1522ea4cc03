//! The reference saga, with all three participants, natively. Invariant: in every flow money and stock are conserved,
//! and an order ends completed or cancelled, with one announcement.

use std::time::Duration;

use inventory::Inventory;
use order::{OrderCreated, Orders};
use payment::Payment;
use sagahost_testkit::{MockHost, Status, json};

const BALANCE: i64 = 5_000;
const STOCK: i64 = 10;

fn shop() -> MockHost {
    let mut host = MockHost::native::<Orders>().with::<Payment>().with::<Inventory>();
    host.saga_id_at("/orderId").config("opening-balance-cents", BALANCE).config("opening-stock", STOCK);
    host.plugin("payment").counter("balance/c-1", BALANCE);
    host.plugin("inventory").counter("stock/apple", STOCK);
    host
}

fn order(quantity: i64, amount_cents: i64) -> OrderCreated {
    OrderCreated {
        order_id: "o-1".into(),
        customer_id: "c-1".into(),
        sku: "apple".into(),
        quantity,
        amount_cents,
        currency: "EUR".into(),
    }
}

#[track_caller]
fn spent(host: &mut MockHost, cents: i64, articles: i64) {
    assert_eq!(host.plugin("payment").counter_value("balance/c-1"), BALANCE - cents);
    assert_eq!(host.plugin("inventory").counter_value("stock/apple"), STOCK - articles);
}

#[test]
fn happy_path() {
    let mut host = shop();
    host.send(order(2, 1_998))
        .completed()
        .emitted_kinds(&["PaymentProcessed", "InventoryUpdated", "OrderCompleted"])
        .emitted("OrderCompleted", json!({"orderId": "o-1", "customerId": "c-1", "amountCents": 1_998}))
        .saga_is(Status::Completed);
    spent(&mut host, 1_998, 2);
    host.saga("o-1").golden("tests/golden/happy-path.txt");
}

#[test]
fn payment_declined() {
    let mut host = shop();
    host.send(order(2, 5_001))
        .rejected("INSUFFICIENT")
        .emitted_kinds(&["PaymentFailed", "OrderCancelled"])
        .emitted("OrderCancelled", json!({"reason": "rejected"}))
        .saga_is(Status::Compensated);
    spent(&mut host, 0, 0);
    host.saga("o-1").golden("tests/golden/payment-declined.txt");
}

#[test]
fn out_of_stock() {
    let mut host = shop();
    host.send(order(11, 1_998))
        .rejected("OUT_OF_STOCK")
        .emitted_kinds(&["PaymentProcessed", "InventoryRejected", "PaymentRefunded", "OrderCancelled"])
        .saga_is(Status::Compensated);
    spent(&mut host, 0, 0);
    host.saga("o-1").golden("tests/golden/out-of-stock.txt");
}

#[test]
fn every_event_twice() {
    let mut host = shop();
    host.send(order(2, 1_998)).completed();
    host.send_again().no_effect();
    host.saga("o-1").redeliver().no_effect();
    spent(&mut host, 1_998, 2);

    let mut host = shop();
    host.send(order(11, 1_998)).rejected("OUT_OF_STOCK");
    host.saga("o-1").redeliver().nothing_ran().emitted_nothing();
    spent(&mut host, 0, 0);
}

#[test]
fn a_deadline_while_inventory_is_silent() {
    let mut host = shop();
    host.saga_deadline(Duration::from_secs(60)).hold("PaymentProcessed");
    host.send(order(2, 1_998)).completed().emitted_kinds(&["PaymentProcessed"]);
    host.advance(Duration::from_secs(59)).no_effect();
    spent(&mut host, 1_998, 0);
    host.advance(Duration::from_secs(1))
        .undone()
        .emitted_kinds(&["PaymentRefunded", "OrderCancelled"])
        .emitted("OrderCancelled", json!({"reason": "saga-deadline"}));
    // What was late comes after all: nothing is reserved for an order that is cancelled.
    host.release("PaymentProcessed").emitted_nothing().saga_is(Status::Compensated);
    spent(&mut host, 0, 0);
    host.saga("o-1").golden("tests/golden/deadline.txt");
}

#[test]
fn a_compensation_that_fails_waits_for_an_operator() {
    let mut host = shop();
    host.plugin("payment").dies_compensating(1..=5);
    host.send(order(11, 1_998)).rejected("OUT_OF_STOCK").saga_is(Status::Compensating);
    // A step that is stuck holds up no other: the order is cancelled.
    host.advance(Duration::from_secs(3600)).trapped("it was killed by the test").emitted_kinds(&["OrderCancelled"]);
    host.saga("o-1").needs_operator();
    spent(&mut host, 1_998, 0);
    host.saga("o-1").retry().done().undone().emitted_kinds(&["PaymentRefunded"]);
    spent(&mut host, 0, 0);
    host.saga("o-1").is(Status::Compensated).golden("tests/golden/compensation-failing.txt");
}

#[test]
fn a_participant_that_dies_is_tried_again() {
    let mut host = shop();
    host.plugin("inventory").dies_handling(1..=2);
    host.send(order(2, 1_998)).trapped("it was killed by the test").saga_is(Status::Running);
    host.advance(Duration::from_secs(60)).emitted_kinds(&["InventoryUpdated", "OrderCompleted"]);
    host.saga("o-1").is(Status::Completed);
    spent(&mut host, 1_998, 2);
}

#[test]
fn a_participant_that_always_dies_costs_the_order() {
    let mut host = shop();
    host.plugin("inventory").dies_handling(1..=u32::MAX);
    host.send(order(2, 1_998));
    host.advance(Duration::from_secs(3600)).dead_letter("trap").emitted("PaymentRefunded", json!({"orderId": "o-1"}));
    host.saga("o-1").is(Status::Compensated);
    spent(&mut host, 0, 0);
}

#[test]
fn cancelled_in_the_middle_and_before_the_beginning() {
    let mut host = shop();
    host.hold("PaymentProcessed").send(order(2, 1_998)).completed();
    host.compensate("o-1").undone().emitted_kinds(&["PaymentRefunded", "OrderCancelled"]);
    spent(&mut host, 0, 0);

    let mut host = shop();
    host.compensate("o-1");
    host.send(order(2, 1_998)).emitted_kinds(&["OrderCancelled"]).saga_is(Status::Compensated);
    spent(&mut host, 0, 0);
}
