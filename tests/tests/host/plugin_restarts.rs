//! A host that starts, or is killed, in the middle of a change of plugins comes up with a set that belongs together, and
//! says which. Embedded topics; the killed ones are the real binary.

use std::{fs, process::Command, time::Duration};

use sagahost_sandbox::manifest::From;
use sagahost_tests::{
    binary::Site,
    faulty::Death,
    plugin_files::{as_built, await_version, await_view, changed, drop_in, line, panics, version},
    shop::{PATIENCE, Shop, THREE},
    wait::until,
};
use serde_json::Value;

use crate::shops::{plugins, some_orders};

#[test]
fn a_file_that_went_bad_while_no_host_ran_takes_nobody_out_of_service() {
    let shop = Shop::new(&THREE, "[watch]\nsettle = \"20ms\"\n");
    let dir = plugins(&shop);
    let host = shop.start();
    let before = ["order", "payment"].map(|name| line(&host, name).map(|line| line.digest));
    host.stop(Duration::from_secs(10));
    drop_in(&dir, "payment.wasm", b"half of it");
    drop_in(&dir, "order.wasm", &version("order", "9.0.0"));
    let host = shop.start();
    let now = ["order", "payment"].map(|name| line(&host, name).map(|line| line.digest));
    assert_eq!(now, before, "what changed with the bad one waits for it");
    assert_eq!(host.live().plugins().refused.len(), 1);
    let orders = some_orders("o", 30);
    shop.produce(&orders);
    let ends = shop.await_ends(&orders, &Death::never(), PATIENCE);
    assert_eq!(ends.faults(&orders), Vec::<String>::new());
    drop_in(&dir, "payment.wasm", &version("payment", "9.0.0"));
    await_version(&host, "payment", "9.0.0");
    await_version(&host, "order", "9.0.0");
    assert_eq!(host.live().plugins().refused, []);
    shop.assert_right(&orders, &*host.journal());
    host.stop(Duration::from_secs(10));
}

/// Versioned file names: the one that serves was removed, and its successor arrived broken.
#[test]
fn a_broken_file_of_unknown_name_takes_nobody_out_of_service_either() {
    let shop = Shop::new(&THREE, "[watch]\nsettle = \"20ms\"\n");
    let dir = plugins(&shop);
    fs::rename(dir.join("payment.wasm"), dir.join("payment-1.0.0.wasm")).expect("it can be renamed");
    let host = shop.start();
    let before = line(&host, "payment").map(|line| line.digest);
    host.stop(Duration::from_secs(10));
    fs::remove_file(dir.join("payment-1.0.0.wasm")).expect("it is there");
    drop_in(&dir, "payment-2.0.0.wasm", b"half of it");
    drop_in(&dir, "loyalty.wasm", &as_built("loyalty"));
    let host = shop.start();
    assert_eq!(line(&host, "payment").map(|line| line.digest), before);
    assert_eq!(line(&host, "loyalty").map(|line| line.state), None, "it came with a bad one");
    drop_in(&dir, "payment-2.0.0.wasm", &version("payment", "2.0.0"));
    await_version(&host, "payment", "2.0.0");
    await_version(&host, "loyalty", "0.1.0");
    host.stop(Duration::from_secs(10));
}

/// What was away stays away, whatever else goes wrong while no host is running.
#[test]
fn a_directory_that_is_missing_at_the_start_brings_nothing_back_that_was_removed() {
    let shop = Shop::new(&THREE, "[watch]\nsettle = \"20ms\"\n");
    let dir = plugins(&shop);
    let host = shop.start();
    fs::remove_file(dir.join("inventory.wasm")).expect("it is there");
    await_view(&host, "the pause", |view| view.plugins.iter().any(|line| line.state == "paused"));
    host.stop(Duration::from_secs(10));
    let aside = dir.with_file_name("aside");
    fs::rename(&dir, &aside).expect("the directory can be moved");
    let host = shop.start();
    let states = THREE.map(|name| line(&host, name).map(|line| line.state));
    assert_eq!(states, ["serving", "serving", "paused"].map(|state| Some(state.to_owned())));
    assert_eq!(host.live().plugins().refused.len(), 1, "the missing directory is said");
    fs::rename(&aside, &dir).expect("the directory can be moved back");
    drop_in(&dir, "inventory.wasm", &as_built("inventory"));
    await_version(&host, "inventory", "0.1.0");
    host.stop(Duration::from_secs(10));
}

