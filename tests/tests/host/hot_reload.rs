//! Plugins are files: dropped in, replaced, removed while sagas are under way. Embedded topics, in this process.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    time::{Duration, Instant},
};

use sagahost::host::Host;
use sagahost_operator::PluginAction;
use sagahost_saga::{Saga, history::What, id::Direction, input::Command};
use sagahost_sandbox::admission::digest;
use sagahost_tests::{
    built,
    events::tried,
    faulty::Death,
    operator::Operator,
    plugin_files::{await_version, await_view, changed, drop_in, line, version},
    shop::{PATIENCE, Shop, THREE},
    wait::until,
};
use sagahost_wire::Outgoing;

use crate::shops::{plugins, some_orders};

#[test]
fn a_plugin_is_replaced_again_and_again_under_load_and_nothing_is_lost_or_doubled() {
    const RELOADS: usize = 10;
    let shop = Shop::new(&THREE, "[watch]\nsettle = \"10ms\"\n");
    let orders = some_orders("o", 500);
    let versions = ["9.0.0", "9.1.0"].map(|number| (number, version("payment", number)));
    let host = shop.start();
    let mut portions = orders.chunks(orders.len() / RELOADS);
    for reload in 0..RELOADS {
        let (number, bytes) = &versions[reload % 2];
        shop.produce(portions.next().expect("there is a portion for each"));
        drop_in(&plugins(&shop), "payment.wasm", bytes);
        await_version(&host, "payment", number);
    }
    let ends = shop.await_ends(&orders, &Death::never(), PATIENCE);
    assert_eq!(ends.len(), orders.len());
    shop.assert_right(&orders, &*host.journal());
    let stats: Vec<u64> = versions
        .iter()
        .map(|(_, bytes)| {
            let digest = digest(bytes);
            let view = host.live().plugins();
            view.plugins.iter().find(|line| line.digest == *digest).map_or(0, |line| line.calls)
        })
        .collect();
    assert!(stats.iter().all(|calls| *calls > 0), "both versions served: {stats:?}");
    assert!(host.journal().letter_groups().expect("letters can be counted").is_empty());
    assert_eq!(host.stop(Duration::from_secs(10)), Default::default());
}

#[test]
fn a_plugin_that_is_dropped_in_serves_what_comes_from_then_on() {
    let shop = Shop::new(&["order", "payment"], "");
    let (early, late) = (some_orders("early", 5), some_orders("late", 30));
    let host = shop.start();
    shop.produce(&early);
    let end = Instant::now() + PATIENCE;
    while shop.read(&["payment-processed", "payment-failed"]).len() < early.len() {
        assert!(Instant::now() < end, "waited for payments");
        std::thread::sleep(Duration::from_millis(20));
    }
    built::copy(&["inventory"], &plugins(&shop));
    await_view(&host, "inventory", |view| view.plugins.iter().any(|line| line.name == "inventory"));
    shop.produce(&late);
    let ends = shop.await_ends(&late, &Death::never(), PATIENCE);
    let faults = ends.faults(&late);
    let ended_early = early.iter().filter(|order| ends.ended_ms.contains_key(&order.order_id)).count();
    assert_eq!(faults.len(), ended_early, "all of the late ones ended once: {faults:?}");
    assert!(ends.completed.keys().all(|order| order.starts_with("late")), "what was paid before had passed");
    host.stop(Duration::from_secs(10));
}

