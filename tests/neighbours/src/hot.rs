//! A saga with far more events than it may have. Invariant: the others' events go to other sagas, and those that are
//! measured for the same plugin to other partitions.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::Result;
use sagahost_transport_embedded::partition_of;
use sagahost_wire::Outgoing;

use crate::{
    figures::Figure,
    load::{self, Latencies, PER_SECOND},
    site::{Bench, Site},
};

pub const ABOUT: &str = "Two workers, 20 sagas a second on each of two plugins; after ten seconds 30,000 events come for one \
more saga of the second plugin, which may have 256 steps. What is beyond becomes dead letters `too-many-steps`.";

const CONFIG: &str = "[pipeline]\nworkers = 2\n";
const HOT: &str = "hot";
const EVENTS: u32 = 30_000;
const CALM_SECONDS: u32 = 10;
const SECONDS: u32 = 30;
/// Letters are counted for so long, if not all are there before.
const LETTERS_WITHIN: Duration = Duration::from_secs(60);

pub fn run(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let mut site = Site::new(bench, &["payment", "hostile"], CONFIG)?;
    site.start()?;
    let hot: Vec<Outgoing> = (0..EVENTS).map(|number| load::tried(HOT, &format!("hot-{number}"), "none", 0)).collect();
    let mut hot_ms = None;
    let sent = load::paced(site.topics(), SECONDS, |turn| {
        if turn == CALM_SECONDS * PER_SECOND {
            hot_ms = Some(load::now_ms());
            site.topics().offer_all(&hot).expect("the embedded topics take records");
        }
        let (order, tried) = (format!("order-{turn:04}"), format!("tried-{turn:04}"));
        vec![
            (order.clone(), load::order(&order)),
            (tried.clone(), load::tried(&tried, &format!("{tried}-1"), "none", 0)),
        ]
    })?;
    let elsewhere = |saga: &str| partition_of(saga.as_bytes(), 4) != partition_of(HOT.as_bytes(), 4);
    let orders = sent.keys().filter(|saga| saga.starts_with("order-")).count();
    let wanted =
        move |ends: &BTreeMap<String, f64>| ends.keys().filter(|saga| saga.starts_with("order-")).count() >= orders;
    let ends = site.reader(&["payment-processed", "hostile-done"])?.ends(&wanted, Duration::from_secs(20))?;
    let hot_ms = hot_ms.unwrap_or_default();
    let of = |prefix: &'static str, hot: bool| {
        let meant = |saga: &str| saga.starts_with(prefix) && (sent[saga] >= hot_ms) == hot && elsewhere(saga);
        Latencies::of(&sent, &ends, meant)
    };
    let (calm, disturbed) = (of("order-", false), of("order-", true));
    Ok(vec![
        Figure::new("other plugin, undisturbed: p99", "ms", calm.p99()),
        Figure::new("other plugin, disturbed: median", "ms", disturbed.median()),
        Figure::new("other plugin, disturbed: p99", "ms", disturbed.p99()),
        Figure::new("other plugin: p99, times undisturbed", "x", disturbed.p99() / calm.p99()).at_most(3.0),
        Figure::new("same plugin, other partitions, disturbed: median", "ms", of("tried-", true).median()),
        Figure::new("same plugin, other partitions, disturbed: p99", "ms", of("tried-", true).p99()),
        Figure::new("letters a second", "/s", letters_a_second(&site, hot_ms)?).at_least(3_000.0),
        Figure::new("most memory", "MB", site.peak_resident_bytes()? / 1e6),
    ])
}

/// From when the events were sent until the last letter that came within the time.
fn letters_a_second(site: &Site, since_ms: f64) -> Result<f64> {
    let mut reader = site.reader(&["neighbours.dead-letters"])?;
    let (mut count, mut last_ms) = (0, since_ms);
    while load::now_ms() < since_ms + LETTERS_WITHIN.as_secs_f64() * 1_000.0 && count < EVENTS - 256 {
        for record in reader.read()? {
            count += 1;
            last_ms = record.timestamp_ms.map_or(last_ms, |at| last_ms.max(at as f64));
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(f64::from(count) * 1_000.0 / (last_ms - since_ms).max(1.0))
}
