//! The whole host on the embedded transport, in this process: the reference saga, and every record three times.

use std::time::Duration;

use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_saga::input::Status;
use sagahost_tests::{
    faulty::Death,
    shop::{PATIENCE, Shop, THREE},
    wait::until,
};

fn some_orders(count: usize) -> Vec<Order> {
    orders(&Shape { customers: 20, articles: 10, ..Shape::of(count) }).collect()
}

#[test]
fn every_order_ends_once_and_money_and_stock_are_conserved() {
    let shop = Shop::new(&THREE, "");
    let orders = some_orders(300);
    let death = Death::never();
    let host = shop.start_dying(&death);
    shop.produce(&orders);
    let ends = shop.await_ends(&orders, &death, PATIENCE);
    assert_eq!(ends.len(), orders.len());
    assert!(
        ends.completed.len() > 200 && ends.cancelled.len() > 30,
        "{} {}",
        ends.completed.len(),
        ends.cancelled.len()
    );
    shop.assert_right(&orders, &*host.journal());
    let journal = host.journal();
    let by_status = journal.count_by_status().expect("sagas can be counted");
    let of = |status| by_status.iter().find(|(other, _)| *other == status).map_or(0, |(_, count)| *count as usize);
    assert_eq!(of(Status::Completed), ends.completed.len(), "{by_status:?}");
    assert_eq!(of(Status::Compensated), ends.cancelled.len(), "{by_status:?}");
    assert!(journal.letter_groups().expect("letters can be counted").is_empty());
    let report = host.stop(Duration::from_secs(10));
    assert_eq!(report, Default::default());
}

/// What a load costs whose records all come so many times. One worker: no chain is run again because of a conflict.
fn calls_and_duplicates(deliveries: usize) -> (u64, u64) {
    let shop = Shop::new(&THREE, "[pipeline]\nworkers = 1\n");
    let orders = some_orders(200);
    let host = shop.start();
    for _ in 0..deliveries {
        shop.produce(&orders);
    }
    shop.await_ends(&orders, &Death::never(), PATIENCE);
    let passed = || {
        let positions = host.journal().positions().expect("positions can be read");
        let of_orders = positions.iter().filter(|(partition, _)| &*partition.topic == "order-created");
        of_orders.map(|(_, position)| position.next).sum::<i64>()
    };
    until("every delivery is accounted for", || (passed() == (deliveries * orders.len()) as i64).then_some(()));
    shop.assert_right(&orders, &*host.journal());
    let status = host.live().status();
    assert_eq!(status.chains_rerun, 0);
    host.stop(Duration::from_secs(10));
    (status.calls, status.duplicates)
}

#[test]
fn every_record_delivered_three_times_is_handled_once() {
    let (calls, none) = calls_and_duplicates(1);
    assert!(calls >= 3 * 200, "each order takes several calls: {calls}");
    assert_eq!(none, 0);
    assert_eq!(calls_and_duplicates(3), (calls, 400), "the second and third delivery cost no call");
}
