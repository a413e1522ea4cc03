//! The broker's own configuration. Invariant: defaults are those of a small broker that is ready at once.

use std::{fmt::Write, path::Path};

use super::{Ports, tls};

/// Whom the SASL listener knows.
pub const USER: &str = "alice";
pub const PASSWORD: &str = "alice-Secret-4711";

/// Quiet, but not silent about what goes wrong.
pub(super) const LOGGING: &str = "\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
";

/// What a broker offers beside its plain listener.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A listener with every SASL mechanism; it knows `USER` with `PASSWORD`, and any unsecured token.
    pub sasl: bool,
    /// A listener with TLS, its certificate signed by an authority of its own.
    pub tls: bool,
    /// Permissions are checked: clients of the plain and the TLS listener may do everything, those of the SASL
    /// listener only what an ACL says.
    pub acls: bool,
    /// Anything else, as in `server.properties`.
    pub properties: Vec<(String, String)>,
}

impl Options {
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.properties.push((name.to_owned(), value.to_string()));
        self
    }

    pub(super) fn properties_file(&self, ports: Ports, directory: &Path) -> String {
        let mut listeners =
            format!("PLAINTEXT://127.0.0.1:{},CONTROLLER://127.0.0.1:{}", ports.plain, ports.controller);
        let mut advertised = format!("PLAINTEXT://127.0.0.1:{}", ports.plain);
        let mut protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
        let extra = [(self.sasl, "SASL", "SASL_PLAINTEXT", ports.sasl), (self.tls, "TLS", "SSL", ports.tls)];
        for (_, name, protocol, port) in extra.into_iter().filter(|(wanted, ..)| *wanted) {
            for list in [&mut listeners, &mut advertised] {
                let _ = write!(list, ",{name}://127.0.0.1:{port}");
            }
            let _ = write!(protocols, ",{name}:{protocol}");
        }
        let mut all = vec![
            ("process.roles", "broker,controller".to_owned()),
            ("node.id", "1".to_owned()),
            ("controller.quorum.bootstrap.servers", format!("127.0.0.1:{}", ports.controller)),
            ("listeners", listeners),
            ("advertised.listeners", advertised),
            ("listener.security.protocol.map", protocols),
            ("controller.listener.names", "CONTROLLER".to_owned()),
            ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
            ("log.dirs", directory.join("logs").display().to_string()),
            ("auto.create.topics.enable", "false".to_owned()),
            ("group.initial.rebalance.delay.ms", "0".to_owned()),
            ("offsets.topic.num.partitions", "4".to_owned()),
            ("transaction.state.log.num.partitions", "4".to_owned()),
            ("share.coordinator.state.topic.num.partitions", "1".to_owned()),
        ];
        for name in [
            "offsets.topic.replication.factor",
            "transaction.state.log.replication.factor",
            "transaction.state.log.min.isr",
            "share.coordinator.state.topic.replication.factor",
            "share.coordinator.state.topic.min.isr",
        ] {
            all.push((name, "1".to_owned()));
        }
        if self.sasl {
            all.extend(sasl());
        }
        if self.tls {
            all.push(("listener.name.tls.ssl.keystore.type", "PEM".to_owned()));
            all.push(("listener.name.tls.ssl.keystore.location", directory.join(tls::KEYSTORE).display().to_string()));
        }
        if self.acls {
            all.push(("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned()));
            all.push(("super.users", "User:ANONYMOUS".to_owned()));
        }
        let own = all.iter().map(|(name, value)| (*name, value.as_str()));
        let given = self.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        own.chain(given).map(|(name, value)| format!("{name}={value}\n")).collect()
    }
}

fn sasl() -> Vec<(&'static str, String)> {
    let module = |name: &str, options: &str| format!("org.apache.kafka.common.security.{name} required{options};");
    let plain = format!(" user_{USER}=\"{PASSWORD}\"");
    vec![
        ("listener.name.sasl.sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER".to_owned()),
        ("listener.name.sasl.plain.sasl.jaas.config", module("plain.PlainLoginModule", &plain)),
        ("listener.name.sasl.scram-sha-256.sasl.jaas.config", module("scram.ScramLoginModule", "")),
        ("listener.name.sasl.scram-sha-512.sasl.jaas.config", module("scram.ScramLoginModule", "")),
        (
            "listener.name.sasl.oauthbearer.sasl.jaas.config",
            module("oauthbearer.OAuthBearerLoginModule", " unsecuredLoginStringClaim_sub=\"broker\""),
        ),
    ]
}
