//! A wrong configuration and plugin files that are none, by the real binary. Invariant of all tests: one run says
//! everything that is wrong, where, and what to do; and what is right serves.

use std::fs;

use sagahost_sandbox::pack::append_manifest;
use sagahost_tests::{
    binary::{Ended, Site},
    built,
    shop::THREE,
    wait::until,
};
use serde_json::Value;

const PLAIN: &str = "app = \"shop\"\nplugins = \"plugins\"\ndata = \"data\"\n";

fn assert_says(ended: &Ended, parts: &[&str]) {
    for part in parts {
        assert!(ended.err.contains(part), "{part:?} is not in:\n{}", ended.err);
    }
    assert!(!ended.err.contains("panicked"), "{}", ended.err);
}

#[test]
fn a_configuration_wrong_in_four_places_is_told_in_one_go() {
    let config = "app = \"shop\"\nplugins = \"plugins\"\ndta = \"data\"\n\n[pipeline]\nworkers = \"two\"\n\
                  batch-wait = \"10 lightyears\"\n\n[plugin.payment.on.OrderCreated]\nretry = { attempts = 8 }\n";
    let site = Site::new(&THREE, config);
    for words in [&["run"][..], &["config", "check"]] {
        let ended = site.run(words);
        assert_eq!(ended.code, 2, "{ended:?}");
        let lines: Vec<&str> = ended.err.lines().collect();
        let expected = [
            "sagahost.toml:3: unknown field `dta` in the file; did you mean `data`?",
            "sagahost.toml:6: pipeline.workers: must be a whole number, and is text",
            "sagahost.toml:7: pipeline.batch-wait: `10 lightyears` is not a duration; write \"500ms\", \"10s\"",
            "sagahost.toml:10: unknown field `attempts` in table [plugin.payment.on.OrderCreated.retry]; did you mean \
             `attempts-max`?",
        ];
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(expected), "{line}\nis not\n{expected}");
        }
    }
    assert!(!site.file("data").exists(), "a wrong configuration touches nothing");

    // The way on: mended, it runs.
    let mended = config.replace("dta", "data").replace("\"two\"", "2").replace("10 lightyears", "10ms");
    fs::write(site.file("sagahost.toml"), mended.replace("attempts", "attempts-max")).unwrap();
    assert_eq!(site.run(&["config", "check"]).code, 0);
    assert_eq!(site.start().stop(), 0);
}

