//! What comes from records, plugins and files stays within its place in the text, whatever is in it. Every text of one
//! value in a view is replaced by a hostile one, in turn and all at once; a view that is added here is covered whole.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::path::Path;

use sagahost_check::{Case, Report as CheckReport, Status, report::Finding};
use sagahost_manifest::Law;
use sagahost_saga::{id::Time, notation};
use sagahost_sandbox::{
    graph::Graph,
    report::{Fault, Report},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    check, dead_letters, emit, outbox,
    output::{Output, screened},
    plugin_text, plugins, plugins_await, sagas, status, timeline, topics,
};

const NOW: Time = Time(1_785_319_392_000);

/// A false row, a cleared screen, a title, a colour, C1, a turned direction, separators, nothing to see, and columns.
const HOSTILE: &str = "a\nFORGED  closed by ann\r\n  FORGED\u{1b}[2J\u{1b}]0;t\u{7}\u{1b}[32mgreen\u{1b}[0m\u{9b}31m\u{7f}\0\t\u{202e}\u{2066}\u{2028}FORGED\u{2029}\u{200b}\u{feff}\u{e0041} ";

#[derive(Clone, Copy)]
enum Leaf {
    One(usize),
    All,
}

/// The view with its texts replaced; times and words of a closed list stay, since nobody else can choose them.
fn replaced<T: Serialize + DeserializeOwned>(view: &T, leaf: Leaf) -> Option<T> {
    let mut value = serde_json::to_value(view).unwrap();
    let mut number = 0;
    let mut hit = false;
    replace(&mut value, &mut |text| {
        let wanted = match leaf {
            Leaf::One(wanted) => number == wanted,
            Leaf::All => true,
        };
        number += 1;
        hit |= wanted;
        let fixed = sagahost_operator::stamp::Stamp::parse(text).is_some() || FIXED.contains(&text.as_str());
        if wanted && !fixed {
            HOSTILE.clone_into(text);
        }
    });
    hit.then(|| serde_json::from_value(value).unwrap())
}

/// Words of closed lists in manifests.
const FIXED: &[&str] = &["compensable", "both", "now", "integer", "string"];

