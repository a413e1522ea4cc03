//! What callers cost that wait for their sagas: each on a connection of its own, on embedded topics, while nobody does the last
//! step. Invariant: all of them wait when memory is read, and each is answered in the end, or there is no figure.
//!
//! `cargo build --release -p sagahost && cargo run --release -p sagahost-tests --example waiting [-- CALLERS]`

use std::{
    env, fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sagahost_demo::{
    free_address,
    workload::{Order, Shape, orders},
};
use sagahost_tests::{
    binary::Site,
    http_client::{Asked, Connection},
};
use serde_json::Value;

/// As long as a request may wait.
const WAIT: Duration = Duration::from_secs(50);

fn main() -> Result<()> {
    let callers = env::args().nth(1).map_or(Ok(10_000), |text| text.parse().context("CALLERS is no number"))?;
    let address = free_address()?;
    let site = Site::new(
        &["order", "payment"],
        &format!(
            "app = \"shop\"\nplugins = \"plugins\"\ndata = \"data\"\n[http]\nlisten = \"{address}\"\n\
             [http.route.\"POST /orders\"]\nkind = \"OrderCreated\"\nsaga-id = \"/orderId\"\n"
        ),
    );
    let host = site.start();
    let (idle, began) = (resident(host.id())?, Instant::now());
    let load: Vec<Order> =
        orders(&Shape { declined_one_in: 0, scarce_one_in: 0, articles: 500, ..Shape::of(callers) }).collect();
    let wait = format!("wait={}", WAIT.as_secs());
    let ask = |order: &Order| -> Result<Connection> {
        let body = serde_json::to_value(order)?;
        Ok(Asked::new(address, "POST", "/orders").with("prefer", &wait).json(&body).begin())
    };
    let mut waiting: Vec<Connection> = load.iter().map(ask).collect::<Result<_>>()?;
    let mut most = 0;
    while running(&site)? < callers as u64 {
        ensure!(began.elapsed() < WAIT, "the first callers are answered before the last ones wait: fewer of them");
        most = most.max(resident(host.id())?);
        thread::sleep(Duration::from_millis(100));
    }
    let all = resident(host.id())?;
    ensure!(began.elapsed() < WAIT, "the first callers are answered before the last ones wait: fewer of them");
    println!("{callers} callers wait after {:.1} s", began.elapsed().as_secs_f64());
    for (what, bytes) in [("nobody", idle), ("all", all), ("at most on the way", most.max(all))] {
        println!("{:>8.1} MB  {what}", bytes as f64 / 1e6);
    }
    println!("{:>8.1} kB  each", all.saturating_sub(idle) as f64 / 1e3 / callers as f64);
    for (number, connection) in waiting.iter_mut().enumerate() {
        let unanswered =
            || format!("caller {number} was not answered after {:.1} s\n{}", began.elapsed().as_secs_f64(), host.log());
        let answer = connection.answer().with_context(unanswered)?;
        ensure!(answer.said() == "202 running", "{}", answer.said());
    }
    println!("each was answered");
    ensure!(host.stop() == 0, "the host did not end well");
    Ok(())
}

/// Sagas that run.
fn running(site: &Site) -> Result<u64> {
    let ended = site.run(&["status", "--json"]);
    let status: Value = serde_json::from_str(&ended.out).with_context(|| ended.err.clone())?;
    let all = status["sagas"].as_array().context("a status has sagas")?;
    Ok(all.iter().filter(|pair| pair[0] == "running").filter_map(|pair| pair[1].as_u64()).sum())
}

/// Bytes of a process's memory that are in RAM.
fn resident(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("Linux says VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
