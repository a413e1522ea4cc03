//! Where an app begins to read. Invariant: only its very first start asks for that.

use std::{fs, time::Duration};

use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_tests::{
    kafka_shop::{KafkaShop, Topics},
    shop::THREE,
};

use crate::brokers::steady as broker;

const LONG: Duration = Duration::from_secs(60);

fn some_orders(prefix: &str) -> Vec<Order> {
    orders(&Shape { prefix: prefix.to_owned(), ..Shape::of(10) }).collect()
}

#[test]
fn an_app_that_begins_at_the_latest_leaves_out_what_was_there_before_its_first_start_alone() {
    let shop = KafkaShop::new(broker(), "latest", &THREE, &Topics("latest".to_owned()));
    let text = fs::read_to_string(shop.config()).expect("it is there");
    fs::write(shop.config(), text.replace("start = \"earliest\"", "start = \"latest\"")).expect("it can be written");
    broker().create_topic(&shop.topics.of("OrderCreated"), 4, &[]).expect("a topic");
    shop.produce(&some_orders("before"));
    let mut host = shop.start();
    host.says("serving socket=", LONG);
    let mut watch = shop.watch();
    let mut handled = some_orders("behind");
    shop.produce(&handled);
    watch.until(handled.len(), LONG);
    assert!(host.stop().success());
    let meanwhile = some_orders("meanwhile");
    shop.produce(&meanwhile);
    handled.extend(meanwhile);
    let host = shop.start();
    watch.until(handled.len(), LONG);
    assert!(host.stop().success());
    shop.assert_right(&handled);
}
