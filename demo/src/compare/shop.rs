//! The shop in one of the four set-ups: its hosts, its broker, and those who order. Invariant: plugins are the same files
//! everywhere; only configuration differs.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sagahost::{config::Config, host::open_transport};
use sagahost_demo::{
    broker::{Broker, Options},
    feeder::Feeder,
    free_address,
    process::Host,
    proxy::Proxy,
    watch::Watch,
    workload::{Ends, LIMIT_CENTS, Order, conservation_faults, counters_of, wrong_ends},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{Args, lossy, refund};

pub const OPENING_BALANCE_CENTS: i64 = 100_000_000;
pub const OPENING_STOCK: i64 = 1_000;
/// Requests that wait at once.
const CALLERS: usize = 2_000;
/// Nothing here takes longer, once everybody is back.
const PATIENCE: Duration = Duration::from_secs(180);

pub struct Setup {
    pub name: &'static str,
    way: Way,
    /// Each with its plugins; the first one has the orders.
    apps: &'static [(&'static str, &'static [&'static str])],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Kafka,
    Http,
}

const TOGETHER: &[(&str, &[&str])] = &[("shop", &["order", "payment", "inventory"])];
const APART: &[(&str, &[&str])] = &[("orders", &["order"]), ("payments", &["payment"]), ("stock", &["inventory"])];

pub const SETUPS: [Setup; 4] = [
    Setup { name: "one app on Kafka", way: Way::Kafka, apps: TOGETHER },
    Setup { name: "three apps on Kafka", way: Way::Kafka, apps: APART },
    Setup { name: "one host over HTTP", way: Way::Http, apps: TOGETHER },
    Setup { name: "three hosts over HTTP", way: Way::Http, apps: APART },
];

impl Setup {
    pub fn is_http(&self) -> bool {
        self.way == Way::Http
    }

    pub fn is_apart(&self) -> bool {
        self.apps.len() > 1
    }
}

/// How an order ended for those who ordered, and when they knew.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub sent: Instant,
    /// None: not yet.
    pub ended: Option<Instant>,
}

pub struct Shop {
    pub setup: &'static Setup,
    pub hosts: Vec<Host>,
    pub broker: Option<Broker>,
    pub proxies: Vec<Proxy>,
    pub orders: Vec<Order>,
    pub known: BTreeMap<String, Known>,
    pub ends: Ends,
    pub plugins: std::path::PathBuf,
    binary: std::path::PathBuf,
    pub dir: TempDir,
    watch: Option<Watch>,
    feeder: Feeder,
}

