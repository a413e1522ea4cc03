//! What comes of each way to misbehave.

use expect_test::{Expect, expect};
use sagahost_saga::outcome::{Call, Completion, Outcome, Saved, StateChange, UndoOutcome};
use sagahost_sandbox::{End, Ran};

use crate::kit::{Memory, call, impatient_plugin, plugin, undo_call};

fn run(call: &Call) -> Ran {
    let endless = call.event.data.as_ref() == b"loop";
    let plugin = if endless { impatient_plugin() } else { plugin() };
    plugin.run(call, Box::new(Memory::default()))
}

fn outcome(data: &str) -> Outcome {
    match run(&call(data)).end.unwrap() {
        End::Outcome(outcome) => outcome,
        End::Undo(_) => panic!("a forward call was undone"),
    }
}

fn emitted(data: &str) -> String {
    match outcome(data) {
        Outcome::Completed(Completion { emit, .. }) => String::from_utf8_lossy(&emit[0].data).into_owned(),
        other => panic!("{other:?}"),
    }
}

/// The outcome in one line; of function names only the guest's own, since the rest is up to the compiler.
fn check(data: &str, expected: Expect) {
    let told = match outcome(data) {
        Outcome::Unknown { crash, .. } => format!("{}: {}", crash.code, crash.detail),
        Outcome::Completed(Completion { emit, .. }) => {
            let shown = emit.iter().map(|e| format!("{} for {:?}", e.kind, e.saga)).collect::<Vec<_>>();
            format!("completed: {}", shown.join(", "))
        }
        other => format!("{other:?}"),
    };
    let told = told.split_once(" (in ").map_or(told.clone(), |(told, _)| told.to_owned());
    expected.assert_eq(&without_sizes(&told));
}

/// How much memory a guest has at the end is up to its compiler.
fn without_sizes(told: &str) -> String {
    match told.split_once("it asked for ") {
        Some((before, after)) => {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}it asked for N{rest}")
        }
        None => told.to_owned(),
    }
}

