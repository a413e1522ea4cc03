//! The reference saga on a real broker, by the real binary: load, kills, doubles, offset resets, three apps, a service of
//! somebody else, and how many transactions all that takes. Invariant: the result is the same each time.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use sagahost_demo::workload::{Counters, Order, Shape, orders};
use sagahost_tests::{
    kafka_shop::{KINDS, KafkaShop, Running, Settings, Topics, Watch},
    payment_service::PaymentService,
    shop::THREE,
};

use crate::brokers::{fragile, steady as broker};

fn load(count: usize) -> Vec<Order> {
    orders(&Shape { customers: count / 5, articles: count / 10, ..Shape::of(count) }).collect()
}

fn shop(name: &str) -> KafkaShop<'static> {
    KafkaShop::new(broker(), name, &THREE, &Topics(name.to_owned()))
}

const LONG: Duration = Duration::from_secs(100);

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
    // Kafka's own console consumer counts as many. It gives up when nothing comes for so long, at its beginning too.
    let wait = Duration::from_secs(20);
    let seen: usize = std::thread::scope(|scope| {
        let shop = &shop;
        let count = |kind| scope.spawn(move || shop.broker.read(&shop.topics.of(kind), wait).expect("it reads").len());
        let counts = ["OrderCompleted", "OrderCancelled"].map(count);
        counts.map(|count| count.join().expect("it does not panic")).iter().sum()
    });
    assert_eq!(seen, orders.len());
    assert!(shop.broker.committed("load.dead-letters").expect("it reads").is_empty());
}

