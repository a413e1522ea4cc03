//! `demo/run`: orders go in, and one way or the other every one of them ends. Feeds a host of its own, watches the
//! topics as any consumer would, and checks that nothing was lost and nothing happened twice.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{IsTerminal as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use sagahost::{config::Config, host::open_transport};
use sagahost_demo::{
    broker::{Broker, Options},
    feeder::Feeder,
    free_address,
    requests::Answers,
    watch::Watch,
    workload::{self, Ends, LIMIT_CENTS, Order, Shape, conservation_faults, counters_of},
};
use serde_json::Value;

const OPENING_BALANCE_CENTS: i64 = 1_000_000;
const OPENING_STOCK: i64 = 1_000;
/// Requests over HTTP that are out at once.
const CALLERS: usize = 256;
/// One in this many orders is produced twice.
const TWICE_ONE_IN: usize = 20;

#[derive(Parser)]
struct Args {
    /// On a real broker, which the demonstration starts.
    #[arg(long)]
    kafka: bool,
    /// Orders come as HTTP requests, each of which waits for the end of its order.
    #[arg(long)]
    http: bool,
    #[arg(long, default_value_t = 1_000)]
    orders: usize,
    /// Orders per second; without it as fast as they are taken.
    #[arg(long)]
    rate: Option<u32>,
    /// Optimised host and feeder (understood by the script).
    #[arg(long)]
    release: bool,
    #[arg(long, default_value = "target/debug/sagahost")]
    sagahost: PathBuf,
    #[arg(long, default_value = "demo/.work/plugins")]
    plugins: PathBuf,
    #[arg(long, default_value = "demo/.work")]
    work: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    fs::create_dir_all(&args.work)?;
    let broker = match args.kafka {
        true => Some(Broker::start(Options::default()).context("failed to start a broker")?),
        false => None,
    };
    let address = if args.http { Some(free_address()?) } else { None };
    let file = configure(&args, broker.as_ref(), address)?;
    let config = Config::load(&file).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    say(&format!("host: {} run --config {}", args.sagahost.display(), file.display()));
    let mut host = HostProcess::start(&args, &file)?;
    let transport = open_transport(&config)?;
    let watch =
        Watch::begin(&*transport, || host.alive()).with_context(|| format!("look into {}", host.log.display()))?;

    let mut shape = Shape::of(args.orders);
    shape.customers = (args.orders / 5).max(1);
    shape.articles = (args.orders / 10).max(1);
    let orders: Vec<Order> = workload::orders(&shape).collect();
    say(&format!(
        "{} orders: some above the card's limit, some of an article that runs out, every {TWICE_ONE_IN}th sent twice, \
         a shipping plugin that crashes now and then and refuses some after the money was taken",
        orders.len()
    ));
    let mut run = Run { watch, ends: Ends::default(), sent_ms: BTreeMap::new() };
    let began = Instant::now();
    let feeder = match (address, &broker) {
        (Some(address), _) => Feeder::http(address, CALLERS)?,
        (None, Some(broker)) => Feeder::kafka(&broker.bootstrap())?,
        (None, None) => Feeder::embedded(&config.data_dir)?,
    };
    run.feed_and_watch(&args, &feeder, &orders, &mut host)?;
    let took = began.elapsed();
    run.settle()?;
    let answers = feeder.finish(orders.len())?;
    host.stop()?;
    let faults = summary(&args, &file, &orders, &run, took)? + told(answers.as_ref(), &run.ends);
    ensure!(faults == 0, "{faults} faults");
    Ok(())
}

fn say(text: &str) {
    println!("demo: {text}");
}

