//! What is sent, and how long it took to come out. Invariant: a saga that never came out counts with the time that it has
//! waited.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use sagahost_transport_embedded::EmbeddedTransport;
use sagahost_wire::Outgoing;
use serde_json::{Value, json};

use sagahost_demo::figures::quantile;

/// Sagas of each sort, a second.
pub const PER_SECOND: u32 = 20;

fn event(topic: &str, kind: &str, saga: &str, id: &str, data: &Value) -> Outgoing {
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_type", kind),
        ("ce_source", "neighbours"),
        ("ce_id", id),
        ("ce_sagaid", saga),
        ("content-type", "application/json"),
    ];
    Outgoing {
        topic: topic.into(),
        key: Some(saga.as_bytes().to_vec()),
        value: Some(data.to_string().into_bytes()),
        headers: headers.map(|(name, value)| (name.to_owned(), Some(value.as_bytes().to_vec()))).to_vec(),
    }
}

/// For the plugin `payment`, which answers with one event.
pub fn order(saga: &str) -> Outgoing {
    let data = json!({
        "orderId": saga, "customerId": format!("customer-{saga}"), "sku": "book", "quantity": 1,
        "amountCents": 500, "currency": "EUR",
    });
    event("order-created", "OrderCreated", saga, &format!("{saga}-created"), &data)
}

/// For the plugin `hostile`, which does as it is asked, and otherwise answers with one event.
pub fn tried(saga: &str, id: &str, fault: &str, ballast_bytes: usize) -> Outgoing {
    let data = json!({ "id": saga, "fault": fault, "ballast": "x".repeat(ballast_bytes) });
    event("hostile-tried", "HostileTried", saga, id, &data)
}

pub fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1_000.0)
}

/// When each saga's first event was sent.
pub type Sent = BTreeMap<String, f64>;

/// Sends what `next` makes, [`PER_SECOND`] times a second.
pub fn paced(
    topics: &EmbeddedTransport,
    seconds: u32,
    mut next: impl FnMut(u32) -> Vec<(String, Outgoing)>,
) -> Result<Sent> {
    let (mut sent, began) = (Sent::new(), Instant::now());
    for turn in 0..seconds * PER_SECOND {
        let due = began + Duration::from_secs(1) / PER_SECOND * turn;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let (names, records): (Vec<String>, Vec<Outgoing>) = next(turn).into_iter().unzip();
        let at = now_ms();
        topics.offer_all(&records)?;
        sent.extend(names.into_iter().map(|name| (name, at)));
    }
    Ok(sent)
}

/// Of those that were sent and are meant, in milliseconds.
pub struct Latencies(Vec<f64>);

impl Latencies {
    pub fn of(sent: &Sent, ends: &BTreeMap<String, f64>, meant: impl Fn(&str) -> bool) -> Self {
        let until = now_ms();
        let of = sent.iter().filter(|(saga, _)| meant(saga));
        Self(of.map(|(saga, at)| ends.get(saga).copied().unwrap_or(until) - at).collect())
    }

    pub fn median(&self) -> f64 {
        quantile(&self.0, 0.5)
    }

    pub fn p99(&self) -> f64 {
        quantile(&self.0, 0.99)
    }
}
