//! A version that replaced another is watched for a while: it is taken back where it fails more often, and stays where it
//! does not. Embedded topics, in this process.

use std::{fs, ops::Range, path::Path, time::Duration};

use sagahost::host::Host;
use sagahost_operator::PluginAction;
use sagahost_tests::{
    events::tried,
    faulty::Death,
    operator::attempts,
    plugin_files::{await_state, await_version, await_view, drop_in, line, panics, version},
    shop::Shop,
    wait::until,
};
use sagahost_wire::Outgoing;

use crate::shops::{plugins, started};

fn hostile(number: usize) -> Outgoing {
    Outgoing {
        topic: "hostile-tried".into(),
        key: Some(format!("h-{number}").into_bytes()),
        value: Some(format!(r#"{{"id": "h-{number}"}}"#).into_bytes()),
        headers: Vec::new(),
    }
}

const PATIENT: &str = "[watch]\nsettle = \"10ms\"\n[plugin.hostile.on.HostileTried]\nretry = { attempts-max = 1000, base = \"300ms\", cap = \"1s\" }\n";

/// A version that panics on every tenth event, dropped in under load: what it could not do the version before does.
#[test]
fn a_version_that_fails_is_rolled_back_by_itself_and_stays_out() {
    let shop = Shop::new(&["hostile"], PATIENT);
    let dir = plugins(&shop);
    let death = Death::never();
    let host = shop.start_dying(&death);
    let send = |numbers: Range<usize>| {
        let records: Vec<Outgoing> = numbers.map(hostile).collect();
        shop.topics().offer_all(&records).expect("records can be appended");
    };
    let done = || shop.read(&["hostile-done"]).len();
    send(0..20);
    until("the first ones are done", || (done() >= 20).then_some(()));
    let good = line(&host, "hostile").expect("it serves");
    drop_in(&dir, "hostile.wasm", &panics("9.0.0"));
    await_version(&host, "hostile", "9.0.0");
    // That the journal takes it at the third time only changes nothing.
    death.refuse_plugins(2);
    let mut sent = 20;
    let view = until("it is rolled back", || {
        // No faster than they are done, but for the tenth that fails.
        if done() + sent / 5 >= sent {
            send(sent..sent + 20);
            sent += 20;
        }
        let view = host.live().plugins();
        view.plugins.iter().any(|line| line.version == "9.0.0" && line.state == "quarantined").then_some(view)
    });
    let back = view.plugins.iter().find(|line| line.state == "serving").expect("a version serves");
    assert_eq!(back.digest, good.digest);
    assert_eq!(death.refusals_left(), 0);
    let deeds = host.journal().plugin_history(&"hostile".into(), 10).expect("deeds can be read");
    assert_eq!(deeds.iter().filter(|deed| deed.what.starts_with("rolled back by itself")).count(), 1, "{deeds:?}");
    let report = view.refused.first().expect("the file is refused").to_string();
    assert!(report.contains("this version is in quarantine: rolled back by itself"), "{report}");
    assert!(report.contains("sagahost plugins admit hostile"), "{report}");
    send(sent..sent + 100);
    sent += 100;
    until("everything is done, by one version or the other", || (done() >= sent).then_some(()));
    assert_eq!(done(), sent);
    assert_eq!(host.journal().letter_groups().expect("letters can be counted"), []);
    let failed = host.live().plugins().plugins.iter().find(|line| line.version == "9.0.0").map(|line| line.failures);
    assert!(failed >= Some(3), "it served, and failed: {failed:?}");
    host.stop(Duration::from_secs(10));

    let host = shop.start();
    assert_eq!(line(&host, "hostile").map(|line| line.digest), Some(good.digest.clone()), "the file stays out");
    let hostile = "hostile".into();
    let change = |action| host.live().change_plugin(&hostile, action);
    change(PluginAction::Admit { by: "ann".to_owned() }).expect("a person may admit it");
    assert_eq!(
        line(&host, "hostile").map(|line| (line.version, line.state)),
        Some(("9.0.0".into(), "probation".into()))
    );
    let rollback = PluginAction::Rollback { by: "ann".to_owned(), reason: "it still fails".to_owned() };
    change(rollback).expect("a person may bring the other version back");
    assert_eq!(line(&host, "hostile").map(|line| line.digest), Some(good.digest));
    let refused = change(PluginAction::Rollback { by: "ann".to_owned(), reason: "further".to_owned() });
    assert!(refused.is_err_and(|why| why.text.contains("no other version of plugin hostile is stored")));
    host.stop(Duration::from_secs(10));
}

/// Sends events until that version is in quarantine. Returns how many were sent.
fn until_rolled_back(shop: &Shop, host: &Host, number: &str, from: usize) -> usize {
    let mut sent = from;
    until("it is rolled back", || {
        let records: Vec<Outgoing> = (sent..sent + 10).map(hostile).collect();
        shop.topics().offer_all(&records).expect("records can be appended");
        sent += 10;
        let view = host.live().plugins();
        view.plugins.iter().any(|line| line.version == number && line.state == "quarantined").then_some(())
    });
    sent
}

/// Its file was gone for a moment, or it came while no host ran: it is on probation all the same.
#[test]
fn a_version_that_did_not_come_in_place_of_a_file_is_on_probation_too() {
    let shop = Shop::new(&["hostile"], PATIENT);
    let dir = plugins(&shop);
    let host = shop.start();
    let good = line(&host, "hostile").expect("it serves").digest;
    fs::remove_file(dir.join("hostile.wasm")).expect("it is there");
    await_view(&host, "the pause", |view| view.plugins.iter().any(|line| line.state == "paused"));
    drop_in(&dir, "hostile.wasm", &panics("9.0.0"));
    await_version(&host, "hostile", "9.0.0");
    let sent = until_rolled_back(&shop, &host, "9.0.0", 0);
    assert_eq!(line(&host, "hostile").map(|line| line.digest), Some(good.clone()));
    host.stop(Duration::from_secs(10));

    drop_in(&dir, "hostile.wasm", &panics("9.1.0"));
    let host = shop.start();
    let now = line(&host, "hostile").map(|line| (line.version, line.state));
    assert_eq!(now, Some(("9.1.0".to_owned(), "probation".to_owned())));
    host.stop(Duration::from_secs(10));
    // The window was not over when that host ended.
    let host = shop.start();
    let sent = until_rolled_back(&shop, &host, "9.1.0", sent);
    assert_eq!(line(&host, "hostile").map(|line| line.digest), Some(good));
    until("all is done", || (shop.read(&["hostile-done"]).len() >= sent).then_some(()));
    assert_eq!(host.journal().letter_groups().expect("letters can be counted"), []);
    host.stop(Duration::from_secs(10));
}

#[test]
fn a_version_in_quarantine_stands_in_no_other_versions_way() {
    let shop = Shop::new(&["hostile"], PATIENT);
    let dir = plugins(&shop);
    let host = shop.start();
    fs::remove_file(dir.join("hostile.wasm")).expect("it is there");
    drop_in(&dir, "hostile-9.0.0.wasm", &panics("9.0.0"));
    await_version(&host, "hostile", "9.0.0");
    until_rolled_back(&shop, &host, "9.0.0", 0);
    drop_in(&dir, "hostile-9.1.0.wasm", &version("hostile", "9.1.0"));
    await_version(&host, "hostile", "9.1.0");
    // A copy of the file that serves takes nothing over.
    drop_in(&dir, "a-copy.wasm", &version("hostile", "9.1.0"));
    let view = await_view(&host, "the copy", |view| view.refused.len() == 2);
    assert!(view.refused[0].file.ends_with("a-copy.wasm"), "{}", view.refused[0]);
    assert!(view.refused[0].to_string().contains("hostile-9.1.0.wasm is a plugin named hostile, too; that one serves"));
    host.stop(Duration::from_secs(10));
}

/// One attempt each, so that a version fails exactly where it is told to.
fn watched(watch: &str) -> String {
    format!(
        "[watch]\nsettle = \"10ms\"\n{watch}[plugin.hostile.on.HostileTried]\n\
         retry = {{ attempts-max = 1000, base = \"1h\", cap = \"1h\" }}\n"
    )
}

fn line_of(host: &Host, number: &str) -> (String, u64, u64) {
    let view = host.live().plugins();
    let line = view.plugins.into_iter().find(|line| line.version == number).expect("it is known");
    (line.state, line.calls, line.failures)
}

/// Until that version has done all of these.
fn feed(shop: &Shop, host: &Host, number: &str, numbers: Range<usize>) {
    let calls = line_of(host, number).1 + numbers.len() as u64;
    let records: Vec<Outgoing> = numbers.map(hostile).collect();
    shop.topics().offer_all(&records).expect("records can be appended");
    until("all were called", || (line_of(host, number).1 >= calls).then_some(()));
}

/// A version that fails on every tenth event takes over from one that does so too, or never.
fn taken_over_from(before: &str, watch: &str) -> (Shop, Host) {
    let shop = Shop::new(&["hostile"], &watched(watch));
    let bytes = if before == "8.0.0" { panics("8.0.0") } else { version("hostile", before) };
    drop_in(&plugins(&shop), "hostile.wasm", &bytes);
    let host = shop.start();
    feed(&shop, &host, before, 1..31);
    drop_in(&plugins(&shop), "hostile.wasm", &panics("9.0.0"));
    await_version(&host, "hostile", "9.0.0");
    (shop, host)
}

/// It was looked at several times by then.
fn stays(host: &Host, number: &str, states: &[&str]) {
    let end = std::time::Instant::now() + Duration::from_millis(500);
    while std::time::Instant::now() < end {
        let (state, calls, failures) = line_of(host, number);
        assert!(states.contains(&&*state), "{state} after {failures} failures of {calls} calls");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the version before could not do either is no reason to bring it back; and behind its probation a version stays.
#[test]
fn a_version_that_fails_as_often_as_the_one_before_stays() {
    let (shop, host) = taken_over_from("8.0.0", "probation = \"2s\"\n");
    feed(&shop, &host, "9.0.0", 31..61);
    assert_eq!(line_of(&host, "9.0.0").2, 3, "ten percent of thirty, as before");
    stays(&host, "9.0.0", &["probation", "serving"]);
    await_state(&host, "hostile", "serving");
    let worse: Vec<Outgoing> = (7..17).map(|tens| hostile(10 * tens)).collect();
    shop.topics().offer_all(&worse).expect("records can be appended");
    until("they have failed", || (line_of(&host, "9.0.0").2 == 13).then_some(()));
    stays(&host, "9.0.0", &["serving"]);
    host.stop(Duration::from_secs(10));
}

#[test]
fn how_many_failures_are_too_many_is_configured() {
    // Of thirty calls three fail, and of the version before none.
    for (watch, expected) in [
        ("", "quarantined"),
        ("failures-min = 4\n", "probation"),
        ("failures-percent-more = 10\n", "probation"),
        ("failures-percent-more = 9\n", "quarantined"),
    ] {
        let (shop, host) = taken_over_from("8.1.0", watch);
        feed(&shop, &host, "9.0.0", 32..41);
        feed(&shop, &host, "9.0.0", 41..62);
        match expected {
            "quarantined" => drop(await_state(&host, "hostile", "quarantined")),
            _ => stays(&host, "9.0.0", &[expected]),
        }
        host.stop(Duration::from_secs(10));
    }
}

/// What changed together is taken back together: they may need each other.
#[test]
fn what_changed_together_is_rolled_back_together() {
    let shop = Shop::new(&["hostile", "order"], &watched("failures-min = 1\n"));
    let dir = plugins(&shop);
    let host = shop.start();
    // One change: both are there before either has stood still.
    fn together(dir: &Path, files: [(&str, Vec<u8>); 2]) {
        files
            .iter()
            .for_each(|(name, bytes)| fs::write(dir.join(format!(".{name}")), bytes).expect("it can be written"));
        files
            .iter()
            .for_each(|(name, _)| fs::rename(dir.join(format!(".{name}")), dir.join(name)).expect("it is there"));
    }
    together(&dir, [("hostile.wasm", panics("9.0.0")), ("order.wasm", version("order", "9.0.0"))]);
    await_version(&host, "hostile", "9.0.0");
    await_version(&host, "order", "9.0.0");
    feed(&shop, &host, "9.0.0", 10..11);
    let view = await_view(&host, "both are back", |view| {
        view.plugins.iter().filter(|line| line.version == "9.0.0" && line.state == "quarantined").count() == 2
    });
    let back: Vec<_> = view.plugins.iter().filter(|line| line.state == "serving").map(|line| &*line.version).collect();
    assert_eq!(back, ["0.1.0", "0.1.0"]);
    let why = host.journal().plugin_history(&"order".into(), 10).expect("deeds can be read");
    assert!(why.iter().any(|deed| deed.what.contains("rolled back with hostile")), "{why:?}");
    host.stop(Duration::from_secs(10));
}

/// A version begins with a budget of its own: what the one before has spent is not its debt.
#[test]
fn each_version_has_all_its_attempts() {
    let more = "[watch]\nsettle = \"10ms\"\nprobation = \"0s\"\n[plugin.hostile.on.HostileTried]\n\
                retry = { attempts-max = 4, base = \"1h\", cap = \"1h\" }\n";
    let (shop, host, operator) = started(&["hostile"], more);
    let tried_again = |saga: &str, times: Range<u32>| {
        for attempt in times {
            operator.await_saga(saga, "waiting", |saga| {
                saga.steps[0].attempts == attempt && saga.steps[0].state == "retrying"
            });
            assert!(operator.retry(saga).done);
        }
    };
    shop.send(&tried("s-1", "panic-until:7", "none"));
    shop.send(&tried("s-2", "panic-until:9", "none"));
    tried_again("s-1", 1..3);
    tried_again("s-2", 1..3);
    for saga in ["s-1", "s-2"] {
        operator.await_saga(saga, "waiting", |saga| saga.steps[0].attempts == 3 && saga.steps[0].state == "retrying");
    }
    drop_in(&plugins(&shop), "hostile.wasm", &version("hostile", "9.0.0"));
    await_version(&host, "hostile", "9.0.0");
    // Three by the first version, four by this one.
    tried_again("s-1", 3..7);
    let done = operator.await_saga("s-1", "done", |saga| saga.steps[0].state == "done");
    assert_eq!(attempts(&done, "hostile").len(), 7);
    assert!(operator.letters().is_empty());
    tried_again("s-2", 3..7);
    let spent = operator.await_status("s-2", "compensated");
    assert_eq!(attempts(&spent, "hostile").iter().filter(|ran| ran.starts_with("handle")).count(), 7, "and no more");
    assert_eq!(operator.letters().len(), 1);
    host.stop(Duration::from_secs(10));
}
