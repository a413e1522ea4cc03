//! How this app talks to its brokers: the properties of each kind of client. Invariant: what the commit protocol
//! needs is set last, so no setting can undo it; a secret leaves here only towards librdkafka.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    client::OAuthToken,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::BaseConsumer,
    error::KafkaResult,
    producer::BaseProducer,
};
use sagahost_transport::{Isolation, TransportError};

use crate::{KafkaSettings, TOKEN_FILE, TRANSACTION_TIMEOUT, settings::QUEUED_KILOBYTES_MAX};

use super::{context::Context, errors, producer::Producer, token::TokenSource};

pub(super) type Consumer = BaseConsumer<Context>;

/// The broker ends a transaction that is open for longer.
const TRANSACTION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// A batch that is larger when it is decompressed (zstd only) cannot be read: its partition is held. Where its frame does not
/// say its size, librdkafka tries buffers three times as large each: then a third of this is read for certain.
const RECEIVED_BYTES_MAX: usize = 32 << 20;

/// A producer takes no more than this before some of it is sent.
const BUFFERED_KILOBYTES_MAX: usize = 8 << 10;

/// What the commit protocol depends on is not a setting. The configuration refuses these with the reason.
const OWN: [&str; 12] = [
    "acks",
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "partitioner",
    "transactional.id",
];

