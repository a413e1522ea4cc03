//! What replacing a plugin under load costs: the same load on a real broker without and with reloads of alternating
//! versions of payment, side by side. Invariant: both loads must end right, or there is no figure.
//!
//! `cargo run --release -p sagahost-tests --example reloads [-- ORDERS RATE RELOADS]`

use std::{
    env,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use sagahost::config::Config;
use sagahost_demo::{
    broker::{Broker, Options},
    workload::{Order, Shape, orders},
};
use sagahost_operator::{client::Client, plugin_view::PluginsView, protocol::Request, socket};
use sagahost_tests::{
    kafka_shop::{KINDS, KafkaShop, Settings, Topics},
    plugin_files::{drop_in, version},
    shop::THREE,
};

const LONG: Duration = Duration::from_secs(300);
/// Orders before the measured ones, so that caches are warm and the compiler has seen both versions.
const WARM_UP: usize = 4_000;

fn main() -> Result<()> {
    let number = |at: usize, otherwise: usize| -> Result<usize> {
        env::args().nth(at).map_or(Ok(otherwise), |text| text.parse().with_context(|| format!("`{text}` is no number")))
    };
    let (count, rate, reloads) = (number(1, 120_000)?, number(2, 2_000)?, number(3, 200)?);
    let broker = Broker::start(Options::default())?;
    println!("{count} orders at {rate} a second, on a real broker; {reloads} reloads in the second run");
    // The broker's own first minute is not what is measured.
    run(&broker, "warm", count / 3, rate, 0)?;
    let without = run(&broker, "without", count, rate, 0)?;
    let with = run(&broker, "with", count, rate, reloads)?;
    println!("\nfrom produced to ended, ms   without reloads   with reloads");
    for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
        let at = |delays: &Histogram<u64>| delays.value_at_quantile(quantile);
        println!("  {:>6} %  {:>26}  {:>13}", 100.0 * quantile, at(&without.delays), at(&with.delays));
    }
    if reloads > 0 {
        println!("\nfrom the file's rename to serving, ms");
        for quantile in [0.5, 0.9, 0.99, 1.0] {
            println!("  {:>6} %  {:>26}", 100.0 * quantile, with.switches.value_at_quantile(quantile));
        }
    }
    Ok(())
}

struct Measured {
    /// Milliseconds.
    delays: Histogram<u64>,
    switches: Histogram<u64>,
}

fn run(broker: &Broker, name: &str, count: usize, rate: usize, reloads: usize) -> Result<Measured> {
    let settings = Settings {
        // The measure is the switch: a version is never rolled back for what this machine does meanwhile.
        more: "[watch]\nprobation = \"0s\"\n[saga]\nretention = \"1h\"\n".to_owned(),
        ..Settings::default()
    };
    let shop = KafkaShop::with(broker, &format!("reloads-{name}"), &THREE, &Topics(name.to_owned()), &settings);
    let host = shop.start();
    shop.until("the first start", LONG, |status| status.number("published") > 0);
    let all: Vec<Order> =
        orders(&Shape { customers: 5_000, articles: 2_000, scarce_one_in: 0, ..Shape::of(WARM_UP + count) }).collect();
    let (first, measured) = all.split_at(WARM_UP);
    let mut watch = shop.watch();
    shop.produce(first);
    watch.until(first.len(), LONG);
    let plugins = shop.dir.path().join("plugins");
    let mut client = client(&shop.config())?;
    let versions = ["9.0.0", "9.1.0"].map(|number| (number, version("payment", number)));
    for (number, bytes) in &versions {
        reload(&mut client, &plugins, number, bytes)?;
    }
    let mut switches = Histogram::new(3)?;
    let produced = thread::scope(|scope| -> Result<Vec<u64>> {
        let topic = shop.topics.of("OrderCreated");
        let feeding = scope.spawn(move || feed(broker, &topic, measured, rate));
        let every = Duration::from_secs_f64(count as f64 / rate as f64 / (reloads + 1) as f64);
        let began = Instant::now();
        for turn in 0..reloads {
            thread::sleep((every * (turn as u32 + 1)).saturating_sub(began.elapsed()));
            let (number, bytes) = &versions[turn % 2];
            switches.record(reload(&mut client, &plugins, number, bytes)?.as_millis() as u64)?;
        }
        feeding.join().expect("the feeder does not panic")
    })?;
    watch.until(all.len(), LONG);
    shop.until_quiet();
    shop.assert_right(&all);
    shop.assert_no_doubles(&KINDS[1..]);
    let mut delays = Histogram::new(3)?;
    for (order, produced_ms) in measured.iter().zip(&produced) {
        delays.record(watch.ends.ended_ms[&order.order_id].saturating_sub(*produced_ms))?;
    }
    ensure!(host.stop().success(), "the host did not end well");
    println!("{name} reloads: {} orders ended once, money and stock conserved, no dead letter", all.len());
    Ok(Measured { delays, switches })
}

/// Returns when each order was produced, milliseconds since 1970.
fn feed(broker: &Broker, topic: &str, orders: &[Order], rate: usize) -> Result<Vec<u64>> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "0")
        .create()?;
    let began = Instant::now();
    let mut produced = Vec::with_capacity(orders.len());
    for (number, order) in orders.iter().enumerate() {
        let due = Duration::from_secs_f64(number as f64 / rate as f64);
        if let Some(early) = due.checked_sub(began.elapsed()).filter(|early| *early > Duration::from_millis(1)) {
            thread::sleep(early);
        }
        let data = serde_json::to_vec(order)?;
        produced.push(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64);
        let record = BaseRecord::to(topic).key(&order.order_id).payload(&data);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LONG)?;
    Ok(produced)
}

fn client(config: &Path) -> Result<Client> {
    let config = Config::load(config)?;
    let path = socket::find(&config.operator())?;
    Client::connect(&path, LONG)?.context("the host does not serve its socket")
}

/// Returns how long it took until the version served.
fn reload(client: &mut Client, plugins: &Path, number: &str, bytes: &[u8]) -> Result<Duration> {
    let began = Instant::now();
    drop_in(plugins, "payment.wasm", bytes);
    loop {
        let view: PluginsView = serde_json::from_value(client.ask(&Request::Plugins)?)?;
        if view.plugins.iter().any(|line| line.version == number && line.state == "serving") {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < LONG, "version {number} does not serve: {view:?}");
        thread::sleep(Duration::from_millis(2));
    }
}
