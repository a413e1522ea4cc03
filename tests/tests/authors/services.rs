//! Services in other languages as participants: the example that the documentation shows, held to what a service owes, behind
//! a network that loses things, and killed again and again.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use sagahost::host::StopReport;
use sagahost_demo::proxy::{Fate, Proxy};
use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_tests::{
    binary::Site,
    built,
    faulty::Death,
    operator::Operator,
    shop::{PATIENCE, Shop},
};
use serde_json::Value;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/services")
}

/// In which a payment service is written.
#[derive(Clone, Copy)]
enum Language {
    Python,
    FastApi,
    Node,
    Go,
    Spring,
}

impl Language {
    fn command(self) -> Command {
        match self {
            Self::Python => with("python3", "payment.py"),
            Self::FastApi => {
                let mut command = Command::new(fastapi());
                command.arg(examples().join("fastapi/payment.py"));
                command
            }
            Self::Node => with("node", "payment.mjs"),
            Self::Go => Command::new(go()),
            Self::Spring => {
                let mut command = Command::new("java");
                command.arg("-jar").arg(spring());
                command
            }
        }
    }

    /// What stands, in cents by order, as each keeps it.
    fn charges(self, database: &Path) -> BTreeMap<String, u64> {
        match self {
            Self::Python | Self::FastApi => charges_in_sqlite(database),
            Self::Node | Self::Go | Self::Spring => charges_in_lines(database),
        }
    }
}

fn with(interpreter: &str, file: &str) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(examples().join(file));
    command
}

/// A Python that has what the example needs, fetched once.
fn fastapi() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let venv = built::root().join("target/plugins/payment-fastapi");
        let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status();
        assert!(made.expect("python3 is there").success());
        let python = venv.join("bin/python");
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
        assert!(install.arg(examples().join("fastapi/requirements.txt")).status().expect("pip is there").success());
        python
    })
}

/// Built once; it needs nothing but Go itself.
fn go() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let file = built::root().join("target/plugins/payment-go");
        let mut build = Command::new("go");
        build.args(["build", "-o"]).arg(&file).arg(".").current_dir(examples().join("go"));
        assert!(build.env("GOTOOLCHAIN", "local").status().expect("go is there").success());
        file
    })
}

/// Built once, with what Maven fetches.
fn spring() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let out = built::root().join("target/plugins/payment-spring");
        let mut build = Command::new("mvn");
        build.args(["--batch-mode", "--quiet", "package"]).arg(format!("-Dout={}", out.display()));
        assert!(build.current_dir(examples().join("spring")).status().expect("mvn is there").success());
        out.join("payment.jar")
    })
}

/// The payment service, as a process.
struct Payments {
    process: Child,
    address: SocketAddr,
}

impl Payments {
    fn start(language: Language, database: &Path, port: u16) -> Self {
        let mut command = language.command();
        command.arg(format!("--port={port}")).arg(format!("--database={}", database.display()));
        let mut process = command.stdout(Stdio::piped()).spawn().expect("it can be started");
        // Whatever else it says first.
        let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let line =
            lines.map_while(Result::ok).find(|line| line.starts_with("payments on")).expect("it says where it is");
        let address = line.trim().rsplit('/').next().and_then(|text| text.parse().ok());
        Self { process, address: address.unwrap_or_else(|| panic!("no address: {line}")) }
    }

    fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it was killed");
    }
}

