//! The real binary ends itself in front of the end of a Kafka transaction, which it leaves open, and right behind it, when
//! only the broker knows; the next start goes on. (`tests/sim` dies at every durable step.) Invariant: that it died there,
//! and that there was work in flight, is asserted each time.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_tests::{
    kafka_shop::{KafkaShop, Settings, Topics},
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

/// All orders are there before the host starts that will die: at most ten of them go into each batch.
fn shop(point: &str) -> (KafkaShop<'static>, Vec<Order>) {
    let name = format!("crash-{point}");
    let topics = Topics(name.clone());
    let shop = KafkaShop::with(broker(), &name, &THREE, &topics, &Settings::small_batches(10));
    let host = shop.start();
    shop.until("the first start", LONG, |status| status.number("published") > 0);
    assert!(host.stop().success());
    let orders = load();
    shop.produce(&orders);
    (shop, orders)
}

/// Runs until the point ends it, with orders under way.
fn die(shop: &KafkaShop<'_>, orders: &[Order], point: &str, time: usize) {
    let mut host = shop.start_with(&[], &[("SAGAHOST_CRASH_AT", &format!("{point}:{time}"))]);
    let status = host.ended();
    assert_eq!(status.signal(), Some(SIGABRT), "{status}:\n{}", host.log());
    assert!(host.log().contains(&format!("crash point {point}")), "{}", host.log());
    let in_flight = orders.len() - shop.ends().len();
    assert!(in_flight >= IN_FLIGHT_MIN, "{in_flight} in flight");
}

/// Batches of ten: it dies with the fourth one that reaches the point.
fn crash_and_go_on(point: &str) {
    let (shop, orders) = shop(point);
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
    before_the_end_of_the_transaction: "before-end-of-transaction"
    after_the_end_of_the_transaction: "after-end-of-transaction"
}
