//! Headers on a real broker: null ones, and those of other bindings. Invariant: what the host cannot know it does not
//! guess, and what it keeps it keeps as it came.

use std::time::Duration;

use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_tests::{
    kafka_shop::{KafkaShop, Topics},
    shop::THREE,
};
use sagahost_transport::Transport as _;
use sagahost_wire::{Headers, Outgoing};

use crate::brokers::steady as broker;

const LONG: Duration = Duration::from_secs(100);

fn headers(pairs: &[(&str, Option<&str>)]) -> Headers {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.map(|value| value.as_bytes().to_vec()))).collect()
}

fn record(shop: &KafkaShop<'_>, key: &str, value: Vec<u8>, headers: Headers) -> Outgoing {
    Outgoing {
        topic: shop.topics.of("OrderCreated").into(),
        key: Some(key.as_bytes().to_vec()),
        value: Some(value),
        headers,
    }
}

fn with_nulls(id: &str) -> Headers {
    headers(&[
        ("ce_id", Some(id)),
        ("ce_source", Some("web")),
        ("ce_type", Some("OrderCreated")),
        ("ce_specversion", Some("1.0")),
        ("ce_time", None),
        ("ce_sagaid", None),
        ("content-type", None),
        ("x-empty", Some("")),
    ])
}

#[test]
fn a_null_header_says_nothing_and_stays_null() {
    let shop = KafkaShop::new(broker(), "nulls", &THREE, &Topics("nulls".to_owned()));
    let orders: Vec<Order> = orders(&Shape { customers: 2, articles: 2, ..Shape::of(5) }).collect();
    let host = shop.start();
    let mut watch = shop.watch();
    let transport = broker().transport("nulls-client").unwrap();
    for order in &orders {
        let id = &order.order_id;
        transport.offer(&record(&shop, id, serde_json::to_vec(order).unwrap(), with_nulls(id))).unwrap();
    }
    watch.until(orders.len(), LONG);
    // Without a content type data is JSON.
    transport.offer(&record(&shop, "broken", b"{".to_vec(), with_nulls("broken"))).unwrap();
    shop.until("the dead letter", LONG, |status| status.number("open-letters") == 1);
    let letter = shop.ask(&["dead-letters", "list", "--each"])[0].clone();
    assert_eq!((&letter["code"], &letter["saga"]), (&"invalid-json".into(), &"broken".into()), "{letter}");
    let shown = shop.ask(&["dead-letters", "show", letter["key"].as_str().unwrap()]);
    let nulls = ["ce_time", "ce_sagaid", "content-type"];
    for name in nulls {
        let pair = serde_json::json!([name, null]);
        assert!(shown["headers"].as_array().unwrap().contains(&pair), "{shown}");
    }
    shop.until_quiet();
    let published = broker().read("nulls.dead-letters", Duration::from_secs(15)).unwrap();
    assert_eq!(published.len(), 1, "{published:?}");
    let has = |name: &str, value: &str| published[0].headers.contains(&(name.to_owned(), value.to_owned()));
    assert!(nulls.iter().all(|name| has(name, "null")) && has("x-empty", ""), "{published:?}");
    assert!(host.stop().success());
    shop.assert_right_with(&orders, &shop.counters());
}

#[test]
fn headers_of_other_bindings_are_read_and_a_part_of_them_is_refused() {
    let shop = KafkaShop::new(broker(), "bindings", &THREE, &Topics("bindings".to_owned()));
    let orders: Vec<Order> = orders(&Shape { customers: 2, articles: 2, ..Shape::of(6) }).collect();
    let host = shop.start();
    let mut watch = shop.watch();
    let transport = broker().transport("bindings-client").unwrap();
    let send = |order: &Order, prefix: &str, attributes: &[(&str, Option<&str>)]| {
        let named = headers(attributes).into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect();
        transport.offer(&record(&shop, &order.order_id, serde_json::to_vec(order).unwrap(), named)).unwrap();
    };
    let prefixes = ["ce-", "cloudEvents:", "cloudEvents_"];
    let (refused, run) = orders.split_at(3);
    for (prefix, order) in prefixes.iter().zip(refused) {
        send(order, prefix, &[("type", Some("OrderRefused")), ("sagaid", Some("other"))]);
        let (id, source) = (("id", Some(order.order_id.as_str())), ("source", Some("web")));
        let kind = ("type", Some("OrderRefused"));
        send(order, prefix, &[id, source, kind, ("specversion", Some("1.0")), ("sagaid", Some("other"))]);
    }
    for (prefix, order) in prefixes.iter().zip(run) {
        let (id, source) = (("id", Some(order.order_id.as_str())), ("source", Some("web")));
        send(order, prefix, &[id, source, ("type", Some("OrderCreated")), ("specversion", Some("1.0"))]);
    }
    watch.until(run.len(), LONG);
    shop.until("the dead letters", LONG, |status| status.number("open-letters") == 3);
    for letter in shop.ask(&["dead-letters", "list", "--each"]).as_array().unwrap() {
        assert_eq!((&letter["code"], &letter["saga"]), (&"invalid-header".into(), &"other".into()), "{letter}");
        assert!(letter["detail"].as_str().unwrap().contains("type, but not ce_id"), "{letter}");
    }
    shop.until_quiet();
    assert!(host.stop().success());
    // Nothing was charged or reserved for the others.
    shop.assert_right_with(run, &shop.counters());
}
