//! What a step costs that waits for others: the same orders through the payment plugin, through the plugin that asks a gateway,
//! and through a payment service; the latter two answer after a while. One partition, embedded topics. Invariant: each load
//! must end right, or there is no figure.
//!
//! `cargo run --release -p sagahost-tests --example outside [-- ORDERS WAIT_MS AT_ONCE]`

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_tests::{
    operator::Operator,
    shop::{Shop, order_record},
};

const LONG: Duration = Duration::from_secs(600);

/// Whoever is asked: each request takes as long, and each is a success.
struct Stub {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Stub {
    fn start(wait: Duration, answer: fn(&str) -> String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stub = Self { address: listener.local_addr()?, asked: Arc::default() };
        let asked = stub.asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let asked = asked.clone();
                thread::spawn(move || while serve(&stream, wait, answer, &asked).is_some() {});
            }
        });
        Ok(stub)
    }
}

/// One request of a connection that is kept. None: it is over.
fn serve(stream: &TcpStream, wait: Duration, answer: fn(&str) -> String, asked: &AtomicUsize) -> Option<()> {
    let (mut reader, mut length) = (BufReader::new(stream), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim().to_ascii_lowercase();
        if let Some(bytes) = line.strip_prefix("content-length:") {
            length = bytes.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    asked.fetch_add(1, Ordering::Relaxed);
    thread::sleep(wait);
    let body = answer(&String::from_utf8_lossy(&body));
    let head = "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\n";
    (&mut &*stream).write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).ok()
}

fn charged(_: &str) -> String {
    "{\"id\":\"ch-1\"}".to_owned()
}

/// What the service emits for an order: `PaymentProcessed`.
fn processed(order: &str) -> String {
    let order: serde_json::Value = serde_json::from_str(order).unwrap_or_default();
    let data = serde_json::json!({
        "orderId": order["orderId"], "paymentId": "p-1", "sku": order["sku"], "quantity": order["quantity"],
        "amountCents": order["amountCents"],
    });
    data.to_string()
}

fn main() -> Result<()> {
    let number = |at: usize, otherwise: u64| -> Result<u64> {
        env::args().nth(at).map_or(Ok(otherwise), |text| text.parse().with_context(|| format!("`{text}` is no number")))
    };
    let (count, wait) = (usize::try_from(number(1, 5_000)?)?, Duration::from_millis(number(2, 50)?));
    let at_once = number(3, 64)?;
    let load: Vec<Order> =
        orders(&Shape { declined_one_in: 0, scarce_one_in: 0, articles: 500, ..Shape::of(count) }).collect();
    println!("{count} orders, others answer after {} ms, {at_once} requests at once, one partition", wait.as_millis());
    let (gateway, service) = (Stub::start(wait, charged)?, Stub::start(wait, processed)?);
    let url = format!("http://{}", gateway.address);
    let asks = format!(
        "[plugin.payment-gateway.config]\ngateway = \"{url}\"\n\
         [plugin.payment-gateway.http.\"{url}\"]\nallow-networks = [\"127.0.0.1/32\"]\n\
         calls-at-once-max = {at_once}\n"
    );
    let manifest = serde_json::json!({
        "name": "payment", "version": "1.0.0", "emits": ["PaymentProcessed"], "finish-on": ["OrderCompleted"],
        "subscriptions": [{ "kind": "OrderCreated", "role": "retriable" }],
    });
    let at = format!(
        "[participant.payment]\nmanifest = \"payment.json\"\nurl = \"http://{}/payments\"\n\
         calls-at-once-max = {at_once}\n",
        service.address
    );
    let plugin = rate(&["order", "payment", "inventory"], "", None, &load)?;
    let asking = rate(&["order", "payment-gateway", "inventory"], &asks, None, &load)?;
    let serving = rate(&["order", "inventory"], &at, Some(manifest.to_string()), &load)?;
    ensure!(gateway.asked.load(Ordering::Relaxed) == count, "the gateway was asked once for each order");
    ensure!(service.asked.load(Ordering::Relaxed) == count, "the service was asked once for each order");
    for (name, rate) in
        [("payment is a plugin", plugin), ("payment asks a gateway", asking), ("payment is a service", serving)]
    {
        println!("{name:<24} {rate:>7.0} orders a second   {:.2} of the plugin's", rate / plugin);
    }
    Ok(())
}

/// Orders a second, from the first record to the last saga that is completed.
fn rate(plugins: &[&str], more: &str, manifest: Option<String>, load: &[Order]) -> Result<f64> {
    let mut shop = Shop::new(plugins, "");
    if let Some(manifest) = manifest {
        fs::write(shop.dir.path().join("payment.json"), manifest)?;
    }
    shop.configure(&format!("[embedded]\npartitions = 1\n{more}"));
    let topics = shop.topics();
    let host = shop.start();
    let operator = Operator::of(&host);
    let records: Vec<_> = load.iter().map(order_record).collect();
    let began = Instant::now();
    topics.offer_all(&records)?;
    let completed = || -> u64 {
        let all = operator.status().sagas;
        all.iter().filter(|(status, _)| status == "completed").map(|(_, count)| *count).sum()
    };
    while completed() < load.len() as u64 {
        ensure!(began.elapsed() < LONG, "{} of {} orders are completed", completed(), load.len());
        thread::sleep(Duration::from_millis(20));
    }
    let took = began.elapsed();
    host.stop(Duration::from_secs(20));
    Ok(load.len() as f64 / took.as_secs_f64())
}
