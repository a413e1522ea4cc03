//! Order, payment and inventory as three services that an engineer who knows Kafka and SQLite writes in a day: what the host
//! is measured against. Invariant: each event has its effect once, through any death: state and seen ids are one transaction of
//! SQLite; what is published, and the offsets that it was made from, are one of Kafka.

mod engine;
mod inventory;
mod order;
mod payment;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};

#[derive(Parser)]
pub struct Args {
    service: Name,
    #[arg(long)]
    bootstrap: String,
    /// Directory of its database.
    #[arg(long)]
    data: PathBuf,
    /// Consumer group and transactional id.
    #[arg(long)]
    group: String,
    /// Commits without waiting for delivery reports first, as most services do.
    #[arg(long)]
    undrained: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    Order,
    Payment,
    Inventory,
}

fn main() -> Result<()> {
    let args = Args::parse();
    match args.service {
        Name::Order => engine::run::<order::Orders>(&args),
        Name::Payment => engine::run::<payment::Payments>(&args),
        Name::Inventory => engine::run::<inventory::Inventory>(&args),
    }
}
