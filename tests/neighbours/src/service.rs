//! Payment as a service at a URL, for the cases in which plugins have it as a neighbour. Invariant: it answers each order, with
//! one event.

use std::{fs, net::SocketAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use sagahost_tests::http_service::{HttpService, Reply};
use serde_json::json;

use crate::site::Site;

pub const MANIFEST: &str = "payment.json";

/// Answers so long after each request came.
pub fn start_at(address: SocketAddr, wait: Duration) -> HttpService {
    HttpService::start_each_at(&address.to_string(), move |order| {
        let order = order.json();
        let paid = json!({ "orderId": order["orderId"], "paymentId": "p-1" });
        Reply::After(wait, Box::new(Reply::json(201, &paid)))
    })
}

/// Lines of the configuration.
pub fn config(address: SocketAddr) -> String {
    format!("[participant.payment]\nmanifest = \"{MANIFEST}\"\nurl = \"http://{address}/payments\"\n")
}

pub fn write_manifest(site: &Site) -> Result<()> {
    let manifest = json!({
        "name": "payment", "version": "1.0.0", "emits": ["PaymentProcessed"],
        "subscriptions": [{ "kind": "OrderCreated", "role": "retriable" }],
    });
    fs::write(site.path(MANIFEST), manifest.to_string()).context("failed to write a manifest")
}

/// Each order was asked for once, and no other.
pub fn ensure_asked_once(service: &HttpService, orders: usize) -> Result<()> {
    let received = service.received();
    let mut keys: Vec<&str> = received.iter().map(|request| request.header("idempotency-key")).collect();
    keys.sort_unstable();
    keys.dedup();
    ensure!(
        (received.len(), keys.len()) == (orders, orders),
        "{orders} orders were {} requests under {} keys",
        received.len(),
        keys.len()
    );
    Ok(())
}

/// Until one more look shows what is awaited.
pub fn pause() {
    thread::sleep(Duration::from_millis(50));
}
