//! What a partition or its broker holds back, by the real binary: open transactions, and copies
//! of dead letters that do not fit. Invariant: what is said names the cause, once, and what can go on goes on.

use std::{sync::OnceLock, time::Duration};

use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use sagahost_demo::broker::{Broker, Options};
use sagahost_tests::{
    kafka_shop::{KafkaShop, Topics},
    shop::THREE,
};

use crate::shops::load;

const LONG: Duration = Duration::from_secs(90);

fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| Broker::start(Options::default()).expect("a broker"))
}

fn shop(name: &str) -> KafkaShop<'static> {
    KafkaShop::new(broker(), name, &THREE, &Topics(name.to_owned()))
}

/// A transaction of somebody else with one record, in this partition.
fn open_transaction(topic: &str, partition: i32) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker().bootstrap()).set("transactional.id", "somebody-else");
    config.set("transaction.timeout.ms", "300000").set("log_level", "0");
    let producer: BaseProducer = config.create().expect("a producer");
    producer.init_transactions(LONG).expect("the id can be claimed");
    producer.begin_transaction().expect("a transaction begins");
    let record = BaseRecord::<str, str>::to(topic).partition(partition).key("k").payload("{}");
    producer.send(record).map_err(|(error, _)| error).expect("it can be sent");
    producer.flush(LONG).expect("it is delivered");
    producer
}

#[test]
fn an_open_transaction_of_somebody_else_is_named_with_its_place() {
    let shop = shop("open");
    let orders = load(200);
    let host = shop.start();
    let mut watch = shop.watch();
    shop.produce(&orders[..100]);
    watch.until(100, LONG);
    shop.until_quiet();
    let topic = shop.topics.of("OrderCreated");
    let offset = broker()
        .committed(&topic)
        .expect("it reads")
        .iter()
        .filter(|line| line.partition == 1)
        .map(|line| line.offset + 1)
        .max()
        .expect("records");
    let producer = open_transaction(&topic, 1);
    shop.produce(&orders[100..]);
    let said = format!("{topic}[1] is held up at offset {offset} since ");
    let status = shop.until("the partition to be named", LONG, |status| status.waits().contains(&said));
    assert!(status.waits().contains(&format!("describe-producers --topic {topic} --partition 1")), "{status:?}");
    let lines = shop.ask(&["topics", "list"]);
    let of_topic = |lines: &serde_json::Value| {
        let lines = lines.as_array().expect("a list");
        lines.iter().find(|line| line["name"] == *topic).expect("the topic is listed")["held-up"].clone()
    };
    assert_eq!(of_topic(&lines), serde_json::json!([format!("{topic}[1] at {offset}")]));
    // The other partitions are served meanwhile.
    assert!(watch.read(Duration::from_millis(200)) > 100);
    producer.abort_transaction(LONG).expect("it can be aborted");
    watch.until(orders.len(), LONG);
    shop.until("the word to be taken back", LONG, |status| !status.waits().contains("is held up"));
    assert_eq!(of_topic(&shop.ask(&["topics", "list"])), serde_json::json!([]));
    assert!(host.stop().success());
    shop.assert_right(&orders);
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
