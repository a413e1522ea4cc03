//! New versions on their way into a running shop: releases turned by a link, a plugin that comes later, data that only
//! some versions read. Embedded topics.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sagahost_operator::view::SagaView;
use sagahost_sandbox::manifest::From as Begins;
use sagahost_tests::{
    faulty::Death,
    operator::Operator,
    plugin_files::{as_built, await_state, await_version, await_view, changed, drop_in, line, version},
    shop::{PATIENCE, Shop, THREE},
    wait::until,
};
use sagahost_wire::Outgoing;

use crate::shops::{plugins, some_orders};

/// As a config map is mounted: files are links through `..data`, and that link is turned in one step.
struct Releases(PathBuf);

impl Releases {
    fn new(dir: &Path, names: &[&str]) -> Self {
        for name in names {
            let file = dir.join(format!("{name}.wasm"));
            let _ = fs::remove_file(&file);
            std::os::unix::fs::symlink(format!("..data/{name}.wasm"), file).expect("a link can be made");
        }
        Self(dir.to_owned())
    }

    fn put(&self, release: &str, files: &[(&str, Vec<u8>)]) {
        let dir = self.0.join(format!("..{release}"));
        fs::create_dir(&dir).expect("a directory can be made");
        for (name, bytes) in files {
            fs::write(dir.join(format!("{name}.wasm")), bytes).expect("a file can be written");
        }
    }

    fn turn(&self, release: &str) {
        let new = self.0.join("..data_tmp");
        std::os::unix::fs::symlink(format!("..{release}"), &new).expect("a link can be made");
        fs::rename(new, self.0.join("..data")).expect("a link can be renamed");
    }
}

fn versions(saga: &SagaView, kind: &str) -> BTreeMap<String, String> {
    let handled = saga.timeline.iter().filter(|line| line.what == "attempt" && line.kind.as_deref() == Some(kind));
    handled.filter_map(|line| Some((line.participant.clone()?, line.version.clone()?))).collect()
}

#[test]
fn of_two_plugins_in_one_release_no_event_sees_one_old_and_one_new() {
    const TURNS: usize = 10;
    let shop = Shop::new(&["inventory"], "[watch]\nsettle = \"20ms\"\n");
    let dir = plugins(&shop);
    let releases = Releases::new(&dir, &["order", "payment"]);
    for number in ["9.0.0", "9.1.0"] {
        releases.put(number, &[("order", version("order", number)), ("payment", version("payment", number))]);
    }
    releases.put("bad", &[("order", version("order", "9.9.0")), ("payment", b"half of it".to_vec())]);
    releases.turn("9.0.0");
    let orders = some_orders("o", 400);
    let host = shop.start();
    for (turn, portion) in orders.chunks(orders.len() / TURNS).enumerate() {
        let number = if turn % 2 == 0 { "9.1.0" } else { "9.0.0" };
        releases.turn(number);
        shop.produce(portion);
        await_version(&host, "payment", number);
        await_version(&host, "order", number);
    }
    shop.await_ends(&orders, &Death::never(), PATIENCE);
    shop.assert_right(&orders, &*host.journal());
    let operator = Operator::of(&host);
    let mut seen = BTreeMap::<String, usize>::new();
    for order in &orders {
        let saga = operator.saga(&order.order_id).expect("it is there");
        let by = versions(&saga, "OrderCreated");
        assert_eq!(by.get("order"), by.get("payment"), "{}: {by:?}", order.order_id);
        *seen.entry(by["order"].clone()).or_default() += 1;
    }
    assert_eq!(seen.len(), 2, "both releases served: {seen:?}");

    releases.turn("bad");
    await_view(&host, "the refusal", |view| !view.refused.is_empty());
    assert_eq!(line(&host, "order").map(|line| line.version), line(&host, "payment").map(|line| line.version));
    let note = line(&host, "order").and_then(|line| line.note).unwrap_or_default();
    assert!(note.contains("waits for one that changed with it"), "{note}");
    host.stop(Duration::from_secs(10));
}

