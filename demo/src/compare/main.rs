//! `demo/compare`: the same plugin files in four set-ups, on Kafka and over HTTP, and what each costs and endures. Invariant: a
//! figure is of a set-up in which every order ended once, and money and stock are conserved; else there is none.

mod away;
mod coupling;
mod load;
mod lossy;
mod page;
mod refund;
mod shop;

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::shop::{SETUPS, Setup, Shop};

#[derive(Parser)]
pub struct Args {
    /// Figures of the load: orders at once, as fast as they are taken.
    #[arg(long, default_value_t = 3_000)]
    orders: usize,
    /// How long each of those that are killed stays away.
    #[arg(long, default_value_t = 30)]
    away_seconds: u64,
    /// Only set-ups whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Into the documentation.
    #[arg(long)]
    write: bool,
    #[arg(long)]
    sagahost: PathBuf,
    #[arg(long)]
    plugins: PathBuf,
}

/// What was measured of one set-up, by the name of the figure. A figure that does not apply is not there.
pub type Figures = BTreeMap<&'static str, String>;

fn main() -> Result<()> {
    let mut args = Args::parse();
    args.plugins = fs::canonicalize(&args.plugins).context("failed to find the plugins; run demo/compare")?;
    args.sagahost = fs::canonicalize(&args.sagahost).context("failed to find the host; run demo/compare")?;
    let chosen = |setup: &&Setup| args.only.as_ref().is_none_or(|only| setup.name.contains(only.as_str()));
    let mut all = Vec::new();
    for setup in SETUPS.iter().filter(chosen) {
        let figures = measure(&args, setup).with_context(|| format!("of {}", setup.name))?;
        all.push((setup.name, figures));
    }
    let page = page::of(&args, &all);
    println!("{page}");
    if args.write {
        fs::write(page::PATH, page).with_context(|| format!("failed to write {}", page::PATH))?;
    }
    Ok(())
}

fn measure(args: &Args, setup: &'static Setup) -> Result<Figures> {
    let say = |what: &str| eprintln!("compare: {}: {what}", setup.name);
    let mut figures = Figures::new();
    say("starts");
    let mut shop = Shop::start(args, setup, false)?;
    say("load");
    load::burst(&mut shop, args.orders, &mut figures)?;
    say("one order at a time");
    load::one_at_a_time(&mut shop, &mut figures)?;
    say("loyalty is added");
    coupling::loyalty(&mut shop, &mut figures)?;
    for who in away::Who::ALL.into_iter().filter(|who| who.is_part_of(setup)) {
        say(&format!("{} is killed, and comes back after {} s", who.name(), args.away_seconds));
        away::measure(&mut shop, who, args.away_seconds, &mut figures)?;
    }
    say("a refund fails");
    refund::measure(&mut shop, &mut figures)?;
    drop(shop);
    if setup.is_http() {
        say("one answer in a hundred is lost");
        lossy::measure(&mut Shop::start(args, setup, true)?, &mut figures)?;
    }
    Ok(figures)
}
