//! What operators type, by the binary itself, against a host that runs. Invariant of all tests: what a command says is so
//! in the host, and its exit code says how it ended.

use std::fs;

use sagahost_sandbox::pack;
use sagahost_tests::{
    binary::{Ended, Site},
    plugin_files::{as_built, drop_in, version},
    wait::until,
};
use serde_json::Value;

const CONFIG: &str = "app = \"shop\"\n[watch]\nsettle = \"10ms\"\nrescan = \"100ms\"\n\
                      [plugin.hostile.on.HostileTried]\non-dead-letter = \"block\"\n";

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// Runs a command that ends with this code.
#[track_caller]
fn run(site: &Site, line: &str, code: i32) -> Ended {
    let words: Vec<String> = line.split(' ').map(|word| word.replace('_', " ")).collect();
    let ended = site.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ended.code, code, "{line}: {ended:?}");
    ended
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

fn emit(site: &Site, saga: &str, fault: &str, undo_fault: &str) {
    let data = format!(r#"{{"id":"{saga}","fault":"{fault}","undoFault":"{undo_fault}"}}"#);
    let ended = site.run(&["emit", "HostileTried", "--saga", saga, "--data", &data]);
    assert_eq!(ended.code, 0, "{ended:?}");
}

fn await_shown(site: &Site, saga: &str, status: &str) -> Value {
    until(&format!("{saga} is {status}"), || {
        let shown = site.run(&["sagas", "show", saga, "--json"]);
        let shown: Value = serde_json::from_str(&shown.out).unwrap_or_default();
        let done = shown["steps"].as_array().is_some_and(|steps| steps.iter().any(|step| step["state"] == status));
        (shown["status"] == status || done).then_some(shown)
    })
}

#[test]
fn sagas_are_listed_cancelled_and_settled_by_hand() {
    let site = Site::new(&["hostile"], CONFIG);
    let host = site.start();
    for (saga, undo_fault) in [("s-1", "none"), ("s-2", "stuck"), ("s-3", "none")] {
        emit(&site, saga, "none", undo_fault);
        await_shown(&site, saga, "done");
    }
    says(&run(&site, "sagas cancel s-1 --reason not_wanted --by anna", 0).out, &["cancelled"]);
    let cancelled = await_shown(&site, "s-1", "compensated");
    says(&cancelled["cause"].to_string(), &["by anna: not wanted"]);
    says(&run(&site, "sagas cancel s-1 --reason again", 0).out, &["the saga is compensated"]);

    run(&site, "sagas cancel s-2 --reason not_wanted", 0);
    let stuck = await_shown(&site, "s-2", "needs-operator");
    says(&stuck["next"].to_string(), &["sagas retry s-2", "sagas resolve s-2"]);
    let ids = |line: &str| -> Vec<String> {
        let page = json(&run(&site, line, 0));
        let sagas = page["sagas"].as_array().expect("a list").iter();
        sagas.map(|saga| saga["id"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(ids("sagas list --json"), ["s-3", "s-2", "s-1"], "newest first");
    assert_eq!(ids("sagas list --status needs-operator --json"), ["s-2"]);
    assert_eq!(ids("sagas list --limit 1 --json"), ["s-3"]);
    let text = run(&site, "sagas list --limit 2", 0).out;
    says(&text, &["s-3", "running", "s-2", "needs-operator", "--before"]);
    let next = text.split("--before ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("the next page");
    assert_eq!(ids(&format!("sagas list --json --before {next}")), ["s-1"]);

    run(&site, "sagas resolve s-2 --reason why", 2);
    run(&site, "sagas resolve s-2 --accept --participant nobody --reason why", 5);
    says(&await_shown(&site, "s-2", "needs-operator")["status"].to_string(), &["needs-operator"]);
    run(&site, "sagas resolve s-2 --accept --participant hostile --reason written_off --by ben", 0);
    let settled = await_shown(&site, "s-2", "compensated");
    assert_eq!(settled["steps"][0]["state"], "accepted");
    says(&settled["timeline"].to_string(), &["ben", "written off"]);
    run(&site, "sagas resolve s-2 --undone --reason again", 5);
    run(&site, "sagas show nowhere", 3);
    assert_eq!(host.stop(), 0);
}

#[test]
fn dead_letters_are_tried_dry_redriven_and_discarded() {
    let site = Site::new(&["hostile"], CONFIG);
    let host = site.start();
    for saga in ["s-1", "s-2"] {
        emit(&site, saga, "invalid", "none");
        await_shown(&site, saga, "needs-operator");
    }
    says(&run(&site, "dead-letters list", 0).out, &["HOSTILE", "hostile", "2"]);
    let each = |line: &str| json(&run(&site, line, 0)).as_array().expect("a list").clone();
    let letters = each("dead-letters list --each --json");
    assert_eq!(letters.len(), 2);
    let before = each("dead-letters list --each --json");
    let dry = run(&site, "dead-letters redrive --all --dry-run", 0).out;
    says(&dry, &["s-1", "s-2"]);
    let attempts = |saga: &str| {
        let shown = json(&run(&site, &format!("sagas show {saga} --json"), 0));
        shown["timeline"].as_array().expect("a list").iter().filter(|line| line["what"] == "attempt").count()
    };
    assert_eq!((each("dead-letters list --each --json"), attempts("s-1")), (before, 1), "nothing has happened");

    run(&site, "dead-letters redrive --saga s-1", 0);
    until("it is tried again", || (attempts("s-1") == 2).then_some(()));
    assert_eq!(attempts("s-2"), 1, "the other was not asked for");
    assert_eq!(each("dead-letters list --each --json").len(), 2, "it fails again: the same letter is open");
    let key = letters.iter().find(|letter| letter["saga"] == "s-2").and_then(|letter| letter["key"].as_str());
    let key = key.expect("it has a key").to_owned();
    let discarded = site.run(&["dead-letters", "discard", &key, "--reason", "of no use"]);
    assert_eq!(discarded.code, 0, "{discarded:?}");
    says(&discarded.out, &["the saga still waits"]);
    assert_eq!(each("dead-letters list --each --json").len(), 1);
    assert_eq!(each("dead-letters list --each --closed --json").len(), 2);
    run(&site, "dead-letters redrive no-such-letter", 3);
    run(&site, "dead-letters redrive --code NONE", 3);
    assert_eq!(host.stop(), 0);
}

/// Name → version and state.
fn plugin(site: &Site, state: &str) -> Option<String> {
    let view = json(&site.run(&["plugins", "list", "--json"]));
    let lines = view["plugins"].as_array().expect("a list").iter();
    lines.clone().find(|line| line["state"] == state).and_then(|line| line["version"].as_str().map(str::to_owned))
}

fn await_plugin(site: &Site, state: &str, version: &str) {
    until(&format!("{version} is {state}"), || (plugin(site, state).as_deref() == Some(version)).then_some(()));
}

#[test]
fn a_plugin_is_paused_resumed_rolled_back_admitted_and_retired() {
    let site = Site::new(&["hostile"], CONFIG);
    let host = site.start();
    run(&site, "plugins pause hostile --reason a_look --by anna", 0);
    await_plugin(&site, "paused", "0.1.0");
    says(&run(&site, "plugins list", 0).out, &["paused by anna: a look"]);
    emit(&site, "s-1", "none", "none");
    run(&site, "plugins resume hostile", 0);
    await_shown(&site, "s-1", "done");
    says(&site.run(&["plugins", "resume", "hostile"]).err, &["is not paused by an operator"]);

    drop_in(&site.file("plugins"), "hostile.wasm", &version("hostile", "9.0.0"));
    await_plugin(&site, "probation", "9.0.0");
    run(&site, "plugins rollback hostile --reason slow --by ben", 0);
    await_plugin(&site, "quarantined", "9.0.0");
    assert_eq!(plugin(&site, "serving").as_deref(), Some("0.1.0"));
    says(&run(&site, "plugins list", 1).out, &["quarantine", "slow"]);
    run(&site, "plugins admit hostile --by ben", 0);
    await_plugin(&site, "probation", "9.0.0");
    says(
        &run(&site, "plugins show hostile", 0).out,
        &["9.0.0", "rolled back by ben: slow", "let out of quarantine by ben"],
    );

    says(&run(&site, "plugins store hostile", 0).out, &["last", "s-1"]);
    let entries = |line: &str| run(&site, line, 0).out.matches("s-1").count();
    assert_eq!(entries("plugins store hostile --prefix la"), 1);
    assert_eq!(entries("plugins store hostile --after last"), 0);
    says(&run(&site, "plugins counters hostile", 0).out, &["tokens", "999999"]);
    let chart = run(&site, "plugins graph --mermaid", 0).out;
    says(&chart, &["flowchart", "hostile", "HostileTried", "HostileDone"]);
    says(&run(&site, "plugins graph", 0).out, &["hostile", "HostileTried"]);

    says(&site.run(&["plugins", "retire", "hostile", "--reason", "over"]).err, &["remove it first"]);
    fs::remove_file(site.file("plugins/hostile.wasm")).unwrap();
    await_plugin(&site, "paused", "9.0.0");
    run(&site, "sagas cancel s-1 --reason over", 0);
    await_shown(&site, "s-1", "compensated");
    run(&site, "plugins retire hostile --reason over --by anna", 0);
    await_plugin(&site, "retired", "9.0.0");
    assert_eq!(host.stop(), 0);
}

/// (That what it packs serves is shown with the plugin in C.)
#[test]
fn what_carries_a_manifest_already_is_not_packed_again() {
    let site = Site::new(&["order"], CONFIG);
    let manifest = pack::manifest_of(&as_built("order")).unwrap();
    fs::write(site.file("order.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    let refused = run(&site, "plugins pack plugins/order.wasm --manifest order.json --out x.wasm", 1);
    says(&refused.err, &["has a manifest already"]);
    assert!(!site.file("x.wasm").exists());
}

#[test]
fn a_partition_that_is_held_is_listed_and_goes_on_from_where_it_is_told() {
    let site = Site::new(&["hostile"], CONFIG);
    let host = site.start();
    for number in 0..3 {
        emit(&site, &format!("s-{number}"), "none", "none");
        await_shown(&site, &format!("s-{number}"), "done");
    }
    assert_eq!(host.stop(), 0);
    for file in ["topics.db", "topics.db-wal", "topics.db-shm"] {
        let _ = fs::remove_file(site.file(&format!("data/{file}")));
    }
    run(&site, "topics create", 0);
    emit(&site, "late-1", "none", "none");
    let host = site.start();
    let held = until("partitions are held", || {
        let status = json(&site.run(&["status", "--json"]));
        let held: Vec<String> =
            status["held"].as_array()?.iter().filter_map(|text| Some(text.as_str()?.to_owned())).collect();
        (!held.is_empty()).then_some(held)
    });
    says(&held.concat(), &["the topic was recreated", "sagahost topics resume 'hostile-tried["]);
    says(&run(&site, "topics list", 0).out, &["hostile-tried", "hostile-done"]);
    says(&site.run(&["topics", "resume", "hostile-tried[99]"]).err, &["is not held"]);
    let partitions: Vec<String> = held
        .iter()
        .filter_map(|text| text.split(": ").next())
        .filter(|partition| partition.starts_with("hostile-tried"))
        .map(str::to_owned)
        .collect();
    for partition in &partitions {
        assert_ne!(site.run(&["topics", "resume", partition]).code, 0, "where from?");
        run(&site, &format!("topics resume {partition} --from earliest"), 0);
    }
    await_shown(&site, "late-1", "done");
    assert_eq!(host.stop(), 0);
}

/// The process ends behind the journal and before the topics; then neither offsets nor topics say what is out.
#[test]
fn a_start_that_must_be_told_what_is_published_is_told() {
    for (published, out) in [("1", 1), ("2", 0)] {
        let site = Site::new(&["hostile"], CONFIG);
        let host = site.start_with_env(&["run"], &[("SAGAHOST_CRASH_AT", "after-journal-commit:1")]);
        // The host may be gone before it answers.
        site.run(&[
            "emit",
            "HostileTried",
            "--saga",
            "s-1",
            "--data",
            r#"{"id":"s-1","fault":"none","undoFault":"none"}"#,
        ]);
        let log = host.await_end();
        assert!(log.contains("crash point after-journal-commit"), "{log}");
        let topics = rusqlite::Connection::open(site.file("data/topics.db")).unwrap();
        topics
            .execute_batch(
                "DELETE FROM committed; UPDATE partitions SET first_offset = 1, next_offset = 1 WHERE next_offset = 0;",
            )
            .unwrap();
        drop(topics);
        let refused = run(&site, "run", 1);
        says(&refused.err, &["may or may not be published", "--published 1", "--published 2"]);
        let host = site.start_as(&["run", "--published", published]);
        await_shown(&site, "s-1", "done");
        assert_eq!(host.stop(), 0);
        let topics = rusqlite::Connection::open(site.file("data/topics.db")).unwrap();
        let sql = "SELECT count(*) FROM records r JOIN partitions p ON p.id = r.id >> 40 JOIN topics t ON t.id = p.topic \
                   WHERE t.name = 'hostile-done'";
        let found: i64 = topics.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(found, out, "--published {published}");
        assert_eq!(site.start().stop(), 0, "it needs to be said once");
    }
}
