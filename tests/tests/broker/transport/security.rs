//! Permissions, SASL and TLS. Invariant: what the broker refuses is named, with what to change.

use sagahost_demo::broker::{PASSWORD, USER};

use super::*;

/// How a claim fails that is turned down.
fn refused_claim(transport: &KafkaTransport) -> TransportError {
    let (mut sink, started) = (transport.sink().unwrap(), Instant::now());
    loop {
        match sink.claim().unwrap_err() {
            TransportError::Away(_) if started.elapsed() < Duration::from_secs(10) => {}
            error => return error,
        }
    }
}

#[test]
fn without_permission_a_record_is_refused_and_the_topic_named() {
    let transport = transport("permitted");
    let (allowed, forbidden) = (topic(&transport, "acl-allowed", 1), topic(&transport, "acl-forbidden", 1));
    let bob = sasl("acl-app", "PLAIN");
    let nobody = bob.topics(std::slice::from_ref(&allowed)).unwrap_err();
    assert!(matches!(&nobody, TransportError::Refused(why) if why.contains("DESCRIBE")), "{nobody:?}");
    let refused = refused_claim(&bob);
    assert!(
        matches!(&refused, TransportError::Refused(why) if why.contains("transactional id acl-app")),
        "{refused:?}"
    );
    for permission in [
        "--operation Write --operation Describe --transactional-id acl-app",
        "--operation Read --group acl-app",
        "--operation Read --operation Write --operation Describe --topic acl-allowed",
        "--operation Read --operation Describe --topic acl-forbidden",
    ] {
        broker().allow(USER, permission).unwrap();
    }
    let mut sink = claimed(&bob);
    let offsets = [(at(&allowed, 0), 1)];
    publish(&mut *sink, &[outgoing(&allowed, "k", "v")], &offsets, "j/i/1");
    let records = [outgoing(&allowed, "k", "v"), outgoing(&forbidden, "k", "v")];
    let refused = publish_once(&mut *sink, &records, &offsets, "j/i/2");
    match refused {
        Err(PublishError::Refused { index: 1, topic, why }) => {
            assert_eq!(topic, forbidden);
            assert!(why.contains("permission"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    publish(&mut *sink, &records[..1], &offsets, "j/i/2");
    let mut source = contract::source(&transport);
    assign(&mut source, &[(at(&allowed, 0), 0), (at(&forbidden, 0), 0)]);
    assert_eq!(to_the_end(&mut source, 2).0.len(), 2, "nothing of the refused publication");
    // Reading without permission.
    let hidden = topic(&transport, "acl-hidden", 1);
    broker().allow(USER, "--operation Describe --topic acl-hidden").unwrap();
    transport.offer(&outgoing(&hidden, "k", "v")).unwrap();
    let mut source = contract::source(&bob);
    assign(&mut source, &[(at(&hidden, 0), 0)]);
    let (partition, why) = held(&mut source);
    assert_eq!(partition, at(&hidden, 0));
    assert!(why.contains("READ"), "{why}");
}

fn sasl(app: &str, mechanism: &str) -> KafkaTransport {
    with(broker().sasl_bootstrap(), app, &sasl_properties(mechanism, PASSWORD))
}

fn sasl_properties<'a>(mechanism: &'a str, password: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut properties = vec![("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", mechanism)];
    if mechanism == "OAUTHBEARER" {
        properties.push(("enable.sasl.oauthbearer.unsecure.jwt", "true"));
        properties.push(("sasl.oauthbearer.config", "principal=alice lifeSeconds=300"));
    } else {
        properties.extend([("sasl.username", USER), ("sasl.password", password)]);
    }
    properties
}

/// Topics, publication, reading: every kind of client connects.
fn goes_through(transport: &KafkaTransport, name: &str) {
    let topic = topic(transport, name, 1);
    let mut sink = claimed(transport);
    publish(&mut *sink, &[outgoing(&topic, "k", name)], &[(at(&topic, 0), 1)], "j/i/1");
    assert_eq!(committed(&mut *sink, &[at(&topic, 0)])[&at(&topic, 0)].offset, 1);
    let at_once = sink.committed(&[at(&topic, 0)], Isolation::Uncommitted).unwrap();
    assert_eq!(at_once[&at(&topic, 0)].metadata, "j/i/1");
    let mut source = contract::source(transport);
    assign(&mut source, &[(at(&topic, 0), 0)]);
    assert_eq!(values(&records(&mut source, 1)), [name]);
    transport.offer(&outgoing(&topic, "k", "offered")).unwrap();
}

fn allow_all(app: &str) {
    for permission in [
        format!("--operation All --transactional-id {app}"),
        format!("--operation All --group {app}"),
        format!("--operation All --topic {app}"),
    ] {
        broker().allow(USER, &permission).unwrap();
    }
}

#[test]
fn each_sasl_mechanism_connects_and_wrong_credentials_are_refused_by_name() {
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] {
        let app = format!("sasl-{}", mechanism.to_lowercase());
        allow_all(&app);
        goes_through(&sasl(&app, mechanism), &app);
        if mechanism == "OAUTHBEARER" {
            continue;
        }
        let wrong = "another-Secret-1147";
        let transport = with(broker().sasl_bootstrap(), &app, &sasl_properties(mechanism, wrong));
        let started = Instant::now();
        for error in [
            transport.topics(&["any".into()]).map(drop).unwrap_err(),
            refused_claim(&transport),
            transport.offer(&outgoing(&"any".into(), "k", "v")).map(drop).unwrap_err(),
        ] {
            let text = format!("{error} {error:?}");
            assert!(matches!(&error, TransportError::Refused(why) if why.contains(mechanism)), "{text}");
            assert!(!text.contains(wrong), "{text}");
        }
        assert!(started.elapsed() < Duration::from_secs(15), "{mechanism}: {:?}", started.elapsed());
        assert!(!format!("{transport:?} {}", transport.describe()).contains(wrong));
    }
}

#[test]
fn a_token_comes_from_a_file() {
    allow_all("token");
    let none = sasl_properties("OAUTHBEARER", "").into_iter().take(2).collect::<Vec<_>>();
    let refused = with(broker().sasl_bootstrap(), "token", &none).topics(&["any".into()]).unwrap_err();
    assert!(matches!(&refused, TransportError::Refused(why) if why.contains("token.location")), "{refused:?}");
    let file = tempfile::NamedTempFile::new().unwrap();
    // {"alg":"none"} . {"sub":"alice","iat":1700000000,"exp":4000000000}
    let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImlhdCI6MTcwMDAwMDAwMCwiZXhwIjo0MDAwMDAwMDAwfQ.";
    std::fs::write(file.path(), token).unwrap();
    let file = file.path().display().to_string();
    let mut properties = none;
    properties.push(("sasl.oauthbearer.token.location", &file));
    goes_through(&with(broker().sasl_bootstrap(), "token", &properties), "token");
}

#[test]
fn tls_connects_and_an_unknown_authority_is_refused() {
    let ca = broker().ca_file().display().to_string();
    let tls = [("security.protocol", "SSL"), ("ssl.ca.location", &*ca)];
    goes_through(&with(broker().tls_bootstrap(), "tls", &tls), "tls");
    let refused = with(broker().tls_bootstrap(), "tls", &tls[..1]).topics(&["any".into()]).unwrap_err();
    assert!(matches!(&refused, TransportError::Refused(why) if why.contains("ssl.ca.location")), "{refused:?}");
}
