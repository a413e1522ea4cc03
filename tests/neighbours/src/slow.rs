//! A plugin that loops. Invariant: the calm run and the other one differ in what one event in ten asks for, and in nothing
//! else.

use std::time::Duration;

use anyhow::Result;

use crate::{
    figures::Figure,
    load::{self, Latencies},
    site::{Bench, Site},
};

pub const ABOUT: &str = "Two workers, 20 sagas a second on each of two plugins. One in ten of the first plugin's loops until \
its deadline of one second, five attempts each. From an event's sending to the publication of its answer.";

const CONFIG: &str = "\
[pipeline]
workers = 2
[plugin.hostile.on.HostileTried]
retry = { attempts-max = 5, base = \"100ms\", cap = \"10s\" }
";
const SECONDS: u32 = 20;
/// The old policy leaves a queue behind.
const BEHIND: Duration = Duration::from_secs(40);

struct Run {
    other: Latencies,
    own: Latencies,
}

fn measure(bench: &Bench<'_>, loops_one_in: u32) -> Result<Run> {
    let mut site = Site::new(bench, &["payment", "hostile"], CONFIG)?;
    site.start()?;
    let is_bad = |turn: u32| loops_one_in > 0 && turn % loops_one_in == loops_one_in - 1;
    let sent = load::paced(site.topics(), SECONDS, |turn| {
        let (order, tried) = (format!("order-{turn:04}"), format!("tried-{turn:04}"));
        let (tried, fault) = if is_bad(turn) { (format!("bad-{turn:04}"), "loop") } else { (tried, "none") };
        vec![
            (order.clone(), load::order(&order)),
            (tried.clone(), load::tried(&tried, &format!("{tried}-1"), fault, 0)),
        ]
    })?;
    let good = sent.keys().filter(|saga| !saga.starts_with("bad-")).count();
    let ends = site.reader(&["payment-processed", "hostile-done"])?.ends(&|ends| ends.len() >= good, BEHIND)?;
    Ok(Run {
        other: Latencies::of(&sent, &ends, |saga| saga.starts_with("order-")),
        own: Latencies::of(&sent, &ends, |saga| saga.starts_with("tried-")),
    })
}

pub fn run(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let calm = measure(bench, 0)?;
    let bad = measure(bench, 10)?;
    Ok(vec![
        Figure::new("other plugin, undisturbed: median", "ms", calm.other.median()),
        Figure::new("other plugin, undisturbed: p99", "ms", calm.other.p99()),
        Figure::new("other plugin, disturbed: median", "ms", bad.other.median()),
        Figure::new("other plugin, disturbed: p99", "ms", bad.other.p99()),
        Figure::new("other plugin: p99, times undisturbed", "x", bad.other.p99() / calm.other.p99()).at_most(3.0),
        Figure::new("slow plugin's good sagas, undisturbed: p99", "ms", calm.own.p99()),
        Figure::new("slow plugin's good sagas, disturbed: median", "ms", bad.own.median()),
        Figure::new("slow plugin's good sagas, disturbed: p99", "ms", bad.own.p99()),
    ])
}
