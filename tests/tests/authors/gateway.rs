//! The plugin that charges through a gateway, and a gateway as they are: it declines, stalls, has no time, and loses answers;
//! and the host dies while requests are out.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use sagahost::host::StopReport;
use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_operator::{protocol::Request, view::Done};
use sagahost_tests::{
    binary::Site,
    faulty::Death,
    operator::{Operator, attempts},
    shop::{PATIENCE, Shop},
};

const TOKEN: &str = "t0ken-that-nobody-is-to-see";

fn services() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/services")
}

/// The gateway in Python, as a process.
struct Gateway {
    process: Child,
    address: SocketAddr,
}

impl Gateway {
    fn start(database: &Path, more: &[&str]) -> Self {
        let mut command = Command::new("python3");
        command.arg(services().join("gateway.py")).args(["--port", "0", "--token", TOKEN, "--database"]).arg(database);
        let mut process = command.args(more).stdout(Stdio::piped()).spawn().expect("python3 is there");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("it is piped")).read_line(&mut line).expect("it says where it is");
        let address = line.trim().rsplit('/').next().and_then(|text| text.parse().ok());
        Self { process, address: address.unwrap_or_else(|| panic!("no address: {line}")) }
    }

    fn configuration(&self) -> String {
        let url = format!("http://{}/v1", self.address);
        format!(
            "[plugin.payment-gateway.config]\ngateway = \"{url}\"\n\
             [plugin.payment-gateway.http.\"{url}\"]\nallow-networks = [\"127.0.0.1/32\"]\ntimeout = \"1s\"\n\
             headers.authorization = {{ file = \"token\" }}\n\
             [plugin.payment-gateway.on.OrderCreated]\nretry = {{ attempts-max = 50, base = \"20ms\", cap = \"200ms\" }}\n\
             undo-retry = {{ attempts-max = 50, base = \"20ms\", cap = \"200ms\" }}\n"
        )
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What stands at the gateway, in cents by order; and how many charges were taken back.
fn charges(database: &Path) -> (BTreeMap<String, u64>, usize) {
    let db = rusqlite::Connection::open(database).expect("it is there");
    let mut statement = db.prepare("SELECT reference, cents, refunded FROM charge").expect("it has that table");
    let row = |row: &rusqlite::Row<'_>| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.unsigned_abs(), row.get::<_, bool>(2)?))
    };
    let rows: Vec<_> =
        statement.query_map([], row).expect("it can be read").map(|row| row.expect("so can a row")).collect();
    let refunded = rows.iter().filter(|(.., refunded)| *refunded).count();
    let mut standing = BTreeMap::new();
    for (order, cents, _) in rows.into_iter().filter(|(.., refunded)| !refunded) {
        assert!(standing.insert(order.clone(), cents).is_none(), "{order} is charged twice");
    }
    (standing, refunded)
}

/// Of all files below, those that say the token.
fn that_say_the_token(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("it can be read").map(|entry| entry.expect("so can an entry").path()) {
        if entry.is_dir() {
            that_say_the_token(&entry, found);
        } else if fs::read(&entry)
            .is_ok_and(|bytes| bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()))
        {
            found.push(entry);
        }
    }
}

/// The host dies three times in the midst of it: each order ends once, and what stands at the gateway is what was completed.
#[test]
fn money_is_conserved_at_a_gateway_that_loses_answers_and_under_a_host_that_dies() {
    let mut shop = Shop::new(&["order", "payment-gateway", "inventory"], "");
    let database = shop.dir.path().join("gateway.db");
    let troubles = ["--loses", "5", "--stalls", "17", "--stall-seconds", "1.5", "--fails", "7"];
    let gateway = Gateway::start(&database, &troubles);
    fs::write(shop.dir.path().join("token"), format!("Bearer {TOKEN}\n")).expect("it can be written");
    shop.configure(&gateway.configuration());
    let mut all: Vec<Order> = Vec::new();
    for round in 0..3 {
        let shape = Shape { customers: 5, articles: 5, prefix: format!("r{round}"), ..Shape::of(26) };
        let fed: Vec<Order> = orders(&shape).collect();
        let host = shop.start();
        shop.produce(&fed);
        all.extend(fed);
        std::thread::sleep(Duration::from_millis(250));
        host.abort();
    }
    let host = shop.start();
    let operator = Operator::of(&host);
    let ends = shop.await_ends(&all, &Death::never(), PATIENCE);
    assert_eq!(ends.len(), all.len());
    assert_eq!(operator.letters(), []);
    let completed = all.iter().filter(|order| ends.completed.contains_key(&order.order_id));
    let wanted: BTreeMap<String, u64> = completed.map(|order| (order.order_id.clone(), order.amount_cents)).collect();
    assert!(!wanted.is_empty() && wanted.len() < all.len(), "some are completed, and some are not");
    let (standing, refunded) = charges(&database);
    assert_eq!(standing, wanted);
    assert!(refunded > 0, "an article ran out behind a charge");
    assert_eq!(host.stop(Duration::from_secs(20)), StopReport::default());
    let mut said = Vec::new();
    that_say_the_token(&shop.data(), &mut said);
    assert_eq!(said, Vec::<PathBuf>::new(), "nobody is to see it");
}

