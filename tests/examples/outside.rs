//! What a step costs that waits for others: the same orders through the payment plugin, through the plugin that asks a gateway,
//! and through a payment service; the latter two answer after a while. One partition, embedded topics. Invariant: each load
//! must end right, or there is no figure.
//!
//! `cargo run --release -p sagahost-tests --example outside [-- ORDERS WAIT_MS AT_ONCE]`

use std::{
    env, fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_tests::{
    http_service::{HttpService, Reply},
    operator::Operator,
    shop::{Shop, order_record},
};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(600);

/// What the service emits for an order: `PaymentProcessed`.
fn processed(order: &Value) -> Value {
    json!({
        "orderId": order["orderId"], "paymentId": "p-1", "sku": order["sku"], "quantity": order["quantity"],
        "amountCents": order["amountCents"],
    })
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
    let created = move |body: &Value| Reply::After(wait, Box::new(Reply::json(201, body)));
    let gateway = HttpService::start_each(move |_| created(&json!({ "id": "ch-1" })));
    let service = HttpService::start_each(move |order| created(&processed(&order.json())));
    let url = gateway.url("");
    let asks = format!(
        "[plugin.payment-gateway.config]\ngateway = \"{url}\"\n\
         [plugin.payment-gateway.http.\"{url}\"]\nallow-networks = [\"127.0.0.1/32\"]\n\
         calls-at-once-max = {at_once}\n"
    );
    let manifest = json!({
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
    ensure!(gateway.received().len() == count, "the gateway was asked once for each order");
    ensure!(service.received().len() == count, "the service was asked once for each order");
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
