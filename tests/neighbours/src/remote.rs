//! A service that takes its time. Invariant: payment is a service in all three runs, or a plugin; what the others are asked for
//! is the same.

use std::time::Duration;

use anyhow::{Result, ensure};
use sagahost_demo::free_address;

use crate::{
    figures::Figure,
    load::{self, Latencies},
    service,
    site::{Bench, Site},
};

pub const ABOUT: &str = "Two workers, 20 sagas a second of one plugin. Beside them 400 orders a second on one partition: first \
none, then with payment as a plugin, then with payment as a service that answers each order after 50 ms. From an event's sending to \
the publication of its answer.";

const CONFIG: &str = "[pipeline]\nworkers = 2\n[embedded]\npartitions = 1\n";
const SECONDS: u32 = 20;
const ORDERS_A_TURN: u32 = 400 / load::PER_SECOND;
const ANSWERS_AFTER: Duration = Duration::from_millis(50);
/// The machine may be slower than the load.
const BEHIND: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payment {
    Nobody,
    Plugin,
    Service,
}

struct Run {
    other: Latencies,
    orders: Latencies,
}

fn measure(bench: &Bench<'_>, payment: Payment) -> Result<Run> {
    let address = free_address()?;
    let (plugins, more): (&[&str], String) = match payment {
        Payment::Nobody => (&["hostile"], String::new()),
        Payment::Plugin => (&["hostile", "payment"], String::new()),
        Payment::Service => (&["hostile"], service::config(address)),
    };
    let mut site = Site::new(bench, plugins, &format!("{CONFIG}{more}"))?;
    service::write_manifest(&site)?;
    let asked = (payment == Payment::Service).then(|| service::start_at(address, ANSWERS_AFTER));
    site.start()?;
    let orders = if payment == Payment::Nobody { 0 } else { ORDERS_A_TURN };
    let sent = load::paced(site.topics(), SECONDS, |turn| {
        let tried = format!("tried-{turn:04}");
        let mut all = vec![(tried.clone(), load::tried(&tried, &format!("{tried}-1"), "none", 0))];
        all.extend((0..orders).map(|number| {
            let order = format!("order-{turn:04}-{number:02}");
            (order.clone(), load::order(&order))
        }));
        all
    })?;
    let topics: &[&str] = if orders == 0 { &["hostile-done"] } else { &["hostile-done", "payment-processed"] };
    let ends = site.reader(topics)?.ends(&|ends| ends.len() >= sent.len(), BEHIND)?;
    ensure!(ends.len() == sent.len(), "{} of {} sagas have ended", ends.len(), sent.len());
    if let Some(asked) = asked {
        service::ensure_asked_once(&asked, (orders * SECONDS * load::PER_SECOND) as usize)?;
    }
    Ok(Run {
        other: Latencies::of(&sent, &ends, |saga| saga.starts_with("tried-")),
        orders: Latencies::of(&sent, &ends, |saga| saga.starts_with("order-")),
    })
}

pub fn run(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let calm = measure(bench, Payment::Nobody)?;
    let beside_plugin = measure(bench, Payment::Plugin)?;
    let beside_service = measure(bench, Payment::Service)?;
    Ok(vec![
        Figure::new("other plugin, alone: p99", "ms", calm.other.p99()),
        Figure::new("other plugin, beside payment as a plugin: p99", "ms", beside_plugin.other.p99()),
        Figure::new("other plugin, beside payment as a service: p99", "ms", beside_service.other.p99()),
        Figure::new(
            "other plugin: p99, times beside a plugin",
            "x",
            beside_service.other.p99() / beside_plugin.other.p99(),
        )
        .at_most(2.0),
        Figure::new("other plugin: p99, times alone", "x", beside_service.other.p99() / calm.other.p99()),
        Figure::new("orders, payment is a plugin: p99", "ms", beside_plugin.orders.p99()),
        Figure::new("orders, payment is a service: median", "ms", beside_service.orders.median()),
        Figure::new("orders, payment is a service: p99", "ms", beside_service.orders.p99()),
    ])
}
