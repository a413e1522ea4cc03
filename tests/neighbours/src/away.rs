//! A service that is not there. Invariant: nothing that was sent meanwhile is lost or asked for twice, or there is no figure.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sagahost_demo::free_address;

use crate::{
    figures::Figure,
    load::{self, Latencies},
    service,
    site::{Bench, Site},
};

pub const ABOUT: &str = "Payment is a service, and nothing listens where it should be. 20 orders a second come for it, and 20 sagas a \
second for a plugin, for `--away-minutes` (1 where nothing is said). Then it is there, and answers at once. Memory is all of the \
host.";

/// Nothing takes longer, once it is there.
const BEHIND: Duration = Duration::from_secs(600);

pub fn run(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let address = free_address()?;
    let mut site = Site::new(bench, &["hostile"], &service::config(address))?;
    service::write_manifest(&site)?;
    site.start()?;
    let idle = site.resident_bytes()? / 1e6;
    let seconds = bench.away_minutes * 60;
    let mut after_a_minute = None;
    let sent = load::paced(site.topics(), seconds, |turn| {
        if turn == 60 * load::PER_SECOND - 1 {
            after_a_minute = site.resident_bytes().ok();
        }
        let (order, tried) = (format!("order-{turn:06}"), format!("tried-{turn:06}"));
        vec![
            (order.clone(), load::order(&order)),
            (tried.clone(), load::tried(&tried, &format!("{tried}-1"), "none", 0)),
        ]
    })?;
    let (waited, peak) = (site.resident_bytes()? / 1e6, site.peak_resident_bytes()? / 1e6);
    let orders = sent.len() / 2;
    let mut others = site.reader(&["hostile-done"])?;
    let ends = others.ends(&|ends| ends.len() >= orders, BEHIND)?;
    let other = Latencies::of(&sent, &ends, |saga| saga.starts_with("tried-"));
    let back = Instant::now();
    let asked = service::start_at(address, Duration::ZERO);
    while asked.received().is_empty() {
        ensure!(back.elapsed() < BEHIND, "it is there, and is not asked");
        service::pause();
    }
    let first = back.elapsed();
    let mut paid = site.reader(&["payment-processed"])?;
    let ends = paid.ends(&|ends| ends.len() >= orders, BEHIND)?;
    let all = back.elapsed();
    ensure!(ends.len() == orders, "{} of {orders} orders are paid", ends.len());
    service::ensure_asked_once(&asked, orders)?;
    let minutes = f64::from(bench.away_minutes);
    Ok(vec![
        Figure::new("it was away", "min", minutes),
        Figure::new("orders meanwhile", "", orders as f64),
        Figure::new("memory, idle", "MB", idle),
        Figure::new("memory after a minute", "MB", after_a_minute.unwrap_or(f64::NAN) / 1e6),
        Figure::new("memory when it comes back", "MB", waited),
        Figure::new("most memory meanwhile", "MB", peak).at_most(BOUND_MB),
        Figure::new("other plugin, all the time: p99", "ms", other.p99()),
        Figure::new("it is asked again after", "s", first.as_secs_f64()),
        Figure::new("all orders are paid after", "s", all.as_secs_f64()),
        Figure::new("most memory, also when all of that is handled", "MB", site.peak_resident_bytes()? / 1e6),
    ])
}

/// `in-flight-bytes-max` and `cache-bytes-max` (64 MiB each), and 128 MB for the rest of the host.
const BOUND_MB: f64 = 262.0;