/// Produces at a limited rate, and counts what the broker has acknowledged.
fn produce_slowly(shop: &KafkaShop<'_>, orders: &[Order], produced: &AtomicUsize) {
    for portion in orders.chunks(80) {
        shop.produce(portion);
        produced.fetch_add(portion.len(), Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `kill -9` as soon as some more orders have ended. Returns how many were under way.
fn kill_at_work(host: Running, watch: &mut Watch, produced: &AtomicUsize) -> usize {
    let before = watch.ends.len();
    let end = std::time::Instant::now() + LONG;
    while watch.read(Duration::from_millis(2)) < before + 10 {
        let there = produced.load(Ordering::SeqCst);
        assert!(std::time::Instant::now() < end, "{before} of {there} ended, nothing more:\n{}", host.log());
    }
    let there = produced.load(Ordering::SeqCst);
    host.kill();
    there.saturating_sub(watch.read(Duration::from_millis(200)))
}

/// One of each, on real processes and a real broker: `tests/sim` has them at every step.
#[test]
fn kills_a_broker_restart_and_a_second_host_lose_nothing_and_double_nothing() {
    const KILLS: usize = 4;
    // It is stopped in between.
    let broker = fragile();
    let topics = Topics("kills".to_owned());
    let shop = KafkaShop::with(&broker, "kills", &THREE, &topics, &Settings::small_batches(20));
    let orders = load(800);
    let produced = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let mut host = shop.start();
        let mut watch = shop.watch();
        scope.spawn(|| produce_slowly(&shop, &orders, &produced));
        let (mut hits, mut kills) = (0, 0);
        while hits < KILLS {
            hits += usize::from(kill_at_work(host, &mut watch, &produced) > 0);
            kills += 1;
            assert!(kills < 2 * KILLS, "only {hits} of {kills} kills hit work in flight");
            host = shop.start();
            match kills {
                1 => refuse_a_second_host(&shop, &mut host),
                2 => {
                    host.says("serving socket=", LONG);
                    broker.stop().expect("the broker stops");
                    broker.restart().expect("the broker starts");
                    // That it goes on by itself is what the next kill waits for.
                }
                _ => {}
            }
        }
        watch.until(orders.len(), LONG);
        assert!(host.stop().success());
    });
    shop.assert_right(&orders);
}

/// On a data directory of its own; the first one does not even notice.
fn refuse_a_second_host(first: &KafkaShop<'_>, host: &mut Running) {
    host.says("serving socket=", LONG);
    let second = KafkaShop::new(first.broker, &first.app, &THREE, &first.topics);
    let mut refused = second.start();
    assert_eq!(refused.ended().code(), Some(1), "{}", refused.log());
    assert!(refused.log().contains("Another host of this app may be running"), "{}", refused.log());
    assert!(matches!(host.child.try_wait(), Ok(None)), "{}", host.log());
    assert!(!host.log().contains("fenced"), "{}", host.log());
}

/// Order and payment handle each order, inventory and order those that are paid, and a few are taken back; what is run
/// again because of a conflict is counted too. Doubles that ran would cost twice as much.
fn assert_no_double_ran(shop: &KafkaShop<'_>, orders: usize) {
    let status = shop.status();
    let (calls, again) = (status.counter("calls"), status.counter("chains-rerun"));
    assert!(calls < 5 * (orders as u64 + again), "{status:?}");
}

/// Behind everything else, where nothing is under way any more that could cost a call.
fn assert_another_costs_no_call(shop: &KafkaShop<'_>, orders: &[Order], produce: impl Fn(&[Order])) {
    let before = shop.until_quiet();
    produce(orders);
    let all = before.counter("duplicates") + orders.len() as u64;
    let after = shop.until("every double to be counted", LONG, |status| status.counter("duplicates") == all);
    assert_eq!(after.counter("calls"), before.counter("calls"), "{after:?}");
}

#[test]
fn plain_records_three_times_and_offsets_reset_after_a_stop_cost_no_call() {
    let shop = shop("thrice");
    let orders = load(500);
    let host = shop.start();
    let mut watch = shop.watch();
    for _ in 0..3 {
        shop.produce(&orders);
    }
    watch.until(orders.len(), LONG);
    shop.until_quiet();
    assert_no_double_ran(&shop, orders.len());
    assert_another_costs_no_call(&shop, &orders, |orders| shop.produce(orders));
    assert!(host.stop().success());
    pass_again_without_a_call(&shop, &orders);
}

#[test]
fn cloud_events_three_times_and_offsets_reset_after_a_kill_cost_no_call() {
    let shop = shop("thrice-events");
    let orders = load(500);
    let host = shop.start();
    let mut watch = shop.watch();
    for _ in 0..3 {
        shop.produce_cloud_events(&orders);
    }
    watch.until(orders.len(), LONG);
    shop.until_quiet();
    assert_no_double_ran(&shop, orders.len());
    assert_eq!(shop.status().counter("duplicates"), 2 * orders.len() as u64);
    assert_another_costs_no_call(&shop, &orders, |orders| shop.produce_cloud_events(orders));
    shop.until_quiet();
    host.kill();
    // All of it is known to be published: nothing was in flight.
    assert_eq!(shop.status().unpublished(), 0);
    pass_again_without_a_call(&shop, &orders);
}

/// By Kafka's own tool, to the beginning of every topic.
fn pass_again_without_a_call(shop: &KafkaShop<'_>, orders: &[Order]) {
    let reset = shop.broker.reset_offsets(&shop.app, None, "--to-earliest").expect("offsets can be reset");
    assert!(reset.contains(&shop.topics.of("OrderCreated")), "{reset}");
    let host = shop.start();
    let status = shop.until_quiet();
    assert_eq!(status.counter("calls"), 0, "{status:?}");
    assert!(host.log().contains("records below the journaled position are handled already"), "{}", host.log());
    assert!(host.stop().success());
    shop.assert_right(orders);
}

/// Each app dies once, with a batch of its own journaled and not out.
#[test]
fn three_apps_with_one_plugin_each_end_every_order_once_also_when_each_dies_with_work_in_flight() {
    const POINTS: [&str; THREE.len()] = ["after-journal-commit:3", "after-produce:3", "before-end-of-transaction:3"];
    let topics = Topics("apart".to_owned());
    let settings = Settings::small_batches(20);
    let shops: Vec<KafkaShop> = THREE
        .iter()
        .map(|plugin| KafkaShop::with(broker(), &format!("apart-{plugin}"), &[plugin], &topics, &settings))
        .collect();
    let orders = load(300);
    let dies = |(shop, point): (&KafkaShop<'static>, &str)| shop.start_with(&[], &[("SAGAHOST_CRASH_AT", point)]);
    let mut hosts: Vec<Running> = shops.iter().zip(POINTS).map(dies).collect();
    // All topics are there.
    let mut watch = shops[0].watch();
    shops[0].produce(&orders);
    for (shop, host) in shops.iter().zip(&mut hosts) {
        host.ended_within(LONG);
        assert!(host.log().contains("crash point"), "{}: {}", shop.app, host.log());
        assert!(shop.status().unpublished() > 0, "{} died with nothing in flight: {:?}", shop.app, shop.status());
        *host = shop.start();
    }
    watch.until(orders.len(), LONG);
    // Each app hears of the end and settles its own part.
    let mut counters = Counters::new();
    for (shop, host) in shops.iter().zip(hosts) {
        settled(shop);
        assert!(host.stop().success());
        counters.extend(shop.counters());
    }
    shops[0].assert_right_with(&orders, &counters);
    shops[0].assert_no_doubles(&KINDS[1..]);
}

/// No saga of the app is under way, and everything is published.
fn settled(shop: &KafkaShop<'_>) {
    shop.until("all sagas to end", LONG, |status| {
        status.sagas(&["running", "finishing", "compensating"]) == 0 && status.sagas(&["completed", "compensated"]) > 0
    });
    let status = shop.until_quiet();
    assert_eq!(status.sagas(&["needs-operator", "quarantined"]), 0, "{status:?}");
}

#[test]
fn a_service_of_somebody_else_takes_part_through_kafka_alone() {
    let topics = Topics("foreign".to_owned());
    let settings = Settings::small_batches(20);
    let shop = KafkaShop::with(broker(), "foreign", &["order", "inventory"], &topics, &settings);
    broker().create_topic(&topics.of("PaymentRefunded"), 4, &[]).expect("a topic");
    let orders = load(1_000);
    let produced = AtomicUsize::new(orders.len());
    let mut host = shop.start();
    let mut watch = shop.watch();
    // It may be faster than the host: a payment then comes before the order that it is for.
    let service = PaymentService::start(&broker().bootstrap(), &topics);
    shop.produce(&orders);
    for _ in 0..3 {
        assert!(kill_at_work(host, &mut watch, &produced) > 0);
        host = shop.start();
    }
    watch.until(orders.len(), LONG);
    settled(&shop);
    assert!(host.stop().success());
    let mut counters = service.stop();
    counters.extend(shop.counters());
    shop.assert_right_with(&orders, &counters);
    shop.assert_no_doubles(&KINDS[1..]);
    let refunds = broker().committed(&topics.of("PaymentRefunded")).expect("it reads");
    let rejected = broker().committed(&topics.of("InventoryRejected")).expect("it reads");
    assert_eq!(refunds.len(), rejected.len());
    assert!(!refunds.is_empty());
}

#[test]
fn a_batch_takes_one_transaction_and_an_idle_host_takes_none() {
    let shop = shop("counted");
    let orders = load(500);
    let host = shop.start();
    let mut watch = shop.watch();
    shop.produce(&orders);
    watch.until(orders.len(), LONG);
    let status = shop.until_quiet();
    let transactions = broker().transactions("counted").expect("the broker's log can be read");
    assert_eq!(transactions, (status.number("batch") as usize, 0), "{status:?}");
    assert_eq!(status.counter("publications"), status.number("batch"), "{status:?}");
    // The first batch, which says where the app begins, is journaled by the start itself.
    assert_eq!(status.counter("journal-commits") + 1, status.number("batch"), "{status:?}");
    assert!(transactions.0 < orders.len(), "one by one: {transactions:?}");
    // The time is what is tested: nothing may happen in it. Progress would be out within a second (`position-wait`).
    std::thread::sleep(Duration::from_secs(3));
    let later = broker().transactions("counted").expect("the broker's log can be read");
    assert_eq!(later, transactions, "{:?}", shop.status());
    assert_eq!(shop.status().number("batch"), status.number("batch"));
    assert!(host.stop().success());
}