#[test]
fn crashes_have_readable_causes() {
    check("fine", expect!["completed: Done for None"]);
    check(
        "panic -3",
        expect![[r#"
        trap: it panicked: panicked at src/lib.rs:30:24:
        stock is -3"#]],
    );
    check("loop", expect!["deadline: it ran longer than 300 ms of running time (budget-ms)"]);
    check("recurse", expect!["stack: it recursed too deeply: its stack is full"]);
    check("memory", expect!["memory: it asked for N bytes of memory, 67108864 are allowed (memory-bytes-max)"]);
    check("error", expect!["guest-error: TypeError: nothing is undefined"]);
    check("absent", expect!["trap: counter `absent` does not exist"]);
}

#[test]
fn floods_are_stopped() {
    check("flood", expect!["log-limit: it logged more than 200 lines (log-lines-max)"]);
    check("shout", expect!["log-limit: it logged more than 65536 bytes (log-bytes-max)"]);
    check("operations", expect!["store-limit: it made more than 1000 calls of store and counters (store-ops-max)"]);
    check("key", expect!["payload-limit: the key has 1000 bytes, 512 are allowed (store-key-bytes-max)"]);
    check(
        "large",
        expect!["payload-limit: emitted event 0 (Done): 1048578 bytes, 921600 are allowed (payload-bytes-max)"],
    );
    for data in ["huge", "pairs", "events", "fields"] {
        check(
            data,
            expect!["payload-limit: it passed more than 4194304 bytes to the host at once (outcome-bytes-max)"],
        );
    }
    check(
        "undo",
        expect!["payload-limit: the undo data: 200 bytes, 100 are allowed (undo-bytes-max of its subscription)"],
    );
}

/// Nothing beyond one value is read, written or handed over that was not counted before.
#[test]
fn what_a_call_makes_the_host_hold_is_bounded() {
    const BYTES_MAX: usize = 16 << 20;
    for data in ["reads", "scans", "writes", "configuration"] {
        let ran = run(&call(data));
        let Ok(End::Outcome(Outcome::Unknown { crash, .. })) = ran.end else { panic!("{data} returned") };
        let told = "it read, wrote, logged or returned more than 16777216 bytes in one call (call-bytes-max)";
        assert!(crash.code == "call-limit" && crash.detail.starts_with(told), "{data}: {}", crash.detail);
        let host = ran.host.into_any().downcast::<Memory>().unwrap();
        let bytes = host.read_bytes + host.written_bytes;
        assert!(bytes <= BYTES_MAX + 200_000, "{data}: {bytes}");
        assert!(bytes > BYTES_MAX - 600_000 || data == "configuration", "{data}: {bytes}");
    }
}

#[test]
fn answers_keep_the_promises_of_the_manifest() {
    check(
        "json",
        expect![
            "bad-outcome: emitted event 0 (Done) claims to be JSON and is not: key must be a string at line 1 column 2"
        ],
    );
    check(
        "kind",
        expect!["bad-outcome: emitted event 0 (Undeclared): its manifest does not name Undeclared in `emits`"],
    );
    check("elsewhere", expect!["bad-outcome: emitted event 0 (Done): its manifest does not name Done in `starts`"]);
    check("start", expect![[r#"completed: Started for Some("other")"#]]);
    check("finish", expect!["bad-outcome: it finished the saga, but its manifest does not say `finishes`"]);
    check("attribute subject", expect!["completed: Done for None"]);
    check(
        "attribute Subject",
        expect![
            "bad-outcome: attributes of emitted event 0 (Done): `Subject` is not a valid attribute name: use lower-case letters, digits and `-_.`, 128 at most"
        ],
    );
    check("attribute a a", expect!["bad-outcome: attributes of emitted event 0 (Done): duplicate `a`"]);
    check(
        "attribute sagahost-handled",
        expect![
            "bad-outcome: attributes of emitted event 0 (Done): `sagahost-handled` is reserved: names that begin with `sagahost-` belong to the host"
        ],
    );
    check(
        "attribute ce_id",
        expect![
            "bad-outcome: attributes of emitted event 0 (Done): `ce_id` is reserved: the host writes the CloudEvents headers itself (name it without the prefix)"
        ],
    );
    check(
        "attribute time",
        expect![
            "bad-outcome: attributes of emitted event 0 (Done): `time` is reserved: it belongs to the envelope, which the host writes"
        ],
    );
}

#[test]
fn refusals_come_through_as_they_are() {
    check(
        "retry",
        expect![[
            r#"Retry(Delay { problem: Problem { code: "some-code", detail: "some detail" }, after: Some(250ms) })"#
        ]],
    );
    check("early", expect![[r#"NotYet(Problem { code: "some-code", detail: "some detail" })"#]]);
    check("invalid", expect![[r#"Invalid(Problem { code: "some-code", detail: "some detail" })"#]]);
    check(
        "reject",
        expect![[
            r#"Rejected(Rejection { problem: Problem { code: "some-code", detail: "some detail" }, emit: [], attributes: [] })"#
        ]],
    );
}

#[test]
fn a_crash_names_the_functions_it_was_in() {
    for (data, function) in [("panic x", "handle_event"), ("loop", "spin"), ("memory", "hoard"), ("recurse", "recurse")]
    {
        let Outcome::Unknown { crash, uncertain: false } = outcome(data) else { panic!("{data} returned") };
        let places = crash.detail.split_once(" (in ").map(|(_, places)| places.to_owned()).unwrap_or_default();
        assert!(places.contains(function), "{data}: {}", crash.detail);
        assert!(!places.contains("panicking"), "{data}: {}", crash.detail);
    }
}

#[test]
fn the_guest_sees_what_the_context_gives_and_the_same_each_time() {
    expect![[r#""hello Some(\"7\") [(\"limit\", \"7\")] 1700000000000 1 [66, 125, 83, 217] 0.3333333333333333""#]]
        .assert_eq(&emitted("sees"));
    assert_eq!(outcome("sees"), outcome("sees"));
    assert_eq!((emitted("leak"), emitted("leak")), ("0".to_owned(), "0".to_owned()), "nothing outlives a call");
}

#[test]
fn the_host_gets_its_calls_back_whatever_happens() {
    for data in ["sees", "panic 1", "flood"] {
        let ran = run(&call(data));
        let host = ran.host.into_any().downcast::<Memory>().unwrap();
        match data {
            "sees" => assert_eq!(host.store["greeting"].as_ref(), b"hello"),
            "panic 1" => assert!(host.log[0].starts_with("Error panicked at"), "{:?}", host.log),
            _ => assert_eq!(host.log.len(), 200),
        }
        assert!(ran.memory_bytes_peak > 0);
    }
}

#[test]
fn a_fault_of_the_host_is_no_outcome() {
    let error = run(&call("broken")).end.unwrap_err();
    expect!["failed to call plugin misbehaving: the journal is away"].assert_eq(&error.to_string());
}

#[test]
fn compensation_has_its_evidence_and_the_format_of_the_writer() {
    let End::Undo(UndoOutcome::Undone(undone)) = run(&undo_call("paid", 1)).end.unwrap() else { panic!("not undone") };
    assert_eq!(undone.state, StateChange::Delete);
    assert_eq!(undone.attributes, [("cause".into(), "cancelled".into()), ("format".into(), "1".into())]);
    assert_eq!(undone.emit[0].data.as_ref(), b"\"paid\"");
}

#[test]
fn data_of_an_unknown_format_is_never_shown_to_the_guest() {
    let End::Undo(UndoOutcome::Unreadable { formats }) = run(&undo_call("paid", 9)).end.unwrap() else {
        panic!("it was called");
    };
    assert_eq!(formats, [9]);
    let state = Some(Saved { data: b"s".as_slice().into(), format: 3 });
    let End::Outcome(outcome) = run(&Call { state, ..call("fine") }).end.unwrap() else { panic!() };
    assert_eq!(outcome, Outcome::Unreadable { formats: vec![3] });
}

#[test]
fn more_calls_than_instances_wait_for_one_another() {
    let plugin = impatient_plugin();
    std::thread::scope(|scope| {
        let calls: Vec<_> =
            (0..16).map(|_| scope.spawn(|| plugin.run(&call("loop"), Box::new(Memory::default())))).collect();
        for running in calls {
            let End::Outcome(Outcome::Unknown { crash, .. }) = running.join().unwrap().end.unwrap() else { panic!() };
            assert_eq!(crash.code, "deadline");
        }
    });
}
