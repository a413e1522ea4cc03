//! What a partition or its broker holds back, by the real binary: copies of dead letters that
//! do not fit. Invariant: what is said names the cause, once, and what can go on goes on.

use std::{sync::OnceLock, time::Duration};

use sagahost_demo::{
    broker::{Broker, Options},
    workload::{Order, Shape, orders},
};
use sagahost_tests::{
    kafka_shop::{KafkaShop, Topics},
    shop::THREE,
};

const LONG: Duration = Duration::from_secs(90);

fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| Broker::start(Options::default()).expect("a broker"))
}

fn shop(name: &str) -> KafkaShop<'static> {
    KafkaShop::new(broker(), name, &THREE, &Topics(name.to_owned()))
}

fn load(count: usize) -> Vec<Order> {
    orders(&Shape { customers: 40, articles: 30, ..Shape::of(count) }).collect()
}

/// Nobody can read it as an order.
fn undecodable(shop: &KafkaShop<'_>, key: &str, value_bytes: usize, header_bytes: usize) {
    let (value, header) = ("x".repeat(value_bytes), "y".repeat(header_bytes));
    let headers = [("note", header.as_str())];
    let records = [(key, value.as_str(), &headers[..])];
    broker().produce(&shop.topics.of("OrderCreated"), records).expect("the broker takes it");
}

#[test]
fn a_copy_of_a_dead_letter_that_is_refused_gives_way() {
    let shop = shop("copies");
    let orders = load(60);
    let host = shop.start();
    let mut watch = shop.watch();
    // The topic is made with the first copy that is published, or before.
    undecodable(&shop, "whole", 10, 10);
    shop.produce(&orders[..20]);
    watch.until(20, LONG);
    shop.until_quiet();
    let copies = "copies.dead-letters";
    broker().alter_topic(copies, "max.message.bytes=1500").expect("a setting can be made");
    undecodable(&shop, "large value", 4_000, 10);
    undecodable(&shop, "large header", 10, 4_000);
    shop.produce(&orders[20..]);
    watch.until(orders.len(), LONG);
    shop.until_quiet();
    let published = broker().committed(copies).expect("it reads");
    let copy = |key: &str| published.iter().find(|line| line.key == key);
    assert_eq!(copy("whole").map(|line| line.value.len()), Some(10));
    let short = copy("large value").expect("a copy without its value");
    assert_eq!(short.value, "");
    assert!(short.headers.contains(&("sagahost-dlq-omitted".to_owned(), "value".to_owned())), "{short:?}");
    assert_eq!(copy("large header"), None);
    let letters = shop.ask(&["dead-letters", "list", "--each"]);
    let keys = letters.as_array().expect("a list").iter().filter_map(|letter| letter["key"].as_str());
    let letters: String = keys.map(|key| shop.ask(&["dead-letters", "show", key]).to_string()).collect();
    assert!(letters.contains("[the copy in the topic has no value: it is too large"), "{letters}");
    assert!(letters.contains("[there is no copy in the topic: it is too large"), "{letters}");
    assert_eq!(shop.status().number("open-letters"), 3);
    assert!(host.log().contains("a dead letter's copy was refused"), "{}", host.log());
    assert!(host.stop().success());
    let ends = shop.ends();
    assert_eq!(ends.faults(&orders), Vec::<String>::new());
}
