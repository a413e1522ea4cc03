//! `sagahost check` by the real binary: it finds every planted fault, and passes the plugins that are right. Invariant
//! of all tests: what it prints as a repeat command fails again by itself, with the same law.

use std::{fs, process::Command};

use sagahost_tests::{
    binary::{Ended, Site},
    built,
};
use serde_json::{Value, json};

const BROKEN: i32 = 8;

/// The fault, and the laws that it breaks.
const FAULTS: [(&str, &[&str]); 25] = [
    ("static-ids", &["determinism"]),
    ("unknown-field", &["malformed"]),
    ("wrong-type", &["malformed"]),
    ("huge-number", &["malformed"]),
    ("long-name", &["bounds"]),
    ("slow", &["bounds"]),
    ("memory", &["bounds"]),
    ("payload", &["bounds"]),
    // A list in one value has an order, too.
    ("growing-value", &["growth", "order"]),
    ("growing-state", &["growth"]),
    ("growing-work", &["growth"]),
    ("undo-traps", &["undoes"]),
    ("undo-refuses", &["undoes"]),
    ("kept-state", &["restores-state"]),
    ("kept-key", &["restores-store"]),
    ("forgotten-undo", &["restores-counters"]),
    ("overpays", &["restores-counters"]),
    ("underpays", &["restores-counters"]),
    ("nothing-to-undo", &["restores-store", "restores-counters"]),
    ("double-refund", &["undo-twice"]),
    ("never-ran-pays", &["never-ran"]),
    // An event that is invalid never ran, either.
    ("never-ran-stuck", &["malformed", "never-ran"]),
    ("uncertain-pays", &["uncertain"]),
    ("tells-left", &["order"]),
    ("last-wins", &["order"]),
];

/// In a directory with the named plugins under `plugins`.
fn site(plugins: &[&str]) -> Site {
    Site::new(plugins, "")
}

fn check(site: &Site, plugin: &str, more: &[&str]) -> (Ended, Value) {
    let file = format!("plugins/{plugin}.wasm");
    let ended = site.run(&[&["check", file.as_str(), "--json"], more].concat());
    let report = serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    (ended, report)
}

/// Names of laws with this status.
fn laws<'r>(report: &'r Value, status: &str) -> Vec<&'r str> {
    let findings = report["laws"].as_array().unwrap().iter().filter(|finding| finding["status"] == *status);
    findings.map(|finding| finding["law"].as_str().unwrap()).collect()
}

fn finding<'r>(report: &'r Value, law: &str) -> &'r Value {
    report["laws"].as_array().unwrap().iter().find(|finding| finding["law"] == *law).unwrap()
}

