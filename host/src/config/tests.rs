//! What the configuration accepts, refuses, and shows.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::path::Path;

use expect_test::{Expect, expect};
use sagahost_codec::{EventIdFrom, Locator, TopicSettings};
use sagahost_transport_kafka::{Property, is_secret};

use super::*;

fn check(text: &str, expected: Expect) {
    let said = match Config::parse(text, Path::new("sagahost.toml")) {
        Ok(_) => "nothing wrong".to_owned(),
        Err(faults) => faults.to_string(),
    };
    expected.assert_eq(&said);
}

const ISSUE: &str = r#"
app = "shop"
plugins = "plugins"
data = "data"
[kafka]
bootstrap-servers = "127.0.0.1:9092"
start = "earliest"
create-topics = true
partitions = 4
[kafka.properties]
compression.type = "zstd"
"sasl.username" = "shop"
"sasl.password" = "s3cret"
ssl.key.password = { env = "PATH" }
"socket.keepalive.enable" = true
[plugin.payment.config]
limit-cents = 100000
opening-balance-cents = 1000000
[plugin.payment.on.OrderCreated]
deadline = "30s"
retry = { attempts-max = 3, base = "100ms" }
on-dead-letter = "block"
[plugin.inventory.config]
opening-stock = 1000
[topics.of-kind]
OrderShipped = "orders.shipped.v1"
[topics.records.order-created]
saga-id = "/orderId"
event-id = "header:X-Request-Id"
"#;

#[test]
fn what_the_keys_mean() {
    let config = Config::parse(ISSUE, Path::new("/etc/shop/sagahost.toml")).unwrap();
    assert_eq!(config.plugins_dir, Path::new("/etc/shop/plugins"));
    assert_eq!(config.data_dir, Path::new("/etc/shop/data"));
    assert_eq!(config.topics.dead_letters.as_deref(), Some("shop.dead-letters"));
    assert_eq!(config.plugin("payment").config["limit-cents"], 100_000);
    assert_eq!(config.plugin("nobody"), PluginSettings::default());
    assert_eq!(config.topics.mapping("order-created").saga_id, Some(Locator::Pointer("/orderId".into())));
    assert_eq!(config.topics.mapping("order-created").event_id, EventIdFrom::Header("x-request-id".into()));
    let kafka = config.kafka.unwrap();
    assert_eq!(kafka.properties["sasl.password"].value(), "s3cret");
    assert_eq!(kafka.properties["compression.type"].value(), "zstd");
    assert_eq!(kafka.properties["socket.keepalive.enable"].value(), "true");
    assert!(!kafka.properties["ssl.key.password"].value().is_empty());
}

#[test]
fn an_empty_file_is_the_defaults() {
    let empty = Config::parse("", Path::new("sagahost.toml")).unwrap();
    let embedded = Config::embedded("plugins", "data");
    assert_eq!(empty.shown(), embedded.shown());
}