impl Shop {
    /// `lossy`: over HTTP, whatever answers come are lost now and then.
    pub fn start(args: &Args, setup: &'static Setup, lossy: bool) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let broker = match setup.way {
            Way::Kafka => Some(Broker::start(Options::default()).context("failed to start a broker")?),
            Way::Http => None,
        };
        let addresses = setup.apps.iter().map(|_| free_address()).collect::<Result<Vec<_>>>()?;
        let proxies = if lossy { addresses.iter().copied().map(lossy::proxy).collect() } else { Vec::new() };
        // What others know of each.
        let shown: Vec<SocketAddr> = match lossy {
            true => proxies.iter().map(|proxy: &Proxy| proxy.address).collect(),
            false => addresses.clone(),
        };
        let mut hosts = Vec::new();
        for (number, (app, plugins)) in setup.apps.iter().enumerate() {
            install(dir.path(), app, plugins, &args.plugins)?;
            let way = match (&broker, number) {
                (Some(broker), _) => kafka(broker),
                (None, 0) if setup.is_apart() => leading(addresses[0], &shown),
                (None, 0) => orders(addresses[0]),
                (None, _) => participant(addresses[number], plugins[0]),
            };
            hosts.push(Host::new(&args.sagahost, write(dir.path(), app, plugins, &way)?));
        }
        if setup.is_http() && setup.is_apart() {
            manifests(dir.path())?;
        }
        for host in &mut hosts {
            host.start()?;
        }
        let config = Config::load(&hosts[0].config).map_err(|faults| anyhow::anyhow!("{faults}"))?;
        let watch = match setup.way {
            Way::Kafka => Some(Watch::begin(&*open_transport(&config)?, || Ok(()))?),
            Way::Http => None,
        };
        let feeder = match &broker {
            Some(broker) => Feeder::kafka(&broker.bootstrap())?,
            None => Feeder::http(shown[0], CALLERS)?,
        };
        Ok(Self {
            setup,
            hosts,
            broker,
            proxies,
            orders: Vec::new(),
            known: BTreeMap::new(),
            ends: Ends::default(),
            plugins: args.plugins.clone(),
            binary: args.sagahost.clone(),
            dir,
            watch,
            feeder,
        })
    }

    /// Its host, and where that stands among them.
    pub fn host_of(&self, plugin: &str) -> usize {
        let place = self.setup.apps.iter().position(|(_, plugins)| plugins.contains(&plugin));
        place.expect("each plugin is in one of them")
    }

    pub fn send(&mut self, orders: Vec<Order>) -> Result<()> {
        let now = Instant::now();
        self.known.extend(orders.iter().map(|order| (order.order_id.clone(), Known { sent: now, ended: None })));
        self.feeder.send(&orders.iter().collect::<Vec<_>>())?;
        self.orders.extend(orders);
        Ok(())
    }

    /// What has ended since, for those who wait so long for something.
    pub fn look(&mut self, wait: Duration) -> Result<()> {
        match &mut self.watch {
            Some(watch) => watch.read(&mut self.ends, wait)?,
            None => {
                thread::sleep(wait);
                let ends = &mut self.ends;
                self.feeder.take_ended(|order, completed, at| {
                    let kind = if completed { "OrderCompleted" } else { "OrderCancelled" };
                    ends.read(kind, order, 0);
                    if let Some(known) = self.known.get_mut(order) {
                        known.ended = Some(at);
                    }
                });
                return Ok(());
            }
        }
        let now = Instant::now();
        for order in self.ends.ended_ms.keys() {
            if let Some(known) = self.known.get_mut(order) {
                known.ended.get_or_insert(now);
            }
        }
        Ok(())
    }

    /// Requests that clients sent again.
    pub fn repeated(&self) -> usize {
        self.feeder.repeated()
    }

    pub fn ended(&self) -> usize {
        self.ends.len()
    }

    /// Until all have ended.
    pub fn settle(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.ended() < self.orders.len() {
            self.look(Duration::from_millis(5))?;
            let (ended, all) = (self.ended(), self.orders.len());
            ensure!(
                Instant::now() < end,
                "{ended} of {all} orders have ended; look into {}",
                self.dir.path().display()
            );
        }
        Ok(())
    }

    /// Each order ended once, and rightly; money and stock are what that leaves. Refunds may come behind the end.
    pub fn check(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut counters = BTreeMap::new();
            for host in &self.hosts {
                counters.extend(counters_of(&host.ask(&["plugins", "counters"])?));
            }
            let mut faults = self.ends.faults(&self.orders);
            faults.extend(wrong_ends(&self.orders, &self.ends, OPENING_STOCK));
            let (balance, stock) = (OPENING_BALANCE_CENTS, OPENING_STOCK);
            faults.extend(conservation_faults(&self.orders, &self.ends, &counters, balance, stock));
            if faults.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{} faults:\n{}", faults.len(), faults.join("\n"));
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Of all hosts, and of the broker.
    pub fn of_processes(&self, of: fn(u32) -> Result<f64>) -> Result<(f64, f64)> {
        let hosts = self.hosts.iter().filter_map(Host::id).map(of).sum::<Result<f64>>()?;
        let broker = match self.broker.as_ref().and_then(Broker::process) {
            Some(process) => of(process)?,
            None => 0.0,
        };
        Ok((hosts, broker))
    }

    /// A host more; it does not run yet.
    pub fn add_host(&mut self, app: &str, plugin: &str) -> Result<SocketAddr> {
        install(self.dir.path(), app, &[plugin], &self.plugins)?;
        let address = free_address()?;
        let way = match &self.broker {
            Some(broker) => kafka(broker),
            None => participant(address, plugin),
        };
        self.hosts.push(Host::new(&self.binary, write(self.dir.path(), app, &[plugin], &way)?));
        Ok(address)
    }
}

