//! The whole host on the embedded transport, in this process: the reference saga, and a death at each durable step.

use std::time::Duration;

use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_saga::input::Status;
use sagahost_tests::{
    faulty::{Death, POINTS, Point},
    shop::{PATIENCE, Shop, THREE},
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

#[test]
fn a_death_at_each_durable_step_loses_nothing_and_doubles_nothing() {
    for point in POINTS {
        for time in 1..=8 {
            dies(point, time);
        }
    }
}

/// Runs until the host dies at the point, then starts it again.
fn dies(point: Point, time: i64) {
    let shop = Shop::new(&THREE, "[pipeline]\nbatch-chains-max = 5\n");
    let orders = some_orders(60);
    shop.produce(&orders);
    let death = Death::at(point, time);
    if let Ok(host) = shop.try_start(&death, Default::default()) {
        let patience = if matches!(point, Point::BeforeConfirm | Point::AfterConfirm) { 3 } else { 20 };
        shop.await_ends(&orders, &death, Duration::from_secs(patience));
        host.abort();
    }
    let host = shop.start();
    let ends = shop.await_ends(&orders, &Death::never(), PATIENCE);
    assert_eq!(ends.len(), orders.len(), "after a death at {point:?}, time {time}");
    std::thread::sleep(Duration::from_millis(50));
    shop.assert_right(&orders, &*host.journal());
    host.stop(Duration::from_secs(10));
}

#[test]
fn every_record_delivered_three_times_is_handled_once() {
    let shop = Shop::new(&THREE, "");
    let orders = some_orders(200);
    let host = shop.start();
    for _ in 0..3 {
        shop.produce(&orders);
    }
    shop.await_ends(&orders, &Death::never(), PATIENCE);
    let calls = host.live().status().calls;
    std::thread::sleep(Duration::from_millis(300));
    shop.assert_right(&orders, &*host.journal());
    assert_eq!(host.live().status().calls, calls, "the second and third delivery cost no call");
    host.stop(Duration::from_secs(10));
}