#[test]
fn three_wrong_places() {
    check(
        "app = \"shop\"\nplugin-ordr = []\n\n[pipeline]\nworkers = \"two\"\nbatch-wiat = \"1s\"\nposition-wait = \"soon\"\n\n[kafka]\nstart = \"first\"\n",
        expect![[r#"
            sagahost.toml:2: unknown field `plugin-ordr` in the file; did you mean `plugin-order`?
            sagahost.toml:5: pipeline.workers: must be a whole number, and is text
            sagahost.toml:6: unknown field `batch-wiat` in table [pipeline]; did you mean `batch-wait`?
            sagahost.toml:7: pipeline.position-wait: `soon` is not a duration; write "500ms", "10s", "15m", "2h" or "7d"
            sagahost.toml:10: [kafka] needs bootstrap-servers = "127.0.0.1:9092"
            sagahost.toml:10: kafka.start: `first` is not one of "earliest", "latest""#]],
    );
}

#[test]
fn wrong_values() {
    check(
        "app = \"my shop\"\n[pipeline]\nworkers = 0\nunpublished-batches-max = 3\nbatch-wait = 10\nshutdown-deadline = \"9h\"\n[saga]\ndeadline = \"off\"\nretention = \"7 days\"\n[limits]\nbudget-ms = 0\nmemory-bytes-max = -1\nlog-lines-max = 2.5\nbudgetms = 1\n",
        expect![[r#"
            sagahost.toml:1: app: must be 1 to 100 letters, digits, `.`, `_` or `-` (it names the consumer group)
            sagahost.toml:3: pipeline.workers: must be from 1 to 1024
            sagahost.toml:4: pipeline.unpublished-batches-max: must be from 1 to 2
            sagahost.toml:5: pipeline.batch-wait: needs a unit: "10ms", "10s", "10m", "10h" or "10d"
            sagahost.toml:6: pipeline.shutdown-deadline: must be from 100ms to 1h
            sagahost.toml:9: saga.retention: `7 days` is not a duration; write "500ms", "10s", "15m", "2h" or "7d"
            sagahost.toml:11: limits.budget-ms: must be at least 1
            sagahost.toml:12: limits.memory-bytes-max: must not be negative
            sagahost.toml:13: limits.log-lines-max: must be a whole number, and is a number with a point
            sagahost.toml:14: unknown field `budgetms` in table [limits]; did you mean `budget-ms`?"#]],
    );
}

#[test]
fn wrong_ways_in() {
    check(
        "[http]\nlisten = \"0.0.0.0:8080\"\n[http.route.\"POST /orders\"]\nkind = \"OrderCreated\"\n[http.route.\"GET /x\"]\nundo = \"payment\"\n\
         [http.route.\"POST /sagas/x\"]\nundo = \"payment\"\n[http.route.\"POST /a//b\"]\nundo = \"Pay\"\n[http.route.orders]\nparticipant = \"payment\"\nkey = \"required\"\n\
         [http.route.\"POST /p\"]\nkind = \"K\"\nsaga-id = \"id\"\nconcurrent = \"wait\"\n[http.principal.Web]\ntoken-sha256 = \"s3cret\"\nroutes = [\"POST /q\"]\n\
         [http.principal.desk]\ncert-subject = \"CN=desk\"\nsagas = \"mine\"\n",
        expect![[r#"
            sagahost.toml:2: [http] 0.0.0.0:8080 can be reached from other machines: that needs [http.tls] and a [http.principal.NAME]; or listen on 127.0.0.1, behind a proxy that does both
            sagahost.toml:2: [http] principal.desk: cert-subject needs client-ca in [http.tls]: nobody else's certificate can be believed
            sagahost.toml:4: [http.route."POST /orders"] POST /orders needs one of: kind = "KIND" with saga-id = "/POINTER" (it begins a saga; key, concurrent), participant = "NAME" (it asks for a step; saga-id), undo = "NAME"
            sagahost.toml:5: http.route.GET /x: routes take POST, not GET: write "POST /orders"
            sagahost.toml:7: http.route.POST /sagas/x: /sagas is the host's own: choose another path
            sagahost.toml:9: http.route.POST /a//b: `/a//b` is not a path of letters, digits, `-`, `.`, `_` and `~` between single slashes: write "POST /orders"
            sagahost.toml:10: http.route."POST /a//b".undo: `Pay` is not a valid participant name
            sagahost.toml:11: http.route.orders: `orders` is not a method and a path: write "POST /orders"
            sagahost.toml:12: [http.route.orders] orders needs one of: kind = "KIND" with saga-id = "/POINTER" (it begins a saga; key, concurrent), participant = "NAME" (it asks for a step; saga-id), undo = "NAME"
            sagahost.toml:16: http.route."POST /p".saga-id: `id` is not a JSON pointer into the body: write "/orderId"
            sagahost.toml:17: http.route."POST /p".concurrent: `wait` is not one of "attach", "conflict"
            sagahost.toml:18: http.principal.Web: is not a valid name: lower-case letters, digits and hyphens, a letter first
            sagahost.toml:19: [http.principal.Web] needs token-sha256 = "HEX" (printf %s TOKEN | sha256sum) or cert-subject = "CN=…"
            sagahost.toml:19: http.principal.Web.token-sha256: must be the SHA-256 of a token, 64 hexadecimal digits: printf %s TOKEN | sha256sum
            sagahost.toml:20: http.principal.Web.routes: there is no [http.route."POST /q"]
            sagahost.toml:23: http.principal.desk.sagas: `mine` is not one of "own", "all""#]],
    );
    check(
        "[http]\nlisten = \"8080\"\nbody-bytes-max = 1000000000\nwait = \"2m\"\n[http.tls]\ncertificate = \"a.pem\"\n[http.principal.none]\n\
         [http.principal.nobody]\ncert-subject = \"desk\"\n",
        expect![[r#"
            sagahost.toml: [http.principal.none] needs token-sha256 = "HEX" (printf %s TOKEN | sha256sum) or cert-subject = "CN=…"
            sagahost.toml:2: http.listen: `8080` is not an address with a port: write "127.0.0.1:8080"
            sagahost.toml:3: http.body-bytes-max: must be from 1 to 921600
            sagahost.toml:4: http.wait: must be from 0ms to 50s
            sagahost.toml:6: [http.tls] needs certificate = "FILE" and key = "FILE", both PEM
            sagahost.toml:9: [http.principal.nobody] needs token-sha256 = "HEX" (printf %s TOKEN | sha256sum) or cert-subject = "CN=…"
            sagahost.toml:9: http.principal.nobody.cert-subject: `desk` is not a distinguished name (RFC 4514): openssl x509 -in FILE -noout -subject -nameopt RFC2253 prints it"#]],
    );
    let digest = "0".repeat(64);
    check(
        &format!(
            "[http.principal.a]\ntoken-sha256 = \"{digest}\"\n[http.principal.b]\ntoken-sha256 = [\"{digest}\", 1]\n"
        ),
        expect![[r#"
            sagahost.toml:3: http.principal.b: has a token or a certificate of a, too
            sagahost.toml:4: http.principal.b.token-sha256: must be text in quotes, and is a whole number"#]],
    );
}

#[test]
fn wrong_topics_and_plugins() {
    check(
        "[topics]\ndead-letters = \"a b\"\n[topics.of-kind]\nA = \"x\"\nB = \"x\"\nSagaFailed = \"y\"\n[topics.records.t]\nsaga-id = \"order.id\"\nevent-id = \"id\"\n[plugin.Payment.config]\nwhen = 2020-01-01\n[plugin.p.on.K]\non-dead-letter = \"drop\"\nretry = { attempts = 3 }\n[plugins]\n",
        expect![[r#"
            sagahost.toml:2: topics.dead-letters: `a b` has ' ' in it; a topic's name consists of letters, digits, `.`, `_` and `-`
            sagahost.toml:5: topics.of-kind.B: `x` is the topic of A already: a plain record there would have two kinds; where each says its own, set kind = "header:NAME" or kind = "/POINTER" in [topics.records."x"]
            sagahost.toml:6: topics.of-kind.SagaFailed: has a field of its own: write saga-failed = "…" in [topics]
            sagahost.toml:8: topics.records.t.saga-id: `order.id` is neither a JSON pointer nor a header: write "/order/id" or "header:order.id"
            sagahost.toml:9: topics.records.t.event-id: `id` does not say where an event's id is: write "/id" or "header:id", or "content" or "offset"
            sagahost.toml:10: plugin.Payment: is not a valid plugin name: lower-case letters, digits and hyphens, a letter first
            sagahost.toml:11: plugin.Payment.config.when: is a date or time: put it in quotes, a plugin reads text
            sagahost.toml:13: plugin.p.on.K.on-dead-letter: `drop` is not one of "compensate", "block", "skip"
            sagahost.toml:14: unknown field `attempts` in table [plugin.p.on.K.retry]; did you mean `attempts-max`?
            sagahost.toml:15: plugins: must be text in quotes, and is a table"#]],
    );
}

#[test]
fn kinds_that_are_for_others() {
    check(
        "[topics]\nignored-kinds = [\"OrderArchived\", \"billing.*\", \"two words\", \"a*b\", \"\"]\n",
        expect![[r#"
            sagahost.toml:2: topics.ignored-kinds: `` is not a kind of event: write a kind, as OrderArchived, or the beginning of several, as billing.*
            sagahost.toml:2: topics.ignored-kinds: `a*b` is not a kind of event: write a kind, as OrderArchived, or the beginning of several, as billing.*
            sagahost.toml:2: topics.ignored-kinds: `two words` is not a kind of event: write a kind, as OrderArchived, or the beginning of several, as billing.*"#]],
    );
    let mut topics = TopicSettings::of_app("shop");
    topics.ignored_kinds = vec!["OrderArchived".to_owned(), "billing.*".to_owned()];
    let ignored =
        ["OrderArchived", "orderArchived", "OrderArchived2", "billing.Sent", "billing"].map(|k| topics.ignores(k));
    assert_eq!(ignored, [true, false, false, true, false]);
}

#[test]
fn properties_that_the_host_owns_and_secrets_that_are_away() {
    check(
        "[kafka]\nbootstrap-servers = \"b:1\"\n[kafka.properties]\ngroup.id = \"x\"\n\"sasl.password\" = { env = \"SAGAHOST_NO_SUCH_VARIABLE\" }\n\"ssl.key.password\" = { file = \"no/such/file\" }\n\"linger.ms\" = [1]\n",
        expect![[r#"
            sagahost.toml: needs app = "NAME" with [kafka]: it is the consumer group, and no other app may have it
            sagahost.toml:4: kafka.properties.group.id: is the host's own: it is the app's name
            sagahost.toml:5: kafka.properties.sasl.password: environment variable SAGAHOST_NO_SUCH_VARIABLE is not set, or is not text
            sagahost.toml:6: kafka.properties.ssl.key.password: failed to read no/such/file: No such file or directory (os error 2)
            sagahost.toml:7: kafka.properties.linger.ms: must be text, a number, true or false, { env = "NAME" } or { file = "PATH" }, and is a list"#]],
    );
}

#[test]
fn properties_that_librdkafka_would_refuse() {
    check(
        r#"app = "shop"
[kafka]
bootstrap-servers = "http://user:hunter2@b:8082, b"
[kafka.properties]
"sasl.pasword" = "hunter2"
"compression.type" = "brotli"
linger.ms = "abc"
"transaction.timeout.ms" = 10
"sasl.jaas.config" = "… password=hunter2"
consumer."max.poll.records" = 500
"no.such.thing" = "hunter2"
[log]
filter = "sagahost=loud"
"#,
        expect![[r#"
            sagahost.toml:3: kafka.bootstrap-servers: `b` has no port: write "b:9092"
            sagahost.toml:3: kafka.bootstrap-servers: a broker has no http:// in front of it: write "b:8082"
            sagahost.toml:5: kafka.properties.sasl.pasword: librdkafka has no such property; did you mean `sasl.password`?
            sagahost.toml:6: kafka.properties.compression.type: `brotli` is not one of none, gzip, snappy, lz4, zstd
            sagahost.toml:7: kafka.properties.linger.ms: `abc` is not a number from 0 to 900000
            sagahost.toml:8: kafka.properties.transaction.timeout.ms: must be from 5000 to 900000
            sagahost.toml:9: kafka.properties.sasl.jaas.config: is a property of Java clients: write "sasl.username" = "NAME" and "sasl.password" = { env = "KAFKA_PASSWORD" } (they are in its `username=` and `password=`; "sasl.mechanism" says PLAIN or SCRAM-SHA-512)
            sagahost.toml:10: kafka.properties.consumer.max.poll.records: is a property of Java clients: remove it (queue-events-max in [pipeline] bounds what is in memory)
            sagahost.toml:11: kafka.properties.no.such.thing: librdkafka has no such property; its CONFIGURATION.md lists what it knows
            sagahost.toml:13: log.filter: `sagahost=loud` is not a filter: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5; write "info,sagahost=debug""#]],
    );
}

#[test]
fn what_may_be_a_secret_is_not_shown() {
    for (name, value, shown) in [
        ("sasl.pasword", "hunter2", "(hidden)"),
        ("no.such.thing", "hunter2", "(hidden)"),
        ("sasl.password", "hunter2", "(hidden)"),
        ("linger.ms", "2", "2"),
    ] {
        assert_eq!(Property::plain(name, value).shown(), shown, "{name}");
    }
    let text = "[plugin.payment.config]\nservice-token = \"hunter2\"\ntoken-count = 2\nplain = \"text\"\n";
    let shown = Config::parse(text, Path::new("sagahost.toml")).unwrap().shown().to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("service-token = \"(hidden)\"") && shown.contains("plain = \"text\""), "{shown}");
    assert!(shown.contains("token-count = 2"), "{shown}");
}

#[test]
fn a_path_has_its_line() {
    let text = "[kafka.properties]\nlinger.ms = 1\n\"ssl.ca.location\" = \"x\"\n[plugin.payment.config]\n";
    for (path, line) in [
        ("kafka.properties.linger.ms", Some(2)),
        ("kafka.properties.ssl.ca.location", Some(3)),
        ("plugin.payment", Some(4)),
        ("plugin.paymnt", Some(4)),
        ("topics", None),
    ] {
        assert_eq!(reader::line_of(text, path), line, "{path}");
    }
}

#[test]
fn fields_that_do_not_fit_together() {
    check(
        "[kafka]\nbootstrap-servers = \"b:1\"\n[limits]\npayload-bytes-max = 2000000\n[pipeline]\nbatch-bytes-max = 100000\n[topics]\ndead-letters = \"saga-failed\"\n",
        expect![[r#"
            sagahost.toml: limits.payload-bytes-max (2000000) with 24576 bytes for headers is more than pipeline.record-bytes-max (1000000): no record could carry such an event
            sagahost.toml: needs app = "NAME" with [kafka]: it is the consumer group, and no other app may have it
            sagahost.toml: pipeline.batch-bytes-max must not be less than pipeline.record-bytes-max
            sagahost.toml: topics.dead-letters and topics.saga-failed must be different topics"#]],
    );
}

#[test]
fn syntax_errors_have_lines_too() {
    check(
        "app = \"shop\"\nplugins = \n[pipeline]\nworkers = 1 2\nwrokers = 3\n",
        expect![[r#"
        sagahost.toml:2: string values must be quoted, expected literal string
        sagahost.toml:4: string values must be quoted, expected literal string
        sagahost.toml:5: unknown field `wrokers` in table [pipeline]; did you mean `workers`?"#]],
    );
}

#[test]
fn a_missing_file_says_so() {
    let faults = Config::load(Path::new("/no/such/sagahost.toml")).unwrap_err();
    expect!["/no/such/sagahost.toml: failed to read the configuration: No such file or directory (os error 2)"]
        .assert_eq(&faults.to_string());
}

#[test]
fn shown_without_secrets_and_read_again_the_same() {
    let config = Config::parse(ISSUE, Path::new("sagahost.toml")).unwrap();
    let mut shown = config.shown();
    assert!(!format!("{config:?} {shown}").contains("s3cret"));
    let text = shown.to_string();
    let again = Config::parse(&text, Path::new("sagahost.toml")).unwrap().shown();
    shown["kafka"]["properties"]["ssl.key.password"] = "(hidden)".into();
    assert_eq!(again, shown);
    expect![[r#"
        app = "shop"
        plugins = "plugins"
        data = "data"
        data-access = "private"
        core-dumps = false
        plugin-order = []
        strict = false

        [kafka]
        bootstrap-servers = "127.0.0.1:9092"
        start = "earliest"
        create-topics = true
        partitions = 4
        replication = 1

        [kafka.properties]
        "compression.type" = "zstd"
        "sasl.password" = "(hidden)"
        "sasl.username" = "shop"
        "socket.keepalive.enable" = "true"
        "ssl.key.password" = "(env PATH)"

        [watch]
        settle = "100ms"
        rescan = "2s"
        probation = "1m"
        failures-min = 3
        failures-percent-more = 5

        [pipeline]
        workers = N
        slow-calls-max = 4
        slow-call-after = "20ms"
        queue-events-max = 2000
        in-flight-bytes-max = 67108864
        batch-chains-max = 10000
        batch-bytes-max = 16777216
        batch-wait = "10ms"
        batch-wait-max = "200ms"
        batch-interval = "25ms"
        unpublished-batches-max = 2
        chain-steps-max = 64
        chain-bytes-max = 16777216
        reservation-max = "5s"
        cache-bytes-max = 67108864
        record-bytes-max = 1000000
        position-wait = "1s"
        stall-wait-max = "1m"
        due-per-second-max = 1000
        shutdown-deadline = "10s"

        [saga]
        hops-max = 32
        emissions-per-outcome-max = 32
        steps-max = 256
        events-max = 4096
        data-bytes-max = 16777216
        parked-max = 64
        inline-events-max = 32
        inline-history-max = 32
        notes-max = 64
        deadline = "15m"
        retention = "7d"

        [limits]
        attributes-bytes-max = 16384
        attributes-max = 64
        budget-ms = 1000
        call-bytes-max = 16777216
        compile-memory-bytes-max = 1073741824
        compile-seconds-max = 300
        component-bytes-max = 268435456
        core-instances-max = 64
        id-bytes-max = 256
        instance-bytes-max = 4194304
        instances-max = 32
        keep-resident-bytes = 1048576
        log-bytes-max = 65536
        log-lines-max = 200
        memories-max = 4
        memory-bytes-max = 67108864
        outcome-bytes-max = 4194304
        payload-bytes-max = 921600
        problem-bytes-max = 4096
        request-bytes-max = 1048576
        response-bytes-max = 1048576
        sends-max = 8
        stack-bytes-max = 524288
        state-bytes-max = 262144
        store-key-bytes-max = 512
        store-ops-max = 1000
        store-scan-bytes-max = 1048576
        store-scan-max = 1000
        store-value-bytes-max = 262144
        table-elements-max = 20000
        tables-max = 8
        undo-bytes-max = 65536

        [topics]
        dead-letters = "shop.dead-letters"
        saga-failed = "saga-failed"
        headers = []
        ignored-kinds = []

        [topics.of-kind]
        OrderShipped = "orders.shipped.v1"

        [topics.records.order-created]
        saga-id = "/orderId"
        event-id = "header:x-request-id"
        key = "text"
        structured = false

        [dead-letters]
        undecodable-max = 10000
        undecodable-bytes-max = 268435456
        undecodable-retention = "30d"

        [plugin.inventory]
        isolation = "fresh"

        [plugin.inventory.config]
        opening-stock = 1000

        [plugin.inventory.on]

        [plugin.payment]
        isolation = "fresh"

        [plugin.payment.config]
        limit-cents = 100000
        opening-balance-cents = 1000000

        [plugin.payment.on.OrderCreated]
        deadline = "30s"
        on-dead-letter = "block"

        [plugin.payment.on.OrderCreated.retry]
        attempts-max = 3
        base = "100ms"

        [admin]
        connections-max = 64
        idle-timeout = "10s"
        requests-at-once-max = 16
        request-bytes-max = 4194304
        requests-bytes-max = 16777216
        request-timeout = "30s"

        [log]
        format = "text"
        filter = "info"
    "#]]
    .assert_eq(&text.replace(&format!("workers = {}", config.pipeline.workers), "workers = N"));
}

#[test]
fn durations() {
    for text in ["10ms", "90s", "15m", "25h", "7d"] {
        assert_eq!(format_duration(parse_duration(text).unwrap()), text);
    }
    assert_eq!(format_duration(parse_duration("60 s").unwrap()), "1m");
    assert_eq!(format_duration(std::time::Duration::ZERO), "0ms");
    for text in ["", "10", "s", "-1s", "1.5s", "1w", "99999999999999999999d", "999999999999999d"] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}

#[test]
fn secret_names() {
    for name in
        ["sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret", "sasl.jaas.config"]
    {
        assert!(is_secret(name), "{name}");
    }
    for name in ["sasl.mechanism", "ssl.key.location", "sasl.oauthbearer.token.endpoint.url", "ssl.certificate.pem"] {
        assert!(!is_secret(name), "{name}");
    }
}