/// What only librdkafka or the plugins can say is in the same report, and `run` refuses what it would refuse later.
#[test]
fn faults_beyond_the_fields_are_found_before_anything_starts() {
    let config = "app = \"shop\"\nplugin-order = [\"order\", \"inventry\"]\n[kafka]\nbootstrap-servers = \"http://127.0.0.1:1\"\n\
                  [kafka.properties]\n\"security.protocol\" = \"ssl\"\n\"ssl.ca.location\" = \"no/such/ca.pem\"\n\
                  [plugin.paymnt.config]\nlimit-cents = 5\n[plugin.payment.config]\nlimit-cent = 5\n\
                  [plugin.payment.on.OrderCraeted]\ndeadline = \"1s\"\n[topics.records.order-craeted]\nkind = \"OrderCreated\"\n";
    let site = Site::new(&THREE, config);
    let of_a_start =
        ["sagahost.toml:4: kafka.bootstrap-servers: a broker has no http://", "sagahost.toml:7: ", "ssl.ca.location"];
    let without_effect = [
        "sagahost.toml:2: plugin-order: there is no plugin `inventry`; did you mean `inventory`?",
        "sagahost.toml:8: [plugin.paymnt]: there is no plugin `paymnt`; did you mean `payment`?",
        "sagahost.toml:11: [plugin.payment.config] limit-cent: the plugin has no configuration key `limit-cent`; did you \
         mean `limit-cents`?",
        "sagahost.toml:12: [plugin.payment.on.OrderCraeted]: payment does not subscribe to OrderCraeted; did you mean \
         `OrderCreated`?",
        "sagahost.toml:14: [topics.records.order-craeted]: no plugin reads topic order-craeted; did you mean \
         `order-created`?",
    ];
    let checked = site.run(&["config", "check"]);
    assert_eq!(checked.code, 2, "{checked:?}");
    assert_says(&checked, &[&of_a_start[..], &without_effect].concat());
    let ran = site.run(&["run"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert_says(&ran, &of_a_start);
    assert_eq!(ran.err.lines().count(), 2, "one line for each fault: {}", ran.err);
    assert!(!site.file("data").exists(), "a wrong configuration touches nothing");
}

/// A plugin may come later: its table is no reason not to start.
#[test]
fn a_table_of_a_plugin_that_does_not_exist_is_a_warning_at_the_start() {
    let site = Site::new(&THREE, &format!("{PLAIN}[plugin.paymnt.config]\nlimit-cents = 5\n"));
    let host = site.start();
    let warned = "plugin.paymnt has no effect: [plugin.paymnt]: there is no plugin `paymnt`; did you mean `payment`?";
    assert!(host.log().contains(warned), "{}", host.log());
    assert_eq!(site.run(&["config", "check"]).code, 2);
    assert_eq!(host.stop(), 0);
}

/// A key of a plugin that its manifest does not know is found when the plugin is read, with its name.
#[test]
fn a_plugin_setting_with_a_slip_names_the_plugin_and_the_key() {
    let site = Site::new(&["payment"], &format!("{PLAIN}[plugin.payment.config]\nlimit-cent = 5\n"));
    let ended = site.run(&["run"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_says(&ended, &["payment.wasm (plugin payment)", "limit-cent", "did you mean `limit-cents`?"]);
}

#[test]
fn without_a_plugin_there_is_nothing_to_run() {
    let site = Site::new(&[], PLAIN);
    let nothing = "nothing to run: no plugin in plugins is admitted";
    fs::write(site.file("plugins/readme.txt"), "no plugin").unwrap();
    let empty = site.run(&["run"]);
    assert_eq!(empty.code, 1, "{empty:?}");
    assert_says(&empty, &[nothing, "it has no plugin in it", "copy plugins (*.wasm) there, or name the right"]);

    fs::remove_dir_all(site.file("plugins")).unwrap();
    let missing = site.run(&["run"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert_says(&missing, &[nothing, "it does not exist", "make it and copy plugins (*.wasm) there"]);

    fs::write(site.file("plugins"), "a file").unwrap();
    let file = site.run(&["run"]);
    assert_eq!(file.code, 1, "{file:?}");
    assert_says(&file, &[nothing, "it is a file, not a directory"]);

    // The way on.
    fs::remove_file(site.file("plugins")).unwrap();
    built::copy(&["order"], &site.file("plugins"));
    assert_eq!(site.start().stop(), 0);
}

/// A component of the text format, with a manifest that is fine.
fn component(text: &str) -> Vec<u8> {
    let manifest =
        r#"{"name":"stranger","version":"1.0.0","contract":"0.1.0","subscriptions":[{"kind":"OrderCreated"}]}"#;
    append_manifest(&wat::parse_str(text).unwrap(), manifest.as_bytes()).unwrap()
}

/// Files that must not serve: name, bytes, what is said of it.
fn bad_files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let order = fs::read(built::all().join("order.wasm")).unwrap();
    let world = r#"(component (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#;
    let version = r#"(component (instance $i) (export "sagahost:plugin/participant@0.2.0" (instance $i)))"#;
    vec![
        ("empty.wasm", Vec::new(), "it is empty"),
        ("text.wasm", b"hello".to_vec(), "it is a text file, not a component"),
        ("half.wasm", order[..order.len() / 2].to_vec(), "it is no valid component"),
        ("core.wasm", wat::parse_str("(module)").unwrap(), "it is a core module, not a component"),
        ("world.wasm", component(world), "it is a component of another world: it exports wasi:cli/run@0.2.0"),
        (
            "version.wasm",
            component(version),
            "it has sagahost:plugin/participant version 0.2.0, this host serves 0.1.0",
        ),
    ]
}

#[test]
fn bad_plugin_files_are_named_and_the_good_ones_serve() {
    let site = Site::new(&THREE, PLAIN);
    for (name, bytes, _) in bad_files() {
        fs::write(site.file("plugins").join(name), bytes).unwrap();
    }
    fs::copy(site.file("plugins/payment.wasm"), site.file("plugins/payment-copy.wasm")).unwrap();
    let host = site.start();
    let log = host.log();
    let reports = |text: &str| {
        for (name, _, what) in bad_files() {
            let report = text.split("plugins/").find(|report| report.starts_with(name));
            let report = report.unwrap_or_else(|| panic!("{name} is not in:\n{text}"));
            assert!(report.contains("is not admitted: 1 fault") && report.contains(what), "{report}");
            assert!(report.contains("where:") && report.contains("do:"), "{report}");
        }
        let twice = "payment-copy.wasm is a plugin named payment, too; that one serves";
        assert!(text.contains("payment.wasm (plugin payment) is not admitted") && text.contains(twice), "{text}");
    };
    reports(&log);
    assert_eq!(log.matches(" admitted plugin=").count(), 3, "{log}");

    let listed = site.run(&["plugins", "list"]);
    assert_eq!(listed.code, 1, "{listed:?}");
    reports(&listed.out);
    assert_eq!(listed.out.matches("serving").count(), 3, "{}", listed.out);

    let order = r#"{"orderId": "o-1", "customerId": "c-1", "sku": "apple", "quantity": 2, "amountCents": 5, "currency": "EUR"}"#;
    let emitted = site.run(&["emit", "OrderCreated", "--saga", "o-1", "--data", order]);
    assert_eq!(emitted.code, 0, "{emitted:?}");
    await_status(&site, "o-1", "completed");
    assert_eq!(host.stop(), 0);
}

/// What cannot keep its instances is refused with the reason, and what can serves from them.
#[test]
fn isolation_is_given_up_only_for_plugins_that_do_not_show_it() {
    let reuse = |names: &[&str]| -> String {
        names.iter().map(|name| format!("\n[plugin.{name}]\nisolation = \"reuse\"\n")).collect()
    };
    let refused = |names: &[&str], config: &str, what: &str| {
        let listed = Site::new(names, &format!("{PLAIN}{config}")).run(&["plugins", "list"]);
        assert!(listed.code == 1 && listed.out.contains(what), "{listed:?}");
    };
    let keeps = format!("{}[plugin.lawless.config]\nfault = \"static-ids\"\n", reuse(&["lawless"]));
    refused(&["lawless"], &keeps, "it answers otherwise in an instance that was used before");
    let sends = "it sends requests, and its attempts run again from their beginning";
    refused(&["payment-gateway"], &reuse(&["payment-gateway"]), sends);

    let site = Site::new(&THREE, &format!("{PLAIN}{}", reuse(&THREE)));
    let host = site.start();
    for number in 0..20 {
        let saga = format!("o-{number}");
        let order = format!(
            r#"{{"orderId": "{saga}", "customerId": "c-1", "sku": "apple", "quantity": 1, "amountCents": 5, "currency": "EUR"}}"#
        );
        assert_eq!(site.run(&["emit", "OrderCreated", "--saga", &saga, "--data", &order]).code, 0);
        await_status(&site, &saga, "completed");
    }
    assert_eq!(host.stop(), 0);
}

/// Without a configuration file the data directory knows which directory its plugins came from.
#[test]
fn plugins_are_listed_by_the_data_directory_alone() {
    let site = Site::new(&["order"], PLAIN);
    fs::rename(site.file("plugins"), site.file("built")).unwrap();
    let host = site.start_as(&["run", "--plugins", "built", "--data", "data"]);
    let listed = site.run(&["plugins", "list", "--data", "data"]);
    assert_eq!((listed.code, listed.out.matches("serving").count()), (0, 1), "{listed:?}");
    fs::write(site.file("built/text.wasm"), "hello").unwrap();
    until("the new file is refused", || {
        let listed = site.run(&["plugins", "list", "--data", "data"]);
        (listed.code == 1 && listed.out.contains("built/text.wasm is not admitted")).then_some(())
    });
    assert_eq!(host.stop(), 0);
}

#[test]
fn strict_starts_with_nothing_refused_only() {
    let site = Site::new(&THREE, PLAIN);
    fs::write(site.file("plugins/text.wasm"), "hello").unwrap();
    let refused = site.run(&["run", "--strict"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("not started, as `strict` asks"), "{}", refused.err);
    assert!(refused.err.contains("text.wasm is not admitted") && refused.err.contains("text file"), "{}", refused.err);
    fs::remove_file(site.file("plugins/text.wasm")).unwrap();
    assert_eq!(site.start_as(&["run", "--strict"]).stop(), 0);
}

const ORDER: &str =
    r#"{"orderId": "o-1", "customerId": "c-1", "sku": "apple", "quantity": 2, "amountCents": 5, "currency": "EUR"}"#;

/// A participant that was there before is not out of service because its file is damaged now.
#[test]
fn a_plugin_file_damaged_at_a_restart_is_told_and_the_version_before_serves() {
    let site = Site::new(&THREE, PLAIN);
    assert_eq!(site.start().stop(), 0);
    let file = site.file("plugins/inventory.wasm");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..1_000]).unwrap();

    let host = site.start();
    let log = host.log();
    assert!(log.contains("inventory.wasm") && log.contains("it is no valid component"), "{log}");
    assert!(log.contains("not admitted, and the previous version keeps serving"), "{log}");
    assert_eq!(site.run(&["emit", "OrderCreated", "--saga", "o-1", "--data", ORDER]).code, 0);
    await_status(&site, "o-1", "completed");
    assert_eq!(host.stop(), 0);
}

/// Nor is it forgotten because its file is gone.
#[test]
fn a_plugin_file_that_is_gone_at_a_restart_is_told_and_its_events_wait() {
    let site = Site::new(&THREE, PLAIN);
    assert_eq!(site.start().stop(), 0);
    let file = site.file("plugins/inventory.wasm");
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();

    let host = site.start();
    let log = host.log();
    assert!(log.contains("no plugin in the directory serves it; its events park until one does"), "{log}");
    assert_eq!(site.run(&["emit", "OrderCreated", "--saga", "o-1", "--data", ORDER]).code, 0);
    let saga = await_status(&site, "o-1", "running");
    until("its event is parked", || {
        let shown = site.run(&["sagas", "show", "o-1"]).out;
        shown.contains("inventory").then_some(())
    });
    assert_eq!(saga["letters"], Value::Array(Vec::new()));
    assert_eq!(host.stop(), 0);

    fs::write(&file, bytes).unwrap();
    let host = site.start();
    await_status(&site, "o-1", "completed");
    assert_eq!(host.stop(), 0);
}

fn await_status(site: &Site, saga: &str, status: &str) -> Value {
    until(&format!("{saga} is {status}"), || {
        let shown = site.run(&["sagas", "show", saga, "--json"]);
        let saga: Value = serde_json::from_str(&shown.out).unwrap_or_default();
        (saga["status"] == status).then_some(saga)
    })
}
