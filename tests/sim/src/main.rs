//! The processor under a seeded scheduler, with everything around it failing: crashes at every durable write, lies, lost
//! answers, zombies, clocks that jump. Invariant: a seed is a run; what it finds, the same seed finds again.

mod code;
mod courier;
mod disk;
mod host;
mod journal;
mod ledger;
mod oracle;
mod plan;
mod run;
mod shrink;
mod transport;
mod world;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use clap::Parser;

use sagahost_processor::planted::Planted;

use crate::{
    plan::{Ask, Fault},
    run::{Finding, run},
};

/// Runs seeds, and says what they found.
#[derive(Parser)]
struct Arguments {
    /// So many, from 1 on.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Only this one, with all that happens.
    #[arg(long)]
    seed: Option<u64>,
    /// Orders of each run, instead of what the seed says.
    #[arg(long)]
    orders: Option<usize>,
    /// Of the seed: leave these out, as `Trap#3,Retry#17`.
    #[arg(long, value_delimiter = ',', value_parser = occasion)]
    without: Vec<(Fault, u64)>,
    /// Of the seed: parts take their steps in turn.
    #[arg(long)]
    in_turn: bool,
    /// With this mistake planted in the processor.
    #[arg(long, value_parser = planted_by_name)]
    with: Option<Planted>,
    /// Looks for the shortest run that still finds something, and shows that.
    #[arg(long)]
    shrink: bool,
    /// Plants one mistake after the other in the processor, and says within how many seeds each is found.
    #[arg(long)]
    planted: bool,
    /// Threads; as many as there are cores unless told otherwise.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    disk::install();
    if let Some(seed) = arguments.seed {
        let mut ask = Ask {
            seed,
            orders: arguments.orders,
            without: arguments.without.iter().copied().collect(),
            in_turn: arguments.in_turn,
            planted: arguments.with,
        };
        if arguments.shrink {
            if run(ask.clone(), false).finding.is_none() {
                println!("seed {seed} finds nothing");
                return ExitCode::SUCCESS;
            }
            ask = shrink::shrink(ask);
        }
        let again = command(&ask);
        let levels = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::TRACE);
        levels.without_time().with_target(false).with_ansi(false).init();
        let outcome = run(ask, true);
        println!("digest {:016x}, {} steps", outcome.digest, outcome.steps);
        return match outcome.finding {
            None => ExitCode::SUCCESS,
            Some(finding) => {
                println!("{finding}\nagain: {again}");
                ExitCode::FAILURE
            }
        };
    }
    if arguments.planted { planted(&arguments) } else { many(&arguments) }
}

/// Every planted mistake must be found.
fn planted(arguments: &Arguments) -> ExitCode {
    let (next, missed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads(arguments) {
            scope.spawn(|| {
                while let Some(fault) = Planted::ALL.get(next.fetch_add(1, Ordering::SeqCst) as usize) {
                    let found = hint(*fault).into_iter().chain(1..=arguments.seeds).find_map(|seed| {
                        let ask = Ask { seed, orders: arguments.orders, planted: Some(*fault), ..Ask::default() };
                        run(ask, false).finding
                    });
                    match found {
                        Some(finding) => println!(
                            "{fault:?}: found with seed {}: {}",
                            finding.seed,
                            finding.faults.first().map_or("", String::as_str)
                        ),
                        None => {
                            missed.fetch_add(1, Ordering::SeqCst);
                            println!("{fault:?}: NOT found within {} seeds", arguments.seeds);
                        }
                    }
                }
            });
        }
    });
    if missed.into_inner() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A seed that found it when that was last written down: with what the simulation does, that changes.
fn hint(fault: Planted) -> Option<u64> {
    let lines = include_str!("../planted.txt").lines().filter_map(|line| line.split_once(' '));
    let (_, seed) = lines.into_iter().find(|(name, _)| *name == format!("{fault:?}"))?;
    seed.parse().ok()
}

/// What to type to see it again.
fn command(ask: &Ask) -> String {
    let Ask { seed, orders, without, planted, in_turn } = ask;
    let mut line = format!("tests/sim/run --seed {seed}");
    if let Some(orders) = orders {
        line += &format!(" --orders {orders}");
    }
    if *in_turn {
        line += " --in-turn";
    }
    if let Some(planted) = planted {
        line += &format!(" --with {planted:?}");
    }
    if !without.is_empty() {
        let occasions: Vec<String> = without.iter().map(|(fault, occasion)| format!("{fault:?}#{occasion}")).collect();
        line += &format!(" --without {}", occasions.join(","));
    }
    line
}

fn occasion(text: &str) -> Result<(Fault, u64), String> {
    let (name, occasion) = text.split_once('#').ok_or("write it as Trap#3")?;
    let fault = Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == name);
    let fault = fault.ok_or_else(|| format!("there is no fault {name}"))?;
    Ok((fault, occasion.parse().map_err(|_| format!("{occasion} is no number"))?))
}

fn planted_by_name(name: &str) -> Result<Planted, String> {
    let planted = Planted::ALL.into_iter().find(|planted| format!("{planted:?}") == name);
    planted.ok_or_else(|| format!("no such mistake; there are {:?}", Planted::ALL))
}

fn threads(arguments: &Arguments) -> usize {
    arguments.threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1)
}

#[derive(Default)]
struct Sum {
    happened: BTreeMap<Fault, u64>,
    sagas: usize,
    steps: u64,
    findings: Vec<Finding>,
}

fn many(arguments: &Arguments) -> ExitCode {
    let (next, sum, began) = (AtomicU64::new(1), Mutex::new(Sum::default()), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..threads(arguments) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed > arguments.seeds {
                        return;
                    }
                    let (orders, planted) = (arguments.orders, arguments.with);
                    let ask = Ask { seed, orders, planted, ..Ask::default() };
                    let mut outcome = run(ask.clone(), false);
                    if seed.is_multiple_of(50) && run(ask.clone(), false).digest != outcome.digest {
                        let faults = vec!["a second run of this seed went another way".to_owned()];
                        outcome.finding.get_or_insert(Finding { seed, faults });
                    }
                    let mut sum = sum.lock().expect("nobody panics with it");
                    for (fault, _) in outcome.went_wrong {
                        *sum.happened.entry(fault).or_default() += 1;
                    }
                    sum.sagas += outcome.sagas;
                    sum.steps += outcome.steps;
                    if let Some(finding) = outcome.finding {
                        println!("{finding}\nagain: {}", command(&ask));
                        sum.findings.push(finding);
                    }
                    if seed.is_multiple_of(500) {
                        println!("{seed} of {} seeds, {} s", arguments.seeds, began.elapsed().as_secs());
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().expect("nobody panics with it");
    for fault in Fault::ALL {
        println!("{:>10} × {fault:?}", sum.happened.get(&fault).copied().unwrap_or(0));
    }
    println!(
        "{} seeds, {} sagas, {} steps, {} findings, {:.1} s",
        arguments.seeds,
        sum.sagas,
        sum.steps,
        sum.findings.len(),
        began.elapsed().as_secs_f64()
    );
    if sum.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
