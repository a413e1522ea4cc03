//! Who owns an app, by the real binary: rivals with its transactional id, and journals that are lost, old or copied.
//! Invariant: a wrong owner is refused or ends by itself, and the orders end once all the same.

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use sagahost_tests::{
    kafka_shop::{KafkaShop, Topics},
    shop::THREE,
};

use crate::brokers::steady as broker;
use crate::shops::{begun, load};

const LONG: Duration = Duration::from_secs(90);

fn shop(name: &str) -> KafkaShop<'static> {
    KafkaShop::new(broker(), name, &THREE, &Topics(name.to_owned()))
}

/// Somebody else's producer with the app's id: its claim fences the host.
fn claim(app: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker().bootstrap()).set("transactional.id", app).set("log_level", "0");
    let rival: BaseProducer = config.create().expect("a producer");
    rival.init_transactions(LONG).expect("the id can be claimed");
    rival
}

#[test]
fn a_rival_that_claims_once_costs_one_claim() {
    let shop = shop("rival");
    let orders = load(200);
    let host = shop.start();
    let mut watch = shop.watch();
    shop.produce(&orders[..100]);
    watch.until(100, LONG);
    shop.until_quiet();
    let rival = claim("rival");
    shop.produce(&orders[100..]);
    watch.until(orders.len(), LONG);
    assert_eq!(host.log().matches("fenced; reading what was published last").count(), 1, "{}", host.log());
    assert!(is_fenced(&rival), "the host has claimed the id again");
    assert!(host.stop().success());
    shop.assert_right(&orders);
}

/// An empty transaction never reaches the coordinator; one with a record does.
fn is_fenced(rival: &BaseProducer) -> bool {
    let record = BaseRecord::to("rival.OrderCreated").key("k").payload("never");
    rival.begin_transaction().is_err()
        || rival.send::<str, str>(record).is_err()
        || rival.flush(Duration::from_secs(5)).is_err()
        || rival.commit_transaction(Duration::from_secs(5)).is_err()
}

/// The rival ends, whatever becomes of the test.
struct Over<'d>(&'d AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_rival_that_claims_again_and_again_ends_the_host() {
    let shop = shop("rivals");
    let orders = load(100);
    let mut host = shop.start();
    let mut watch = shop.watch();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&done);
        let rival = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(claim("rivals"));
            }
        });
        // A host that has nothing to publish is not fenced: orders that are done come again.
        let mut portions = orders.chunks(5).cycle();
        let end = Instant::now() + LONG;
        while host.child.try_wait().expect("it can be asked").is_none() {
            assert!(!rival.is_finished(), "the rival gave up");
            assert!(Instant::now() < end, "the host goes on:\n{}", host.log());
            shop.produce(portions.next().expect("it has no end"));
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    // Those that had no turn, too.
    shop.produce(&orders);
    assert_eq!(host.ended().code(), Some(7), "{}", host.log());
    assert!(host.log().contains("another host owns this app now"), "{}", host.log());
    let host = shop.start();
    watch.until(orders.len(), LONG);
    assert!(host.stop().success());
    shop.assert_right(&orders);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success());
}

/// Another directory of the same app.
fn second(first: &KafkaShop<'_>) -> KafkaShop<'static> {
    KafkaShop::new(broker(), &first.app, &THREE, &first.topics)
}

#[test]
fn an_older_copy_of_the_journal_is_refused_and_disturbs_nobody() {
    let first = shop("older");
    let orders = load(150);
    begun(&first, &orders[..50]);
    let older = second(&first);
    copy(&first.data(), &older.data());
    let host = first.start();
    let mut watch = first.watch();
    first.produce(&orders[50..100]);
    watch.until(100, LONG);
    let mut refused = older.start();
    assert_eq!(refused.ended().code(), Some(1), "{}", refused.log());
    assert!(refused.log().contains("it was restored from an older copy"), "{}", refused.log());
    assert!(refused.log().contains("--new-lineage"), "{}", refused.log());
    first.produce(&orders[100..]);
    watch.until(150, LONG);
    assert!(!host.log().contains("fenced"), "{}", host.log());
    assert!(host.stop().success());
    first.assert_right(&orders);
}

#[test]
fn a_lost_journal_is_refused_and_a_new_lineage_goes_on_behind_it() {
    let shop = shop("lost");
    let orders = load(150);
    begun(&shop, &orders[..100]);
    std::fs::remove_dir_all(shop.data()).expect("a directory can be removed");
    let mut refused = shop.start();
    assert_eq!(refused.ended().code(), Some(1), "{}", refused.log());
    assert!(refused.log().contains("it is new and empty"), "{}", refused.log());
    assert!(refused.log().contains("--new-lineage"), "{}", refused.log());
    let host = shop.start_with(&["--new-lineage"], &[]);
    let status = shop.until_quiet();
    assert_eq!(status.counter("calls"), 0, "what the lost journal had handled does not run again: {status:?}");
    let mut watch = shop.watch();
    shop.produce(&orders[100..]);
    watch.until(orders.len(), LONG);
    assert!(host.stop().success());
    assert_eq!(shop.ends().faults(&orders), Vec::<String>::new());
    // Told once, it is an ordinary journal.
    let host = shop.start();
    shop.until_quiet();
    assert!(host.stop().success());
}

/// Both serve before there is anything to do: each has looked, and found nobody ahead of it. (One that starts when the
/// other has published is refused, as an older copy is.)
#[test]
fn of_a_data_directory_copied_and_started_twice_one_goes_on() {
    let first = shop("copied");
    let orders = load(300);
    begun(&first, &orders[..50]);
    let copied = second(&first);
    copy(&first.data(), &copied.data());
    let shops = [&first, &copied];
    let mut hosts = shops.map(|shop| {
        let mut host = shop.start();
        host.says("serving socket=", LONG);
        host
    });
    let mut watch = first.watch();
    for portion in orders[50..].chunks(50) {
        first.produce(portion);
        std::thread::sleep(Duration::from_millis(200));
    }
    let end = Instant::now() + LONG;
    while watch.read(Duration::from_millis(200)) < orders.len() {
        let logs = || format!("{}\n---\n{}", hosts[0].log(), hosts[1].log());
        assert!(Instant::now() < end, "{} of {} orders ended:\n{}", watch.ends.len(), orders.len(), logs());
    }
    let end = Instant::now() + LONG;
    let codes = loop {
        let codes = hosts.each_mut().map(|host| host.child.try_wait().expect("it can be asked"));
        if codes.iter().any(Option::is_some) || Instant::now() > end {
            break codes.map(|status| status.and_then(|status| status.code()));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let logs = || format!("{codes:?}\n{}\n---\n{}", hosts[0].log(), hosts[1].log());
    let loser = codes.iter().position(Option::is_some).unwrap_or_else(|| panic!("{}", logs()));
    assert_eq!((codes[loser], codes[1 - loser]), (Some(7), None), "{}", logs());
    assert!(hosts[loser].log().contains("another host owns this app now"), "{}", logs());
    let [one, other] = hosts;
    let winner = if loser == 0 { other } else { one };
    assert!(winner.stop().success());
    shops[1 - loser].assert_right(&orders);
    // The loser's journal has a batch that nobody else knows.
    let mut again = shops[loser].start();
    assert_eq!(again.ended().code(), Some(1), "{}", again.log());
    assert!(again.log().contains("older copy") || again.log().contains("was copied"), "{}", again.log());
}
