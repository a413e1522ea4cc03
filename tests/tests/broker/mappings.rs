//! Records of other producers on a real broker: keys that are not text, and what an outbox relay writes. Invariant: a
//! saga is found under the id that its producer means, and answers stay in its partition.

use std::{collections::BTreeMap, time::Duration};

use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_tests::{
    kafka_shop::{KafkaShop, Settings, Topics},
    shop::THREE,
};
use sagahost_transport::Transport as _;
use sagahost_wire::{Headers, Outgoing};

use crate::brokers::steady as broker;

const LONG: Duration = Duration::from_secs(100);

fn shop(name: &str, mapping: &str) -> KafkaShop<'static> {
    let topics = Topics(name.to_owned());
    let more = format!("[topics.records.{:?}]\n{mapping}", topics.of("OrderCreated"));
    KafkaShop::with(broker(), name, &THREE, &topics, &Settings { more, ..Settings::default() })
}

/// Orders whose ids are numbers.
fn numbered(count: usize) -> Vec<(i64, Order)> {
    let shape = Shape { customers: 2, articles: 2, ..Shape::of(count) };
    (1..)
        .zip(orders(&shape))
        .map(|(number, order): (i64, Order)| (number, Order { order_id: number.to_string(), ..order }))
        .collect()
}

#[test]
fn sagas_of_long_keys_have_names_and_their_answers_stay_in_the_partition() {
    let shop = shop("longs", "key = \"long\"\n");
    let mut host = shop.start();
    host.says("serving socket=", LONG);
    let transport = broker().transport("longs-client").unwrap();
    let send = |key: Vec<u8>, value: Vec<u8>| {
        let topic = shop.topics.of("OrderCreated").into();
        transport.offer(&Outgoing { topic, key: Some(key), value: Some(value), headers: Headers::new() }).unwrap()
    };
    let mut placed = BTreeMap::new();
    for (number, order) in numbered(20) {
        let key = number.to_be_bytes().to_vec();
        let (partition, _) = send(key.clone(), serde_json::to_vec(&order).unwrap());
        placed.insert(key, partition.number);
    }
    shop.until("all sagas end", LONG, |status| status.sagas(&["completed", "compensated"]) == 20);
    assert_eq!(shop.ask(&["sagas", "show", "7"])["id"], "7");
    // A key that is not a long, and one that an operator types.
    send(b"o-1".to_vec(), b"{}".to_vec());
    shop.until("the dead letter", LONG, |status| status.number("open-letters") == 1);
    let letter = shop.ask(&["dead-letters", "list", "--each"])[0].clone();
    assert_eq!(letter["code"], "invalid-key", "{letter}");
    let (_, order) = numbered(21).pop().unwrap();
    let data = serde_json::to_string(&order).unwrap();
    let emit = |saga: &str| shop.command(&["emit", "OrderCreated", "--saga", saga, "--data", &data]);
    assert_eq!(emit("o-21").status.code(), Some(2), "keys of this topic are longs");
    assert!(emit("21").status.success());
    shop.until("the saga of the command", LONG, |status| status.sagas(&["completed", "compensated"]) == 21);
    shop.until_quiet();
    assert!(host.stop().success());
    let mut answers = 0;
    for kind in ["OrderCompleted", "OrderCancelled"] {
        for line in broker().committed(&shop.topics.of(kind)).unwrap() {
            let key = line.key.as_bytes();
            assert_eq!(key.len(), 8, "{kind}: {line:?}");
            assert!(placed.get(key).is_none_or(|partition| *partition == line.partition), "{kind}: {line:?}");
            answers += 1;
        }
    }
    assert_eq!(answers, 21);
}

/// As Debezium's event router writes it: the kind and the id in headers, the payload as text in an envelope.
#[test]
fn what_an_outbox_relay_writes_is_read() {
    let mapping = "kind = \"header:eventType\"\nevent-id = \"header:id\"\ndata = \"/payload\"\n";
    let shop = shop("outbox", mapping);
    let host = shop.start();
    let mut watch = shop.watch();
    let transport = broker().transport("outbox-client").unwrap();
    let all: Vec<Order> = orders(&Shape { customers: 2, articles: 2, ..Shape::of(6) }).collect();
    let send = |order: &Order, kind: Option<&str>| {
        let payload = serde_json::to_string(order).unwrap();
        let value = serde_json::json!({ "schema": { "type": "string" }, "payload": payload }).to_string();
        let pair = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        let headers = kind.map(|kind| pair("eventType", kind)).into_iter().chain([pair("id", &order.order_id)]);
        let record = Outgoing {
            topic: shop.topics.of("OrderCreated").into(),
            key: Some(order.order_id.clone().into_bytes()),
            value: Some(value.into_bytes()),
            headers: headers.collect(),
        };
        transport.offer(&record).unwrap();
    };
    for order in &all {
        send(order, Some("OrderCreated"));
        // A relay that restarts sends again; the id says that it is the same event.
        send(order, Some("OrderCreated"));
    }
    watch.until(all.len(), LONG);
    send(&all[0], None);
    shop.until("the dead letter", LONG, |status| status.number("open-letters") == 1);
    let letter = shop.ask(&["dead-letters", "list", "--each"])[0].clone();
    assert_eq!(letter["code"], "unknown-kind", "{letter}");
    let shown = shop.ask(&["dead-letters", "show", letter["key"].as_str().unwrap()]);
    assert!(shown["detail"].as_str().unwrap().contains("there is no header eventtype"), "{shown}");
    shop.until_quiet();
    assert!(host.stop().success());
    shop.assert_right_with(&all, &shop.counters());
}
