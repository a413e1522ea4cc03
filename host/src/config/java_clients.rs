//! Properties of Kafka's Java clients that librdkafka does not have: what to write in their place. Invariant: a
//! configuration that follows the advice is accepted (a test applies all of it).

/// What to do about a property of Java clients.
#[derive(Debug)]
pub struct Advice {
    /// Lines for `[kafka.properties]`; none: the property is to be removed.
    pub write: &'static [&'static str],
    pub why: &'static str,
}

impl Advice {
    pub fn text(&self) -> String {
        let instead = match self.write {
            [] => "remove it".to_owned(),
            lines => format!("write {}", lines.join(" and ")),
        };
        format!("is a property of Java clients: {instead} ({})", self.why)
    }
}

/// `name` is not known to librdkafka.
pub fn advice(name: &str) -> Option<&'static Advice> {
    let bare = ["consumer.", "producer.", "admin."].iter().find_map(|prefix| name.strip_prefix(prefix));
    let of = |name: &str| TABLE.iter().find(|(names, _)| names.contains(&name)).map(|(_, advice)| advice);
    of(name).or_else(|| bare.and_then(of))
}

const SASL: &str = "librdkafka has no such class; what its SASL needs are properties of its own";
const RECORDS: &str = "[topics.records.TOPIC] says how records are read; what the host writes are CloudEvents";
const OPENSSL: &str = "librdkafka uses OpenSSL, with its own providers and algorithms";
const BLOCKING: &str = "the host bounds its calls itself";

const TABLE: &[(&[&str], Advice)] = &[
    (
        &["sasl.jaas.config"],
        Advice {
            write: &[r#""sasl.username" = "NAME""#, r#""sasl.password" = { env = "KAFKA_PASSWORD" }"#],
            why: "they are in its `username=` and `password=`; \"sasl.mechanism\" says PLAIN or SCRAM-SHA-512",
        },
    ),
    (
        &["ssl.truststore.location"],
        Advice {
            write: &[r#""ssl.ca.location" = "ca.pem""#],
            why: "PEM: keytool -exportcert -rfc -keystore TRUSTSTORE -alias ALIAS -file ca.pem",
        },
    ),
    (&["ssl.truststore.password"], Advice { write: &[], why: "certificates to trust are in PEM, without a password" }),
    (&["ssl.truststore.type"], Advice { write: &[], why: "\"ssl.ca.location\" is PEM" }),
    (
        &["ssl.truststore.certificates"],
        Advice { write: &[r#""ssl.ca.location" = "ca.pem""#], why: "put the certificates into that file" },
    ),
    (&["ssl.keystore.type"], Advice { write: &[], why: "\"ssl.keystore.location\" is PKCS#12" }),
    (
        &["ssl.keystore.certificate.chain"],
        Advice { write: &[r#""ssl.certificate.location" = "client.pem""#], why: "put the certificates into that file" },
    ),
    (
        &["ssl.keystore.key"],
        Advice { write: &[r#""ssl.key.location" = "client.key""#], why: "put the key into that file, as PEM" },
    ),
    (&["ssl.protocol", "ssl.enabled.protocols"], Advice { write: &[], why: "OpenSSL agrees on the newest one" }),
    (
        &[
            "ssl.provider",
            "ssl.keymanager.algorithm",
            "ssl.trustmanager.algorithm",
            "ssl.secure.random.implementation",
            "ssl.engine.factory.class",
            "security.providers",
        ],
        Advice { write: &[], why: OPENSSL },
    ),
    (
        &[
            "sasl.client.callback.handler.class",
            "sasl.login.callback.handler.class",
            "sasl.login.class",
            "sasl.login.refresh.window.factor",
            "sasl.login.refresh.window.jitter",
            "sasl.login.refresh.min.period.seconds",
            "sasl.login.refresh.buffer.seconds",
        ],
        Advice { write: &[], why: SASL },
    ),
    (
        &["key.deserializer", "value.deserializer", "key.serializer", "value.serializer", "schema.registry.url"],
        Advice { write: &[], why: RECORDS },
    ),
    (&["interceptor.classes", "partitioner.class"], Advice { write: &[], why: "a host runs no classes" }),
    (
        &["metric.reporters", "metrics.num.samples", "metrics.sample.window.ms", "metrics.recording.level"],
        Advice { write: &[], why: "the host has counters of its own: sagahost status" },
    ),
    (&["auto.include.jmx.reporter"], Advice { write: &[], why: "there is no JMX here" }),
    (&["max.poll.records"], Advice { write: &[], why: "queue-events-max in [pipeline] bounds what is in memory" }),
    (&["fetch.max.wait.ms"], Advice { write: &[r#""fetch.wait.max.ms" = 100"#], why: "the same under another name" }),
    (
        &["max.request.size"],
        Advice { write: &[r#""message.max.bytes" = 1000000"#], why: "the same under another name" },
    ),
    (
        &["buffer.memory"],
        Advice { write: &[r#""queue.buffering.max.kbytes" = 32768"#], why: "the same in units of 1024 bytes" },
    ),
    (
        &["receive.buffer.bytes"],
        Advice { write: &[r#""socket.receive.buffer.bytes" = 65536"#], why: "the same under another name" },
    ),
    (
        &["send.buffer.bytes"],
        Advice { write: &[r#""socket.send.buffer.bytes" = 131072"#], why: "the same under another name" },
    ),
    (
        &["default.api.timeout.ms"],
        Advice { write: &[r#""socket.timeout.ms" = 60000"#], why: "what bounds one request here" },
    ),
    (&["max.block.ms", "transaction.two.phase.commit.enable"], Advice { write: &[], why: BLOCKING }),
    (&["exclude.internal.topics"], Advice { write: &[], why: "the host reads the topics of its plugins only" }),
    (
        &["partitioner.ignore.keys", "partitioner.adaptive.partitioning.enable", "partitioner.availability.timeout.ms"],
        Advice { write: &[], why: "records are keyed by saga id as Java clients do it" },
    ),
];

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use sagahost_transport_kafka::is_known;

    fn config(lines: &str) -> String {
        format!("app = \"shop\"\n[kafka]\nbootstrap-servers = \"b:9092\"\n[kafka.properties]\n{lines}\n")
    }

    #[test]
    fn whoever_follows_the_advice_is_understood() {
        for (names, advice) in TABLE {
            for name in *names {
                let text = config(&format!("\"{name}\" = \"hunter2\""));
                let faults = Config::parse(&text, Path::new("sagahost.toml")).unwrap_err().to_string();
                assert!(faults.contains(&advice.text()) && !faults.contains("hunter2"), "{name}: {faults}");
                assert!(!is_known(name), "{name} is librdkafka's own");
            }
            // An environment variable that exists wherever tests run.
            let followed = config(&advice.write.join("\n").replace("KAFKA_PASSWORD", "PATH"));
            Config::parse(&followed, Path::new("sagahost.toml")).unwrap();
        }
    }
}