pub fn install(dir: &Path, app: &str, plugins: &[&str], from: &Path) -> Result<()> {
    let into = dir.join(format!("plugins-{app}"));
    fs::create_dir_all(&into)?;
    for plugin in plugins {
        let file = format!("{plugin}.wasm");
        // At once as a whole, as a running host wants it.
        let part = into.join(format!("{file}.part"));
        fs::copy(from.join(&file), &part).with_context(|| format!("failed to copy {file}"))?;
        fs::rename(part, into.join(file))?;
    }
    Ok(())
}

fn write(dir: &Path, app: &str, plugins: &[&str], way: &str) -> Result<std::path::PathBuf> {
    let alerts = refund::alerts(&dir.join(app));
    let mut text = format!("app = \"{app}\"\nplugins = \"plugins-{app}\"\ndata = \"data-{app}\"\n{alerts}{way}");
    for plugin in plugins {
        text += &match *plugin {
            "payment" => format!(
                "[plugin.payment.config]\nlimit-cents = {LIMIT_CENTS}\nopening-balance-cents = {OPENING_BALANCE_CENTS}\n\
                 {}",
                refund::CLOSED
            ),
            "inventory" => format!("[plugin.inventory.config]\nopening-stock = {OPENING_STOCK}\n"),
            _ => String::new(),
        };
    }
    let file = dir.join(format!("{app}.toml"));
    fs::write(&file, text)?;
    Ok(file)
}

fn kafka(broker: &Broker) -> String {
    format!("[kafka]\nbootstrap-servers = \"{}\"\ncreate-topics = true\npartitions = 4\n", broker.bootstrap())
}

fn orders(address: SocketAddr) -> String {
    format!(
        "[http]\nlisten = \"{address}\"\n[http.route.\"POST /orders\"]\nkind = \"OrderCreated\"\nsaga-id = \"/orderId\"\n"
    )
}

/// The one of the orders, which asks the others.
fn leading(address: SocketAddr, others: &[SocketAddr]) -> String {
    let mut text = orders(address);
    for (name, at) in [("payment", others[1]), ("inventory", others[2])] {
        text += &asks(name, at);
    }
    text
}

/// That another host has this participant.
pub fn asks(name: &str, at: SocketAddr) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "[participant.{name}]\nmanifest = \"{name}.json\"\nurl = \"http://{at}/{name}\"\n\
         undo-url = \"http://{at}/{name}/undo\"\ntimeout = \"5s\"\n"
    );
    text
}

fn participant(address: SocketAddr, plugin: &str) -> String {
    format!(
        "[http]\nlisten = \"{address}\"\n[http.route.\"POST /{plugin}\"]\nparticipant = \"{plugin}\"\n\
         [http.route.\"POST /{plugin}/undo\"]\nundo = \"{plugin}\"\n"
    )
}

/// What the leading host has to know of the others: their kinds, as their own manifests say.
fn manifests(dir: &Path) -> Result<()> {
    let retry = json!({ "base-ms": 50, "cap-ms": 2000, "attempts-max": 100 });
    manifest(
        dir,
        "payment",
        &json!([
            { "kind": "OrderCreated", "undo-bytes-max": 4096, "retry": retry },
            { "kind": "OrderCompleted", "role": "nothing-to-undo", "retry": retry },
        ]),
        &["PaymentProcessed", "PaymentFailed", "PaymentRefunded"],
    )?;
    manifest(
        dir,
        "inventory",
        &json!([
            { "kind": "PaymentProcessed", "undo-bytes-max": 4096, "retry": retry },
            { "kind": "OrderCompleted", "role": "nothing-to-undo", "retry": retry },
        ]),
        &["InventoryUpdated", "InventoryRejected", "InventoryReleased"],
    )
}

pub fn manifest(dir: &Path, name: &str, subscriptions: &serde_json::Value, emits: &[&str]) -> Result<()> {
    let text = json!({
        "name": name, "version": "1.0.0", "subscriptions": subscriptions, "emits": emits, "finish-on": ["OrderCompleted"],
    });
    Ok(fs::write(dir.join(format!("{name}.json")), text.to_string())?)
}
