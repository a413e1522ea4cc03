//! What operators do to plugins of a running host: pause, resume, retire, other configuration. Embedded topics.

use std::{fs, path::PathBuf, time::Duration};

use sagahost::{
    admin::{
        PluginAction,
        plugin_view::{PluginView, PluginsView},
        protocol::Request,
        view::Done,
    },
    host::Host,
};
use sagahost_demo::workload::{Order, Shape, orders};
use sagahost_tests::{
    faulty::Death,
    operator::Operator,
    plugin_files::{as_built, await_state, await_version, drop_in, line, version},
    shop::{PATIENCE, Shop, THREE},
    wait::until,
};

const BY: &str = "anna";

fn some_orders(prefix: &str, count: usize) -> Vec<Order> {
    orders(&Shape { customers: 20, articles: 10, prefix: prefix.to_owned(), ..Shape::of(count) }).collect()
}

fn plugins(shop: &Shop) -> PathBuf {
    shop.dir.path().join("plugins")
}

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
    shop.assert_right(&orders, &*host.journal());
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
    assert_eq!(
        refused,
        "1 unfinished sagas have a step of it (parked-000000): let them end or cancel them, or --force"
    );
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

#[test]
fn a_plugin_is_retired_by_force_and_says_who_waits_in_vain() {
    let shop = Shop::new(&THREE, "");
    let orders = some_orders("o", 1);
    let host = shop.start();
    fs::remove_file(plugins(&shop).join("inventory.wasm")).expect("it is there");
    await_state(&host, "inventory", "paused");
    shop.produce(&orders);
    until("the order is paid", || (!shop.read(&["payment-processed"]).is_empty()).then_some(()));
    until("the order waits for it", || retire(&host, "inventory", false).is_err().then_some(()));
    let text = retire(&host, "inventory", true).expect("force is enough");
    assert!(text.contains("1 unfinished sagas wait for it in vain (o-000000): cancel them"), "{text}");
    Operator::of(&host).cancel("o-000000", "its stock is gone");
    let ends = shop.await_ends(&orders, &Death::never(), PATIENCE);
    assert_eq!(ends.cancelled.len(), 1, "the way on that was named is one");
    shop.assert_right(&orders, &*host.journal());
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
    assert_eq!(
        done,
        "payment: other configuration is in force; `pipeline` changed too: that takes effect at the next start"
    );
    assert_ne!(configuration(), before);
    assert_eq!(order("after").cancelled.len(), 1, "90,000 cents are above the limit now");
    let view = show(&host, "payment");
    let deeds: Vec<(&str, bool)> =
        view.history.iter().map(|deed| (&*deed.what, Some(&deed.config) == before.as_ref())).collect();
    assert_eq!(deeds, [("serves with another configuration", false), ("serves", true)]);
    assert_eq!(view.configured, ["limit-cents", "opening-balance-cents"]);
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