/// Paid by one version, failing in inventory when another has come: undone by one that reads what the first wrote.
#[test]
fn a_failure_behind_a_new_version_is_undone_by_one_that_reads_the_data() {
    let undone_by = |reads: Vec<u32>| {
        let shop = Shop::new(&["order", "payment"], "[plugin.inventory.config]\nopening-stock = 1000\n");
        let mut order = some_orders("o", 1);
        order[0].quantity = 5_000;
        let id = order[0].order_id.clone();
        let host = shop.start();
        let first = line(&host, "payment").expect("it serves").version;
        shop.produce(&order);
        until("the order is paid", || (!shop.read(&["payment-processed"]).is_empty()).then_some(()));
        let newer = changed("payment", |manifest| {
            manifest.version = "9.0.0".to_owned();
            (manifest.data_format, manifest.reads) = (2, reads.clone());
        });
        drop_in(&plugins(&shop), "payment.wasm", &newer);
        await_version(&host, "payment", "9.0.0");
        let notes = line(&host, "payment").map(|line| line.notes).unwrap_or_default();
        let told = notes.iter().any(|note| note.contains("they continue with"));
        assert_eq!(told, !reads.contains(&1), "{notes:?}");
        // From the beginning of its topic: this order was paid before it came.
        let inventory = changed("inventory", |manifest| manifest.subscriptions[0].from = Begins::Earliest);
        drop_in(&plugins(&shop), "inventory.wasm", &inventory);
        shop.await_ends(&order, &Death::never(), PATIENCE);
        shop.assert_right(&order, &*host.journal());
        let saga = Operator::of(&host).await_status(&id, "compensated");
        let undo = saga.timeline.iter().find(|line| {
            line.participant.as_deref() == Some("payment") && line.direction.as_deref() == Some("compensate")
        });
        let by = undo.and_then(|line| line.version.clone()).expect("payment was undone");
        host.stop(Duration::from_secs(10));
        (first, by)
    };
    let (first, by) = undone_by(vec![2]);
    assert_eq!(by, first, "the new version cannot read what the first one wrote");
    assert_eq!(undone_by(vec![1, 2]).1, "9.0.0");
}

/// Data that no version reads any more is a reason to refuse, before anything is replaced.
#[test]
fn a_version_is_refused_when_sagas_hold_data_that_nobody_would_read() {
    let shop = Shop::new(&["order", "payment"], "[watch]\nsettle = \"20ms\"\n");
    let orders = some_orders("o", 1);
    let host = shop.start();
    shop.produce(&orders);
    until("the order is paid", || (!shop.read(&["payment-processed"]).is_empty()).then_some(()));
    let serving = line(&host, "payment").expect("it serves");
    fs::remove_file(shop.data().join("plugins").join(format!("{}.wasm", serving.digest))).expect("it is stored");
    let newer = changed("payment", |manifest| {
        manifest.version = "9.0.0".to_owned();
        (manifest.data_format, manifest.reads) = (2, vec![2]);
    });
    drop_in(&plugins(&shop), "payment.wasm", &newer);
    let view = await_view(&host, "the refusal", |view| !view.refused.is_empty());
    let report = view.refused[0].to_string();
    assert!(
        report.contains("unfinished sagas hold data of format 1, and no version that is here reads it"),
        "{report}"
    );
    assert_eq!(line(&host, "payment").map(|line| line.digest), Some(serving.digest));
    host.stop(Duration::from_secs(10));
}

#[test]
fn a_fourth_plugin_serves_from_now_on_and_sees_history_once_where_it_asks_for_it() {
    let shop = Shop::new(&THREE, "[watch]\nsettle = \"20ms\"\n");
    let register = |number: usize| Outgoing {
        topic: "customer-registered".into(),
        key: Some(format!("registration-{number}").into_bytes()),
        value: Some(format!(r#"{{"customerId": "c-{number}"}}"#).into_bytes()),
        headers: Vec::new(),
    };
    (0..25).for_each(|number| drop(shop.send(&register(number))));
    let (early, late) = (some_orders("early", 20), some_orders("late", 20));
    let host = shop.start();
    shop.produce(&early);
    shop.await_ends(&early, &Death::never(), PATIENCE);
    drop_in(&plugins(&shop), "loyalty.wasm", &as_built("loyalty"));
    await_state(&host, "loyalty", "serving");
    shop.produce(&late);
    let all = [early, late].concat();
    let ends = shop.await_ends(&all, &Death::never(), PATIENCE);
    shop.assert_right(&all, &*host.journal());
    let completed_late = ends.completed.keys().filter(|order| order.starts_with("late")).count();
    let granted = || shop.read(&["points-granted"]).len();
    until("all points are given", || (granted() >= 25 + completed_late).then_some(()));
    host.stop(Duration::from_secs(10));

    let host = shop.start();
    shop.send(&register(25));
    until("one more registration is seen", || (granted() >= 26 + completed_late).then_some(()));
    assert_eq!(granted(), 26 + completed_late, "history is seen once, and of early orders nothing");
    let points: i64 =
        host.journal().counters(Some(&"loyalty".into())).expect("they can be read").iter().map(|c| c.2).sum();
    let of_orders: i64 = all
        .iter()
        .filter(|o| o.order_id.starts_with("late") && ends.completed.contains_key(&o.order_id))
        .map(|o| o.amount_cents as i64 / 100)
        .sum();
    assert_eq!(points, 26 * 100 + of_orders);
    host.stop(Duration::from_secs(10));
}
