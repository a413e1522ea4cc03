//! The real binary ends itself before and after each durable step on its way from the journal to the broker, with
//! hundreds of sagas under way; the next start goes on. Invariant: that it died there, and that there was work in
//! flight, is asserted each time.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_tests::{
    kafka_shop::{KINDS, KafkaShop, Settings, Topics},
    payment_service::PaymentService,
    shop::THREE,
};

use crate::brokers::steady as broker;

const ORDERS: usize = 300;
const IN_FLIGHT_MIN: usize = 50;
const LONG: Duration = Duration::from_secs(120);
const SIGABRT: i32 = 6;

fn load() -> Vec<Order> {
    orders(&Shape { customers: 40, articles: 30, ..Shape::of(ORDERS) }).collect()
}

/// All orders are there before the host starts that will die: at most `chains` of them go into each batch.
fn shop(point: &str, plugins: &[&str], chains: usize) -> (KafkaShop<'static>, Vec<Order>) {
    let name = format!("crash-{point}");
    let topics = Topics(name.clone());
    let shop = KafkaShop::with(broker(), &name, plugins, &topics, &Settings::small_batches(chains));
    let host = shop.start();
    shop.until("the first start", LONG, |status| status.number("published") > 0);
    assert!(host.stop().success());
    let orders = load();
    shop.produce(&orders);
    (shop, orders)
}

/// Runs until the point ends it. Returns how many orders are under way then.
fn die(shop: &KafkaShop<'_>, orders: &[Order], point: &str, time: usize) -> usize {
    let mut host = shop.start_with(&[], &[("SAGAHOST_CRASH_AT", &format!("{point}:{time}"))]);
    let status = host.ended();
    assert_eq!(status.signal(), Some(SIGABRT), "{status}:\n{}", host.log());
    assert!(host.log().contains(&format!("crash point {point}")), "{}", host.log());
    let in_flight = orders.len() - shop.ends().len();
    assert!(in_flight >= IN_FLIGHT_MIN, "{in_flight} in flight");
    in_flight
}

/// Batches of ten: it dies with the fourth one that reaches the point.
fn crash_and_go_on(point: &str) {
    let (shop, orders) = shop(point, &THREE, 10);
    die(&shop, &orders, point, 4);
    let host = shop.start();
    shop.watch().until(orders.len(), LONG);
    assert!(host.stop().success());
    shop.assert_right(&orders);
}

macro_rules! crashes {
    ($($name:ident: $point:literal)*) => {$(
        #[test]
        fn $name() {
            crash_and_go_on($point);
        }
    )*};
}

crashes! {
    before_the_journals_commit: "before-journal-commit"
    after_the_journals_commit: "after-journal-commit"
    before_offsets_are_sent: "before-offsets"
    after_offsets_are_sent: "after-offsets"
    before_records_are_produced: "before-produce"
    after_records_are_produced: "after-produce"
    before_the_end_of_the_transaction: "before-end-of-transaction"
    after_the_end_of_the_transaction: "after-end-of-transaction"
}

/// A confirmation by itself is written by a host that is idle: here all orders wait for a payment that comes later,
/// from a service of somebody else.
fn crash_at_the_confirmation(point: &str) {
    let (shop, orders) = shop(point, &["order", "inventory"], 1_000);
    broker().create_topic(&shop.topics.of("PaymentRefunded"), 4, &[]).expect("a topic");
    assert_eq!(die(&shop, &orders, point, 1), orders.len());
    let service = PaymentService::start(&broker().bootstrap(), &shop.topics);
    let host = shop.start();
    shop.watch().until(orders.len(), LONG);
    shop.until_quiet();
    assert!(host.stop().success());
    let mut counters = service.stop();
    counters.extend(shop.counters());
    shop.assert_right_with(&orders, &counters);
    shop.assert_no_doubles(&KINDS[1..9]);
}

#[test]
fn before_the_confirmation() {
    crash_at_the_confirmation("before-confirm");
}

#[test]
fn after_the_confirmation() {
    crash_at_the_confirmation("after-confirm");
}