/// The configuration that the host gets: what a user would write.
fn configure(args: &Args, broker: Option<&Broker>, address: Option<SocketAddr>) -> Result<PathBuf> {
    let data = args.work.join("data");
    if data.exists() {
        fs::remove_dir_all(&data)?;
    }
    let plugins = fs::canonicalize(&args.plugins).context("failed to find the plugins; run demo/run")?;
    let kafka = broker.map_or(String::new(), |broker| {
        format!("[kafka]\nbootstrap-servers = \"{}\"\ncreate-topics = true\npartitions = 4\n", broker.bootstrap())
    });
    let http = address.map_or(String::new(), |address| {
        format!(
            "[http]\nlisten = \"{address}\"\n[http.route.\"POST /orders\"]\nkind = \"OrderCreated\"\nsaga-id = \"/orderId\"\n"
        )
    });
    let text = format!(
        r#"app = "demo"
plugins = "{}"
data = "data"
{kafka}{http}
[plugin.payment.config]
limit-cents = {LIMIT_CENTS}
opening-balance-cents = {OPENING_BALANCE_CENTS}

[plugin.inventory.config]
opening-stock = {OPENING_STOCK}

[plugin.shipping.config]
crash-permille = 20
refuse-permille = 30
"#,
        plugins.display()
    );
    let file = args.work.join("sagahost.toml");
    fs::write(&file, text)?;
    Ok(file)
}

struct HostProcess {
    child: Child,
    log: PathBuf,
}

impl HostProcess {
    fn start(args: &Args, config: &Path) -> Result<Self> {
        let log = args.work.join("host.log");
        let out = File::create(&log)?;
        let child = Command::new(&args.sagahost)
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("failed to start {}", args.sagahost.display()))?;
        Ok(Self { child, log })
    }

    fn alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            bail!("the host ended by itself ({status}); the end of {}:\n{}", self.log.display(), tail.join("\n"));
        }
        Ok(())
    }

    /// As an operator would: SIGTERM, and wait.
    fn stop(mut self) -> Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the host did not stop cleanly: {status}; see {}", self.log.display());
        Ok(())
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

struct Run {
    watch: Watch,
    ends: Ends,
    sent_ms: BTreeMap<String, u64>,
}

impl Run {
    fn feed_and_watch(&mut self, args: &Args, feeder: &Feeder, orders: &[Order], host: &mut HostProcess) -> Result<()> {
        let began = Instant::now();
        let mut shown = Instant::now();
        let mut sent = 0;
        let mut progress = (0, Instant::now());
        while self.ends.len() < orders.len() {
            let allowed = match args.rate {
                Some(rate) => ((began.elapsed().as_secs_f64() * f64::from(rate)) as usize).min(orders.len()),
                None => orders.len(),
            };
            let until = allowed.min(sent + 500);
            if until > sent {
                let chunk: Vec<&Order> = (sent..until)
                    .flat_map(|number| {
                        let times = if number % TWICE_ONE_IN == TWICE_ONE_IN - 1 { 2 } else { 1 };
                        std::iter::repeat_n(&orders[number], times)
                    })
                    .collect();
                let at = now_ms();
                self.sent_ms.extend(chunk.iter().map(|order| (order.order_id.clone(), at)));
                feeder.send(&chunk)?;
                sent = until;
            }
            self.watch.read(&mut self.ends, Duration::from_millis(if sent < orders.len() { 5 } else { 50 }))?;
            if shown.elapsed() > Duration::from_millis(200) {
                shown = Instant::now();
                self.show(sent, orders.len());
            }
            host.alive()?;
            if progress.0 != self.ends.len() {
                progress = (self.ends.len(), Instant::now());
            }
            ensure!(
                progress.1.elapsed() < Duration::from_secs(120),
                "no order has ended for two minutes ({} of {} have); see {}",
                self.ends.len(),
                orders.len(),
                host.log.display()
            );
        }
        self.show(sent, orders.len());
        println!();
        Ok(())
    }

    fn show(&self, sent: usize, all: usize) {
        let line = format!(
            "sent {sent:>6}/{all}   completed {:>6}   cancelled {:>6}   under way {:>6}",
            self.ends.completed.len(),
            self.ends.cancelled.len(),
            sent.saturating_sub(self.ends.len())
        );
        if std::io::stdout().is_terminal() {
            print!("\r  {line}");
            let _ = std::io::stdout().flush();
        } else {
            println!("  {line}");
        }
    }

