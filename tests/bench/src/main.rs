//! The host against three services written by hand, on one broker in one run. Invariant: only figures of one run are compared, and
//! whoever is measured, each order ended once and rightly.

mod load;
mod report;
mod team;
mod workloads;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use sagahost_demo::broker::{Broker, Options};
use sagahost_transport::Transport as _;

use crate::{load::Load, report::Results, team::Team, workloads::WORKLOADS};

#[derive(Parser)]
struct Args {
    /// Only workloads whose name contains one of these.
    #[arg(long)]
    only: Vec<String>,
    /// How often each team is measured, in turns; the table has the medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Orders of the burst.
    #[arg(long, default_value_t = 150_000)]
    orders: usize,
    /// How long each rate lasts.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Only these teams: `sagahost`, `by hand`, `by hand, undrained`.
    #[arg(long)]
    team: Vec<String>,
    /// More lines of the host's configuration.
    #[arg(long, default_value = "")]
    config: String,
    /// Waits before each burst of the host until there is a line on standard input: for a profiler.
    #[arg(long)]
    pause: bool,
    /// Into the documentation.
    #[arg(long)]
    write: bool,
    /// Table, JSON and chart into this directory.
    #[arg(long)]
    out: Option<PathBuf>,
    #[arg(long)]
    host: PathBuf,
    #[arg(long)]
    plugins: PathBuf,
    #[arg(long)]
    handwritten: PathBuf,
}

/// What all are measured on.
pub struct Bench {
    pub broker: Broker,
    pub host: PathBuf,
    pub plugins: PathBuf,
    pub handwritten: PathBuf,
    pub orders: usize,
    pub seconds: u64,
    pub pause: bool,
}

const WARM_UP: usize = 3_000;
/// All teams have the same topics.
const TOPICS: [&str; 9] = [
    "order-created",
    "payment-processed",
    "payment-failed",
    "payment-refunded",
    "inventory-updated",
    "inventory-rejected",
    "inventory-released",
    "order-completed",
    "order-cancelled",
];
const PARTITIONS: i32 = 4;
const PAGE: &str = "host/docs/performance.md";
const CHART: &str = "host/docs/performance.svg";

fn main() -> Result<()> {
    let args = Args::parse();
    let broker = Broker::start(Options::default()).context("failed to start a broker")?;
    broker.transport("bench")?.create_topics(&TOPICS.map(Arc::from), PARTITIONS)?;
    let bench = Bench {
        broker,
        host: found(&args.host)?,
        plugins: found(&args.plugins)?,
        handwritten: found(&args.handwritten)?,
        orders: args.orders,
        seconds: args.seconds,
        pause: args.pause,
    };
    let chosen = |name: &str| args.only.is_empty() || args.only.iter().any(|only| name.contains(only.as_str()));
    let plays = |team: &Team| args.team.is_empty() || args.team.iter().any(|only| team.name() == only);
    let teams: Vec<Team> = Team::ALL.into_iter().filter(plays).collect();
    ensure!(!teams.is_empty(), "there are: {}", Team::ALL.map(Team::name).join("; "));
    let mut results = Results::default();
    for round in 0..args.rounds {
        // Whoever comes later meets a broker that has more in its files.
        let order: Vec<Team> = if round % 2 == 0 { teams.clone() } else { teams.iter().rev().copied().collect() };
        for team in order {
            let run = results.begin(team);
            let say = |what: &str| eprintln!("bench: round {} of {}, {}: {what}", round + 1, args.rounds, team.name());
            say("starts");
            let running = team.start(&bench, run, &args.config)?;
            let load = Load::begin(&bench.broker.bootstrap())?;
            let failed = || format!("of {}; its logs were in {}", team.name(), running.logs().display());
            load.burst(&load::shape(WARM_UP, &format!("warm{run}"))).with_context(failed)?;
            for workload in WORKLOADS.iter().filter(|workload| chosen(workload.name)) {
                say(workload.name);
                let figures = (workload.run)(&bench, &running, &load, &format!("{}{run}", workload.prefix));
                for (name, value) in figures.with_context(failed)? {
                    eprintln!("  {name}: {}", report::short(value));
                    results.add(&name, value);
                }
            }
        }
    }
    let table = results.table(&teams);
    println!("{table}");
    if args.write {
        fs::write(PAGE, page(&args, &table))?;
        fs::write(CHART, results.chart(&teams))?;
    }
    if let Some(out) = &args.out {
        fs::create_dir_all(out)?;
        fs::write(out.join("bench.md"), table)?;
        fs::write(out.join("bench.json"), results.json()?)?;
        fs::write(out.join("bench.svg"), results.chart(&teams))?;
    }
    Ok(())
}

fn page(args: &Args, table: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    include_str!("page.md")
        .replace("{cores}", &cores.to_string())
        .replace("{orders}", &args.orders.to_string())
        .replace("{seconds}", &args.seconds.to_string())
        .replace("{rounds}", &args.rounds.to_string())
        .replace("{table}", table)
}

fn found(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("failed to find {}; run tests/bench/run", path.display()))
}
