//! How many orders a host takes over HTTP, and how many as records. Invariant: either way there are as many orders under way as
//! there are callers, each of another customer, and one follows as soon as another has ended.

use std::{
    collections::HashMap,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sagahost_wire::Outgoing;

use crate::{
    figures::Figure,
    http::{Connection, config, order},
    site::{Bench, Site},
};
use sagahost_demo::figures::quantile;

pub const ABOUT: &str = "The reference shop, a new host for each line. Each caller orders on a connection of its own, and orders again as \
soon as it is answered. The records are the same orders in topic `order-created`, as many of them under way at once, from when one is \
written until its end is read in `order-completed`. Ten seconds each, behind two that do not count. Clients share the machine with the host.";

const CALLERS: [usize; 3] = [1, 16, 256];
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(10);
/// An order takes no longer.
const PATIENCE: Duration = Duration::from_secs(30);
const PLUGINS: [&str; 3] = ["order", "payment", "inventory"];

/// In milliseconds, of the orders that ended while it was measured.
struct Run(Vec<f64>);

impl Run {
    fn figures(&self, way: &str) -> [Figure; 3] {
        let per_second = self.0.len() as f64 / MEASURED.as_secs_f64();
        [
            Figure::new(format!("{way}: orders a second"), "/s", per_second),
            Figure::new(format!("{way}: median"), "ms", quantile(&self.0, 0.5)),
            Figure::new(format!("{way}: p99"), "ms", quantile(&self.0, 0.99)),
        ]
    }
}

pub fn run(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for callers in CALLERS {
        let (http, records) = (over_http(bench, callers)?, as_records(bench, callers)?);
        figures.extend(http.figures(&format!("HTTP, {callers} at once")));
        figures.extend(records.figures(&format!("records, {callers} at once")));
    }
    Ok(figures)
}

/// When it is measured.
#[derive(Clone, Copy)]
struct Window {
    from: Instant,
    to: Instant,
}

impl Window {
    fn from_now() -> Self {
        let from = Instant::now() + WARM_UP;
        Self { from, to: from + MEASURED }
    }

    fn is_open(self) -> bool {
        Instant::now() < self.to
    }

    /// Of an order that ends now; none: it does not count.
    fn milliseconds(self, began: Instant) -> Option<f64> {
        let now = Instant::now();
        (self.from <= now && now < self.to).then(|| (now - began).as_secs_f64() * 1e3)
    }
}

fn over_http(bench: &Bench<'_>, callers: usize) -> Result<Run> {
    let (address, text) = config("")?;
    let mut site = Site::new(bench, &PLUGINS, &text)?;
    site.start()?;
    let window = Window::from_now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|caller| scope.spawn(move || calls(address, caller, window))).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a caller panicked"))??);
        }
        Ok(Run(all))
    })
}

fn calls(address: SocketAddr, caller: usize, window: Window) -> Result<Vec<f64>> {
    let mut connection = Connection::to(address)?;
    let mut milliseconds = Vec::new();
    for number in 0.. {
        if !window.is_open() {
            break;
        }
        let began = Instant::now();
        connection.ask("", &order(&format!("o-{caller}-{number}")))?;
        let status = connection.answer()?;
        ensure!(status == 200, "an order is answered with {status}");
        milliseconds.extend(window.milliseconds(began));
    }
    Ok(milliseconds)
}

fn as_records(bench: &Bench<'_>, callers: usize) -> Result<Run> {
    let (_, text) = config("")?;
    let mut site = Site::new(bench, &PLUGINS, &text)?;
    site.make_topics(&["order-created", "order-completed"])?;
    site.start()?;
    let mut reader = site.reader(&["order-completed"])?;
    let window = Window::from_now();
    let (mut milliseconds, mut under_way, mut sent) = (Vec::new(), HashMap::new(), 0_usize);
    while window.is_open() {
        let more: Vec<String> = (under_way.len()..callers).map(|at| format!("o-{}", sent + at)).collect();
        sent += callers;
        let records: Vec<Outgoing> = more.iter().map(|id| record(id)).collect();
        let began = Instant::now();
        site.topics().offer_all(&records)?;
        under_way.extend(more.into_iter().map(|id| (id.into_bytes(), began)));
        let ended = reader.wait(PATIENCE)?;
        ensure!(!ended.is_empty(), "no order has ended within {PATIENCE:?}");
        for end in ended {
            let began =
                under_way.remove(&end.key.unwrap_or_default()).context("an order that nobody has sent ended")?;
            milliseconds.extend(window.milliseconds(began));
        }
    }
    Ok(Run(milliseconds))
}

/// As any client writes it.
fn record(id: &str) -> Outgoing {
    Outgoing {
        topic: "order-created".into(),
        key: Some(id.as_bytes().to_vec()),
        value: Some(order(id).into_bytes()),
        headers: Vec::new(),
    }
}