impl Drop for Payments {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_example_in_python_keeps_what_a_service_owes() {
    keeps_what_a_service_owes(Language::Python);
}

#[test]
fn the_example_in_node_keeps_what_a_service_owes() {
    keeps_what_a_service_owes(Language::Node);
}

#[test]
fn the_example_in_go_keeps_what_a_service_owes() {
    keeps_what_a_service_owes(Language::Go);
}

#[test]
fn the_example_with_spring_keeps_what_a_service_owes() {
    keeps_what_a_service_owes(Language::Spring);
}

#[test]
fn the_example_with_fastapi_keeps_what_a_service_owes() {
    keeps_what_a_service_owes(Language::FastApi);
}

fn keeps_what_a_service_owes(language: Language) {
    let site = Site::new(&[], "");
    let payments = Payments::start(language, &site.file("payments.db"), 0);
    let url = format!("http://{}/payments", payments.address);
    let undo_url = format!("{url}/cancel");
    let manifest = examples().join("payment.json");
    let manifest = manifest.to_str().expect("it is text");
    let ended = site.run(&["check", "--url", &url, "--undo-url", &undo_url, "--manifest", manifest]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    assert_eq!(ended.out.matches("  pass ").count(), 6, "{}", ended.out);
}

#[test]
fn money_is_conserved_by_the_example_with_spring_behind_a_network_that_loses_things() {
    conserves_money(Language::Spring);
}

#[test]
fn money_is_conserved_by_the_example_in_python_behind_a_network_that_loses_things() {
    conserves_money(Language::Python);
}

#[test]
fn money_is_conserved_by_the_example_in_node_behind_a_network_that_loses_things() {
    conserves_money(Language::Node);
}

#[test]
fn money_is_conserved_by_the_example_in_go_behind_a_network_that_loses_things() {
    conserves_money(Language::Go);
}

#[test]
fn money_is_conserved_by_the_example_with_fastapi_behind_a_network_that_loses_things() {
    conserves_money(Language::FastApi);
}

/// One in three connections loses something, and the service is killed twice: each order ends once, and what was charged is
/// what stands.
fn conserves_money(language: Language) {
    let mut shop = Shop::new(&["order", "inventory"], "");
    let database = shop.dir.path().join("payments.db");
    let mut payments = Payments::start(language, &database, 0);
    let fates = [
        Fate::Whole,
        Fate::NoAnswer,
        Fate::Whole,
        Fate::CutAfter(30),
        Fate::Whole,
        Fate::Whole,
        Fate::Late(Duration::from_secs(2)),
        Fate::Whole,
        Fate::Refused,
        Fate::CutAfter(200),
        Fate::Whole,
    ];
    let proxy = Proxy::start(payments.address, move |number| fates[number % fates.len()]);
    fs::copy(examples().join("payment.json"), shop.dir.path().join("payment.json")).expect("it can be copied");
    let url = format!("http://{}/payments", proxy.address);
    shop.configure(&format!(
        "[participant.payment]\nmanifest = \"payment.json\"\nurl = \"{url}\"\nundo-url = \"{url}/cancel\"\ntimeout = \"1s\"\n\
         [plugin.payment.on.OrderCreated]\nretry = {{ attempts-max = 50, base = \"20ms\", cap = \"200ms\" }}\n\
         undo-retry = {{ attempts-max = 50, base = \"20ms\", cap = \"200ms\" }}\n"
    ));
    let host = shop.start();
    let operator = Operator::of(&host);
    let mut all: Vec<Order> = Vec::new();
    for round in 0..3 {
        let shape = Shape { customers: 5, articles: 5, prefix: format!("r{round}"), ..Shape::of(25) };
        let fed: Vec<Order> = orders(&shape).collect();
        shop.produce(&fed);
        all.extend(fed);
        if round < 2 {
            std::thread::sleep(Duration::from_millis(300));
            let port = payments.address.port();
            payments.kill();
            payments = Payments::start(language, &database, port);
        }
    }
    let ends = shop.await_ends(&all, &Death::never(), PATIENCE);
    assert_eq!(ends.len(), all.len());
    assert_eq!(operator.letters(), []);
    assert!(proxy.spoilt() > 5, "the network was too good: {}", proxy.spoilt());
    let completed = all.iter().filter(|order| ends.completed.contains_key(&order.order_id));
    let wanted: BTreeMap<String, u64> = completed.map(|order| (order.order_id.clone(), order.amount_cents)).collect();
    assert!(!wanted.is_empty() && wanted.len() < all.len(), "some are completed, and some are not");
    assert_eq!(language.charges(&database), wanted);
    assert_eq!(host.stop(Duration::from_secs(20)), StopReport::default());
}

fn charges_in_sqlite(database: &Path) -> BTreeMap<String, u64> {
    let db = rusqlite::Connection::open(database).expect("it is there");
    let mut statement = db.prepare("SELECT saga, cents FROM charge").expect("it has that table");
    let rows =
        statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))).expect("it can be read");
    rows.collect::<Result<_, _>>().expect("each row can be read")
}

/// One JSON object a line, each with what it brought and what it called off.
fn charges_in_lines(database: &Path) -> BTreeMap<String, u64> {
    let mut charges = BTreeMap::new();
    for line in fs::read_to_string(database).expect("it is there").lines() {
        let entry: Value = serde_json::from_str(line).expect("each line is JSON");
        let charge = if entry["charge"].is_object() { &entry["charge"] } else { &entry };
        if let (Some(saga), Some(cents)) = (charge["saga"].as_str(), charge["cents"].as_u64()) {
            charges.insert(saga.to_owned(), cents);
        }
        if let Some(off) = entry["off"].as_str() {
            charges.remove(off);
        }
    }
    charges
}

/// What the documentation shows, as it stands there.
#[test]
fn the_commands_by_hand_do_what_is_said_of_them() {
    let document = fs::read_to_string(built::root().join("host/docs/services.md")).expect("it is there");
    let start = document.find("```sh\ncurl ").expect("it shows commands");
    let shown = document[start..].trim_start_matches("```sh\n").split("\n```").next().expect("they end");
    let dir = tempfile::tempdir().expect("there is room");
    let database = dir.path().join("payments.db");
    let payments = Payments::start(Language::Python, &database, 0);
    assert!(shown.contains("127.0.0.1:8200"), "{shown}");
    let script = shown.replace("127.0.0.1:8200", &payments.address.to_string());
    let bash = || {
        let ended = Command::new("bash").args(["-euc", &script]).output().expect("bash is there");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        let lines = String::from_utf8(ended.stdout).expect("it is text");
        lines.lines().filter(|line| !line.starts_with("Date:")).map(str::to_owned).collect::<Vec<_>>()
    };
    let first = bash();
    let said = |text: &str| first.iter().any(|line| line.contains(text));
    assert!(said("HTTP/1.1 201") && said("PaymentProcessed"), "{first:#?}");
    assert!(said("Sagahost-Outcome: undone") && said("PaymentRefunded"), "{first:#?}");
    assert_eq!(bash(), first, "the second time each gets the same answer");
    assert_eq!(charges_in_sqlite(&database), BTreeMap::new());
}

#[test]
fn the_configuration_of_the_example_is_right() {
    let file = examples().join("shop.toml");
    let site = Site::new(&[], "");
    let ended = site.run(&["config", "show", "--config", file.to_str().expect("it is text")]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains("[participant.payment]"), "{}", ended.out);
}
