//! What is measured. Invariant: a figure's name says its unit, and is the same for all teams.

use std::{io, time::Duration};

use anyhow::Result;
use sagahost_demo::{figures::quantile, workload::Shape};

use crate::{
    Bench,
    load::{Load, Ran, shape},
    team::{Cpu, Running},
};

type Figures = Vec<(String, f64)>;

pub struct Workload {
    pub name: &'static str,
    /// Of its orders.
    pub prefix: &'static str,
    pub run: fn(&Bench, &Running, &Load, &str) -> Result<Figures>,
}

pub const WORKLOADS: [Workload; 4] = [
    Workload { name: "burst", prefix: "b", run: burst },
    Workload { name: "hot article", prefix: "h", run: hot_article },
    Workload { name: "one at a time", prefix: "a", run: one_at_a_time },
    Workload { name: "rates", prefix: "r", run: rates },
];

/// Sagas a second.
pub const RATES: [u32; 7] = [100, 500, 1_000, 2_000, 4_000, 8_000, 16_000];
/// Processor time is reported at this rate.
const STEADY: u32 = 500;
const ALONE: usize = 200;
/// Whoever needs longer for what is left does not carry the rate.
const BEHIND: Duration = Duration::from_secs(3);

fn burst(bench: &Bench, running: &Running, load: &Load, prefix: &str) -> Result<Figures> {
    if bench.pause
        && let Some(host) = &running.host
    {
        eprintln!("bench: process {:?} waits for a line", host.id());
        io::stdin().read_line(&mut String::new())?;
    }
    let (before, ran) = (running.cpu()?, load.burst(&shape(bench.orders, prefix))?);
    let mut figures = vec![("burst: sagas a second".to_owned(), bench.orders as f64 / ran.took.as_secs_f64())];
    figures.extend(cpu("burst", running, before, bench.orders)?);
    figures.push(("memory after the burst, MB".to_owned(), running.resident_bytes()? / 1e6));
    figures.push(("most memory, MB".to_owned(), running.peak_resident_bytes()? / 1e6));
    Ok(figures)
}

/// All orders are for one article.
fn hot_article(bench: &Bench, _: &Running, load: &Load, prefix: &str) -> Result<Figures> {
    let orders = bench.orders / 3;
    let plain = load.burst(&shape(orders, &format!("{prefix}p")))?;
    let hot = load.burst(&Shape { articles: 1, ..shape(orders, prefix) })?;
    let per_second = |ran: &Ran| orders as f64 / ran.took.as_secs_f64();
    Ok(vec![
        ("hot article: sagas a second".to_owned(), per_second(&hot)),
        ("hot article: of the same with many".to_owned(), per_second(&hot) / per_second(&plain)),
    ])
}

fn one_at_a_time(_: &Bench, _: &Running, load: &Load, prefix: &str) -> Result<Figures> {
    let ran = load.one_at_a_time(&shape(ALONE, prefix))?;
    Ok(latencies("one at a time", &ran))
}

fn rates(bench: &Bench, running: &Running, load: &Load, prefix: &str) -> Result<Figures> {
    let mut figures = Figures::new();
    for rate in RATES {
        let orders = usize::try_from(u64::from(rate) * bench.seconds)?;
        let before = running.cpu()?;
        let ran = load.paced(&shape(orders, &format!("{prefix}x{rate}")), f64::from(rate), BEHIND)?;
        let Some(ran) = ran else { break };
        let name = format!("{rate} a second");
        figures.extend(latencies(&name, &ran));
        if rate == STEADY {
            figures.extend(cpu(&name, running, before, orders)?);
        }
        figures.push((format!("{name}: carried"), 1.0));
    }
    Ok(figures)
}

fn latencies(name: &str, ran: &Ran) -> Figures {
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)]
        .map(|(of, part)| (format!("{name}: {of}, ms"), 1e3 * quantile(&ran.latencies, part)))
        .to_vec()
}

fn cpu(name: &str, running: &Running, before: Cpu, orders: usize) -> Result<Figures> {
    let now = running.cpu()?;
    let each = |seconds: f64| 1e6 * seconds / orders as f64;
    let (team, broker) = (each(now.team - before.team), each(now.broker - before.broker));
    Ok(vec![
        (format!("{name}: processor time of the services, us a saga"), team),
        (format!("{name}: processor time of the broker, us a saga"), broker),
        (format!("{name}: processor time of all, us a saga"), team + broker),
    ])
}
