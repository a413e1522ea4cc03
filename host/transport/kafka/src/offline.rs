//! Would librdkafka make the clients of this configuration? Each kind is made and dropped. Invariant: they know no
//! broker, so nothing is connected.

use rdkafka::admin::AdminClient;
use sagahost_transport::{Isolation, TransportError};

use crate::KafkaSettings;

use super::{connection::Connection, context::Context};

/// What is wrong, each fault once, without secrets.
pub fn client_faults(settings: &KafkaSettings, app: &str) -> Vec<String> {
    let offline = KafkaSettings { bootstrap_servers: String::new(), ..settings.clone() };
    let connection = match Connection::new(&offline, app) {
        Ok(connection) => connection,
        Err(error) => return vec![error.to_string()],
    };
    let made: [Result<(), TransportError>; 4] = [
        connection.consumer(Isolation::Stable).map(drop),
        connection.transactional_producer().map(drop),
        connection.idempotent_producer().map(drop),
        connection.admin::<AdminClient<Context>>().map(drop),
    ];
    let mut faults: Vec<String> = made.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
    if let Some(Err(why)) = connection.token() {
        faults.push(format!(
            "kafka.properties: failed to get an OAUTHBEARER token: {}",
            connection.redaction.clean(&why)
        ));
    }
    faults.sort();
    faults.dedup();
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Property;

    fn faults(properties: &[(&str, &str)]) -> Vec<String> {
        let property = |(name, value): &(&str, &str)| ((*name).to_owned(), Property::plain(name, *value));
        let settings = KafkaSettings {
            bootstrap_servers: "127.0.0.1:1".into(),
            properties: properties.iter().map(property).collect(),
            ..KafkaSettings::default()
        };
        client_faults(&settings, "shop")
    }

    #[test]
    fn clients_are_made_offline() {
        for accepted in [
            &[][..],
            &[("compression.type", "zstd"), ("linger.ms", "2")],
            &[
                ("security.protocol", "sasl_ssl"),
                ("sasl.mechanism", "SCRAM-SHA-512"),
                ("sasl.username", "shop"),
                ("sasl.password", "hush"),
            ],
        ] {
            assert_eq!(faults(accepted), Vec::<String>::new());
        }
    }

    /// Each value is acceptable by itself.
    #[test]
    fn properties_that_do_not_fit_together_are_found_without_a_broker() {
        let ca = [("security.protocol", "ssl"), ("ssl.ca.location", "/no/such/ca.pem")];
        let mechanism = [("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "NONE-SUCH")];
        let key = [
            ("security.protocol", "ssl"),
            ("ssl.keystore.location", "/no/such/keystore.jks"),
            ("ssl.keystore.password", "hush-hush"),
        ];
        let session = [("session.timeout.ms", "600000"), ("max.poll.interval.ms", "300000")];
        let batches = [("max.in.flight.requests.per.connection", "100")];
        for (properties, named) in [
            (&ca[..], "ssl.ca.location"),
            (&mechanism, "NONE-SUCH"),
            (&key, "ssl.keystore.location"),
            (&session, "max.poll.interval.ms"),
            (&batches, "max.in.flight"),
        ] {
            let found = faults(properties);
            assert!(found.len() == 1 && found[0].contains(named), "{named}: {found:?}");
            assert!(!found[0].contains("hush-hush"), "{found:?}");
        }
    }
}
