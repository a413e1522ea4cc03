//! A service of somebody else that takes part in the saga: payment as a plain Kafka client, with nothing of the host's
//! code. Invariant: it charges an order once and refunds it once, and its events have the same ids whenever it is
//! asked again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message,
    consumer::{BaseConsumer, Consumer},
    message::{Header, OwnedHeaders, OwnedMessage},
    producer::{BaseProducer, BaseRecord, Producer},
};
use sagahost_demo::workload::{Counters, LIMIT_CENTS, Order};
use serde_json::{Value, json};

use crate::{kafka_shop::Topics, shop::OPENING_BALANCE};

pub struct PaymentService {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Counters>,
}

impl PaymentService {
    /// Its topics must be there.
    pub fn start(bootstrap: &str, topics: &Topics) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut desk = Desk {
            consumer: consumer(bootstrap, topics),
            producer: producer(bootstrap),
            topics: topics.clone(),
            charges: BTreeMap::new(),
        };
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                desk.serve();
            }
            desk.balances()
        });
        Self { stop, thread }
    }

    /// Its books, as the payment plugin's counters have them.
    pub fn stop(self) -> Counters {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the service does not panic")
    }
}

fn consumer(bootstrap: &str, topics: &Topics) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", format!("{}-payment-service", topics.0));
    config.set("auto.offset.reset", "earliest").set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let names = ["OrderCreated", "InventoryRejected", "SagaFailed"].map(|kind| topics.of(kind));
    consumer.subscribe(&names.each_ref().map(String::as_str)).expect("topics can be subscribed to");
    consumer
}

fn producer(bootstrap: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("enable.idempotence", "true");
    config.set("partitioner", "murmur2_random").set("linger.ms", "2");
    config.create().expect("a producer")
}

struct Charge {
    order: Order,
    /// None: declined.
    payment_id: Option<String>,
    refunded: bool,
}

struct Desk {
    consumer: BaseConsumer,
    producer: BaseProducer,
    topics: Topics,
    charges: BTreeMap<String, Charge>,
}

impl Desk {
    fn serve(&mut self) {
        self.producer.poll(Duration::ZERO);
        // Errors pass: a broker may be away for a moment.
        let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(50)) else { return };
        let message = message.detach();
        if message.topic() == self.topics.of("OrderCreated") {
            self.charge(&message);
        } else {
            self.refund(&message);
        }
    }

    fn charge(&mut self, message: &OwnedMessage) {
        let order: Order = serde_json::from_slice(message.payload().expect("an order")).expect("an order is JSON");
        let id = order.order_id.clone();
        if self.charges.contains_key(&id) {
            return;
        }
        let declined = order.amount_cents > LIMIT_CENTS;
        let payment_id = (!declined).then(|| format!("payment-of-{id}"));
        let (kind, data) = match &payment_id {
            None => ("PaymentFailed", json!({"orderId": id, "code": "LIMIT_EXCEEDED", "detail": "above the limit"})),
            Some(payment) => (
                "PaymentProcessed",
                json!({"orderId": id, "paymentId": payment, "sku": order.sku, "quantity": order.quantity,
                       "amountCents": order.amount_cents}),
            ),
        };
        self.charges.insert(id.clone(), Charge { order, payment_id, refunded: false });
        self.publish(kind, &id, &data);
    }

    /// The saga failed behind the payment; that is said twice, by inventory and by its app.
    fn refund(&mut self, message: &OwnedMessage) {
        let id = String::from_utf8(message.key().unwrap_or_default().to_vec()).expect("keys are text");
        let Some(charge) = self.charges.get_mut(&id) else { return };
        let Some(payment) = charge.payment_id.clone().filter(|_| !charge.refunded) else { return };
        charge.refunded = true;
        let data = json!({"orderId": id, "paymentId": payment, "amountCents": charge.order.amount_cents});
        self.publish("PaymentRefunded", &id, &data);
    }

    fn publish(&self, kind: &str, order: &str, data: &Value) {
        let id = format!("{kind}-of-{order}");
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", &id),
            ("ce_source", "payment-service"),
            ("ce_type", kind),
            ("ce_sagaid", order),
            ("content-type", "application/json"),
        ];
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        let (topic, text) = (self.topics.of(kind), data.to_string());
        let record = BaseRecord::to(&topic).key(order).payload(&text).headers(headers);
        self.producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
    }

    fn balances(self) -> Counters {
        self.producer.flush(Duration::from_secs(20)).expect("everything can be sent");
        let mut balances = Counters::new();
        for charge in self.charges.values() {
            let name = format!("balance/{}", charge.order.customer_id);
            let balance = balances.entry(("payment".to_owned(), name)).or_insert(OPENING_BALANCE);
            if charge.payment_id.is_some() && !charge.refunded {
                *balance -= charge.order.amount_cents as i64;
            }
        }
        balances
    }
}
