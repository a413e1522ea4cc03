//! A host of real threads that dies at each durable step, twice on one data directory. (`tests/sim` does so by the
//! thousand.) Invariant: each planned death is died, and after all of them every order has ended once, with money and
//! stock conserved.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use sagahost::host::Host;
use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_processor::start::Decisions;
use sagahost_tests::{
    faulty::{Death, POINTS, Point},
    shop::{PATIENCE, Shop, THREE},
};

/// Orders fed while a host is to die; two of them to a batch, so that there is much to die at.
const FED: usize = 6;

fn some_orders(prefix: String) -> Vec<Order> {
    orders(&Shape { customers: 20, articles: 10, prefix, ..Shape::of(FED) }).collect()
}

fn die(point: Point, times: &[i64]) {
    let shop = Shop::new(&THREE, "[pipeline]\nbatch-chains-max = 2\n");
    let mut all = Vec::new();
    let mut under_way = 0;
    for (number, time) in times.iter().enumerate() {
        let death = Death::at(point, *time);
        die_once(&shop, &death, point, number, &mut all);
        assert!(death.dead(), "death {number} at {point:?}, time {time}, was not died");
        under_way += usize::from(shop.ends().len() < all.len());
    }
    // Who dies behind a publication, or at a confirmation, may have nothing left to do.
    let least = match point {
        Point::BeforeCommit | Point::AfterCommit | Point::BeforePublish => times.len(),
        Point::AfterPublish | Point::BeforeConfirm | Point::AfterConfirm => 0,
    };
    assert!(under_way >= least, "orders were open at {under_way} of {} deaths at {point:?}", times.len());
    let host = shop.start();
    let ends = shop.await_ends(&all, &Death::never(), PATIENCE);
    assert_eq!(ends.len(), all.len(), "after deaths at {point:?}");
    shop.assert_right(&all, &*host.journal());
    assert_eq!(host.stop(Duration::from_secs(10)), Default::default());
}

/// Feeds orders until the host is dead. It may die while it starts: that counts.
fn die_once(shop: &Shop, death: &Arc<Death>, point: Point, number: usize, all: &mut Vec<Order>) {
    let Ok(host) = shop.try_start(death, Decisions::default()) else { return };
    let end = Instant::now() + PATIENCE;
    for round in 0.. {
        if death.dead() || Instant::now() > end {
            break;
        }
        let orders = some_orders(format!("d{number}-{round}"));
        shop.produce(&orders);
        all.extend(orders);
        let next = Instant::now() + Duration::from_millis(100);
        while !death.dead() && Instant::now() < end && (Instant::now() < next || unconfirmed(&host, point)) {
            thread::sleep(Duration::from_millis(5));
        }
    }
    host.abort();
}

/// What is published is confirmed when nothing else is to do: who is to die of that is fed nothing until then.
fn unconfirmed(host: &Host, point: Point) -> bool {
    let identity = host.journal().identity();
    matches!(point, Point::BeforeConfirm | Point::AfterConfirm) && identity.confirmed < identity.last_batch
}

/// Which hit of its point is fatal to each host: not that of the claim, with which the first start begins.
fn times(point: Point) -> [i64; 2] {
    match point {
        Point::BeforeCommit | Point::AfterCommit | Point::BeforePublish | Point::AfterPublish => [3, 3],
        Point::BeforeConfirm | Point::AfterConfirm => [2, 2],
    }
}

#[test]
fn who_dies_at_any_durable_step_loses_nothing_and_doubles_nothing() {
    thread::scope(|scope| {
        for point in POINTS {
            scope.spawn(move || die(point, &times(point)));
        }
    });
}