#[test]
fn whatever_is_dropped_in_the_version_before_serves_on_and_says_why() {
    let shop =
        Shop::new(&THREE, "[watch]\nsettle = \"500ms\"\nrescan = \"100ms\"\n[limits]\ncomponent-bytes-max = 1000000\n");
    let dir = plugins(&shop);
    let host = shop.start();
    let good = version("payment", "9.0.0");
    let before = line(&host, "payment").expect("payment serves").digest;
    let refused = |what: &str, text: &str| {
        let view = await_view(&host, what, |view| view.refused.iter().any(|report| report.to_string().contains(text)));
        let payment = view.plugins.iter().find(|line| line.name == "payment" && line.state != "stored");
        assert_eq!(payment.map(|line| &line.digest), Some(&before), "{what}");
    };
    drop_in(&dir, "payment.wasm", &good[..good.len() / 2]);
    refused("half a file", "it is no valid component");
    let note = line(&host, "payment").and_then(|line| line.note).unwrap_or_default();
    assert!(note.contains("refused"), "{note}");
    drop_in(&dir, "payment.wasm", b"not a plugin");
    refused("a text file", "it is a text file");
    drop_in(&dir, "payment.wasm", b"\0asm\x01\0\0\0");
    refused("a core module", "it is a core module");
    drop_in(&dir, "payment.wasm", b"");
    refused("an empty file", "it is empty");
    let component = |text: &str| wat::parse_str(text).expect("it is a component");
    let run = component(r#"(component (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#);
    drop_in(&dir, "payment.wasm", &run);
    refused("a component of another world", "it is a component of another world: it exports wasi:cli/run@0.2.0");
    let with_wasi = component(
        r#"(component
            (import "wasi:clocks/wall-clock@0.2.0" (instance))
            (instance $i) (export "sagahost:plugin/participant@0.1.0" (instance $i)))"#,
    );
    drop_in(&dir, "payment.wasm", &with_wasi);
    refused("a component that imports WASI", "it imports WASI, which plugins are not given");
    fs::remove_file(dir.join("payment.wasm")).expect("it is there");
    fs::create_dir(dir.join("payment.wasm")).expect("a directory can be made");
    refused("a directory of that name", "it is a directory");
    fs::remove_dir(dir.join("payment.wasm")).expect("it is empty");
    std::os::unix::fs::symlink("nowhere", dir.join("payment.wasm")).expect("a link can be made");
    refused("a link to nowhere", "it cannot be read");
    fs::remove_file(dir.join("payment.wasm")).expect("it is there");
    File::create(dir.join("payment.wasm")).and_then(|file| file.set_len(300 << 20)).expect("a sparse file can be made");
    refused("a file of 300 MB", "314572800 bytes, 1000000 are allowed");
    drop_in(&dir, "other.wasm", &version("payment", "9.9.9"));
    let aside = dir.with_file_name("aside");
    fs::rename(&dir, &aside).expect("the directory can be moved");
    refused("a directory that is gone", "it does not exist");
    let orders = some_orders("o", 50);
    shop.produce(&orders);
    let ends = shop.await_ends(&orders, &Death::never(), PATIENCE);
    assert_eq!(ends.faults(&orders), Vec::<String>::new(), "they serve on without a directory");

    fs::create_dir(&dir).expect("a directory can be made");
    for name in ["order", "inventory"] {
        let file = format!("{name}.wasm");
        drop_in(&dir, &file, &fs::read(aside.join(&file)).expect("it is there"));
    }
    let mut file = File::create(dir.join("payment.wasm")).expect("a file can be made");
    for piece in good.chunks(good.len() / 5 + 1) {
        file.write_all(piece).expect("it can be written");
        std::thread::sleep(Duration::from_millis(30));
    }
    drop(file);
    await_version(&host, "payment", "9.0.0");
    assert_eq!(host.live().plugins().refused, []);
    shop.assert_right(&orders, &*host.journal());
    host.stop(Duration::from_secs(10));
}

