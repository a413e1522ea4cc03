//! What operators do to plugins of a running host: pause, resume, retire, other configuration. Embedded topics.

use std::{collections::BTreeSet, ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, sync::Arc, time::Duration};

use sagahost::host::Host;
use sagahost_operator::{
    PluginAction,
    desk::Desk,
    plugin_view::{PluginView, PluginsView},
    protocol::{Reply, Request},
    view::{Done, TopicLine},
};
use sagahost_sandbox::graph::Graph;
use sagahost_tests::{
    faulty::Death,
    operator::Operator,
    plugin_files::{as_built, await_state, await_version, await_view, changed, drop_in, line, version},
    shop::{PATIENCE, Shop, THREE},
    wait::until,
};
use sagahost_wire::Outgoing;

use crate::shops::{plugins, some_orders};

const BY: &str = "anna";

fn change(host: &Host, plugin: &str, action: PluginAction) -> Result<String, String> {
    let request = Request::ChangePlugin { plugin: plugin.into(), action };
    let done = Operator::of(host).ask::<Done>(request);
    done.map(|done| done.text).map_err(|refusal| refusal.text)
}

fn pause(host: &Host, plugin: &str) -> Result<String, String> {
    change(host, plugin, PluginAction::Pause { by: BY.to_owned(), reason: "the bank is closed".to_owned() })
}

fn resume(host: &Host, plugin: &str) -> Result<String, String> {
    change(host, plugin, PluginAction::Resume { by: BY.to_owned() })
}

fn retire(host: &Host, plugin: &str, force: bool) -> Result<String, String> {
    change(host, plugin, PluginAction::Retire { by: BY.to_owned(), reason: "closed down".to_owned(), force })
}

fn show(host: &Host, plugin: &str) -> PluginView {
    Operator::of(host).ask(Request::Plugin { plugin: plugin.into() }).expect("the plugin is known")
}

fn deeds(host: &Host, plugin: &str) -> Vec<String> {
    show(host, plugin).history.into_iter().map(|deed| deed.what).collect()
}

#[test]
fn a_paused_plugin_handles_nothing_across_a_restart_and_goes_on_with_what_parked() {
    let shop = Shop::new(&THREE, "");
    let orders = some_orders("o", 40);
    let host = shop.start();
    pause(&host, "inventory").expect("it can be paused");
    let paused = line(&host, "inventory").expect("it is known");
    assert_eq!((&*paused.state, &*paused.note.unwrap_or_default()), ("paused", "paused by anna: the bank is closed"));
    shop.produce(&orders);
    let paid = || shop.read(&["payment-processed", "payment-failed"]).len();
    until("all orders are paid or declined", || (paid() >= orders.len()).then_some(()));
    assert!(host.stop(Duration::from_secs(10)).unpublished_batches.is_empty());

    let host = shop.start();
    assert_eq!(line(&host, "inventory").map(|line| line.state), Some("paused".to_owned()), "a restart changes nothing");
    assert!(shop.ends().completed.is_empty());
    assert_eq!(host.journal().letter_groups().expect("letters can be counted"), []);
    resume(&host, "inventory").expect("it can go on");
    let ends = shop.await_ends(&orders, &Death::never(), PATIENCE);
    assert_eq!(ends.faults(&orders), Vec::<String>::new());
    shop.assert_right(&orders, &*host.journal());
    assert_eq!(deeds(&host, "inventory"), ["resumed by anna", "paused by anna: the bank is closed", "serves"]);
    let refused = resume(&host, "inventory").expect_err("it is not paused");
    assert_eq!(refused, "plugin inventory is not paused by an operator");
    let refused = pause(&host, "inventroy").expect_err("there is none");
    assert!(refused.starts_with("no plugin inventroy was ever admitted here"), "{refused}");
    host.stop(Duration::from_secs(10));
}