pub(super) struct Connection {
    pub app: String,
    pub servers: String,
    pub transaction_timeout: Duration,
    pub replication: i32,
    properties: BTreeMap<String, String>,
    pub redaction: Arc<Redaction>,
    tokens: Option<Arc<TokenSource>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("app", &self.app).field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Connection {
    pub fn new(settings: &KafkaSettings, app: &str) -> Result<Self, TransportError> {
        let mut properties: BTreeMap<String, String> =
            settings.properties.iter().map(|(name, property)| (name.clone(), property.value().to_owned())).collect();
        properties.retain(|name, _| !OWN.contains(&name.as_str()));
        let secrets = settings
            .properties
            .iter()
            .filter(|(name, property)| name.as_str() != "sasl.username" && property.shown() != property.value());
        let redaction = Arc::new(Redaction::of(secrets.map(|(_, property)| property.value())));
        let transaction_timeout = transaction_timeout(properties.remove("transaction.timeout.ms").as_deref())?;
        let token_file = properties.remove(TOKEN_FILE).map(PathBuf::from);
        let tokens = uses_oauth(&properties).then(|| {
            let unsecured = properties.get("enable.sasl.oauthbearer.unsecure.jwt").is_some_and(|is| is == "true");
            Arc::new(TokenSource { file: token_file, unsecured })
        });
        Ok(Self {
            app: app.to_owned(),
            servers: settings.bootstrap_servers.clone(),
            transaction_timeout,
            replication: settings.replication,
            properties,
            redaction,
            tokens,
        })
    }

    /// For messages: `PLAIN`, `SCRAM-SHA-256`; none without SASL.
    pub fn mechanism(&self) -> Option<&str> {
        let protocol = self.properties.get("security.protocol")?;
        let mechanism = self.properties.get("sasl.mechanism").or_else(|| self.properties.get("sasl.mechanisms"));
        protocol.to_lowercase().contains("sasl").then(|| mechanism.map_or("GSSAPI", String::as_str))
    }

    pub fn is_plain(&self) -> bool {
        self.properties.get("security.protocol").is_none_or(|protocol| protocol.eq_ignore_ascii_case("plaintext"))
    }

    /// Where OAUTHBEARER is used: a fresh token.
    pub fn token(&self) -> Option<Result<OAuthToken, String>> {
        let config = self.properties.get("sasl.oauthbearer.config").map(String::as_str);
        self.tokens.as_ref().map(|tokens| tokens.token(config))
    }

    /// Reads records, committed offsets, metadata; never a member of the group.
    pub fn consumer(&self, isolation: Isolation) -> Result<Consumer, TransportError> {
        let (queued, received) = (QUEUED_KILOBYTES_MAX.to_string(), self.received_bytes_max().to_string());
        let defaults = [
            // Several partitions are queued, each for itself, and a record waits in front of the workers again. Only values
            // count as bytes, so that records bound what keys and headers take.
            ("queued.min.messages", "500"),
            ("queued.max.messages.kbytes", queued.as_str()),
            // A fetch is decompressed as a whole, whatever is queued: it brings little, or one batch.
            ("fetch.message.max.bytes", "8192"),
            // What one batch may be when it is decompressed, if its compression is zstd.
            ("receive.message.max.bytes", received.as_str()),
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.wait.max.ms", "100"),
            ("fetch.error.backoff.ms", "100"),
        ];
        let own = [
            ("group.id", self.app.as_str()),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
            ("allow.auto.create.topics", "false"),
            (
                "isolation.level",
                match isolation {
                    Isolation::Stable => "read_committed",
                    Isolation::Uncommitted => "read_uncommitted",
                },
            ),
        ];
        self.client(&defaults, &own)
    }

    /// Not less than librdkafka demands beside properties that are set.
    fn received_bytes_max(&self) -> usize {
        let message = self.number("message.max.bytes").unwrap_or(0);
        // By itself librdkafka fetches as much as it may queue, up to 50 MiB.
        let queued = self.number("queued.max.messages.kbytes").unwrap_or(0).saturating_mul(1024).min(50 << 20);
        let fetch = self.number("fetch.max.bytes").unwrap_or(queued).max(message);
        RECEIVED_BYTES_MAX.max(fetch.saturating_add(512))
    }

    fn number(&self, property: &str) -> Option<usize> {
        self.properties.get(property)?.trim().parse().ok()
    }

    /// What waits in a producer: of one batch of the host, or one record.
    fn buffered_kilobytes_max(&self) -> usize {
        BUFFERED_KILOBYTES_MAX.max(self.number("message.max.bytes").unwrap_or(0) / 500)
    }

    /// One transactional id for each app: whoever claims it ends what the last one left open.
    pub fn transactional_producer(&self) -> Result<Producer, TransportError> {
        let delivery_ms = self.delivery_timeout().as_millis().to_string();
        let transaction_ms = self.transaction_timeout.as_millis().to_string();
        let own = [
            ("transactional.id", self.app.as_str()),
            ("transaction.timeout.ms", &transaction_ms),
            ("message.timeout.ms", &delivery_ms),
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("partitioner", "murmur2_random"),
        ];
        self.producer(&own)
    }

    fn producer(&self, own: &[(&str, &str)]) -> Result<Producer, TransportError> {
        let buffered = self.buffered_kilobytes_max().to_string();
        let defaults = [&PRODUCER_DEFAULTS[..], &[("queue.buffering.max.kbytes", buffered.as_str())]].concat();
        Producer::serving(self.client(&defaults, own)?)
    }

    /// For single records outside of any batch.
    pub fn idempotent_producer(&self) -> Result<Producer, TransportError> {
        let delivery_ms = self.delivery_timeout().as_millis().to_string();
        let own = [
            ("message.timeout.ms", delivery_ms.as_str()),
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("partitioner", "murmur2_random"),
        ];
        self.producer(&own)
    }

    /// For `AdminClient`, which brings no callbacks of its own.
    pub fn admin<T: FromClientConfigAndContext<Context>>(&self) -> Result<T, TransportError> {
        self.create(&[], &[])
    }

    /// Shorter than a transaction, so that a record that cannot be delivered is known before the broker gives up.
    pub fn delivery_timeout(&self) -> Duration {
        self.transaction_timeout * 2 / 3
    }

    fn client<T>(&self, defaults: &[(&str, &str)], own: &[(&str, &str)]) -> Result<T, TransportError>
    where
        T: FromClientConfigAndContext<Context> + Served,
    {
        let client: T = self.create(defaults, own)?;
        // Nothing can connect before there is a token, and blocking calls do not serve the event that asks for it.
        let started = Instant::now();
        while self.tokens.is_some() && !client.context().has_token() && started.elapsed() < Duration::from_millis(500) {
            client.serve(Duration::from_millis(10));
        }
        Ok(client)
    }

    fn create<T>(&self, defaults: &[(&str, &str)], own: &[(&str, &str)]) -> Result<T, TransportError>
    where
        T: FromClientConfigAndContext<Context>,
    {
        let mut config = ClientConfig::new();
        let common = [
            ("client.id", self.app.as_str()),
            ("topic.metadata.refresh.interval.ms", "10000"),
            ("reconnect.backoff.max.ms", "2000"),
            ("socket.keepalive.enable", "true"),
            // What breaks is logged by us, once, with what to do.
            ("log.connection.close", "false"),
        ];
        for (name, value) in common.iter().chain(defaults) {
            config.set(*name, *value);
        }
        config.extend(self.properties.clone());
        config.set("bootstrap.servers", &self.servers);
        for (name, value) in own {
            config.set(*name, *value);
        }
        let verbose = self.properties.contains_key("debug");
        config.set_log_level(if verbose { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
        let context = Context::new(self.redaction.clone(), self.tokens.clone());
        let created: KafkaResult<T> = config.create_with_context(context);
        created.map_err(|error| errors::configuration(self, &error))
    }
}

const PRODUCER_DEFAULTS: [(&str, &str); 4] = [
    ("linger.ms", "1"),
    // A topic that does not exist is known as missing after this, well within a transaction.
    ("topic.metadata.propagation.max.ms", "3000"),
    // What is turned down most is the first request of a transaction, for the few milliseconds that the one before
    // takes to complete.
    ("retry.backoff.ms", "5"),
    ("retry.backoff.max.ms", "100"),
];

/// Blocking calls do not serve a client's events (logs, errors, tokens, delivery reports): another thread has to.
pub(super) trait Served {
    fn serve(&self, timeout: Duration);
    fn context(&self) -> &Context;
}

impl Served for Consumer {
    fn serve(&self, timeout: Duration) {
        // Errors are in the context, records come only where partitions are assigned.
        let _ = self.poll(timeout);
    }
    fn context(&self) -> &Context {
        rdkafka::consumer::Consumer::context(self)
    }
}

impl Served for BaseProducer<Context> {
    fn serve(&self, timeout: Duration) {
        self.poll(timeout);
    }
    fn context(&self) -> &Context {
        rdkafka::producer::Producer::context(self)
    }
}

fn uses_oauth(properties: &BTreeMap<String, String>) -> bool {
    ["sasl.mechanism", "sasl.mechanisms"]
        .iter()
        .any(|name| properties.get(*name).is_some_and(|mechanism| mechanism.eq_ignore_ascii_case("OAUTHBEARER")))
}

fn transaction_timeout(property: Option<&str>) -> Result<Duration, TransportError> {
    let Some(text) = property else {
        return Ok(TRANSACTION_TIMEOUT_DEFAULT);
    };
    let timeout = text.parse().ok().map(Duration::from_millis);
    timeout.filter(|timeout| TRANSACTION_TIMEOUT.contains(timeout)).ok_or_else(|| {
        TransportError::Refused(format!(
            "transaction.timeout.ms = {text:?} in [kafka.properties] is not between {} and {}",
            TRANSACTION_TIMEOUT.start().as_millis(),
            TRANSACTION_TIMEOUT.end().as_millis()
        ))
    })
}

/// Takes secrets out of what librdkafka and the brokers say.
#[derive(Default)]
pub(super) struct Redaction {
    /// The longest first: one secret may contain another.
    secrets: Vec<String>,
}

impl Redaction {
    pub fn of<'a>(secrets: impl Iterator<Item = &'a str>) -> Self {
        let mut secrets: Vec<String> = secrets.filter(|secret| !secret.is_empty()).map(str::to_owned).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets }
    }

    pub fn clean(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "(hidden)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Property;

    #[test]
    fn secrets_are_taken_out_of_texts() {
        let redaction = Redaction::of(["", "abc", "abcdef"].into_iter());
        assert_eq!(redaction.clean("abcdef and abc"), "(hidden) and (hidden)");
    }

    #[test]
    fn what_the_protocol_needs_cannot_be_changed() {
        let wrong = ["group.id", "isolation.level", "transactional.id", "enable.auto.commit", "partitioner"];
        let settings = KafkaSettings {
            bootstrap_servers: "127.0.0.1:1".into(),
            properties: wrong.iter().map(|name| ((*name).to_owned(), Property::plain(name, "x"))).collect(),
            ..KafkaSettings::default()
        };
        let connection = Connection::new(&settings, "shop").expect("the connection is lazy");
        connection.consumer(Isolation::Stable).expect("ours replaced the invalid value");
    }

    #[test]
    fn properties_that_need_more_room_are_accepted() {
        for (name, value) in [
            ("message.max.bytes", "100000000"),
            ("fetch.max.bytes", "50000000"),
            ("fetch.message.max.bytes", "1"),
            ("queued.max.messages.kbytes", "65536"),
            ("receive.message.max.bytes", "1000000000"),
        ] {
            let mut settings = KafkaSettings { bootstrap_servers: "127.0.0.1:1".into(), ..KafkaSettings::default() };
            settings.properties.insert(name.into(), Property::plain(name, value));
            let connection = Connection::new(&settings, "shop").expect("the connection is lazy");
            connection.consumer(Isolation::Stable).unwrap_or_else(|error| panic!("{name}: {error}"));
            connection.idempotent_producer().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn a_wrong_property_is_refused_without_its_value() {
        for (name, value, said) in [
            ("no.such.property", "x", "no.such.property"),
            ("transaction.timeout.ms", "1", "transaction.timeout.ms"),
            ("sasl.oauthbearer.client.secret", "hush-hush", ""),
        ] {
            let mut settings = KafkaSettings { bootstrap_servers: "127.0.0.1:1".into(), ..KafkaSettings::default() };
            settings.properties.insert(name.into(), Property::plain(name, value));
            let error = Connection::new(&settings, "shop")
                .and_then(|connection| connection.consumer(Isolation::Stable).map(drop))
                .err()
                .map_or_else(String::new, |error| format!("{error} {error:?}"));
            assert!(error.contains(said), "{error}");
            assert!(!error.contains("hush-hush"), "{error}");
        }
    }
}
