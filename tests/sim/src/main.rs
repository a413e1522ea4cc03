//! The processor under a seeded scheduler, with everything around it failing: crashes at every durable write, lies, lost
//! answers, zombies, clocks that jump. Invariant: a seed is a run; what it finds, the same seed finds again.

mod agent;
mod clients;
mod code;
mod courier;
mod coverage;
mod disk;
mod files;
mod host;
mod journal;
mod ledger;
mod oracle;
mod plan;
mod run;
mod served;
mod shrink;
mod till;
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

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

use clap::Parser;

use sagahost_processor::planted::Planted;

use crate::{
    clients::Answers,
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
    /// Of the seed: all orders come as records.
    #[arg(long)]
    without_requests: bool,
    /// With this mistake planted in the processor.
    #[arg(long, value_parser = planted_by_name)]
    with: Option<Planted>,
    /// Looks for the shortest run that still finds something, and shows that.
    #[arg(long)]
    shrink: bool,
    /// Plants one mistake after the other in the processor, and says within how many seeds each is found.
    #[arg(long)]
    planted: bool,
    /// First the seeds of `seeds.txt`, which once found something.
    #[arg(long)]
    regressions: bool,
    /// Prints the core's table, phase × input × disposition, and holds it against `coverage.txt`.
    #[arg(long)]
    coverage: bool,
    /// Of the seed: without these orders.
    #[arg(long, value_delimiter = ',')]
    without_orders: Vec<usize>,
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
            without_orders: arguments.without_orders.iter().copied().collect(),
            without: arguments.without.iter().copied().collect(),
            in_turn: arguments.in_turn,
            planted: arguments.with,
            without_requests: arguments.without_requests,
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
    // What panics is a finding, with its text.
    std::panic::set_hook(Box::new(|_| {}));
    if arguments.planted { planted(&arguments) } else { many(&arguments) }
}