/// Nothing stands in for a plugin whose own configuration is wrong: it would run on something else than what it says.
#[test]
fn a_configuration_that_went_wrong_while_no_host_ran_is_no_reason_to_ignore_it() {
    let mut shop = Shop::new(&THREE, "");
    shop.start().stop(Duration::from_secs(10));
    let file = shop.dir.path().join("sagahost.toml");
    let text = fs::read_to_string(&file).expect("it is there");
    fs::write(&file, text.replace("opening-stock", "opening-stok")).expect("it can be written");
    shop.config = sagahost::config::Config::load(&file).unwrap_or_else(|faults| panic!("{faults}"));
    let host = shop.start();
    assert_eq!(line(&host, "inventory").map(|line| line.state), Some("paused".to_owned()));
    assert!(host.live().plugins().refused[0].to_string().contains("did you mean `opening-stock`?"));
    host.stop(Duration::from_secs(10));
}

const CONFIG: &str = "app = \"shop\"\nplugins = \"plugins\"\ndata = \"data\"\n[watch]\nsettle = \"100ms\"\n";

/// Name → version of what serves, by the command line; the log of the start must say the same.
fn serves(site: &Site) -> Vec<(String, String)> {
    let listed = site.run(&["plugins", "list", "--json"]);
    let view: Value = serde_json::from_str(&listed.out).unwrap_or_else(|error| panic!("{error}: {listed:?}"));
    let lines = view["plugins"].as_array().expect("it is a list").iter();
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let serving = lines.filter(|line| line["state"] == "serving" || line["state"] == "probation");
    serving.map(|line| (text(line, "name"), text(line, "version"))).collect()
}

/// What of a release the journal holds when the host dies.
#[derive(Clone, Copy, PartialEq)]
enum Journaled {
    Nothing,
    Positions,
    All,
}

/// A participant with a topic that nobody here read before, from then on.
fn newcomer() -> Vec<u8> {
    changed("loyalty", |manifest| {
        manifest.subscriptions.retain(|on| on.kind == "CustomerRegistered");
        manifest.subscriptions.iter_mut().for_each(|on| on.from = From::Now);
    })
}

