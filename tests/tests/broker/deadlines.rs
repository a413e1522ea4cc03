//! Deadlines against results that are queued in Kafka, by the real binary (SEMANTICS.md, rule 9).

use std::time::{Duration, Instant};

use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_tests::kafka_shop::{KafkaShop, Settings, Topics};

use crate::brokers::steady;

const LONG: Duration = Duration::from_secs(300);
/// Both orders are open and the host is killed before it passes.
const DEADLINE: Duration = Duration::from_secs(6);
/// In front of the completion: more than the timers' first look leaves time for.
const QUEUED: usize = 8_000;

#[test]
fn a_completion_that_was_queued_while_the_host_was_down_past_the_deadline_completes_the_saga() {
    let settings = Settings {
        more: format!("[saga]\ndeadline = \"{}s\"\n[pipeline]\nstall-wait-max = \"10m\"\n", DEADLINE.as_secs()),
        kafka: "create-topics = true\npartitions = 1\n".to_owned(),
        ..Settings::default()
    };
    let topics = Topics("late".to_owned());
    let shop = KafkaShop::with(steady(), "late", &["order"], &topics, &settings);
    let orders: Vec<Order> = orders(&Shape::of(2)).collect();
    let (finished, forgotten) = (&orders[0].order_id, &orders[1].order_id);

    let host = shop.start();
    let mut watch = shop.watch();
    let opened = Instant::now();
    shop.produce(&orders);
    shop.until("both orders to be open", LONG, |status| status.sagas(&["running"]) == 2);
    host.kill();

    let completion = |order: &str| format!(r#"{{"orderId": "{order}", "reservationId": "r-1"}}"#);
    let others = (0..QUEUED).map(|number| format!("other-{number}"));
    let keys: Vec<String> = others.chain([finished.clone()]).collect();
    let values: Vec<String> = keys.iter().map(|key| completion(key)).collect();
    let none: &[(&str, &str)] = &[];
    let records = keys.iter().zip(&values).map(|(key, value)| (key.as_str(), value.as_str(), none));
    steady().produce(&topics.of("InventoryUpdated"), records).expect("the broker takes completions");
    // The deadlines pass while nobody is there.
    std::thread::sleep((DEADLINE + Duration::from_millis(500)).saturating_sub(opened.elapsed()));

    let host = shop.start();
    watch.until(2, LONG);
    assert_eq!(watch.ends.completed.keys().collect::<Vec<_>>(), [finished], "queued results come first");
    assert_eq!(watch.ends.cancelled.keys().collect::<Vec<_>>(), [forgotten], "without one the deadline holds");
    let saga = shop.ask(&["sagas", "show", forgotten]);
    assert!(saga["cause"].as_str().is_some_and(|cause| cause.starts_with("saga-deadline")), "{saga}");
    assert!(host.stop().success());
    shop.assert_no_doubles(&["OrderCompleted", "OrderCancelled"]);
}
