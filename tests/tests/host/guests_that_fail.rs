//! A plugin that does every wrong thing. Invariant of all tests: the saga's timeline says what was wrong, spent attempts
//! end in `SagaFailed`, a dead letter and a compensated saga, and sagas beside it notice nothing.

use std::time::Duration;

use sagahost::host::Host;
use sagahost_operator::view::{SagaView, TimelineLine};
use sagahost_tests::{
    events::tried,
    operator::{Operator, attempts},
    shop::Shop,
    wait::until,
};
use sagahost_wire::Record;
use serde_json::Value;

/// Few and quick attempts. Two seconds for a call: enough for an innocent one on a busy machine.
const IMPATIENT: &str = "[limits]\nbudget-ms = 2000\n[plugin.hostile.on.HostileTried]\n\
                         retry = { attempts-max = 2, base = \"10ms\", cap = \"10ms\" }\n\
                         undo-retry = { attempts-max = 2, base = \"10ms\", cap = \"10ms\" }\n";

fn started(more: &str) -> (Shop, Host, Operator) {
    let shop = Shop::new(&["hostile"], &format!("{IMPATIENT}{more}"));
    let host = shop.start();
    let operator = Operator::of(&host);
    (shop, host, operator)
}

fn tokens(host: &Host) -> i64 {
    host.journal().counter(&"hostile".into(), "tokens").unwrap().unwrap_or(1_000_000)
}

/// Attempts that ended badly: code and detail.
fn crashes(saga: &SagaView) -> Vec<(String, String)> {
    let crashed = |line: &&TimelineLine| line.what == "attempt" && line.direction.as_deref() == Some("handle");
    let said = |line: &TimelineLine| (line.code.clone().unwrap_or_default(), line.detail.clone().unwrap_or_default());
    saga.timeline.iter().filter(crashed).map(said).collect()
}

fn data(record: &Record) -> Value {
    serde_json::from_slice(record.value.as_deref().unwrap()).unwrap()
}

fn of_saga<'r>(records: &'r [Record], saga: &str) -> Vec<&'r Record> {
    records.iter().filter(|record| record.key.as_deref() == Some(saga.as_bytes())).collect()
}

/// The fault, the code of its crash, and what the detail must say.
const FAULTS: [(&str, &str, &str); 22] = [
    ("panic", "trap", "a panic on purpose, in attempt"),
    ("unreachable", "trap", "unreachable"),
    ("loop", "deadline", "2000 ms"),
    ("recurse", "stack", "stack-bytes-max"),
    ("recurse-in-memory", "stack", ""),
    ("memory", "memory", "memory-bytes-max"),
    ("guest-error", "guest-error", "an error that nobody caught"),
    ("log-flood", "log-limit", "log-lines-max"),
    ("log-bytes", "log-limit", "log-bytes-max"),
    ("large-payload", "payload-limit", "payload-bytes-max"),
    ("large-outcome", "payload-limit", "outcome-bytes-max"),
    ("large-undo", "payload-limit", "undo-bytes-max"),
    ("large-state", "payload-limit", "state-bytes-max"),
    ("large-store", "payload-limit", "store-value-bytes-max"),
    ("many-keys", "store-limit", "store-ops-max"),
    ("put-values", "call-limit", "call-bytes-max"),
    ("config-again", "call-limit", "call-bytes-max"),
    ("invalid-json", "bad-outcome", "emitted event 0 (HostileDone) claims to be JSON and is not"),
    ("unknown-kind", "bad-outcome", "its manifest does not name HostileUnheardOf in `emits`"),
    ("empty-kind", "bad-outcome", "not a valid kind"),
    ("reserved-header", "bad-outcome", "sagahost-handled"),
    ("finishes", "bad-outcome", "finishes"),
];

#[test]
fn each_fault_ends_in_a_readable_cause_and_a_compensated_saga() {
    let (shop, host, operator) = started("");
    let good = 2 * FAULTS.len() as i64;
    for (number, (fault, ..)) in FAULTS.iter().enumerate() {
        shop.send(&tried(fault, fault, "none"));
        for pair in 0..2 {
            shop.send(&tried(&format!("good-{}", 2 * number + pair), "none", "none"));
        }
    }
    for number in 0..good {
        let saga = operator.await_saga(&format!("good-{number}"), "done", |saga| saga.steps[0].state == "done");
        assert_eq!(attempts(&saga, "hostile"), ["handle completed"], "good-{number}");
    }
    for (fault, code, detail) in FAULTS {
        let saga = operator.await_status(fault, "compensated");
        let crashes = crashes(&saga);
        assert_eq!(crashes.len(), 2, "{fault}: as many attempts as configured: {crashes:?}");
        for (said, why) in &crashes {
            assert!(said == code && why.contains(detail), "{fault}: {said}: {why:?} does not say {detail:?}");
            assert!(why.len() < 5_000, "{fault}: a cause that nobody can read: {} bytes", why.len());
        }
        let cause = saga.cause.clone().unwrap();
        assert!(cause.starts_with("attempts-spent by hostile on HostileTried") && cause.contains(detail), "{cause}");
        assert_eq!(saga.letters.len(), 1, "{fault}");
        assert_eq!((saga.letters[0].code.as_str(), saga.letters[0].attempts), (code, 2), "{fault}");
    }
    assert_eq!(tokens(&host), 1_000_000 - good, "what a failed attempt took is not taken");

    let failures = until("every failure is announced", || {
        Some(shop.read(&["saga-failed"])).filter(|records| records.len() >= FAULTS.len())
    });
    for (fault, code, _) in FAULTS {
        let announced = of_saga(&failures, fault);
        let [record] = announced.as_slice() else { panic!("{fault}: announced {} times", announced.len()) };
        assert_eq!((&data(record)["code"], &data(record)["participant"]), (&code.into(), &"hostile".into()));
    }
    assert_eq!(failures.len(), FAULTS.len());
    let emitted = shop.read(&["hostile-done"]);
    assert_eq!(emitted.len(), good as usize, "nothing that a failed attempt emitted is out");
    host.stop(Duration::from_secs(10));
}

