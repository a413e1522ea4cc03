//! What bad neighbours cost the others, measured on a real host process. Invariant: every host is given the same load, in
//! turns, so that what else happens on the machine meets all of them.

mod away;
mod bombs;
mod bytes;
mod crowd;
mod figures;
mod hot;
mod http;
mod load;
mod orders;
mod remote;
mod service;
mod site;
mod slow;
mod waiting;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail, ensure};
use clap::Parser;

use crate::{
    figures::{Figure, Table},
    site::Bench,
};

/// One bad neighbour.
struct Case {
    name: &'static str,
    about: &'static str,
    run: fn(&Bench) -> Result<Vec<Figure>>,
}

const CASES: [Case; 9] = [
    Case { name: "bombs", about: bombs::ABOUT, run: bombs::run },
    Case { name: "slow", about: slow::ABOUT, run: slow::run },
    Case { name: "hot", about: hot::ABOUT, run: hot::run },
    Case { name: "bytes", about: bytes::ABOUT, run: bytes::run },
    Case { name: "waiting", about: waiting::ABOUT, run: waiting::run },
    Case { name: "crowd", about: crowd::ABOUT, run: crowd::run },
    Case { name: "remote", about: remote::ABOUT, run: remote::run },
    Case { name: "away", about: away::ABOUT, run: away::run },
    Case { name: "orders", about: orders::ABOUT, run: orders::run },
];

#[derive(Parser)]
struct Args {
    /// The host that is measured.
    #[arg(long)]
    this: PathBuf,
    /// Another host, to compare it with.
    #[arg(long)]
    host: Option<PathBuf>,
    /// Only these cases.
    #[arg(long)]
    case: Vec<String>,
    /// How often each is run on each host.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// How long the service of the case `away` is not there.
    #[arg(long, default_value_t = 1)]
    away_minutes: u32,
    /// Directory of the plugins that the cases need.
    #[arg(long)]
    plugins: PathBuf,
    /// Puts the table into the documentation as well.
    #[arg(long)]
    write: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(unknown) = args.case.iter().find(|name| CASES.iter().all(|case| case.name != **name)) {
        let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        bail!("no case `{unknown}`; there are: {}", known.join(", "));
    }
    let hosts: Vec<&Path> = args.host.iter().chain([&args.this]).map(PathBuf::as_path).collect();
    let mut missed = Vec::new();
    for case in CASES.iter().filter(|case| args.case.is_empty() || args.case.iter().any(|name| name == case.name)) {
        let mut table = Table::default();
        for round in 0..args.rounds {
            for (at, host) in hosts.iter().enumerate() {
                eprintln!("neighbours: {}, round {} of {}, {}", case.name, round + 1, args.rounds, host.display());
                table.add(at, (case.run)(&Bench { host, plugins: &args.plugins, away_minutes: args.away_minutes })?);
            }
        }
        let section = format!("## `{}`\n\n{}\n\n{}\n", case.name, case.about, table.text(hosts.len()));
        println!("{section}");
        missed.extend(table.missed(hosts.len()).into_iter().map(|what| format!("{}: {what}", case.name)));
        if args.write {
            let page = fs::read_to_string(figures::PAGE)?;
            fs::write(figures::PAGE, figures::replace(&page, case.name, &section))?;
        }
    }
    ensure!(missed.is_empty(), "bounds were missed:\n{}", missed.join("\n"));
    Ok(())
}
