//! A disk that is full, for real. Invariant of all tests: the host says so, ends nothing, loses nothing, and goes on by
//! itself when there is room.

use std::{fs, os::unix::fs::symlink, thread, time::Duration};

use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_processor::start::Decisions;
use sagahost_tests::{
    faulty::Death,
    operator::Operator,
    shop::{PATIENCE, Shop, THREE},
    small_disk::SmallDisk,
    wait::until,
};

const STOP: Duration = Duration::from_secs(10);

fn some_orders(count: usize, prefix: &str) -> Vec<Order> {
    orders(&Shape { prefix: prefix.to_owned(), ..Shape::of(count) }).collect()
}

/// A shop whose data directory is on the small disk.
fn shop_on(disk: &SmallDisk) -> Shop {
    let shop = Shop::new(&THREE, "");
    symlink(disk.path().join("data"), shop.dir.path().join("data")).unwrap();
    fs::create_dir(disk.path().join("data")).unwrap();
    shop
}

#[test]
fn a_full_journal_is_waited_for() {
    let disk = SmallDisk::mount("64m");
    let mut shop = shop_on(&disk);
    shop.topics_dir = Some(shop.dir.path().join("topics"));
    let host = shop.start();
    let operator = Operator::of(&host);
    let first = some_orders(50, "a");
    shop.produce(&first);
    shop.await_ends(&first, &Death::never(), PATIENCE);

    disk.fill();
    let second = some_orders(400, "b");
    shop.produce(&second);
    let said = until("the host says what it waits for", || operator.status().waiting_for.into_iter().next());
    assert!(said.contains("has no room for the journal") && said.contains("free some space"), "{said}");
    let ended = shop.ends().len();
    assert!(ended < first.len() + second.len(), "the disk was not full");
    // It still says so whenever it is asked, and does not end.
    for _ in 0..50 {
        assert!(!operator.status().waiting_for.is_empty(), "it does not say any more that it waits");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(shop.ends().len(), ended, "nothing is published that is not journaled");
    assert_eq!(host.fatal(Duration::ZERO), None);

    disk.free();
    let all: Vec<Order> = first.into_iter().chain(second).collect();
    shop.await_ends(&all, &Death::never(), PATIENCE);
    shop.assert_right(&all, &*host.journal());
    until("it waits for nothing any more", || operator.status().waiting_for.is_empty().then_some(()));
    assert_eq!(host.stop(STOP), Default::default());
}

/// Journal and topics on one full disk, and a kill on top.
#[test]
fn a_disk_full_of_everything_loses_nothing() {
    let disk = SmallDisk::mount("64m");
    let shop = shop_on(&disk);
    let host = shop.start();
    let operator = Operator::of(&host);
    let orders = some_orders(600, "a");
    shop.produce(&orders);
    until("work is under way", || (!shop.ends().is_empty()).then_some(()));
    disk.fill();
    let said = until("the host says what it waits for", || operator.status().waiting_for.into_iter().next());
    assert!(said.contains("room") || said.contains("full"), "{said}");
    // Its desk holds the journal, too.
    drop(operator);
    host.abort();

    // A start on a full disk is refused where the journal cannot be opened, and waits where only topics have no room.
    // Room is made only when that was seen.
    let host = match shop.try_start(&Death::never(), Decisions::default()) {
        Err(error) => {
            let text = format!("{error:#}");
            assert!(text.contains("full") && text.contains("free some space"), "{text}");
            disk.free();
            shop.start()
        }
        Ok(host) => {
            let operator = Operator::of(&host);
            let said = until("the host says what it waits for", || operator.status().waiting_for.into_iter().next());
            assert!(said.contains("room") || said.contains("full"), "{said}");
            assert!(shop.ends().len() < orders.len(), "the disk was not full");
            disk.free();
            host
        }
    };
    shop.await_ends(&orders, &Death::never(), PATIENCE);
    shop.assert_right(&orders, &*host.journal());
    assert_eq!(host.stop(STOP), Default::default());
}