    /// Whatever comes after the last end would be an end too many.
    fn settle(&mut self) -> Result<()> {
        self.watch.read(&mut self.ends, Duration::from_secs(2))
    }

    fn latency_ms(&self, share: f64) -> u64 {
        let mut all: Vec<u64> = self
            .ends
            .ended_ms
            .iter()
            .filter_map(|(order, ended)| Some(ended.saturating_sub(*self.sent_ms.get(order)?)))
            .collect();
        all.sort_unstable();
        let at = ((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1));
        all.get(at).copied().unwrap_or(0)
    }
}

/// What clients were answered; how many answers are wrong.
fn told(answers: Option<&Answers>, ends: &Ends) -> usize {
    let Some(answers) = answers else { return 0 };
    let faults = answers.faults(|order| ends.completed.contains_key(order));
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    answers.by_order.values().for_each(|status| *counts.entry(status.as_u16()).or_default() += 1);
    let counts: Vec<String> = counts.iter().map(|(status, count)| format!("{count} with {status}")).collect();
    println!("\n  answered over HTTP: {}; {} requests were repeated", counts.join(", "), answers.repeated);
    for fault in faults.iter().take(20) {
        println!("  {fault}");
    }
    faults.len()
}

fn ask(args: &Args, config: &Path, words: &[&str]) -> Result<String> {
    let output = Command::new(&args.sagahost).args(words).arg("--config").arg(config).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success() || output.status.code() == Some(3),
        "`sagahost {}` failed: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

fn summary(args: &Args, file: &Path, orders: &[Order], run: &Run, took: Duration) -> Result<usize> {
    let counters = counters_of(&serde_json::from_str(&ask(args, file, &["plugins", "counters", "--json"])?)?);
    let ends = &run.ends;
    let lost = ends.faults(orders);
    let unbalanced = conservation_faults(orders, ends, &counters, OPENING_BALANCE_CENTS, OPENING_STOCK);
    let groups: Value = serde_json::from_str(&ask(args, file, &["dead-letters", "list", "--json"])?)?;
    let open = groups.as_array().into_iter().flatten().filter_map(|group| group["open"].as_u64()).sum::<u64>();
    println!();
    println!("  completed            {:>8}", ends.completed.len());
    println!(
        "  compensated          {:>8}   (cancelled; what was paid is refunded, what was reserved released)",
        ends.cancelled.len()
    );
    println!("  lost or doubled      {:>8}", lost.len());
    println!("  money and stock      {:>8}", if unbalanced.is_empty() { "conserved" } else { "WRONG" });
    println!("  dead letters         {:>8}", if open == 0 { "none".to_owned() } else { format!("{open} open") });
    println!(
        "  {:.1} s: {:.0} sagas/s; from produced to ended: median {} ms, p99 {} ms",
        took.as_secs_f64(),
        orders.len() as f64 / took.as_secs_f64(),
        run.latency_ms(0.5),
        run.latency_ms(0.99)
    );
    for fault in lost.iter().chain(&unbalanced).take(20) {
        println!("  {fault}");
    }
    let refunded = ends.cancelled.keys().find(|order| {
        orders.iter().any(|o| o.order_id == **order && o.amount_cents <= LIMIT_CENTS && o.sku != workload::SCARCE)
    });
    if let Some(order) = refunded.or_else(|| ends.cancelled.keys().next()) {
        println!("\n  One of them in full (sagahost sagas show {order}):\n");
        println!("{}", ask(args, file, &["sagas", "show", order])?);
    }
    println!("  Look further, the data is still there:");
    for words in ["sagas list --status compensated", "dead-letters list", "plugins list", "plugins counters"] {
        println!("    {} {words} --config {}", args.sagahost.display(), file.display());
    }
    Ok(lost.len() + unbalanced.len())
}
