//! The brokers that tests share: each takes a JVM of 350 MB and some seconds. Invariant: who stops a broker holds it
//! alone meanwhile.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use sagahost_demo::broker::{Broker, Options};

/// For whoever stops no broker. Apps and topics need names of their own.
pub fn steady() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| Broker::start(Options::default()).expect("a broker"))
}

/// With SASL, TLS, permissions, and a bound on the size of records; for whoever stops no broker.
pub fn guarded() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| {
        let options = Options { sasl: true, tls: true, acls: true, ..Options::default() };
        Broker::start(options.with("message.max.bytes", 300_000)).expect("a broker")
    })
}

/// For whoever stops, kills or freezes it: one test after another. It runs when this returns.
pub fn fragile() -> MutexGuard<'static, Broker> {
    static BROKER: OnceLock<Mutex<Broker>> = OnceLock::new();
    let broker = BROKER.get_or_init(|| Mutex::new(Broker::start(Options::default()).expect("a broker")));
    let broker = broker.lock().unwrap_or_else(PoisonError::into_inner);
    broker.restart().expect("it runs, whatever the test before did");
    broker
}