/// As a user would paste it into a shell.
fn pasted(site: &Site, command: &str) -> (i32, String) {
    let path = format!("{}:{}", built::sagahost().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let ran = Command::new("sh").args(["-c", command]).current_dir(site.dir.path()).env("PATH", path).output().unwrap();
    (ran.status.code().unwrap(), String::from_utf8(ran.stdout).unwrap())
}

#[test]
fn every_planted_fault_is_found_and_its_case_repeats_it() {
    let site = site(&["lawless"]);
    for (fault, broken) in FAULTS {
        let setting = format!("fault={fault}");
        let (ended, report) = check(&site, "lawless", &["--set", &setting, "--cases", "200"]);
        assert_eq!(laws(&report, "broken"), broken, "{fault}: {}", ended.out);
        assert_eq!(ended.code, BROKEN, "{fault}: {ended:?}");
        for law in broken {
            let finding = finding(&report, law);
            assert!(finding["why"].as_str().is_some_and(|why| !why.is_empty()), "{finding}");
            assert!(finding["counterexample"].as_array().is_some_and(|case| !case.is_empty()), "{finding}");
            let (code, said) = pasted(&site, finding["command"].as_str().unwrap());
            assert_eq!(code, BROKEN, "{fault}: {finding}\n{said}");
            assert!(said.contains("BROKEN") && said.contains(law), "{fault}: {said}");
        }
    }
}

#[test]
fn without_a_fault_it_keeps_all_laws() {
    let (ended, report) = check(&site(&["lawless"]), "lawless", &["--strict"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(laws(&report, "pass").len(), 13, "{}", ended.out);
}

#[test]
fn the_right_plugins_keep_all_laws_or_say_why_not() {
    let site = site(&["order", "payment", "inventory", "shipping"]);
    // Shipping is there to crash for some orders; that is what these keys are for.
    let calm: &[&str] = &["--strict", "--set", "crash-permille=0", "--set", "refuse-permille=0"];
    for (plugin, more, waived) in [
        ("order", &["--strict"][..], &["restores-state"][..]),
        ("payment", &["--strict"], &[]),
        ("inventory", &["--strict"], &[]),
        ("shipping", calm, &[]),
    ] {
        let (ended, report) = check(&site, plugin, more);
        assert_eq!(ended.code, 0, "{plugin}: {ended:?}");
        assert_eq!(laws(&report, "waived"), waived, "{plugin}");
        assert_eq!(laws(&report, "pass").len() + waived.len(), 13, "{plugin}: {}", ended.out);
        for law in waived {
            let why = finding(&report, law)["why"].as_str().unwrap();
            assert!(why.starts_with("a cancelled order stays on record"), "{why}");
        }
    }
}

/// A plugin that sends requests: each planted fault, and none.
#[test]
fn what_a_plugin_that_asks_others_can_do_wrong_is_found() {
    let site = site(&["asking", "payment-gateway"]);
    for fault in ["asks-the-time", "counts-attempts", "never-looks", "wants-a-response", "takes-it-for-granted"] {
        let (ended, report) = check(&site, "asking", &["--set", &format!("fault={fault}"), "--cases", "30"]);
        assert_eq!(laws(&report, "broken"), ["calls"], "{fault}: {}", ended.out);
        let finding = finding(&report, "calls");
        let (code, said) = pasted(&site, finding["command"].as_str().unwrap());
        assert_eq!(code, BROKEN, "{fault}: {finding}\n{said}");
    }
    let (ended, report) = check(&site, "asking", &["--strict"]);
    assert_eq!((ended.code, laws(&report, "pass").len()), (0, 14), "{}", ended.out);
    let answer = |path: &str| json!({ "method": "POST", "url": format!("https://g/v1/{path}"), "status": 201, "body": { "id": "1" } });
    let answers = json!([answer("charges"), answer("refunds")]).to_string();
    fs::write(site.file("answers.json"), answers).unwrap();
    let more = ["--strict", "--set", "gateway=https://g/v1", "--answers", "answers.json"];
    let (ended, report) = check(&site, "payment-gateway", &more);
    assert_eq!((ended.code, laws(&report, "pass").len()), (0, 14), "{}", ended.out);
}

/// Other seeds try other cases; the plugins are right, not lucky.
#[test]
fn other_seeds_find_nothing_either() {
    let site = site(&["order", "payment", "inventory"]);
    for seed in ["2", "3"] {
        for plugin in ["order", "payment", "inventory"] {
            let (ended, _) = check(&site, plugin, &["--strict", "--seed", seed]);
            assert_eq!(ended.code, 0, "{plugin}, seed {seed}: {ended:?}");
        }
    }
}

#[test]
fn a_counterexample_is_as_short_as_it_can_be() {
    let (_, report) = check(&site(&["lawless"]), "lawless", &["--set", "fault=underpays"]);
    // One seat is given back properly, two are not.
    let shortest = json!([{"kind": "SeatsRequested", "data": {"bookingId": "b", "seats": 2, "show": "h"}}]);
    assert_eq!(finding(&report, "restores-counters")["counterexample"], shortest);
}

#[test]
fn one_seed_gives_one_report() {
    let site = site(&["lawless"]);
    let report = |seed: &str| check(&site, "lawless", &["--set", "fault=huge-number", "--seed", seed]).1;
    assert_eq!(report("7"), report("7"));
}

#[test]
fn what_is_not_admitted_breaks_the_first_law_and_shows_no_other() {
    let site = site(&["lawless"]);
    let (ended, report) = check(&site, "lawless", &["--set", "fualt=none"]);
    assert_eq!(ended.code, BROKEN);
    assert_eq!(laws(&report, "broken"), ["admission"]);
    assert_eq!(laws(&report, "not-shown").len(), 13);
    assert!(finding(&report, "admission")["why"].as_str().unwrap().contains("did you mean `fault`?"), "{}", ended.out);

    fs::write(site.file("plugins/lawless.wasm"), "no component").unwrap();
    let (ended, report) = check(&site, "lawless", &[]);
    assert_eq!((ended.code, laws(&report, "broken")), (BROKEN, vec!["admission"]));
}

#[test]
fn what_cannot_be_judged_is_never_passed() {
    let site = site(&["payment"]);
    // All examples are declined, so nothing is ever done that could be undone.
    let declined = ["--set", "limit-cents=0"];
    let (ended, report) = check(&site, "payment", &declined);
    assert_eq!(ended.code, 0, "{ended:?}");
    let unseen = laws(&report, "not-shown");
    for law in ["undoes", "restores-state", "restores-store", "restores-counters", "undo-twice", "growth", "order"] {
        assert!(unseen.contains(&law), "{law} is not among {unseen:?}");
        let why = finding(&report, law)["why"].as_str().unwrap();
        assert!(why.contains("--events") && why.contains("LIMIT_EXCEEDED"), "{why}");
    }
    assert_eq!(check(&site, "payment", &[&declined[..], &["--strict"]].concat()).0.code, BROKEN);
}

#[test]
fn an_authors_events_are_tried_behind_one_another() {
    let site = site(&["order"]);
    let order = json!({"orderId": "o-9", "customerId": "c-9", "sku": "pear", "quantity": 1, "amountCents": 5,
        "currency": "EUR"});
    let events = [
        json!({"kind": "OrderCreated", "saga": "o-9", "data": order}),
        json!({"kind": "InventoryUpdated", "saga": "o-9", "data": {"orderId": "o-9"}}),
    ];
    fs::write(site.file("events.json"), events.map(|event| event.to_string()).join("\n")).unwrap();
    let (ended, report) = check(&site, "order", &["--events", "events.json", "--strict"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(laws(&report, "waived"), ["restores-state"]);

    fs::write(site.file("events.json"), "[{\"kind\": \"OrderCreated\"}]").unwrap();
    let ended = site.run(&["check", "plugins/order.wasm", "--events", "events.json"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.err.contains("one of `data`, `text` and `base64`"), "{}", ended.err);
}

#[test]
fn a_budget_is_written_kept_and_exceeded() {
    let site = site(&["payment", "inventory"]);
    for plugin in ["payment", "inventory"] {
        assert_eq!(check(&site, plugin, &["--write-budget", "budget.toml"]).0.code, 0);
    }
    for plugin in ["payment", "inventory"] {
        let (ended, report) = check(&site, plugin, &["--budget", "budget.toml"]);
        assert_eq!((ended.code, &report["excesses"]), (0, &json!([])), "{}", ended.out);
    }
    let written = fs::read_to_string(site.file("budget.toml")).unwrap();
    let fuel = |line: &&str| line.starts_with("\"handle OrderCreated\"");
    let line = written.lines().find(fuel).unwrap();
    fs::write(site.file("budget.toml"), written.replace(line, "\"handle OrderCreated\" = 100")).unwrap();
    let (ended, report) = check(&site, "payment", &["--budget", "budget.toml"]);
    assert_eq!(ended.code, BROKEN);
    let excesses = report["excesses"].as_array().unwrap();
    assert_eq!((excesses.len(), &excesses[0]["allowed"]), (1, &json!(105)), "{excesses:?}");
    assert_eq!(excesses[0]["what"], "fuel of handle OrderCreated");
}

#[test]
fn what_makes_no_sense_is_said() {
    let site = site(&["payment"]);
    let refused = |words: &[&str]| {
        let ended = site.run(&[&["check", "plugins/payment.wasm"], words].concat());
        assert_eq!(ended.code, 2, "{ended:?}");
        ended.err
    };
    assert!(refused(&["--law", "restore-state"]).contains("did you mean `restores-state`?"));
    assert!(refused(&["--case", "[]"]).contains("--law"));
    assert!(refused(&["--law", "order", "--case", "[]"]).contains("no event"));
    assert!(refused(&["--set", "limit-cents"]).contains("KEY=VALUE"));
    assert!(refused(&["--budget", "nowhere.toml"]).contains("nowhere.toml"));
    fs::write(site.file("events"), r#"{"kind": "OrderCreate", "saga": "o-1", "data": {}}"#).expect("it can be written");
    let why = "event 1 of events is a OrderCreate: payment takes OrderCreated";
    assert!(refused(&["--events", "events"]).contains(why));
}
