//! What waits while a host, or one of its plugins, is away. Invariant of all tests: it is not lost, not given up on, and
//! goes on by itself when what was away is back.

use std::{fs, sync::Arc, time::Duration};

use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_operator::{plugin_view::PluginsView, protocol::Request};
use sagahost_processor::start::Decisions;
use sagahost_tests::{
    built,
    events::event,
    faulty::Death,
    operator::{Operator, attempts},
    shop::{PATIENCE, Shop, THREE, order_record},
    wait::until,
};
use sagahost_transport::Transport as _;
use sagahost_wire::clock::{Clock as _, SimulatedClock, SystemClock};
use serde_json::json;

const STOP: Duration = Duration::from_secs(10);

fn some_orders(count: usize, prefix: &str) -> Vec<Order> {
    orders(&Shape { prefix: prefix.to_owned(), ..Shape::of(count) }).collect()
}

/// Race 21.
#[test]
fn events_of_a_plugin_that_is_away_park_until_it_is_back() {
    let shop = Shop::new(&THREE, "");
    let first = some_orders(20, "a");
    let host = shop.start();
    shop.produce(&first);
    shop.await_ends(&first, &Death::never(), PATIENCE);
    host.stop(STOP);

    fs::remove_file(shop.dir.path().join("plugins/inventory.wasm")).unwrap();
    let host = shop.start();
    let operator = Operator::of(&host);
    let second = some_orders(30, "b");
    shop.produce(&second);
    for order in &second {
        let over_the_limit = order.amount_cents > sagahost_demo::workload::LIMIT_CENTS;
        let saga = operator.await_saga(&order.order_id, "waiting or cancelled", |saga| {
            if over_the_limit { saga.status == "compensated" } else { !saga.parked.is_empty() }
        });
        if !over_the_limit {
            assert_eq!(saga.status, "running");
            assert_eq!((&*saga.parked[0].participant, &*saga.parked[0].kind), ("inventory", "PaymentProcessed"));
            assert_eq!(saga.parked[0].why, "its plugin is away");
        }
    }
    let view: PluginsView = operator.ask(Request::Plugins).unwrap();
    let states: Vec<_> = view.plugins.iter().map(|plugin| (&*plugin.name, &*plugin.state)).collect();
    assert_eq!(states, [("inventory", "paused"), ("order", "serving"), ("payment", "serving")]);
    assert!(operator.letters().is_empty(), "nothing is given up on");
    host.stop(STOP);

    built::copy(&["inventory"], &shop.dir.path().join("plugins"));
    let host = shop.start();
    let all: Vec<Order> = first.into_iter().chain(second).collect();
    shop.await_ends(&all, &Death::never(), PATIENCE);
    shop.assert_right(&all, &*host.journal());
    host.stop(STOP);
}

/// Behind which the completion stands.
const QUEUED: usize = 500;

/// Rule 9: what was queued when a stall ended comes before the deadlines that passed meanwhile.
#[test]
fn a_completion_that_was_queued_while_the_host_was_down_comes_before_the_deadline() {
    let shop = Shop::new(&["order"], "[saga]\ndeadline = \"10m\"\n[pipeline]\nstall-wait-max = \"10m\"\n");
    shop.topics().create_topics(&["inventory-updated".into()], 1).unwrap();
    let clock = Arc::new(SimulatedClock::at(SystemClock.now()));
    let start = || shop.start_by(clock.clone(), &Death::never(), Decisions::default()).unwrap();
    let host = start();
    let operator = Operator::of(&host);
    let orders = some_orders(2, "o");
    let (finished, forgotten) = (&orders[0].order_id, &orders[1].order_id);
    orders.iter().for_each(|order| drop(shop.send(&order_record(order))));
    for id in [finished, forgotten] {
        operator.await_saga(id, "open", |saga| saga.status == "running" && saga.steps[0].state == "done");
    }
    drop(operator);
    host.stop(STOP);

    // Its completion stands behind a queue of others.
    let others = (0..QUEUED).map(|number| {
        let other = format!("other-{number}");
        event("InventoryUpdated", &other, &other, &json!({ "orderId": other, "reservationId": "r" }))
    });
    shop.topics().offer_all(&others.collect::<Vec<_>>()).unwrap();
    let updated = json!({ "orderId": finished, "reservationId": "r-1" });
    shop.send(&event("InventoryUpdated", finished, "u-1", &updated));
    clock.advance(Duration::from_secs(3_600));

    let host = start();
    let operator = Operator::of(&host);
    let saga = operator.await_status(finished, "completed");
    assert_eq!(attempts(&saga, "order"), ["handle completed", "handle completed"]);
    // Without a completion the deadline does what it is for.
    let saga = operator.await_status(forgotten, "compensated");
    assert_eq!(saga.cause.as_deref(), Some("saga-deadline: not finished within 600000 ms"));
    until("each has ended in its own way", || {
        let ends = shop.ends();
        (ends.completed.contains_key(finished) && ends.cancelled.contains_key(forgotten) && ends.len() == 2)
            .then_some(())
    });
    host.stop(STOP);
}