/// A shop on a gateway that takes its time, and one order.
fn slow_shop() -> (Shop, Gateway, PathBuf) {
    let mut shop = Shop::new(&["order", "payment-gateway", "inventory"], "");
    let database = shop.dir.path().join("gateway.db");
    let gateway = Gateway::start(&database, &["--stalls", "1", "--stall-seconds", "1.5"]);
    fs::write(shop.dir.path().join("token"), format!("Bearer {TOKEN}\n")).expect("it can be written");
    shop.configure(&gateway.configuration().replace("timeout = \"1s\"", "timeout = \"10s\""));
    (shop, gateway, database)
}

fn one_order() -> Vec<Order> {
    orders(&Shape { declined_one_in: 0, scarce_one_in: 0, ..Shape::of(1) }).collect()
}

/// Until the gateway has the charge, and says nothing yet.
fn await_charge(database: &Path) {
    let until = Instant::now() + PATIENCE;
    while charges(database).0.is_empty() {
        assert!(Instant::now() < until, "the gateway heard of nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The attempt began with the address of the gateway that was: its request would be another one now.
#[test]
fn an_attempt_ends_with_the_configuration_that_it_began_with() {
    let (mut shop, gateway, database) = slow_shop();
    let host = shop.start();
    let operator = Operator::of(&host);
    let order = one_order();
    shop.produce(&order);
    await_charge(&database);
    let other = "gateway = \"http://127.0.0.1:9/v1\"";
    let moved = gateway.configuration().replacen(&format!("gateway = \"http://{}/v1\"", gateway.address), other, 1);
    shop.configure(&format!("{moved}[plugin.payment-gateway.http.\"http://127.0.0.1:9/v1\"]\n"));
    let reloaded = operator.ask::<Done>(Request::ReloadConfig).expect("it can be reloaded");
    assert!(reloaded.text.contains("payment-gateway: new configuration applied"), "{}", reloaded.text);
    let saga = operator.await_status(&order[0].order_id, "completed");
    assert_eq!(attempts(&saga, "payment-gateway"), ["handle completed"]);
    assert_eq!(host.stop(Duration::from_secs(20)), StopReport::default());
}

/// What was out is heard, and what it did is taken back.
#[test]
fn a_charge_that_is_out_when_its_saga_is_cancelled_is_taken_back() {
    let (shop, _gateway, database) = slow_shop();
    let host = shop.start();
    let operator = Operator::of(&host);
    let order = one_order();
    shop.produce(&order);
    await_charge(&database);
    operator.cancel(&order[0].order_id, "the customer rang");
    let saga = operator.await_status(&order[0].order_id, "compensated");
    assert_eq!(attempts(&saga, "payment-gateway"), ["handle late completed", "compensate undone"]);
    assert_eq!(charges(&database), (BTreeMap::new(), 1));
    assert_eq!(host.stop(Duration::from_secs(20)), StopReport::default());
}

#[test]
fn the_configuration_of_the_example_is_right() {
    let file = services().join("gateway.toml");
    let site = Site::new(&[], "");
    let mut command = site.command(&["config", "show", "--config", file.to_str().expect("it is text")]);
    let shown = command.env("GATEWAY_TOKEN", format!("Bearer {TOKEN}")).output().expect("it runs");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    assert!(text.contains("[plugin.payment-gateway.http.\"http://127.0.0.1:8300/v1\"]"), "{text}");
    assert!(text.contains("(env GATEWAY_TOKEN)") && !text.contains(TOKEN), "{text}");
}