/// What a paused plugin did is undone all the same.
#[test]
fn a_paused_plugin_still_undoes() {
    let shop = Shop::new(&THREE, "");
    let orders = some_orders("o", 1);
    let host = shop.start();
    pause(&host, "inventory").expect("it can be paused");
    shop.produce(&orders);
    until("the order is paid", || (!shop.read(&["payment-processed"]).is_empty()).then_some(()));
    pause(&host, "payment").expect("it can be paused");
    let operator = Operator::of(&host);
    operator.cancel(&orders[0].order_id, "a test");
    operator.await_status(&orders[0].order_id, "compensated");
    shop.await_ends(&orders, &Death::never(), PATIENCE);
    shop.assert_conserved(&orders, &*host.journal());
    host.stop(Duration::from_secs(10));
}

#[test]
fn a_plugin_is_retired_when_its_file_is_gone_and_no_saga_needs_it() {
    let shop = Shop::new(&["order", "payment", "inventory", "loyalty"], "");
    let dir = plugins(&shop);
    let orders = some_orders("o", 30);
    let host = shop.start();
    shop.produce(&orders);
    shop.await_ends(&orders, &Death::never(), PATIENCE);
    let refused = retire(&host, "loyalty", false).expect_err("its file is there");
    assert!(refused.contains("loyalty.wasm is in the plugin directory: remove it first"), "{refused}");
    fs::remove_file(dir.join("loyalty.wasm")).expect("it is there");
    await_state(&host, "loyalty", "paused");
    let parked = some_orders("parked", 1);
    shop.produce(&parked);
    until("an order is completed without points", || shop.ends().ended_ms.get("parked-000000").copied());
    let refused = retire(&host, "loyalty", false).expect_err("a saga waits for it");
    assert_eq!(refused, "1 unfinished sagas need it (parked-000000): let them end or cancel them, or --force");
    drop_in(&dir, "loyalty.wasm", &as_built("loyalty"));
    await_state(&host, "loyalty", "serving");
    until("it has caught up", || {
        (shop.read(&["points-granted"]).len() > shop.ends().completed.len() - 1).then_some(())
    });
    fs::remove_file(dir.join("loyalty.wasm")).expect("it is there");
    await_state(&host, "loyalty", "paused");
    until("no saga needs it", || retire(&host, "loyalty", false).ok());
    await_state(&host, "loyalty", "retired");
    let later = some_orders("later", 10);
    shop.produce(&later);
    let ends = shop.await_ends(&[orders, parked, later].concat(), &Death::never(), PATIENCE);
    assert!(ends.completed.keys().any(|order| order.starts_with("later")), "nobody waits for it any more");
    host.stop(Duration::from_secs(10));

    let host = shop.start();
    await_state(&host, "loyalty", "retired");
    assert_eq!(deeds(&host, "loyalty")[0], "retired by anna: closed down");
    assert!(retire(&host, "loyalty", false).expect_err("once is enough").contains("is retired already"));
    drop_in(&dir, "loyalty.wasm", &as_built("loyalty"));
    await_state(&host, "loyalty", "serving");
    host.stop(Duration::from_secs(10));
}

