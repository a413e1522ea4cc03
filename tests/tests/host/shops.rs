//! What tests of a shop on embedded topics share.

use std::path::PathBuf;

use sagahost::host::Host;
use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_tests::{operator::Operator, shop::Shop};

pub fn some_orders(prefix: &str, count: usize) -> Vec<Order> {
    orders(&Shape { customers: 20, articles: 10, prefix: prefix.to_owned(), ..Shape::of(count) }).collect()
}

/// Its plugin directory.
pub fn plugins(shop: &Shop) -> PathBuf {
    shop.dir.path().join("plugins")
}

pub fn started(plugins: &[&str], more: &str) -> (Shop, Host, Operator) {
    let shop = Shop::new(plugins, more);
    let host = shop.start();
    let operator = Operator::of(&host);
    (shop, host, operator)
}

pub fn await_done(operator: &Operator, saga: &str) {
    operator.await_saga(saga, "done", |saga| saga.steps.iter().all(|step| step.state == "done"));
}
