//! Events of kinds that no plugin here handles. Invariant of all tests: none of them begins a saga or runs as another kind,
//! and each leaves a trace where people look.

use std::time::Duration;

use sagahost::host::Host;
use sagahost_operator::{
    protocol::{Request, Why},
    view::{Placed, TopicLine, UnhandledLine},
};
use sagahost_tests::{
    binary::Site,
    events::{event, plain, tried},
    operator::Operator,
    shop::Shop,
    wait::until,
};
use sagahost_wire::Outgoing;
use serde_json::{Value, json};

fn started(more: &str) -> (Shop, Host, Operator) {
    let shop = Shop::new(&["hostile"], more);
    let host = shop.start();
    let operator = Operator::of(&host);
    (shop, host, operator)
}

/// In the topic that the plugin reads.
fn of_kind(kind: &str, id: &str) -> Outgoing {
    Outgoing { topic: "hostile-tried".into(), ..event(kind, "s-1", id, &json!({})) }
}

fn await_unhandled(operator: &Operator, events: u64) -> Vec<UnhandledLine> {
    until(&format!("{events} events are counted as unhandled"), || {
        let status = operator.status();
        let count = status.counters["unhandled"] + status.counters["ignored"];
        (count >= events).then_some(status.unhandled)
    })
}

#[test]
fn kinds_that_no_plugin_handles_are_counted_by_topic_with_what_was_meant() {
    let (shop, host, operator) = started("");
    let kinds = ["hostileTried", "\"HostileTried\"", "HostileTried ", "com.acme.HostileTried", "hostile_tried", "Else"];
    for (number, kind) in kinds.iter().enumerate() {
        shop.send(&of_kind(kind, &format!("e-{number}")));
    }
    shop.send(&of_kind("hostileTried", "e-again"));
    let lines = await_unhandled(&operator, 7);
    assert_eq!(lines.len(), kinds.len(), "{lines:#?}");
    for kind in kinds {
        let line = lines.iter().find(|line| line.kind == kind).unwrap_or_else(|| panic!("{kind} is not in {lines:#?}"));
        assert_eq!(line.meant.as_deref(), (kind != "Else").then_some("HostileTried"), "{line:?}");
        assert_eq!((line.topic.as_str(), line.ignored), ("hostile-tried", false), "{line:?}");
        assert_eq!(line.events, if kind == "hostileTried" { 2 } else { 1 }, "{line:?}");
        assert!(line.last.as_deref().is_some_and(|last| last.starts_with("hostile-tried[")), "{line:?}");
    }
    let topics: Vec<TopicLine> = operator.ask(Request::Topics).unwrap();
    let topic = topics.iter().find(|line| line.name == "hostile-tried").unwrap();
    assert_eq!(topic.unhandled, lines);
    assert!(operator.saga("s-1").is_none(), "none of them ran");
    assert_eq!(operator.letters(), []);
    host.stop(Duration::from_secs(10));
}

#[test]
fn kinds_that_are_known_to_be_for_others_are_counted_apart() {
    let more = "[topics]\nignored-kinds = [\"ForOthers\", \"billing.*\"]\n\
                [topics.of-kind]\nHostileDone = \"hostile-tried\"\n";
    let (shop, host, operator) = started(more);
    shop.send(&of_kind("ForOthers", "e-1"));
    shop.send(&of_kind("billing.Invoiced", "e-2"));
    // Its HostileDone comes back from the topic that is read: nobody has to be told of that.
    shop.send(&tried("s-2", "none", "none"));
    let lines = await_unhandled(&operator, 3);
    let seen: Vec<_> = lines.iter().map(|line| (line.kind.as_str(), line.events, line.ignored)).collect();
    assert_eq!(seen, [("ForOthers", 1, true), ("HostileDone", 1, true), ("billing.Invoiced", 1, true)]);
    assert_eq!(operator.status().counters["unhandled"], 0);
    host.stop(Duration::from_secs(10));
}

