//! Thousands of callers who wait for the end of their sagas. Invariant: each of them is answered, and with the end.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{
    figures::Figure,
    http::{Connection, allow_sockets, config, order},
    site::{Bench, Site},
};

pub const ABOUT: &str = "The reference shop over HTTP. An operator pauses the payment plugin. One caller begins 10,000 sagas, and waits for \
none; then 10,000 callers send the same requests, each on a connection of its own with `Prefer: wait=50`, and wait. The operator \
resumes the plugin. Memory is all of the host.";

const CALLERS: usize = 10_000;
const BOUND_MB: f64 = 200.0;

fn of(number: usize) -> String {
    order(&format!("o-{number}"))
}

pub fn run(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    allow_sockets();
    let (address, text) = config("")?;
    let mut site = Site::new(bench, &["order", "payment", "inventory"], &text)?;
    site.start()?;
    let idle = site.resident_bytes()? / 1e6;
    let change = |words: &[&str]| site.command(bench, words, Duration::from_secs(10));
    change(&["plugins", "pause", "payment", "--by", "anna", "--reason", "stocktaking"])?;
    let began = Instant::now();
    let mut one = Connection::to(address)?;
    for number in 0..CALLERS {
        one.ask("prefer: wait=0\r\n", &of(number))?;
        ensure!(one.answer()? == 202, "an order ended although payment is paused");
    }
    let taken_in = began.elapsed();
    let sagas = site.resident_bytes()? / 1e6;
    let mut callers = Vec::with_capacity(CALLERS);
    for number in 0..CALLERS {
        let mut caller = Connection::to(address)?;
        caller.ask("prefer: wait=50\r\n", &of(number))?;
        callers.push(caller);
    }
    // A request that comes behind them is answered behind them.
    let mut last = Connection::to(address)?;
    last.ask("prefer: wait=0\r\n", &of(0))?;
    ensure!(last.answer()? == 202, "an order ended although payment is paused");
    let waiting = site.resident_bytes()? / 1e6 - sagas;
    let resumed = Instant::now();
    change(&["plugins", "resume", "payment", "--by", "anna"])?;
    let mut completed = 0;
    for caller in &mut callers {
        completed += usize::from(caller.answer()? == 200);
    }
    Ok(vec![
        Figure::new("memory, idle", "MB", idle),
        Figure::new("one caller behind the other has begun all sagas after", "s", taken_in.as_secs_f64()),
        Figure::new("memory, with 10,000 open sagas", "MB", sagas),
        Figure::new("memory of those who wait", "MB", waiting).at_most(BOUND_MB),
        Figure::new("all are answered after", "s", resumed.elapsed().as_secs_f64()),
        Figure::new("of them completed", "", completed as f64).at_least(CALLERS as f64),
        Figure::new("most memory", "MB", site.peak_resident_bytes()? / 1e6),
    ])
}