fn replace(value: &mut Value, with: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => with(text),
        Value::Array(values) => values.iter_mut().for_each(|value| replace(value, with)),
        Value::Object(entries) => {
            let taken = std::mem::take(entries);
            for (name, mut value) in taken {
                // Names of fields are the program's own; those that are values contain a mark.
                let mut name = name;
                if name.starts_with("key:") {
                    with(&mut name);
                }
                replace(&mut value, with);
                entries.insert(name, value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn assert_tame(what: &str, text: &str, colour: bool) {
    let bare = [32, 33, 2, 0].iter().fold(text.replace("\u{1b}[31;1m", ""), |text, code| {
        if colour { text.replace(&format!("\u{1b}[{code}m"), "") } else { text }
    });
    let hidden: Vec<char> = bare.chars().filter(|c| *c != '\n' && notation::is_hidden(*c)).collect();
    assert!(hidden.is_empty(), "{what} lets {hidden:?} through:\n{text:?}");
    // Further lines of a report stand below its own.
    let forged = |line: &&str| line.trim_start().starts_with("FORGED") && !line.starts_with("      ");
    let forged: Vec<&str> = bare.lines().filter(forged).collect();
    assert!(forged.is_empty(), "{what} has a line that was injected:\n{text}");
}

fn check<T: Serialize + DeserializeOwned>(what: &str, view: &T, text: impl Fn(&T, &Output) -> String) {
    for colour in [false, true] {
        let mut out = Output::plain(NOW);
        out.colour = colour;
        let leaves = (0..).map(Leaf::One).map_while(|leaf| replaced(view, leaf));
        for hostile in leaves.chain(replaced(view, Leaf::All)) {
            assert_tame(what, &text(&hostile, &out), colour);
        }
    }
}

fn of<T: DeserializeOwned>(view: Value) -> T {
    serde_json::from_value(view).unwrap()
}

const AT: &str = "2026-07-29T10:03:12.045Z";

fn letter() -> Value {
    json!({
        "key": "k", "saga": "s", "participant": "p", "kind": "K", "code": "c", "detail": "d", "attempts": 2,
        "version": "1", "at": AT, "origin": "t[0]@1", "closed": "discarded",
    })
}

#[test]
fn sagas_and_their_timelines() {
    check(
        "sagas list",
        &of(json!({
            "sagas": [{"id": "o-1", "status": "running", "updated": AT, "notes": [["name", "value"]]}],
            "counts": [["running", 1]],
        })),
        sagas::list_text,
    );
    let lines =
        ["event", "attempt", "request", "emitted", "parked", "status", "operator", "dead-letter", "?"].map(|what| {
            json!({
                "at": AT, "what": what, "participant": "p", "kind": "K", "id": "i", "note": "n", "direction": "d",
                "attempt": 1, "outcome": "o", "code": "c", "detail": "d", "version": "1", "status": "s", "by": "b",
                "reason": "r", "closed": "x",
            })
        });
    let saga = of(json!({
        "id": "o-1", "app": "shop", "status": "running", "created": AT, "updated": AT, "cause": "c", "result": "r",
        "notes": [["n", "v"]], "late": 1, "quarantined": "q", "queued": ["cancel by ann"],
        "steps": [{"participant": "p", "kind": "K", "event": "e", "role": "r", "state": "done", "version": "1", "why": "w"}],
        "parked": [{"participant": "p", "kind": "K", "why": "w"}],
        "letters": [letter()], "timeline": lines, "next": ["sagahost sagas retry o-1  # why"],
    }));
    check("sagas show", &saga, |saga, out| timeline::text(saga, out.now, out.colour));
    check("dev", &saga, |saga, out| timeline::news(saga, 0, out.colour));
    check("sagas cancel", &of(json!({"done": true, "text": "done"})), sagas::done_text);
}

#[test]
fn dead_letters_and_the_outbox() {
    check("dead-letters list", &of(json!([{"code": "c", "participant": "p", "open": 1}])), |groups: &Vec<_>, out| {
        dead_letters::groups_text(groups, out)
    });
    check("dead-letters list --each", &of(json!([letter()])), |letters: &Vec<_>, out| {
        dead_letters::letters_text(letters, out)
    });
    let mut whole = letter();
    let record = json!({"topic": "t", "record-key": "k", "value": "v", "headers": [["name", "value"]]});
    whole.as_object_mut().unwrap().extend(record.as_object().unwrap().clone());
    check("dead-letters show", &of(whole), dead_letters::letter_text);
    let result = json!([{"key": "k", "saga": "s", "code": "c", "saga-status": "running", "text": "t"}]);
    check("dead-letters redrive", &of(result), |results: &Vec<_>, out| dead_letters::results_text(results, out));
    let batch = json!([{"batch": 1, "topics": {"key:t": 1}, "skipped": {"1": "ann: large"}}]);
    check("outbox list", &of(batch), |batches: &Vec<_>, out| outbox::list_text(batches, out));
}

#[test]
fn status_topics_and_emit() {
    check(
        "status",
        &of(json!({
            "app": "shop", "running": true, "transport": "t", "journal": "j", "incarnation": "i",
            "sagas": [["running", 1]], "counters": {"key:c": 1}, "waiting-for": ["w"], "held": ["h"],
            "unhandled": [{"topic": "t", "kind": "K", "events": 1, "last": "t[0]@1", "meant": "M"}],
        })),
        status::text,
    );
    let line = json!([{"name": "t", "kinds": ["K"], "read": true, "create": "sagahost topics create t",
        "unhandled": [{"topic": "t", "kind": "K", "events": 1}]}]);
    check("topics list", &of(line), |lines: &Vec<_>, out| topics::list_text(lines, out));
    let placed = json!({"topic": "t", "partition": 0, "offset": 1, "note": "n"});
    check("emit", &of(placed), |placed, _| emit::sent_text(HOSTILE, Some(HOSTILE), placed));
}

#[test]
fn plugins() {
    let mut report = Report::of(Path::new("p.wasm"), Fault::new("what", "where", "fix"));
    report.plugin = Some("p".to_owned());
    let line = json!({
        "name": "p", "version": "1", "digest": "0123456789abcdef", "state": "serving", "config": "c0ffee",
        "admitted": AT, "handles": ["K"], "emits": ["E"], "file": "p.wasm", "note": "n", "notes": ["n"],
    });
    let all = json!({"plugins": [line], "refused": [report], "configured": {}});
    check("plugins list", &of(all), plugin_text::list_text);
    let manifest = json!({
        "name": "p", "version": "1", "contract": "0.1.0", "emits": ["E"], "starts": ["S"], "compensate-on": ["C"],
        "finish-on": ["F"], "subscriptions": [{"kind": "K", "role": "compensable", "when": "both", "after": ["A"]}],
        "config": {"key:limit": {"type": "integer", "default": 7}},
    });
    let one = json!({
        "name": "p", "versions": [line], "refused": [report], "manifest": manifest, "configured": ["c"],
        "history": [{"at": AT, "digest": "d", "config": "c", "what": "w"}],
    });
    check("plugins show", &of(one), plugin_text::show_text);
    check("plugins await", &of(line), |line, _| plugins_await::served(line));
    let counters = json!([{"participant": "p", "name": "n", "value": 1}]);
    check("plugins counters", &of(counters), |counters: &Vec<_>, out| plugins::counters_text(counters, out));
    let store = json!([{"key": "k", "bytes": 1, "value": "v"}]);
    check("plugins store", &of(store), |entries: &Vec<_>, out| plugins::store_text(entries, out));
    let node = |name: &str| {
        json!({
            "name": name, "handles": ["K"], "emits": ["E"], "starts": ["S"], "compensate-on": ["C"], "finish-on": ["F"],
            "compensable": true, "not-undone": ["K"],
        })
    };
    let graph: Graph = of(json!({
        "participants": [node("a"), node("b")], "from-outside": ["K"], "unread": ["E"], "never-undone": ["a on K"],
        "silent-undo": ["b"], "cycles": [["a", "b"]],
    }));
    check("plugins graph", &graph, plugin_text::graph_text);
    check("plugins graph --mermaid", &graph, |graph, _| graph.mermaid());
}

#[test]
fn reports_of_a_check() {
    let case = Case::parse(&json!({"events": [{"kind": HOSTILE, "data": {"a": HOSTILE}}]}).to_string()).ok();
    let finding = |status| Finding {
        counterexample: case.clone(),
        command: Some(format!("sagahost check {HOSTILE}")),
        ..Finding::new(Law::ALL[0], status, 3, Some(HOSTILE.to_owned()))
    };
    let report = CheckReport {
        plugin: Some(HOSTILE.to_owned()),
        version: Some(HOSTILE.to_owned()),
        digest: HOSTILE.to_owned(),
        seed: 1,
        laws: vec![finding(Status::Broken), finding(Status::NotShown), finding(Status::Waived)],
        refusal: None,
        cost: None,
        excesses: None,
    };
    assert_tame("check", &check::text(&report, Path::new(HOSTILE), &Output::plain(NOW)), false);
}

/// A value that is printed without being escaped first still does not reach the terminal as it is.
#[test]
fn nothing_hidden_passes_the_output() {
    let text = screened(HOSTILE, false);
    assert!(text.chars().all(|c| c == '\n' || !notation::is_hidden(c)), "{text:?}");
    let coloured = screened("\u{1b}[31;1mbad\u{1b}[0m \u{1b}[5mblinks\u{1b}[2J\n", true);
    assert_eq!(coloured, "\u{1b}[31;1mbad\u{1b}[0m \\u001b[5mblinks\\u001b[2J\n");
    assert_eq!(screened("\u{1b}[31;1mbad\u{1b}[0m", false), "\\u001b[31;1mbad\\u001b[0m");
}
