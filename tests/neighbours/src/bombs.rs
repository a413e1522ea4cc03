//! Plugin files that are small and cost whoever compiles them much. Invariant: each is a good plugin with something beside it
//! that is never called, so that nothing but its cost is wrong.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    figures::Figure,
    site::{Bench, Site},
};

pub const ABOUT: &str = "A plugin with one function more that is never called. Loops: 5,000 locals, each of which may have another \
value at the end of each of so many loops. Calls: one after the other, each of whoever is in a table. It is dropped into the plugin directory of a host that serves; half a second later an \
operator pauses another plugin. What takes longer than a minute is cut off there. Memory is that of the host and its compilers.";

const LOOPS: [usize; 4] = [1_000, 2_000, 4_000, 20_000];
const CALLS: usize = 60_000;
const PATIENCE: Duration = Duration::from_secs(60);
const HEAD_START: Duration = Duration::from_millis(500);

pub fn run(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let of_loops = LOOPS.map(|count| (format!("{count} loops"), loops(count)));
    for (name, function) in of_loops.into_iter().chain([(format!("{CALLS} calls"), calls(CALLS))]) {
        let Seen { decided, paused, most_memory } = dropped(bench, &function)?;
        let of = |what: &str| format!("{name}: {what}");
        figures.push(Figure::new(of("admitted or refused after"), "s", decided.as_secs_f64()));
        figures.push(Figure::new(of("a pause takes"), "s", paused.as_secs_f64()).at_most(2.0));
        figures.push(Figure::new(of("most memory"), "MB", most_memory / 1e6).at_most(1_300.0));
    }
    Ok(figures)
}

fn loops(count: usize) -> String {
    let locals = "i32 ".repeat(4_999);
    format!("(func (param i32) (local {locals}) {})", "loop local.get 0 br_if 0 end ".repeat(count))
}

fn calls(count: usize) -> String {
    let call = "local.get 0 local.get 0 call_indirect (param i32) ";
    format!("(table 1 funcref) (func (param i32) {})", call.repeat(count))
}

struct Seen {
    decided: Duration,
    paused: Duration,
    most_memory: f64,
}

fn dropped(bench: &Bench<'_>, function: &str) -> Result<Seen> {
    let mut site = Site::new(bench, &["payment", "hostile"], "")?;
    site.start()?;
    let bomb = [fs::read(bench.plugins.join("payment.wasm"))?, section(function)?].concat();
    let (partial, file) = (site.path("partial"), site.path("plugins/payment.wasm"));
    fs::write(&partial, bomb)?;
    let before = served(&site, bench)?;
    fs::rename(partial, file)?;
    let (began, mut most_memory, mut paused) = (Instant::now(), 0.0_f64, None);
    let mut decided = PATIENCE;
    thread::scope(|scope| {
        let pause = scope.spawn(|| {
            thread::sleep(HEAD_START);
            let asked = Instant::now();
            let words = ["plugins", "pause", "hostile", "--by", "neighbours", "--reason", "measured"];
            let ended = site.command(bench, &words, PATIENCE);
            ended.map(|_| asked.elapsed())
        });
        while began.elapsed() < PATIENCE {
            most_memory = most_memory.max(site.resident_bytes_of_all()?);
            let now = served(&site, bench)?;
            if now != before {
                decided = began.elapsed();
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        paused = Some(pause.join().map_err(|_| anyhow::anyhow!("whoever pauses panicked"))??);
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(Seen { decided, paused: paused.context("it was asked for")?, most_memory })
}

/// The digest of payment that serves, and what is refused.
fn served(site: &Site, bench: &Bench<'_>) -> Result<(Vec<String>, usize)> {
    let Some(text) = site.command(bench, &["--json", "plugins", "list"], PATIENCE)? else {
        return Ok((Vec::new(), 0));
    };
    let view: Value = serde_json::from_str(&text)?;
    let serves =
        |line: &&Value| line["name"] == "payment" && (line["state"] == "serving" || line["state"] == "probation");
    let plugins = view["plugins"].as_array().context("it lists plugins")?;
    let digests = plugins.iter().filter(serves).map(|line| line["digest"].to_string()).collect();
    Ok((digests, view["refused"].as_array().map_or(0, Vec::len)))
}

/// A core module, as a section of a component.
fn section(function: &str) -> Result<Vec<u8>> {
    let module = wat::parse_str(format!("(module {function})"))?;
    let mut section = vec![1];
    let mut length = module.len();
    while length >= 0x80 {
        section.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    section.push(length as u8);
    Ok([section, module].concat())
}
