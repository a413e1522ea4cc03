//! The broker goes away, by the real binary: at the start, in the middle of a commit, and while the host is told to end.
//! Invariant: a broker serves one test at a time here, for each test stops it.

use std::time::{Duration, Instant};

use sagahost_demo::{
    broker::Broker,
    workload::{Order, Shape, orders},
};
use sagahost_tests::{
    kafka_shop::{KafkaShop, Settings, Topics},
    shop::THREE,
};

use crate::brokers::fragile as broker;

const LONG: Duration = Duration::from_secs(120);

fn load(count: usize) -> Vec<Order> {
    orders(&Shape { customers: count / 5, articles: count / 10, ..Shape::of(count) }).collect()
}

fn shop<'b>(broker: &'b Broker, name: &str, pipeline: &str) -> KafkaShop<'b> {
    let settings = Settings { more: format!("[pipeline]\n{pipeline}"), ..Settings::default() };
    KafkaShop::with(broker, name, &THREE, &Topics(name.to_owned()), &settings)
}

#[test]
fn a_broker_that_is_away_at_the_start_is_named_and_waited_for() {
    let broker = broker();
    let shop = shop(&broker, "later", "shutdown-deadline = \"3s\"\n");
    broker.stop().expect("the broker stops");
    let mut host = shop.start();
    host.says(&format!("waiting for the topics at kafka at {}", broker.bootstrap()), LONG);
    // No command takes it for a host that is gone.
    assert_eq!(shop.command(&["status"]).status.code(), Some(4));
    // Whoever does not want to wait need not.
    host.terminate();
    let asked = Instant::now();
    let status = host.ended();
    assert_eq!(status.code(), Some(0), "{}", host.log());
    assert!(host.log().contains("stopped before the host had begun"), "{}", host.log());
    // A call to the broker takes ten.
    assert!(asked.elapsed() < Duration::from_secs(9), "{:?}", asked.elapsed());

    let mut host = shop.start();
    host.says(&format!("waiting for the topics at kafka at {}", broker.bootstrap()), LONG);
    broker.restart().expect("the broker starts");
    host.says("serving socket=", LONG);
    let orders = load(100);
    shop.produce(&orders);
    shop.watch().until(orders.len(), LONG);
    assert!(host.stop().success());
    shop.assert_right(&orders);
}

/// An exit code of its own: what a script does about it is not what it does about wrong usage.
#[test]
fn commands_that_need_the_broker_have_an_exit_code_for_its_absence() {
    let broker = broker();
    let shop = shop(&broker, "codes", "");
    let mut serving = shop.start();
    serving.says("serving socket=", LONG);
    let mut host = Some(serving);
    broker.stop().expect("the broker stops");
    for hosted in [true, false] {
        for words in [&["topics", "list"][..], &["topics", "create"]] {
            let ended = shop.command(words);
            let text = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(9), "{words:?}, hosted {hosted}: {text}");
            assert!(text.contains("check that the brokers run"), "{text}");
        }
        if let Some(host) = host.take().filter(|_| hosted) {
            host.kill();
        }
    }
}

#[test]
fn a_broker_that_goes_away_in_the_middle_of_a_commit_is_said_and_lived_through() {
    let broker = broker();
    let shop = shop(&broker, "middle", "batch-chains-max = 20\n");
    let orders = load(1_000);
    let mut host = shop.start();
    host.says("serving socket=", LONG);
    assert!(host.stop().success());
    shop.produce(&orders);
    // Records and offsets are with the broker; whether the transaction is committed will be known to nobody.
    let mut host = shop.start_with(&[], &[("SAGAHOST_STOP_AT", "before-end-of-transaction:3")]);
    host.says("stop point before-end-of-transaction", LONG);
    broker.kill();
    host.goes_on();
    // Said before librdkafka gives up, and again behind that.
    shop.until("the wait to be said", LONG, |status| status.waits().contains("waits for publication: no answer for"));
    host.says("waits for publication", LONG);
    broker.restart().expect("the broker starts");
    host.says("the broker is back", LONG);
    shop.watch().until(orders.len(), LONG);
    let status = shop.until_quiet();
    assert_eq!(status.0["waiting-for"].as_array().map(Vec::len), Some(0), "{status:?}");
    assert!(host.stop().success());
    shop.assert_right(&orders);
}

#[test]
fn a_host_told_to_end_while_the_broker_is_away_ends_in_time_and_names_what_is_left() {
    let broker = broker();
    let shop = shop(&broker, "sigterm", "batch-chains-max = 20\nshutdown-deadline = \"4s\"\n");
    let orders = load(6_000);
    let mut host = shop.start();
    let mut watch = shop.watch();
    shop.produce(&orders);
    watch.until(100, LONG);
    broker.kill();
    shop.until("two batches to wait", LONG, |status| status.unpublished() == 2);
    host.terminate();
    let asked = Instant::now();
    let status = host.ended();
    // The deadline, a second for threads, two for a client that does not end; a publication would take ten at least.
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}:\n{}", asked.elapsed(), host.log());
    assert_eq!(status.code(), Some(6), "{}", host.log());
    let left = shop.ask(&["outbox", "list"]);
    let left: Vec<String> = left.as_array().expect("batches").iter().map(|batch| batch["batch"].to_string()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    let said = format!("of batches {} journaled and not yet published", left.join(", "));
    assert!(host.log().contains(&said), "{said}:\n{}", host.log());

    // Told to end while it waits at its start, it still knows.
    let mut host = shop.start();
    host.says("waiting for the topics", LONG);
    host.terminate();
    assert_eq!(host.ended().code(), Some(6), "{}", host.log());

    broker.restart().expect("the broker starts");
    let mut host = shop.start();
    host.says("batches that were journaled and not yet published go out first", LONG);
    watch.until(orders.len(), LONG);
    assert!(host.stop().success());
    shop.assert_right(&orders);
}