/// A record that becomes readable, and is of a kind that nobody handles, is not settled by that.
#[test]
fn a_letter_of_an_unhandled_kind_is_not_redriven_into_nothing() {
    let (mut shop, host, operator) = started("");
    let nameless = event("hostileTried", "s-1", "e-1", &json!({"id": "s-1"}));
    let headers = nameless.headers.into_iter().filter(|(name, _)| name != "ce_sagaid").collect();
    shop.send(&Outgoing { topic: "hostile-tried".into(), key: None, headers, ..nameless });
    let letter = operator.await_letters(1).remove(0);
    assert_eq!(letter.line.code, "missing-saga-id");
    host.stop(Duration::from_secs(10));
    shop.configure("[topics.records.hostile-tried]\nsaga-id = \"/id\"\n");
    let host = shop.start();
    let operator = Operator::of(&host);
    let refused = operator.redrive(&letter.line.key).unwrap_err();
    assert_eq!(refused.text, "no plugin of this app handles hostileTried: did you mean HostileTried?");
    assert_eq!(operator.letters().len(), 1, "it is open still");
    host.stop(Duration::from_secs(10));
}

#[test]
fn who_sends_an_event_by_hand_is_told_who_handles_it() {
    let (shop, host, operator) = started("");
    let send =
        |record: Outgoing, kind: &str| operator.ask::<Placed>(Request::Emit { record, kind: Some(kind.to_owned()) });
    let note = |record: Outgoing, kind: &str| send(record, kind).unwrap().note.unwrap_or_default();
    let placed = send(tried("s-2", "none", "none"), "HostileTried").unwrap();
    assert_eq!((placed.handled_by, placed.note), (vec!["hostile".to_owned()], None));
    for kind in ["HostileFailed", "HostileFinished"] {
        assert_eq!(send(event(kind, "s-3", kind, &json!({})), kind).unwrap().handled_by, ["hostile"], "{kind}");
    }
    assert_eq!(
        note(event("hostileTried", "s-1", "e-1", &json!({})), "hostileTried"),
        "no plugin of this app handles hostileTried: did you mean HostileTried?"
    );
    assert_eq!(note(of_kind("Else", "e-2"), "Else"), "no plugin of this app handles Else");
    shop.send(&Outgoing { topic: "elsewhere".into(), ..tried("s-4", "none", "none") });
    assert_eq!(
        note(Outgoing { topic: "elsewhere".into(), ..tried("s-4", "none", "none") }, "HostileTried"),
        "this app does not read topic elsewhere: no plugin here handles it"
    );
    let bad = plain("HostileTried", Some(b"s-5"), Some(b"{"));
    assert!(note(bad, "HostileTried").starts_with("the host will keep it as a dead letter: invalid-json: "));

    // A plain record would run as the kind of its topic: it is not sent.
    let before = shop.read(&["hostile-tried"]).len();
    let refused = send(plain("hostileTried", Some(b"s-6"), Some(b"{}")), "hostileTried").unwrap_err();
    assert_eq!(refused.why, Why::Invalid);
    assert!(refused.text.contains("would read this record in topic hostile-tried as HostileTried"), "{refused}");
    assert_eq!(shop.read(&["hostile-tried"]).len(), before);
    host.stop(Duration::from_secs(10));
}

#[test]
fn the_command_line_says_so_with_a_host_and_without() {
    let site = Site::new(&["hostile"], "app = \"shop\"\n");
    let typo = ["emit", "hostileTried", "--saga", "s-1", "--data", "{}"];
    let told = "no plugin of this app handles hostileTried: did you mean HostileTried?";
    let before = site.run(&typo);
    assert!(before.code == 0 && before.out.contains(told), "{before:?}");
    let host = site.start();
    let emitted = site.run(&typo);
    assert!(emitted.code == 0 && emitted.out.contains(told), "{emitted:?}");
    let json = site.run(&["emit", "hostileTried", "--saga", "s-1", "--data", "{}", "--json"]);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json["handled-by"], &json["note"]), (&json!([]), &json!(told)));
    let plain = site.run(&["emit", "hostileTried", "--saga", "s-1", "--data", "{}", "--plain"]);
    assert_eq!(plain.code, 2, "{plain:?}");

    let status = until("the three are counted", || {
        Some(site.run(&["status"])).filter(|status| status.out.contains("3 × hostileTried in hostile-tried"))
    });
    assert!(status.out.contains(": did you mean HostileTried?"), "{}", status.out);
    let topics = site.run(&["topics", "list"]);
    assert!(topics.out.contains("hostileTried 3"), "{}", topics.out);
    let log = host.log();
    assert_eq!(
        log.matches("no plugin here handles events of this kind: did you mean HostileTried?").count(),
        1,
        "{log}"
    );
    assert_eq!(host.stop(), 0);
}
