//! Connections that bring nothing: waves of them, and heads that trickle. Invariant: while they are there, one who orders on a
//! connection of its own is answered, and behind them everybody is.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    figures::Figure,
    http::{Connection, allow_sockets, config, order},
    site::{Bench, Site},
};
use sagahost_demo::figures::quantile;

pub const ABOUT: &str = "The reference shop over HTTP, `connections-max = 15000`. One caller orders again and again on one connection. \
Then five waves of 20,000 connections each (or as many as one process may open) send the beginning of a request and no more; then 2,000 connections send a byte of their \
head every two seconds, until `header-timeout` (10 s) ends them.";

const WAVES: usize = 5;
/// Or as many as this process may open.
const WAVE_MAX: u64 = 20_000;
const TRICKLING: usize = 2_000;
const ORDERS: usize = 200;
const OPEN_MAX: f64 = 15_000.0;
const BOUND_MB: f64 = 500.0;

pub fn run(bench: &Bench<'_>) -> Result<Vec<Figure>> {
    let wave_size = usize::try_from(allow_sockets().saturating_sub(500).min(WAVE_MAX))?;
    ensure!(wave_size as f64 > OPEN_MAX, "only {wave_size} connections may be open here (`ulimit -Hn`)");
    let (address, text) = config("connections-max = 15000\n")?;
    let mut site = Site::new(bench, &["order", "payment", "inventory"], &text)?;
    site.start()?;
    let mut one = Orders { connection: Connection::to(address)?, next: 0 };
    one.milliseconds(ORDERS)?;
    let undisturbed = one.milliseconds(ORDERS)?;
    let (mut open, mut disturbed) = (0, Vec::new());
    for _ in 0..WAVES {
        let mut wave = Vec::with_capacity(wave_size);
        for number in 0..wave_size {
            let mut connection = Connection::from((number / 10_000) as u8 + 2, address)?;
            // One that is refused may be closed already.
            let _ = connection.write("POST /orders HTTP/1.1\r\n");
            wave.push(connection);
            if number % 500 == 0 {
                disturbed.extend(one.milliseconds(1)?);
            }
        }
        let mut still = 0;
        for connection in &mut wave {
            still += usize::from(!connection.is_closed()?);
        }
        open = open.max(still);
    }
    let most = site.peak_resident_bytes()? / 1e6;
    // Behind the waves there is room again.
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let mut new = Orders { connection: Connection::to(address)?, next: 1_000_000 };
        if new.milliseconds(1).is_ok() {
            break;
        }
        ensure!(Instant::now() < end, "nobody is let in behind the waves");
        thread::sleep(Duration::from_millis(50));
    }
    let (trickled, lasted) = trickle(address, &mut one)?;
    Ok(vec![
        Figure::new("an order, undisturbed: p99", "ms", quantile(&undisturbed, 0.99)),
        Figure::new("connections open at once, most", "", open as f64).at_most(OPEN_MAX),
        Figure::new("an order during the waves: median", "ms", quantile(&disturbed, 0.5)),
        Figure::new("an order during the waves: p99", "ms", quantile(&disturbed, 0.99)),
        Figure::new("most memory", "MB", most).at_most(BOUND_MB),
        Figure::new("an order beside trickling heads: p99", "ms", quantile(&trickled, 0.99)),
        Figure::new(
            "beside trickling heads: p99, times undisturbed",
            "x",
            quantile(&trickled, 0.99) / quantile(&undisturbed, 0.99),
        )
        .at_most(3.0),
        Figure::new("the last trickling connection is closed after", "s", lasted.as_secs_f64()).at_most(15.0),
    ])
}

/// One who orders, one order behind the other.
struct Orders {
    connection: Connection,
    next: usize,
}

impl Orders {
    /// How long each takes.
    fn milliseconds(&mut self, count: usize) -> Result<Vec<f64>> {
        (0..count)
            .map(|_| {
                let began = Instant::now();
                self.connection.ask("", &order(&format!("o-{}", self.next)))?;
                self.next += 1;
                let status = self.connection.answer()?;
                ensure!(status == 200, "an order is answered with {status}");
                Ok(began.elapsed().as_secs_f64() * 1e3)
            })
            .collect()
    }
}

/// How long orders took beside them, and how long the last of them lasted.
fn trickle(address: std::net::SocketAddr, one: &mut Orders) -> Result<(Vec<f64>, Duration)> {
    const PAUSE: Duration = Duration::from_secs(2);
    let began = Instant::now();
    let mut open = (0..TRICKLING).map(|_| Connection::to(address)).collect::<Result<Vec<_>>>()?;
    for connection in &mut open {
        connection.write("POST /orders HTTP/1.1\r\nx: ")?;
    }
    let mut beside = Vec::new();
    while !open.is_empty() {
        ensure!(began.elapsed() < Duration::from_secs(60), "{} of them are open still", open.len());
        let next = Instant::now() + PAUSE;
        let mut still = Vec::new();
        for mut connection in open {
            if !connection.is_closed()? && connection.write("x").is_ok() {
                still.push(connection);
            }
        }
        open = still;
        while Instant::now() < next {
            beside.extend(one.milliseconds(5)?);
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok((beside, began.elapsed()))
}
