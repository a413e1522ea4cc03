//! Long quiet times, by the real binary: the broker forgets the app's transactional id and its committed offsets.
//! Invariant: the host goes on by itself, running or through a restart, and nothing is out twice.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use sagahost_demo::{
    broker::{Broker, Options},
    workload::Order,
};
use sagahost_tests::{
    kafka_shop::{KafkaShop, Running, Topics},
    shop::THREE,
};
use sagahost_transport::{Isolation, Sink, Transport};
use sagahost_wire::Partition;

use crate::shops::load;

const LONG: Duration = Duration::from_secs(120);

/// Forgets in seconds what others keep for a week; offsets in a minute, for it takes no less.
fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| {
        let options = Options::default()
            .with("transactional.id.expiration.ms", 2_000)
            .with("transaction.remove.expired.transaction.cleanup.interval.ms", 500)
            .with("offsets.retention.minutes", 1)
            .with("offsets.retention.check.interval.ms", 1_000);
        Broker::start(options).expect("a broker")
    })
}

fn shop(name: &str) -> KafkaShop<'static> {
    KafkaShop::new(broker(), name, &THREE, &Topics(name.to_owned()))
}

/// Looks until the broker has forgotten it.
fn until_forgotten(what: &str, known: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while known() {
        assert!(Instant::now() < end, "the broker still knows {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn id_forgotten(app: &str) {
    until_forgotten(app, || broker().transactional_ids().expect("ids can be listed").iter().any(|id| id == app));
}

fn offsets_forgotten(shop: &KafkaShop<'_>) {
    let transport = broker().transport(&shop.app).expect("a client");
    let mut sink = transport.sink().expect("a consumer of the group");
    let partitions: Vec<Partition> = ["OrderCreated", "OrderCompleted", "PaymentProcessed", "SagaFailed"]
        .iter()
        .flat_map(|kind| (0..4).map(|number| Partition::new(shop.topics.of(kind), number)))
        .collect();
    let sink = std::cell::RefCell::new(sink.as_mut() as &mut dyn Sink);
    until_forgotten("offsets", || {
        let committed = sink.borrow_mut().committed(&partitions, Isolation::Uncommitted);
        !committed.expect("offsets can be read").is_empty()
    });
}

#[test]
fn an_id_that_expired_is_claimed_anew_and_nothing_is_out_twice() {
    let shop = shop("forgotten-id");
    let orders = load(150);
    let host = shop.start();
    let mut watch = shop.watch();
    for part in orders.chunks(50) {
        shop.produce(part);
        watch.until(watch.ends.len() + part.len(), LONG);
        shop.until_quiet();
        id_forgotten("forgotten-id");
    }
    assert!(host.log().contains("producer id"), "the broker forgot nothing: {}", host.log());
    assert!(host.stop().success());
    shop.assert_right(&orders);
}

/// One batch of events is journaled and tried, and the host dies at this point of its transaction.
fn dies_at(shop: &KafkaShop<'_>, point: &str, orders: &[Order]) {
    // Once everything is read to its end, the next transaction is one with events.
    let host = shop.start();
    shop.until_quiet();
    assert!(host.stop().success());
    let mut host: Running = shop.start_with(&[], &[("SAGAHOST_CRASH_AT", point)]);
    host.says("serving socket=", LONG);
    shop.produce(orders);
    host.ended();
    assert!(host.log().contains("crash point"), "{}", host.log());
}

#[test]
fn offsets_that_expired_are_survived_through_a_restart_whatever_became_of_the_last_batch() {
    let orders = load(120);
    let (running, down) = (shop("expired-running"), [shop("expired-out"), shop("expired-in")]);
    let host = running.start();
    let mut watch = running.watch();
    running.produce(&orders[..40]);
    watch.until(40, LONG);
    running.until_quiet();
    // Committed, and nothing of it confirmed in the journal; and aborted, which the journal does not know either.
    for (shop, point) in down.iter().zip(["after-end-of-transaction", "before-end-of-transaction"]) {
        dies_at(shop, point, &orders[..40]);
    }
    for shop in down.iter().chain([&running]) {
        offsets_forgotten(shop);
    }
    running.produce(&orders[40..80]);
    watch.until(80, LONG);
    // And with nothing to do when it comes back.
    running.until_quiet();
    offsets_forgotten(&running);
    assert!(host.stop().success());
    let mut host = running.start();
    running.produce(&orders[80..]);
    watch.until(orders.len(), LONG);
    host.says("serving socket=", LONG);
    assert!(host.stop().success());
    running.assert_right(&orders);

    for shop in &down {
        let host = shop.start();
        shop.produce(&orders[40..]);
        shop.watch().until(orders.len(), LONG);
        shop.until_quiet();
        assert!(host.log().contains("searching the topic"), "{}", host.log());
        assert!(host.stop().success());
        shop.assert_right(&orders);
    }
}

#[test]
fn a_touch_that_came_due_while_the_host_was_down_is_made_at_the_start() {
    let shop = shop("touched");
    let host = shop.start();
    shop.until_quiet();
    assert!(host.stop().success());
    let journal = rusqlite::Connection::open(shop.data().join("journal.db")).expect("the journal can be opened");
    let due = || journal.query_row("SELECT touch_due FROM journal", [], |row| row.get::<_, i64>(0));
    let first = due().expect("a first start journals when the next touch is due");
    journal.execute("UPDATE journal SET touch_due = 1", []).expect("the journal can be written");
    let host = shop.start();
    until_forgotten("the time that is over", || due().expect("the journal can be read") < first);
    let status = shop.until_quiet();
    assert!(host.stop().success());
    // Another start within the hour touches nothing.
    let host = shop.start();
    assert_eq!(shop.until_quiet().number("batch"), status.number("batch"));
    assert!(host.stop().success());
}
