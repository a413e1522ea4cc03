//! How the broker is reached. Invariant: a secret's value is in no message and no `Debug`.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, time::Duration};

use sagahost_transport::StartAt;

use crate::properties;

/// Of each partition, where the configuration does not say it (`queued.max.messages.kbytes`).
pub(super) const QUEUED_KILOBYTES_MAX: usize = 250;

/// How an app reaches its broker, and what it makes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSettings {
    pub bootstrap_servers: String,
    /// Where the very first start of an app begins to read.
    pub start: StartAt,
    /// Make the topics that are missing.
    pub create_topics: bool,
    /// Of topics that it makes.
    pub partitions: i32,
    pub replication: i32,
    /// Passed to librdkafka as they are.
    pub properties: BTreeMap<String, Property>,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            bootstrap_servers: String::new(),
            start: StartAt::Earliest,
            create_topics: false,
            partitions: 4,
            replication: 1,
            properties: BTreeMap::new(),
        }
    }
}

impl KafkaSettings {
    /// What librdkafka queues of each partition before it fetches no more of it: values of records, decompressed.
    pub fn queued_bytes_max(&self) -> usize {
        let set = self.properties.get("queued.max.messages.kbytes");
        set.and_then(|kilobytes| kilobytes.value().trim().parse().ok()).unwrap_or(QUEUED_KILOBYTES_MAX) * 1000
    }

    /// As configured, in lower case.
    pub fn security_protocol(&self) -> String {
        self.properties.get("security.protocol").map_or_else(|| "plaintext".to_owned(), |is| is.value().to_lowercase())
    }
}

/// Our own property: librdkafka knows only tokens that a program hands to it.
pub const TOKEN_FILE: &str = "sasl.oauthbearer.token.location";

/// `transaction.timeout.ms`: the upper end is Kafka's own default for what a broker permits.
pub const TRANSACTION_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(15 * 60);

/// A value of librdkafka's configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct Property {
    value: String,
    /// Where a secret came from: `env KAFKA_PASSWORD`, `file secrets/password`. None: written in the
    /// configuration itself.
    from: Option<String>,
    secret: bool,
}

impl Property {
    /// What a name that librdkafka does not know stands for may be a secret: `sasl.pasword`.
    pub fn plain(name: &str, value: impl Into<String>) -> Self {
        Self { value: value.into(), from: None, secret: is_secret(name) || !is_known(name) }
    }
    /// `from`: `env KAFKA_PASSWORD`, `file secrets/password`.
    pub fn secret(value: String, from: String) -> Self {
        Self { value, from: Some(from), secret: true }
    }
    /// For librdkafka, and for nobody else.
    pub fn value(&self) -> &str {
        &self.value
    }
    /// For people.
    pub fn shown(&self) -> String {
        match (&self.from, self.secret) {
            (Some(from), _) => format!("({from})"),
            (None, true) => "(hidden)".to_owned(),
            (None, false) => self.value.clone(),
        }
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

/// Does the name say that the value is for nobody else?
pub fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let public = name.ends_with(".location") || name.ends_with(".url") || name.ends_with(".mechanism");
    let words = [
        "password",
        "secret",
        "token",
        "jaas",
        "oauthbearer.config",
        "assertion",
        "key.pem",
        "passphrase",
        "credential",
        "api-key",
        "api.key",
        "apikey",
    ];
    !public && words.iter().any(|word| name.contains(word))
}

/// Does it reach librdkafka, or the host on its way there?
pub fn is_known(name: &str) -> bool {
    name == TOKEN_FILE || properties::is_known(name)
}
