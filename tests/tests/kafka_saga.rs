//! The reference saga on a real broker, by the real binary: load, kills, doubles, offset resets, three apps.

use std::{sync::OnceLock, time::Duration};

use sagahost_demo::{
    broker::{Broker, Options},
    workload::{Order, Shape, orders},
};
use sagahost_tests::{
    kafka_shop::{KafkaShop, Topics},
    shop::THREE,
};

fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| Broker::start(Options::default()).expect("a broker"))
}

fn load(count: usize) -> Vec<Order> {
    orders(&Shape { customers: count / 5, articles: count / 10, ..Shape::of(count) }).collect()
}

fn shop(name: &str) -> KafkaShop<'static> {
    KafkaShop::new(broker(), name, &THREE, &Topics(name.to_owned()))
}

const LONG: Duration = Duration::from_secs(300);

#[test]
fn twenty_thousand_orders_end_once_each() {
    let shop = shop("load");
    let orders = load(20_000);
    let host = shop.start();
    let mut watch = shop.watch();
    shop.produce(&orders);
    watch.until(orders.len(), LONG);
    assert!(host.stop().success());
    shop.assert_right(&orders);
    assert!(shop.broker.read("load.dead-letters", Duration::from_secs(3)).expect("it reads").is_empty());
}

#[test]
fn kills_in_the_middle_of_the_work_lose_nothing_and_double_nothing() {
    const KILLS: usize = 20;
    let shop = shop("kills");
    let orders = load(4_200);
    let mut host = shop.start();
    let mut watch = shop.watch();
    // A portion for each life: the host is killed while a part of it is done and a part is not.
    let (first, rest) = orders.split_at(200);
    shop.produce(first);
    for portion in rest.chunks(rest.len() / KILLS) {
        let before = watch.ends.len();
        shop.produce(portion);
        watch.until(before + 20, LONG);
        host.kill();
        host = shop.start();
    }
    watch.until(orders.len(), LONG);
    assert!(host.stop().success());
    shop.assert_right(&orders);
}

#[test]
fn records_three_times_and_offsets_reset_cost_no_call() {
    let shop = shop("thrice");
    let orders = load(500);
    let host = shop.start();
    let mut watch = shop.watch();
    for _ in 0..3 {
        shop.produce(&orders);
    }
    watch.until(orders.len(), LONG);
    assert!(host.stop().success());
    let reset = broker().reset_offsets("thrice", None, "--to-earliest").expect("offsets can be reset");
    assert!(reset.contains("thrice.OrderCreated"), "{reset}");
    let host = shop.start();
    watch.read(Duration::from_secs(4));
    let status = shop.ask(&["status"]);
    assert_eq!(status.pointer("/counters/calls"), Some(&0.into()), "{status}");
    assert!(host.stop().success());
    shop.assert_right(&orders);
}

#[test]
fn a_second_host_on_a_data_directory_of_its_own_is_refused_and_disturbs_nobody() {
    let first = shop("twice");
    let orders = load(400);
    let host = first.start();
    let mut watch = first.watch();
    first.produce(&orders[..200]);
    watch.until(200, LONG);
    let second = KafkaShop::new(broker(), "twice", &THREE, &Topics("twice".to_owned()));
    let mut refused = second.start();
    let status = refused.ended();
    assert!(!status.success());
    assert!(refused.log().contains("Another host of this app may be running"), "{}", refused.log());
    first.produce(&orders[200..]);
    watch.until(400, LONG);
    assert!(host.stop().success());
    first.assert_right(&orders);
}

#[test]
fn three_apps_with_one_plugin_each_end_every_order_once() {
    let topics = Topics("apart".to_owned());
    let shops: Vec<KafkaShop> =
        THREE.iter().map(|plugin| KafkaShop::new(broker(), &format!("apart-{plugin}"), &[plugin], &topics)).collect();
    let hosts: Vec<_> = shops.iter().map(KafkaShop::start).collect();
    let mut watch = shops[0].watch();
    let orders = load(300);
    shops[0].produce(&orders);
    watch.until(orders.len(), LONG);
    // The other apps hear of the end, too.
    std::thread::sleep(Duration::from_secs(3));
    for host in hosts {
        assert!(host.stop().success());
    }
    let mut counters = shops[1].counters();
    counters.extend(shops[2].counters());
    let ends = shops[0].ends();
    assert_eq!(ends.faults(&orders), Vec::<String>::new());
    let faults = sagahost_demo::workload::conservation_faults(
        &orders,
        &ends,
        &counters,
        sagahost_tests::shop::OPENING_BALANCE,
        sagahost_tests::shop::OPENING_STOCK,
    );
    assert_eq!(faults, Vec::<String>::new());
}
