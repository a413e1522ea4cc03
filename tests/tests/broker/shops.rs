//! What tests of a shop on a broker share.

use std::time::Duration;

use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_tests::kafka_shop::KafkaShop;

const LONG: Duration = Duration::from_secs(90);

/// Of few customers and articles, so that some are declined and some sold out.
pub fn load(count: usize) -> Vec<Order> {
    orders(&Shape { customers: 40, articles: 30, ..Shape::of(count) }).collect()
}

/// These orders are done, and the host has stopped.
pub fn begun(shop: &KafkaShop<'_>, orders: &[Order]) {
    let host = shop.start();
    let mut watch = shop.watch();
    shop.produce(orders);
    watch.until(orders.len(), LONG);
    shop.until_quiet();
    assert!(host.stop().success());
}
