//! Orders on their way in. Invariant: each way in takes the same orders.

use std::{
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, Producer as _, ThreadedProducer},
};
use sagahost_transport_embedded::EmbeddedTransport;
use sagahost_wire::Outgoing;

use crate::{
    requests::{Answers, Requests},
    workload::Order,
};

/// Produces orders as any client would.
pub enum Feeder {
    Embedded(EmbeddedTransport),
    Kafka(ThreadedProducer<rdkafka::producer::DefaultProducerContext>),
    Http(Box<Requests>),
}

impl Feeder {
    /// # Errors
    /// They cannot be opened.
    pub fn embedded(data: &Path) -> Result<Self> {
        Ok(Self::Embedded(EmbeddedTransport::open(data, "demo-feeder")?))
    }

    /// # Errors
    /// The producer cannot be made.
    pub fn kafka(bootstrap: &str) -> Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("partitioner", "murmur2_random").set("linger.ms", "2");
        Ok(Self::Kafka(config.create()?))
    }

    /// `callers`: requests that are out at once.
    ///
    /// # Errors
    /// No client can be made.
    pub fn http(address: SocketAddr, callers: usize) -> Result<Self> {
        Ok(Self::Http(Box::new(Requests::new(&format!("http://{address}/orders"), callers)?)))
    }

    /// Over HTTP, what has been answered since: the order, whether it completed, and when that was.
    pub fn take_ended(&self, ended: impl FnMut(&str, bool, Instant)) {
        if let Self::Http(requests) = self {
            requests.take_ended(ended);
        }
    }

    /// Requests that were sent again.
    pub fn repeated(&self) -> usize {
        match self {
            Self::Http(requests) => requests.repeated(),
            Self::Embedded(_) | Self::Kafka(_) => 0,
        }
    }

    /// What was sent is out; over HTTP, it is answered.
    ///
    /// # Errors
    /// It is not within a minute.
    pub fn finish(&self, orders: usize) -> Result<Option<Answers>> {
        match self {
            Self::Embedded(_) => Ok(None),
            Self::Kafka(producer) => producer.flush(Duration::from_secs(10)).map(|()| None).map_err(Into::into),
            Self::Http(requests) => {
                let end = Instant::now() + Duration::from_secs(60);
                loop {
                    let answers = requests.answers();
                    if answers.by_order.len() >= orders {
                        return Ok(Some(answers));
                    }
                    ensure!(Instant::now() < end, "{} of {orders} orders are answered", answers.by_order.len());
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    /// # Errors
    /// They cannot be sent.
    pub fn send(&self, orders: &[&Order]) -> Result<()> {
        let bytes = |order: &Order| serde_json::to_vec(order).context("an order is JSON");
        match self {
            Self::Embedded(topics) => {
                let mut records = Vec::with_capacity(orders.len());
                for order in orders {
                    records.push(Outgoing {
                        topic: "order-created".into(),
                        key: Some(order.order_id.clone().into_bytes()),
                        value: Some(bytes(order)?),
                        headers: Vec::new(),
                    });
                }
                topics.offer_all(&records)?;
            }
            Self::Http(requests) => orders.iter().try_for_each(|order| requests.send(order))?,
            Self::Kafka(producer) => {
                for order in orders {
                    let data = bytes(order)?;
                    let mut record = BaseRecord::to("order-created").key(&order.order_id).payload(&data);
                    while let Err((error, unsent)) = producer.send(record) {
                        ensure!(
                            error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull),
                            "failed to produce: {error}"
                        );
                        record = unsent;
                        thread::sleep(Duration::from_millis(5));
                    }
                }
            }
        }
        Ok(())
    }
}