/// SEMANTICS.md, race 21.
#[test]
fn a_plugin_that_is_removed_parks_its_events_and_goes_on_when_it_is_back() {
    let shop = Shop::new(&THREE, "");
    let dir = plugins(&shop);
    let orders = some_orders("o", 60);
    let host = shop.start();
    fs::remove_file(dir.join("inventory.wasm")).expect("it is there");
    await_view(&host, "the pause", |view| {
        view.plugins.iter().any(|line| line.name == "inventory" && line.state == "paused")
    });
    shop.produce(&orders);
    let end = Instant::now() + PATIENCE;
    while shop.read(&["payment-processed", "payment-failed"]).len() < orders.len() {
        assert!(Instant::now() < end, "waited for payments");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(shop.ends().completed.is_empty());
    assert!(host.journal().letter_groups().expect("letters can be counted").is_empty(), "nothing is given up");
    built::copy(&["inventory"], &dir);
    let ends = shop.await_ends(&orders, &Death::never(), PATIENCE);
    assert_eq!(ends.faults(&orders), Vec::<String>::new());
    shop.assert_right(&orders, &*host.journal());
    host.stop(Duration::from_secs(10));
}

#[test]
fn files_that_change_together_are_switched_together_or_not_at_all() {
    let shop = Shop::new(&THREE, "[watch]\nsettle = \"300ms\"\n");
    let dir = plugins(&shop);
    let host = shop.start();
    let versions = |host: &Host| ["order", "payment"].map(|name| line(host, name).map(|line| line.version));
    let before = versions(&host);
    drop_in(&dir, "order.wasm", &version("order", "9.0.0"));
    drop_in(&dir, "payment.wasm", b"not a plugin");
    await_view(&host, "the refusal", |view| !view.refused.is_empty());
    assert_eq!(versions(&host), before, "the good one waits for the bad one");
    let note = line(&host, "order").and_then(|line| line.note).unwrap_or_default();
    assert!(note.contains("waits for one that changed with it"), "{note}");
    // The same release again, as a deployment that retries does: it waits on.
    drop_in(&dir, "order.wasm", &version("order", "9.0.0"));
    drop_in(&dir, "payment.wasm", b"not a plugin");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(versions(&host), before, "the good one waits on for the bad one");
    drop_in(&dir, "payment.wasm", &version("payment", "9.0.0"));
    await_version(&host, "payment", "9.0.0");
    await_version(&host, "order", "9.0.0");

    drop_in(&dir, "payment-9.1.0.wasm", &version("payment", "9.1.0"));
    let view = await_view(&host, "the second of a name", |view| !view.refused.is_empty());
    assert!(view.refused[0].to_string().contains("is a plugin named payment, too; that one serves"));
    assert_eq!(line(&host, "payment").map(|line| line.version), Some("9.0.0".to_owned()));
    fs::remove_file(dir.join("payment.wasm")).expect("it is there");
    await_version(&host, "payment", "9.1.0");
    host.stop(Duration::from_secs(10));
}

/// SEMANTICS.md, race 16: a call that is running when another version takes over ends on the code that it began on, and is
/// the only one.
#[test]
fn a_call_that_runs_across_a_switch_ends_on_the_code_that_it_began_on() {
    let shop = Shop::new(&["hostile"], "[watch]\nsettle = \"10ms\"\n[limits]\nbudget-ms = 60000\n");
    let host = shop.start();
    let operator = Operator::of(&host);
    let mut serving = line(&host, "hostile").expect("it serves").version;
    let mut across = 0;
    // How long the same work takes, and a switch beside it, is the machine's affair.
    let mut busy = 150;
    for round in 0..12 {
        let (saga, next) = (format!("slow-{round}"), format!("9.{}.0", round % 2));
        shop.send(&tried(&saga, &format!("busy:{busy}"), "none"));
        std::thread::sleep(Duration::from_millis(30));
        drop_in(&plugins(&shop), "hostile.wasm", &version("hostile", &next));
        await_version(&host, "hostile", &next);
        let running = operator.saga(&saga).is_none();
        let done = operator.await_saga(&saga, "done", |saga| saga.steps[0].state == "done");
        let by: Vec<_> =
            done.timeline.iter().filter(|line| line.what == "attempt").map(|line| line.version.clone()).collect();
        assert_eq!(by.len(), 1, "one attempt: {by:?}");
        // One that had not begun yet is the next version's.
        across += usize::from(running && by[0].as_deref() == Some(&serving));
        busy *= if running { 1 } else { 2 };
        serving = next;
        if across == 2 {
            break;
        }
    }
    assert_eq!(across, 2, "calls that ran while another version took over");
    let status = host.live().status();
    assert_eq!(status.calls, status.events, "none of them was called again");
    host.stop(Duration::from_secs(10));
}

/// SEMANTICS.md, race 16: undone by a version that reads the data, the new one where it can.
#[test]
fn what_one_version_did_another_undoes_only_if_it_reads_the_data() {
    let undone_by = |reads: Vec<u32>| {
        let shop = Shop::new(&["order", "payment"], "");
        let order = some_orders("o", 1);
        let id = order[0].order_id.as_str();
        let host = shop.start();
        let before = line(&host, "payment").expect("it serves").version;
        shop.produce(&order);
        let end = Instant::now() + PATIENCE;
        while shop.read(&["payment-processed"]).is_empty() {
            assert!(Instant::now() < end, "waited for the payment");
            std::thread::sleep(Duration::from_millis(20));
        }
        let newer = changed("payment", |manifest| {
            manifest.version = "9.0.0".to_owned();
            (manifest.data_format, manifest.reads) = (2, reads);
        });
        drop_in(&plugins(&shop), "payment.wasm", &newer);
        await_version(&host, "payment", "9.0.0");
        let cancel = Command::Cancel { by: "ann".to_owned(), reason: "a test".to_owned() };
        host.live().command(&id.into(), cancel).expect("it is taken");
        let end = Instant::now() + PATIENCE;
        while shop.read(&["payment-refunded"]).is_empty() {
            assert!(Instant::now() < end, "waited for the refund");
            std::thread::sleep(Duration::from_millis(20));
        }
        shop.await_ends(&order, &Death::never(), PATIENCE);
        shop.assert_right(&order, &*host.journal());
        let row = host.journal().saga(&id.into()).expect("it reads").expect("the saga is there");
        let saga = Saga::decode(&row.bytes).expect("its record can be read");
        let undone = saga.history().iter().find_map(|entry| match &entry.what {
            What::Attempt { participant, direction: Direction::Undo, version, .. }
                if participant.as_str() == "payment" =>
            {
                Some(version.to_string())
            }
            _ => None,
        });
        host.stop(Duration::from_secs(10));
        (before, undone.expect("payment was undone"))
    };
    let (before, by) = undone_by(vec![2]);
    assert_eq!(by, before, "the new version cannot read what the one before wrote");
    assert_eq!(undone_by(vec![1, 2]).1, "9.0.0");
}

/// How config maps and release directories change files: the link that stands in the directory stays as it is.
#[test]
fn a_link_that_is_turned_to_another_release_is_a_change() {
    let shop = Shop::new(&["order", "payment"], "[watch]\nsettle = \"50ms\"\nrescan = \"100ms\"\n");
    let dir = plugins(&shop);
    let releases = shop.dir.path().join("releases");
    for release in ["1", "2"] {
        let release = releases.join(release);
        fs::create_dir_all(&release).expect("a directory can be made");
        let bytes = version("payment", &format!("9.{}.0", release.file_name().unwrap_or_default().to_string_lossy()));
        fs::write(release.join("payment.wasm"), bytes).expect("a file can be written");
    }
    let link = |release: &str| {
        let (new, current) = (releases.join("new"), releases.join("current"));
        std::os::unix::fs::symlink(release, &new).expect("a link can be made");
        fs::rename(new, current).expect("a link can be renamed");
    };
    link("1");
    fs::remove_file(dir.join("payment.wasm")).expect("it is there");
    std::os::unix::fs::symlink("../releases/current/payment.wasm", dir.join("payment.wasm"))
        .expect("a link can be made");
    let host = shop.start();
    await_version(&host, "payment", "9.1.0");
    link("2");
    await_version(&host, "payment", "9.2.0");
    host.stop(Duration::from_secs(10));
}

/// What a version no longer subscribes to is not read meanwhile: the version before it finds it all.
#[test]
fn events_of_a_subscription_that_was_dropped_wait_for_one_that_has_it() {
    let shop = Shop::new(&["order", "payment"], "[watch]\nsettle = \"10ms\"\n");
    let dir = plugins(&shop);
    let host = shop.start();
    let deaf = changed("payment", |manifest| {
        manifest.version = "9.0.0".to_owned();
        manifest.subscriptions[0].kind = "OrderAnswered".to_owned();
        manifest.subscriptions[0].example = None;
    });
    drop_in(&dir, "payment.wasm", &deaf);
    await_version(&host, "payment", "9.0.0");
    drop_in(
        &dir,
        "order.wasm",
        &changed("order", |manifest| {
            manifest.version = "9.0.0".to_owned();
            manifest.subscriptions.retain(|subscription| subscription.kind != "OrderCreated");
            manifest.subscriptions.iter_mut().for_each(|subscription| subscription.after.clear());
        }),
    );
    await_version(&host, "order", "9.0.0");
    // A round of the reader, who learns of it.
    std::thread::sleep(Duration::from_millis(500));
    let orders = some_orders("o", 20);
    shop.produce(&orders);
    std::thread::sleep(Duration::from_secs(1));
    assert!(host.journal().letter_groups().expect("letters can be counted").is_empty());
    drop_in(&dir, "payment.wasm", &version("payment", "9.1.0"));
    await_version(&host, "payment", "9.1.0");
    until("each order is paid or declined", || {
        (shop.read(&["payment-processed", "payment-failed"]).len() == orders.len()).then_some(())
    });
    host.stop(Duration::from_secs(10));
}

/// Two switches in one round of the reader: the topics of the first are new to the second, too.
#[test]
fn a_topic_is_read_once_however_fast_switches_follow_each_other() {
    let shop = Shop::new(&THREE, "[watch]\nsettle = \"10ms\"\n");
    let dir = plugins(&shop);
    let host = shop.start();
    let pause_and_resume = || {
        let pause = PluginAction::Pause { by: "ann".to_owned(), reason: "a look".to_owned() };
        host.live().change_plugin(&"payment".into(), pause).expect("it pauses");
        host.live()
            .change_plugin(&"payment".into(), PluginAction::Resume { by: "ann".to_owned() })
            .expect("it goes on");
    };
    for round in 0..4 {
        drop_in(&dir, "loyalty.wasm", &version("loyalty", &format!("9.{round}.0")));
        await_version(&host, "loyalty", &format!("9.{round}.0"));
        pause_and_resume();
        drop_in(&dir, "payment.wasm", &version("payment", &format!("9.{round}.0")));
        await_version(&host, "payment", &format!("9.{round}.0"));
    }
    fs::remove_file(dir.join("loyalty.wasm")).expect("it is there");
    await_view(&host, "the pause", |view| {
        view.plugins.iter().any(|line| line.name == "loyalty" && line.state == "paused")
    });
    let record = |number: usize| Outgoing {
        topic: "customer-registered".into(),
        key: Some(format!("c-{number}").into_bytes()),
        value: Some(format!(r#"{{"customerId": "c-{number}"}}"#).into_bytes()),
        headers: Vec::new(),
    };
    // Behind this the switch is over, and the reader has been told by the time these have ended.
    pause_and_resume();
    let mut orders = some_orders("o", 10);
    shop.produce(&orders);
    shop.await_ends(&orders, &Death::never(), PATIENCE);
    let records: Vec<Outgoing> = (0..8).map(record).collect();
    shop.topics().offer_all(&records).expect("records can be appended");
    let more = some_orders("p", 10);
    shop.produce(&more);
    orders.extend(more);
    shop.await_ends(&orders, &Death::never(), PATIENCE);
    // Each record of each topic that is read, once; what is paused is not read.
    let positions = host.journal().positions().expect("positions can be read");
    let topics: BTreeSet<&str> = positions.keys().map(|partition| &*partition.topic).collect();
    assert!(topics.contains("customer-registered"), "it was read before: {topics:?}");
    let read: Vec<&str> = topics.into_iter().filter(|topic| *topic != "customer-registered").collect();
    let (records, status) = until("all records are read", || {
        let (status, there) = (host.live().status(), shop.read(&read).len() as u64);
        (status.records >= there).then_some((there, status))
    });
    assert_eq!(status.records, records);
    assert_eq!(status.events, orders.len() as u64);
    host.stop(Duration::from_secs(10));
}