/// What is journaled, and what memory knows: `get-values` and `scan-values` stop within the limit, and a guest that reads
/// less of it sees all there is, in pages that are cut short.
#[test]
fn what_one_call_reads_is_bounded_and_a_short_page_is_no_end() {
    let (shop, host, operator) = started("");
    shop.send(&tried("fill-0", "fill:0", "none"));
    operator.await_saga("fill-0", "done", |saga| saga.steps[0].state == "done");
    shop.send(&tried("count", "count:40", "none"));
    let counted = operator.await_saga("count", "ended", |saga| {
        !saga.steps.is_empty() && saga.status != "running" || saga.steps[0].state == "done"
    });
    assert_eq!(attempts(&counted, "hostile"), ["handle completed"], "{:?}", crashes(&counted));
    shop.send(&tried("fill-1", "fill:1", "none"));
    operator.await_saga("fill-1", "done", |saga| saga.steps[0].state == "done");
    for fault in ["get-values", "scan-values", "scan-again"] {
        shop.send(&tried(fault, fault, "none"));
        let saga = operator.await_status(fault, "compensated");
        let crashes = crashes(&saga);
        assert_eq!(crashes.len(), 2, "{fault}: {crashes:?}");
        for (code, why) in &crashes {
            assert!(
                code == "call-limit" && why.contains("16777216 bytes in one call (call-bytes-max)"),
                "{fault}: {why}"
            );
        }
    }
    host.stop(Duration::from_secs(10));
}

#[test]
fn an_answer_of_invalid_is_not_tried_again() {
    let (shop, host, operator) = started("");
    shop.send(&tried("s-1", "large-problem", "none"));
    let saga = operator.await_status("s-1", "compensated");
    assert_eq!(attempts(&saga, "hostile"), ["handle invalid", "compensate undone"]);
    let letter = operator.letters().remove(0);
    assert_eq!((letter.line.code.as_str(), letter.line.attempts), ("HOSTILE", 1));
    assert_eq!(letter.line.detail.len(), 4096, "a detail of a megabyte is cut off");
    host.stop(Duration::from_secs(10));
}

/// Race 17: one worker, and it is in the same compensation again and again while the others come and go.
#[test]
fn a_compensation_that_always_traps_is_alone_with_it() {
    let again = "[pipeline]\nworkers = 1\n[limits]\nbudget-ms = 2000\n[plugin.hostile.on.HostileTried]\n\
                 undo-retry = { attempts-max = 1000, base = \"10ms\", cap = \"10ms\" }\n";
    let mut shop = Shop::new(&["hostile"], again);
    let host = shop.start();
    let operator = Operator::of(&host);
    shop.send(&tried("bad", "none", "panic"));
    operator.await_saga("bad", "done", |saga| saga.steps[0].state == "done");
    assert!(operator.cancel("bad", "a test").done);
    let undo_attempts = || operator.saga("bad").unwrap().steps[0].undo_attempts;
    for number in 0..5 {
        let before = undo_attempts();
        let saga = format!("good-{number}");
        shop.send(&tried(&saga, "none", "none"));
        operator.await_saga(&saga, "done", |saga| saga.steps[0].state == "done");
        operator.cancel(&saga, "a test");
        operator.await_status(&saga, "compensated");
        until("it traps again", || (undo_attempts() > before).then_some(()));
    }
    assert_eq!(operator.saga("bad").unwrap().status, "compensating", "it has not given up meanwhile");
    assert_eq!(tokens(&host), 1_000_000 - 1, "of the bad saga alone");
    drop(operator);
    host.stop(Duration::from_secs(10));

    // In the end a person is asked.
    shop.configure(IMPATIENT);
    let host = shop.start();
    let operator = Operator::of(&host);
    let bad = operator.await_status("bad", "needs-operator");
    let ran = attempts(&bad, "hostile");
    assert!(ran[1..].iter().all(|ran| ran == "compensate unknown") && ran.len() > 5, "{ran:?}");
    assert_eq!(bad.steps[0].state, "compensation-failed");
    let why = bad.steps[0].why.clone().unwrap();
    assert!(why.contains("a panic on purpose, in the compensation"), "{why}");
    assert!(bad.next.iter().any(|next| next.contains("sagas retry bad")), "{:?}", bad.next);
    host.stop(Duration::from_secs(10));
}