fn register(site: &Site, customer: &str) {
    let data = format!(r#"{{"customerId": "{customer}"}}"#);
    let emitted = site.run(&["emit", "CustomerRegistered", "--saga", customer, "--data", &data]);
    assert_eq!(emitted.code, 0, "{emitted:?}");
}

fn welcomed(site: &Site) -> Vec<String> {
    let listed = site.run(&["plugins", "counters", "loyalty", "--json"]);
    let counters: Value = serde_json::from_str(&listed.out).unwrap_or_else(|error| panic!("{error}: {listed:?}"));
    let names = counters.as_array().expect("it is a list").iter().filter_map(|counter| counter["name"].as_str());
    names.map(|name| name.replace("points/", "")).collect()
}

/// Two versions and a newcomer come together, and the host ends itself at a point on the way.
fn killed_at(point: &str, journaled: Journaled, new_release_survives: bool) {
    let site = Site::new(&THREE, CONFIG);
    let host = site.start();
    assert_eq!(host.stop(), 0);
    assert_eq!(site.run(&["topics", "create", "customer-registered"]).code, 0);
    let host = site.start_with_env(&["run"], &[("SAGAHOST_CRASH_AT", point)]);
    register(&site, "before");
    for name in ["order", "payment"] {
        drop_in(&site.file("plugins"), &format!("{name}.wasm"), &version(name, "9.0.0"));
    }
    drop_in(&site.file("plugins"), "loyalty.wasm", &newcomer());
    let log = host.await_end();
    assert!(log.contains("crash point"), "{log}");
    register(&site, "meanwhile");

    // Without the directory the journal alone says what serves: all of the release, or nothing of it.
    fs::rename(site.file("plugins"), site.file("aside")).expect("the directory can be moved");
    let host = site.start();
    let (changed, new) = if journaled == Journaled::All { ("9.0.0", Some("0.1.0")) } else { ("0.1.0", None) };
    let expected =
        [("inventory", Some("0.1.0")), ("loyalty", new), ("order", Some(changed)), ("payment", Some(changed))];
    let expected: Vec<(String, String)> =
        expected.iter().filter_map(|(name, version)| Some((name.to_string(), version.as_ref()?.to_string()))).collect();
    assert_eq!(serves(&site), expected, "journaled at {point}");
    assert_eq!(host.stop(), 0);
    fs::rename(site.file("aside"), site.file("plugins")).expect("the directory can be moved back");

    // The release is taken back while no host is running: what stands in the directory is what serves, whatever was journaled.
    if !new_release_survives {
        for name in ["order", "payment"] {
            drop_in(&site.file("plugins"), &format!("{name}.wasm"), &as_built(name));
        }
    }
    let host = site.start();
    let expected = if new_release_survives { "9.0.0" } else { "0.1.0" };
    for (name, version) in serves(&site) {
        let expected = if matches!(&*name, "inventory" | "loyalty") { "0.1.0" } else { expected };
        assert_eq!(version, expected, "{name} after {point}");
        let said = format!("admitted plugin={name} version=\"{version}\"");
        assert!(host.log().contains(&said), "{said}:\n{}", host.log());
    }
    let emitted = site.run(&[
        "emit", "OrderCreated", "--saga", "o-1", "--data",
        r#"{"orderId": "o-1", "customerId": "c-1", "sku": "apple", "quantity": 1, "amountCents": 100, "currency": "EUR"}"#,
    ]);
    assert_eq!(emitted.code, 0, "{emitted:?}");
    until("the order is completed", || {
        let shown = site.run(&["sagas", "show", "o-1", "--json"]);
        let saga: Value = serde_json::from_str(&shown.out).unwrap_or_default();
        (saga["status"] == "completed").then_some(())
    });
    // Where it began to read was journaled with the position, before it served: nothing from then on is left out.
    register(&site, "behind");
    until("the last one is welcomed", || welcomed(&site).contains(&"behind".to_owned()).then_some(()));
    let expected: &[&str] = if journaled == Journaled::Nothing { &["behind"] } else { &["behind", "meanwhile"] };
    assert_eq!(welcomed(&site), expected, "after {point}");
    assert_eq!(host.stop(), 0);
}

#[test]
fn killed_before_positions_are_taken() {
    killed_at("plugins-admitted", Journaled::Nothing, true);
}

#[test]
fn killed_when_positions_are_journaled() {
    killed_at("plugin-positions", Journaled::Positions, true);
}

#[test]
fn killed_when_two_of_three_are_stored() {
    // The start stores three, the switch all four: with the seventh, payment, the two others of the release are done.
    killed_at("plugin-stored:7", Journaled::Positions, true);
}

#[test]
fn killed_in_the_middle_of_a_release_that_is_taken_back() {
    killed_at("plugin-stored:7", Journaled::Positions, false);
}

#[test]
fn killed_when_the_set_is_journaled_and_does_not_serve_yet() {
    killed_at("plugins-journaled:2", Journaled::All, true);
}

#[test]
fn killed_when_the_set_is_journaled_and_taken_back() {
    killed_at("plugins-journaled:2", Journaled::All, false);
}

#[test]
fn killed_when_it_serves_and_nobody_was_told() {
    killed_at("plugins-switched", Journaled::All, true);
}

/// The version is in quarantine, and the one before does not serve again yet. An earlier one that has not proved itself
/// does not come instead.
#[test]
fn killed_while_a_version_is_rolled_back() {
    let config = format!(
        "{CONFIG}[plugin.hostile.on.HostileTried]\nretry = {{ attempts-max = 1000, base = \"10ms\", cap = \"20ms\" }}\n"
    );
    let site = Site::new(&["hostile"], &config);
    // The first switches are those to the new version and to the bad one.
    let host = site.start_with_env(&["run"], &[("SAGAHOST_CRASH_AT", "plugins-admitted:3")]);
    drop_in(&site.file("plugins"), "hostile.wasm", &version("hostile", "8.0.0"));
    until("a version serves that is not proved", || {
        serves(&site).contains(&("hostile".into(), "8.0.0".into())).then_some(())
    });
    let bad = panics("9.0.0");
    drop_in(&site.file("plugins"), "hostile.wasm", &bad);
    until("the bad version serves", || serves(&site).contains(&("hostile".into(), "9.0.0".into())).then_some(()));
    let emit = |saga: &str| {
        let data = format!(r#"{{"id": "{saga}"}}"#);
        assert_eq!(site.run(&["emit", "HostileTried", "--saga", saga, "--data", &data]).code, 0);
    };
    emit("h-10");
    let log = host.await_end();
    assert!(log.contains("crash point plugins-admitted"), "{log}");
    let host = site.start();
    assert_eq!(serves(&site), [("hostile".to_owned(), "0.1.0".to_owned())]);
    emit("h-20");
    until("what the bad version could not do is done, and what comes too", || {
        let done = |saga: &str| site.run(&["sagas", "show", saga]).out.contains("HostileDone");
        (done("h-10") && done("h-20")).then_some(())
    });
    assert_eq!(host.stop(), 0);
}

/// The old way to say `config reload`.
#[test]
fn a_host_reads_its_configuration_again_at_sighup() {
    let site = Site::new(&THREE, CONFIG);
    let host = site.start();
    let hang_up = |expected: &str| {
        let sent = Command::new("kill").args(["-HUP", &host.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        until(&format!("the log says {expected}"), || host.log().contains(expected).then_some(()));
    };
    hang_up("SIGHUP: no values for plugins changed");
    let file = site.file("sagahost.toml");
    fs::write(&file, format!("{CONFIG}[plugin.payment.config]\nlimit-cents = \"many\"\n")).expect("it can be written");
    hang_up("SIGHUP: nothing is changed");
    fs::write(&file, format!("{CONFIG}[plugin.payment.config]\nlimit-cents = 50\n")).expect("it can be written");
    hang_up("SIGHUP: payment: new configuration applied");
    let emitted = site.run(&[
        "emit", "OrderCreated", "--saga", "o-1", "--data",
        r#"{"orderId": "o-1", "customerId": "c-1", "sku": "apple", "quantity": 1, "amountCents": 100, "currency": "EUR"}"#,
    ]);
    assert_eq!(emitted.code, 0, "{emitted:?}");
    until("the order is declined", || {
        let shown = site.run(&["sagas", "show", "o-1", "--json"]);
        let saga: Value = serde_json::from_str(&shown.out).unwrap_or_default();
        (saga["status"] == "compensated").then_some(())
    });
    assert_eq!(host.stop(), 0);
}

/// Asked for while files are on their way in, it is done behind that.
#[test]
fn other_configuration_is_not_forgotten_because_files_change() {
    let config = CONFIG.replace("100ms", "1s");
    let site = Site::new(&THREE, &config);
    let host = site.start();
    fs::write(site.file("sagahost.toml"), format!("{config}[plugin.payment.config]\nlimit-cents = 50\n"))
        .expect("it can be written");
    drop_in(&site.file("plugins"), "loyalty.wasm", &as_built("loyalty"));
    let reloaded = site.run(&["config", "reload"]);
    assert!(reloaded.out.contains("payment: new configuration applied"), "{reloaded:?}");
    assert!(host.log().contains("what was asked for is done when it stands still"), "{}", host.log());
    assert!(serves(&site).contains(&("loyalty".into(), "0.1.0".into())));
    assert_eq!(host.stop(), 0);
}

/// A start that comes to nothing is no admission.
#[test]
fn a_start_that_never_reached_its_broker_leaves_no_trace_of_its_plugins() {
    let config = format!("{CONFIG}[kafka]\nbootstrap-servers = \"127.0.0.1:9\"\n");
    let site = Site::new(&["order"], &config);
    let host = site.begin(&["run"]);
    until("it waits for the broker", || host.log().contains("waiting for the topics").then_some(()));
    host.kill();
    let listed = site.run(&["plugins", "list", "--json"]);
    let view: Value = serde_json::from_str(&listed.out).unwrap_or_else(|error| panic!("{error}: {listed:?}"));
    let states: Vec<&Value> = view["plugins"].as_array().expect("a list").iter().map(|line| &line["state"]).collect();
    assert_eq!(states, ["new"], "{view}");
}

#[test]
fn a_script_waits_until_its_file_serves() {
    let site = Site::new(&["order", "payment"], CONFIG);
    let file = site.file("payment-9.wasm");
    fs::write(&file, version("payment", "9.0.0")).expect("it can be written");
    let waited = |words: &[&str]| site.run(&[&["plugins", "await"], words].concat());
    assert_eq!(waited(&["payment-9.wasm"]).code, 4);
    let host = site.start();
    let ended = waited(&["plugins/order.wasm", "plugins/payment.wasm"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    fs::copy(&file, site.file("plugins/payment.wasm")).expect("it can be copied");
    let ended = waited(&["payment-9.wasm"]);
    assert!(ended.code == 0 && ended.out.starts_with("payment 9.0.0 serves"), "{ended:?}");

    fs::write(site.file("plugins/order.wasm"), "text").expect("it can be written");
    let ended = waited(&["plugins/order.wasm", "--timeout", "3s"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    for part in ["timed out after 3s waiting for the host to serve plugins/order.wasm", "is not admitted", "do:"] {
        assert!(ended.err.contains(part), "{ended:?}");
    }
    assert_eq!(waited(&["gone.wasm"]).code, 2);
    assert_eq!(host.stop(), 0);
}

/// Rights on files bind everybody but root: such a host runs as nobody.
#[test]
fn unreadable_files_and_a_read_only_directory() {
    let site = Site::new(&THREE, CONFIG);
    let dir = site.file("plugins");
    let run = |command: &str| {
        let status = Command::new("sh").args(["-c", command]).current_dir(site.dir.path()).status().expect("sh runs");
        assert!(status.success(), "{command}");
    };
    fs::write(dir.join("secret.wasm"), as_built("loyalty")).expect("it can be written");
    run("chmod 755 . && chmod 000 plugins/secret.wasm && chmod 555 plugins");
    let root = run_as_root();
    if root {
        run("mkdir data && chown nobody data && chmod 644 sagahost.toml");
    }
    let host = site.start_as_user(root.then_some("nobody"));
    let log = host.log();
    assert!(
        log.contains("secret.wasm is not admitted") && log.contains("it cannot be read: Permission denied"),
        "{log}"
    );
    assert_eq!(log.matches(" admitted plugin=").count(), 3, "{log}");
    assert_eq!(host.stop(), 0);
    run("chmod 755 plugins");
}

fn run_as_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    id.stdout.starts_with(b"0\n")
}

/// A pipe is never read, for that might never end; a file that is written all the while is taken when it stands still.
#[test]
fn odd_files() {
    let shop = Shop::new(&THREE, "[watch]\nsettle = \"30ms\"\nrescan = \"100ms\"\n");
    let dir = plugins(&shop);
    let host = shop.start();
    let made = Command::new("mkfifo").arg(dir.join("pipe.wasm")).status().expect("mkfifo runs");
    assert!(made.success());
    let view = await_view(&host, "the pipe", |view| !view.refused.is_empty());
    assert!(view.refused[0].to_string().contains("it is no regular file"), "{}", view.refused[0]);
    fs::remove_file(dir.join("pipe.wasm")).expect("it is there");
    // Reading it fails, whoever reads.
    std::os::unix::fs::symlink("/proc/self/mem", dir.join("broken.wasm")).expect("a link can be made");
    await_view(&host, "a file that cannot be read", |view| {
        view.refused.iter().any(|report| report.to_string().contains("it cannot be read"))
    });
    fs::remove_file(dir.join("broken.wasm")).expect("it is there");

    // In place, again and again, other bytes each time: only the last ones may serve.
    for round in 0..200 {
        let bytes = if round == 199 { version("payment", "9.0.0") } else { vec![round; 200_000] };
        fs::write(dir.join("payment.wasm"), bytes).expect("it can be written");
    }
    await_version(&host, "payment", "9.0.0");
    assert_eq!(host.live().plugins().refused, []);
    host.stop(Duration::from_secs(10));
}