/// Every planted mistake must be found.
fn planted(arguments: &Arguments) -> ExitCode {
    let (next, missed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads(arguments) {
            scope.spawn(|| {
                while let Some(fault) = Planted::ALL.get(next.fetch_add(1, Ordering::SeqCst) as usize) {
                    let tried = tries(*fault, arguments).find_map(|ask| Some((run(ask.clone(), false).finding?, ask)));
                    match tried {
                        Some((Finding { seed, faults }, ask)) => {
                            let orders = ask.orders.map_or(String::new(), |orders| format!(" {orders}"));
                            println!("{fault:?} {seed}{orders}: {}", faults.first().map_or("", String::as_str));
                        }
                        None => {
                            missed.fetch_add(1, Ordering::SeqCst);
                            println!("{fault:?} is NOT found within {} seeds", arguments.seeds);
                        }
                    }
                }
            });
        }
    });
    if missed.into_inner() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Where a mistake may be found: what found it when that was last written down (with what the simulation does, that
/// changes), then short runs, then any.
fn tries(planted: Planted, arguments: &Arguments) -> impl Iterator<Item = Ask> {
    const SHORT_SEEDS: u64 = 100;
    const SHORT_ORDERS: usize = 30;
    let short = (1..=SHORT_SEEDS.min(arguments.seeds)).map(|seed| (seed, Some(SHORT_ORDERS)));
    let orders = arguments.orders;
    let any = (1..=arguments.seeds).map(move |seed| (seed, orders));
    let ask = move |(seed, orders)| Ask { seed, orders, planted: Some(planted), ..Ask::default() };
    // Most were written down when there were no requests.
    let before = hint(planted).map(|hint| Ask { without_requests: true, ..ask(hint) });
    before.into_iter().chain(hint(planted).into_iter().chain(short).chain(any).map(ask))
}

/// From lines as `NAME SEED [ORDERS]`.
fn hint(planted: Planted) -> Option<(u64, Option<usize>)> {
    let words = include_str!("../planted.txt").lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let words = words.into_iter().find(|words| words[0] == format!("{planted:?}"))?;
    Some((words.get(1)?.parse().ok()?, words.get(2).and_then(|orders| orders.parse().ok())))
}

/// Seeds that once found a real fault: lines as `SEED ORDERS [requests]: what it found`. Those without the word are from before
/// there were requests, and mean something without them.
fn regressions() -> Vec<Ask> {
    let lines = include_str!("../seeds.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let ask = |line: &str| {
        let mut words = line.split_once(": ")?.0.split(' ');
        let (seed, orders) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let without_requests = words.next() != Some("requests");
        Some(Ask { seed, orders: Some(orders), without_requests, ..Ask::default() })
    };
    lines
        .map(|line| {
            ask(line)
                .unwrap_or_else(|| panic!("seeds.txt: write it as `SEED ORDERS [requests]: what it found`: {line}"))
        })
        .collect()
}

/// What to type to see it again.
fn command(ask: &Ask) -> String {
    let Ask { seed, orders, without_orders, without, planted, in_turn, without_requests } = ask;
    let mut line = format!("tests/sim/run --seed {seed}");
    if let Some(orders) = orders {
        line += &format!(" --orders {orders}");
    }
    if *in_turn {
        line += " --in-turn";
    }
    if *without_requests {
        line += " --without-requests";
    }
    if let Some(planted) = planted {
        line += &format!(" --with {planted:?}");
    }
    if !without_orders.is_empty() {
        let numbers: Vec<String> = without_orders.iter().map(usize::to_string).collect();
        line += &format!(" --without-orders {}", numbers.join(","));
    }
    if !without.is_empty() {
        let occasions: Vec<String> = without.iter().map(|(fault, occasion)| format!("{fault:?}#{occasion}")).collect();
        line += &format!(" --without {}", occasions.join(","));
    }
    line
}

fn occasion(text: &str) -> Result<(Fault, u64), String> {
    let (name, occasion) = text.split_once('#').ok_or("write it as Trap#3")?;
    let fault = Fault::ALL.iter().copied().find(|fault| format!("{fault:?}") == name);
    let fault = fault.ok_or_else(|| format!("there is no fault {name}"))?;
    Ok((fault, occasion.parse().map_err(|_| format!("{occasion} is no number"))?))
}

fn planted_by_name(name: &str) -> Result<Planted, String> {
    let planted = Planted::ALL.iter().copied().find(|planted| format!("{planted:?}") == name);
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
    answers: Answers,
    covered: coverage::Table,
}

fn many(arguments: &Arguments) -> ExitCode {
    let (next, sum, began) = (AtomicU64::new(0), Mutex::new(Sum::default()), Instant::now());
    let first = if arguments.regressions { regressions() } else { Vec::new() };
    std::thread::scope(|scope| {
        for _ in 0..threads(arguments) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst) as usize;
                    let seed = (at + 1).saturating_sub(first.len()) as u64;
                    if seed > arguments.seeds {
                        return;
                    }
                    let (orders, planted) = (arguments.orders, arguments.with);
                    let without_requests = arguments.without_requests;
                    let plain = Ask { seed, orders, planted, without_requests, ..Ask::default() };
                    let ask = first.get(at).cloned().unwrap_or(plain);
                    let seed = ask.seed;
                    let mut outcome = run(ask.clone(), false);
                    if seed.is_multiple_of(500) && run(ask.clone(), false).digest != outcome.digest {
                        let faults = vec!["a second run of this seed went another way".to_owned()];
                        outcome.finding.get_or_insert(Finding { seed, faults });
                    }
                    let mut sum = sum.lock().expect("nobody panics with it");
                    for (fault, _) in outcome.went_wrong {
                        *sum.happened.entry(fault).or_default() += 1;
                    }
                    coverage::add(&mut sum.covered, seed, sagahost_processor::coverage::take());
                    sum.sagas += outcome.sagas;
                    for (answer, count) in outcome.answers {
                        *sum.answers.entry(answer).or_default() += count;
                    }
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
        println!("{:>10} × {fault:?}", sum.happened.get(fault).copied().unwrap_or(0));
    }
    for (answer, count) in &sum.answers {
        println!("{count:>10} × {answer}");
    }
    println!(
        "{} seeds, {} sagas, {} steps, {} findings, {:.1} s",
        arguments.seeds,
        sum.sagas,
        sum.steps,
        sum.findings.len(),
        began.elapsed().as_secs_f64()
    );
    let uncovered = match arguments.coverage {
        true => {
            coverage::print(&sum.covered);
            coverage::faults(&sum.covered)
        }
        false => Vec::new(),
    };
    uncovered.iter().for_each(|line| println!("{line}"));
    if sum.findings.is_empty() && uncovered.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