/// A registration is a saga that nothing ends; the points of it leave nothing to undo.
#[test]
fn a_step_that_is_done_and_leaves_nothing_to_undo_keeps_nobody_in_service() {
    let shop = Shop::new(&["order", "loyalty"], "");
    let host = shop.start();
    let registration = Outgoing {
        topic: "customer-registered".into(),
        key: Some(b"registration-1".to_vec()),
        value: Some(br#"{"customerId": "c-1"}"#.to_vec()),
        headers: Vec::new(),
    };
    shop.send(&registration);
    until("the points are given", || (!shop.read(&["points-granted"]).is_empty()).then_some(()));
    fs::remove_file(plugins(&shop).join("loyalty.wasm")).expect("it is there");
    await_state(&host, "loyalty", "paused");
    assert_eq!(Operator::of(&host).saga("registration-1").map(|saga| saga.status), Some("running".to_owned()));
    let text = retire(&host, "loyalty", false).expect("no saga needs it");
    assert!(!text.contains("timed out"), "{text}");
    host.stop(Duration::from_secs(10));
}

#[test]
fn a_plugin_is_retired_by_force_and_says_who_still_waits() {
    let shop = Shop::new(&THREE, "");
    let orders = some_orders("o", 1);
    let host = shop.start();
    fs::remove_file(plugins(&shop).join("inventory.wasm")).expect("it is there");
    await_state(&host, "inventory", "paused");
    shop.produce(&orders);
    until("the order is paid", || (!shop.read(&["payment-processed"]).is_empty()).then_some(()));
    until("the order waits for it", || retire(&host, "inventory", false).is_err().then_some(()));
    let text = retire(&host, "inventory", true).expect("force is enough");
    assert!(text.contains("1 unfinished sagas still wait for it (o-000000): cancel them"), "{text}");
    Operator::of(&host).cancel("o-000000", "its stock is gone");
    let ends = shop.await_ends(&orders, &Death::never(), PATIENCE);
    assert_eq!(ends.cancelled.len(), 1, "the way on that was named is one");
    shop.assert_conserved(&orders, &*host.journal());
    host.stop(Duration::from_secs(10));
}

#[test]
fn other_configuration_takes_effect_at_once_and_wrong_one_changes_nothing() {
    let shop = Shop::new(&THREE, "");
    let file = shop.dir.path().join("sagahost.toml");
    let text = fs::read_to_string(&file).expect("it is there");
    let host = shop.start();
    let reload = || Operator::of(&host).ask::<Done>(Request::ReloadConfig).map(|done| done.text);
    let mut all = Vec::new();
    let mut order = |prefix: &str| {
        let mut order = some_orders(prefix, 1);
        order[0].amount_cents = 90_000;
        shop.produce(&order);
        all.extend(order);
        shop.await_ends(&all, &Death::never(), PATIENCE)
    };
    assert_eq!(order("before").completed.len(), 1);
    let configuration = || line(&host, "payment").map(|line| line.config);
    let before = configuration();
    let none = reload().expect("it can be read");
    assert!(none.starts_with("no values for plugins changed in"), "{none}");

    fs::write(&file, text.replace("limit-cents = 100000", "limit-cnts = 5")).expect("it can be written");
    let wrong = reload().expect_err("there is no such key").text;
    assert!(wrong.starts_with("nothing is changed:") && wrong.contains("did you mean `limit-cents`?"), "{wrong}");
    fs::write(&file, "app = ").expect("it can be written");
    assert!(reload().expect_err("it is no TOML").text.starts_with("nothing is changed:"));
    assert_eq!((configuration(), host.live().plugins().refused), (before.clone(), Vec::new()));

    let other = text.replace("limit-cents = 100000", "limit-cents = 80000") + "\n[pipeline]\nworkers = 3\n";
    fs::write(&file, other).expect("it can be written");
    let done = reload().expect("it is right");
    assert_eq!(done, "payment: new configuration applied; `pipeline` changed too: that takes effect at the next start");
    assert_ne!(configuration(), before);
    assert_eq!(order("after").cancelled.len(), 1, "90,000 cents are above the limit now");
    let view = show(&host, "payment");
    let deeds: Vec<(&str, bool)> =
        view.history.iter().map(|deed| (&*deed.what, Some(&deed.config) == before.as_ref())).collect();
    assert_eq!(deeds, [("serves with another configuration", false), ("serves", true)]);
    assert_eq!(view.configured, ["limit-cents", "opening-balance-cents"]);
    fs::write(&file, text.replace("limit-cents = 100000\n", "")).expect("it can be written");
    reload().expect("it is right");
    assert_eq!(show(&host, "payment").configured, ["opening-balance-cents"], "as it is in force, not as at the start");
    host.stop(Duration::from_secs(10));
}

#[test]
fn the_listing_is_in_the_data_directory_and_agrees_with_what_is_said() {
    let shop = Shop::new(&THREE, "[watch]\nsettle = \"20ms\"\n");
    let host = shop.start();
    drop_in(&plugins(&shop), "payment.wasm", &version("payment", "9.0.0"));
    await_version(&host, "payment", "9.0.0");
    drop_in(&plugins(&shop), "junk.wasm", b"not a plugin");
    let said = until("the junk is refused", || {
        Some(host.live().plugins()).filter(|view| !view.refused.is_empty() && line(&host, "payment").is_some())
    });
    let written = until("the listing says it too", || {
        let text = fs::read(shop.data().join("plugins.json")).ok()?;
        let view: PluginsView = serde_json::from_slice(&text).ok()?;
        (view.refused == said.refused).then_some(view)
    });
    let facts = |view: &PluginsView| -> Vec<(String, String, String)> {
        view.plugins.iter().map(|l| (l.name.clone(), l.version.clone(), l.digest.clone())).collect()
    };
    assert_eq!(facts(&written), facts(&said));
    let payment = written.plugins.iter().find(|line| line.version == "9.0.0").expect("it serves");
    assert!(payment.notes.contains(&"nobody here reads PaymentRefunded".to_owned()), "{:?}", payment.notes);
    host.stop(Duration::from_secs(10));
}

fn names(graph: &Graph) -> Vec<&str> {
    graph.participants.iter().map(|node| node.name.as_str()).collect()
}

/// A file that is refused says nothing of what serves, and one that is gone takes nobody out of the app.
#[test]
fn graph_and_topics_are_those_of_what_serves() {
    let shop = Shop::new(&THREE, "[watch]\nsettle = \"20ms\"\n");
    let dir = plugins(&shop);
    let host = shop.start();
    fs::remove_file(dir.join("inventory.wasm")).expect("it is there");
    await_state(&host, "inventory", "paused");
    let mute = |manifest: &mut sagahost_sandbox::Manifest| {
        manifest.contract = "99.0.0".to_owned();
        manifest.emits.clear();
    };
    drop_in(&dir, "payment.wasm", &changed("payment", mute));
    await_view(&host, "a refused payment", |view| view.refused.len() == 1);
    drop_in(&dir, "loyalty.wasm", &changed("loyalty", mute));
    await_view(&host, "a refused loyalty", |view| view.refused.len() == 2);
    let operator = Operator::of(&host);
    let graph: Graph = operator.ask(Request::Graph).expect("it can be drawn");
    assert_eq!(names(&graph), ["inventory", "order", "payment"]);
    assert!(graph.participants[2].emits.contains(&"PaymentProcessed".to_owned()), "as the stored version says");
    let topics: Vec<TopicLine> = operator.ask(Request::Topics).expect("they can be listed");
    let topic = |name: &str| topics.iter().any(|line| line.name == name);
    assert!(topic("payment-processed") && topic("payment-failed") && !topic("customer-registered"));
    let config = host.config().clone();
    drop(operator);
    host.stop(Duration::from_secs(10));

    let journal = shop.journal().expect("it can be opened");
    let desk = Desk { settings: config.operator(), journal, transport: Arc::new(shop.topics()), live: None };
    let Reply::Ok(value) = desk.reply(Request::Graph) else { panic!("it can be drawn") };
    let later: Graph = serde_json::from_value(value).expect("it is a graph");
    assert_eq!(names(&later), ["inventory", "loyalty", "order", "payment"], "no host has judged the file of loyalty");
    assert_eq!(later.participants[3], graph.participants[2]);
}

#[test]
fn a_refused_file_whose_name_is_no_text_is_listed() {
    let shop = Shop::new(&THREE, "[watch]\nsettle = \"20ms\"\n");
    let host = shop.start();
    fs::write(plugins(&shop).join(OsStr::from_bytes(b"\xff.wasm")), "junk").expect("it can be written");
    await_view(&host, "a refused file", |view| view.refused.len() == 1);
    let view: PluginsView = Operator::of(&host).ask(Request::Plugins).expect("it can be listed");
    assert!(view.refused[0].file.ends_with("\u{fffd}.wasm"), "{:?}", view.refused[0].file);
    until("plugins.json says it too", || {
        let written: PluginsView = serde_json::from_slice(&fs::read(shop.data().join("plugins.json")).ok()?).ok()?;
        (written.refused == view.refused).then_some(())
    });
    host.stop(Duration::from_secs(10));
}

#[test]
fn a_file_that_waits_for_another_is_listed_with_the_reason() {
    let shop = Shop::new(&THREE, "[watch]\nsettle = \"300ms\"\n");
    let dir = plugins(&shop);
    let host = shop.start();
    drop_in(&dir, "loyalty.wasm", &as_built("loyalty"));
    drop_in(&dir, "order.wasm", &version("order", "9.0.0"));
    drop_in(&dir, "payment.wasm", b"not a plugin");
    let view = await_view(&host, "the refusal", |view| !view.refused.is_empty());
    let waiting = view.plugins.iter().filter(|line| line.state == "waiting");
    let waiting: Vec<(&str, &str)> = waiting.map(|line| (&*line.name, &*line.version)).collect();
    let loyalty = sagahost_sandbox::pack::manifest_of(&as_built("loyalty")).expect("it has a manifest");
    assert_eq!(waiting, [("loyalty", &*loyalty.version), ("order", "9.0.0")]);
    let of = show(&host, "loyalty");
    assert!(of.versions[0].file.as_ref().is_some_and(|file| file.ends_with("loyalty.wasm")), "{:?}", of.versions);
    let why = of.versions[0].note.clone().unwrap_or_default();
    assert!(why.starts_with("waits for ") && why.contains("payment.wasm, which changed with it"), "{why}");
    fs::remove_file(dir.join("payment.wasm")).expect("it is there");
    await_version(&host, "order", "9.0.0");
    await_view(&host, "nobody waits", |view| view.plugins.iter().all(|line| line.state != "waiting"));
    host.stop(Duration::from_secs(10));
}

/// What is known of the first version stays in the journal: since when its kinds are taken.
#[test]
fn nothing_is_left_of_versions_that_nobody_needs() {
    let shop = Shop::new(&THREE, "[watch]\nsettle = \"20ms\"\nprobation = \"0s\"\n[saga]\nretention = \"0s\"\n");
    let host = shop.start();
    let first = line(&host, "payment").expect("it serves").digest;
    let orders = some_orders("o", 3);
    shop.produce(&orders);
    shop.await_ends(&orders, &Death::never(), PATIENCE);
    for number in ["9.0.0", "9.1.0", "9.2.0"] {
        drop_in(&plugins(&shop), "payment.wasm", &version("payment", number));
        await_version(&host, "payment", number);
    }
    let plugins = host.live().plugins().plugins;
    let versions: Vec<&str> = plugins.iter().filter(|l| l.name == "payment").map(|l| &*l.version).collect();
    assert_eq!(versions, ["9.2.0"], "no bytes of others are there");
    let rows = host.journal().admitted().expect("they can be read");
    let rows: BTreeSet<&str> =
        rows.iter().filter(|row| row.participant.as_str() == "payment").map(|row| &*row.digest).collect();
    let serving = line(&host, "payment").expect("it serves").digest;
    assert_eq!(rows, BTreeSet::from([&*first, &*serving]));
    let compiled = fs::read_dir(shop.data().join("cache")).expect("there is a cache");
    assert_eq!(compiled.count(), THREE.len());
    host.stop(Duration::from_secs(10));
}
