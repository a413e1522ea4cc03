//! Rules of `host/SEMANTICS.md` that a whole host could break although the state machine keeps them. Invariant of all
//! tests: what is expected follows from the rule, not from what was seen.

use std::{sync::Arc, thread, time::Duration};

use sagahost::host::Host;
use sagahost_processor::start::Decisions;
use sagahost_saga::topology::Role;
use sagahost_tests::{
    events::{event, tried},
    faulty::Death,
    operator::{Operator, attempts},
    plugin_files::{changed, drop_in},
    shop::{PATIENCE, Shop, THREE, order_record},
    wait::until,
};
use sagahost_transport::Transport as _;
use sagahost_wire::clock::{Clock as _, SimulatedClock, SystemClock};
use serde_json::json;

use crate::shops::{await_done, plugins, some_orders, started};

const STOP: Duration = Duration::from_secs(10);

fn tokens(host: &Host) -> i64 {
    host.journal().counter(&"hostile".into(), "tokens").unwrap().unwrap_or(1_000_000)
}

/// A host whose `hostile` takes its event as this.
fn started_as(role: Role, more: &str) -> (Shop, Host, Operator) {
    let shop = Shop::new(&["hostile"], more);
    let bytes = changed("hostile", |manifest| {
        manifest.version = "9.0.0".to_owned();
        manifest.subscriptions.iter_mut().filter(|on| on.kind == "HostileTried").for_each(|on| on.role = role);
    });
    drop_in(&plugins(&shop), "hostile.wasm", &bytes);
    let host = shop.start();
    let operator = Operator::of(&host);
    (shop, host, operator)
}

/// Rule 8: behind a done pivot nothing is compensated, whoever asks; a person settles it.
#[test]
fn behind_a_pivot_nothing_is_undone() {
    let (shop, host, operator) = started_as(Role::Pivot, "");
    for saga in ["cancelled", "failed", "rejected"] {
        shop.send(&tried(saga, "none", "none"));
        await_done(&operator, saga);
    }
    let late = operator.cancel("cancelled", "a test");
    assert!(!late.done && late.text.contains("too late"), "{late:?}");
    shop.send(&event("HostileFailed", "failed", "f-1", &json!({})));
    let failed = operator.await_status("failed", "needs-operator");
    assert!(format!("{failed:?}").contains("failed-after-pivot"), "{failed:#?}");
    let again = json!({ "id": "again", "fault": "reject" });
    shop.send(&event("HostileTried", "rejected", "again", &again));
    let rejected = operator.await_status("rejected", "needs-operator");
    assert_eq!(rejected.letters.len(), 1, "{rejected:#?}");
    for saga in ["cancelled", "failed", "rejected"] {
        let ran = attempts(&operator.saga(saga).unwrap(), "hostile");
        assert!(ran.iter().all(|ran| ran.starts_with("handle")), "{saga}: {ran:?}");
    }
    assert_eq!(tokens(&host), 1_000_000 - 3, "what was done stays done");
    assert_eq!(shop.read(&["saga-failed"]).len(), 0, "no app is told to undo");
    host.stop(STOP);
}

/// What a step emits for later comes at its time, also when no host is running then, and once; a saga that compensates drops it.
#[test]
fn an_emission_for_later_comes_at_its_time_and_not_from_a_saga_that_compensates() {
    let (shop, host, operator) = started(&["hostile"], "");
    for saga in ["kept", "dropped"] {
        shop.send(&tried(saga, "delayed:1", "none"));
        await_done(&operator, saga);
    }
    let sent = SystemClock.now();
    operator.cancel("dropped", "a test");
    operator.await_status("dropped", "compensated");
    assert_eq!(shop.read(&["hostile-done"]).len(), 0, "not before its time");
    drop(operator);
    host.stop(STOP);
    while SystemClock.now().since(sent) < Duration::from_millis(1_000) {
        thread::sleep(Duration::from_millis(10));
    }
    let host = shop.start();
    let done = until("it is out", || Some(shop.read(&["hostile-done"])).filter(|records| !records.is_empty()));
    assert_eq!(done[0].key.as_deref(), Some(&b"kept"[..]));
    shop.send(&tried("next", "none", "none"));
    until("what came behind it is out", || (shop.read(&["hostile-done"]).len() == 2).then_some(()));
    host.stop(STOP);
}

/// The configuration's word about dead letters wins over the manifest's.
#[test]
fn what_follows_a_dead_letter_is_as_configured() {
    let status = |policy: &str| {
        let more = format!("[plugin.hostile.on.HostileTried]\non-dead-letter = \"{policy}\"\n");
        let (shop, host, operator) = started(&["hostile"], &more);
        shop.send(&event("HostileTried", "s-1", "first", &json!({ "id": "first" })));
        shop.send(&tried("s-1", "invalid", "none"));
        let saga =
            operator.await_saga("s-1", "given up", |saga| saga.letters.len() == 1 && saga.status != "compensating");
        let undone = attempts(&saga, "hostile").iter().filter(|ran| ran.starts_with("compensate")).count();
        host.stop(STOP);
        (saga.status, undone > 0)
    };
    assert_eq!(status("compensate"), ("compensated".to_owned(), true));
    assert_eq!(status("block"), ("needs-operator".to_owned(), false));
    assert_eq!(status("skip"), ("running".to_owned(), false));
}

/// Race 6: the process ends between two undo steps. The first is not undone again, the rest is.
#[test]
fn a_crash_between_two_undo_steps_undoes_each_once() {
    let retry =
        "[plugin.hostile.on.HostileTried]\nundo-retry = { attempts-max = 9, base = \"400ms\", cap = \"400ms\" }\n";
    let (shop, host, operator) = started(&["hostile"], retry);
    for (id, undo_fault) in [("first", "retry-until:2"), ("second", "none")] {
        let data = json!({ "id": id, "undoFault": undo_fault });
        shop.send(&event("HostileTried", "s-1", id, &data));
    }
    operator.await_saga("s-1", "done twice", |saga| {
        saga.steps.len() == 2 && saga.steps.iter().all(|step| step.state == "done")
    });
    operator.cancel("s-1", "a test");
    operator.await_saga("s-1", "half undone", |saga| saga.steps.iter().any(|step| step.state == "compensated"));
    assert_eq!(tokens(&host), 1_000_000 - 1);
    drop(operator);
    host.abort();

    let host = shop.start();
    let operator = Operator::of(&host);
    let saga = operator.await_status("s-1", "compensated");
    let undone: Vec<_> = attempts(&saga, "hostile").into_iter().filter(|ran| ran.starts_with("compensate")).collect();
    assert_eq!(undone, ["compensate undone", "compensate retry", "compensate undone"]);
    assert_eq!(tokens(&host), 1_000_000);
    let out = until("both are announced", || Some(shop.read(&["hostile-undone"])).filter(|out| out.len() >= 2));
    assert_eq!(out.len(), 2);
    host.stop(STOP);
}

/// Race 18: a clock that is set forward makes deadlines due. They fire, each once; what is new has its full time, and
/// one that is set back brings nothing again.
#[test]
fn a_clock_that_is_set_fires_each_deadline_once() {
    let shop = Shop::new(&["order"], "[saga]\ndeadline = \"15m\"\n");
    let clock = Arc::new(SimulatedClock::at(SystemClock.now()));
    let started = shop.start_by(clock.clone(), &Death::never(), Decisions::default());
    let host = started.unwrap_or_else(|error| panic!("{error:#}"));
    let operator = Operator::of(&host);
    let open = |prefix: &str| {
        let orders = some_orders(prefix, 5);
        shop.produce(&orders);
        orders.iter().for_each(|order| await_done(&operator, &order.order_id));
        orders
    };
    let early = open("early");
    clock.set(clock.now().after(Duration::from_secs(3_600)));
    let ended = || shop.ends().cancelled.len();
    until("the early ones are cancelled", || (ended() == early.len()).then_some(()));
    let late = open("late");
    clock.set(clock.now().before(Duration::from_secs(7_200)));
    let between = open("between");
    assert_eq!(ended(), early.len());
    clock.set(clock.now().after(Duration::from_secs(7_200 + 600)));
    until("those between are cancelled", || (ended() == early.len() + between.len()).then_some(()));
    let next = open("next");
    assert_eq!(ended(), early.len() + between.len(), "ten minutes have passed for the late ones, none for the next");
    assert!(late.iter().chain(&next).all(|order| operator.saga(&order.order_id).unwrap().status == "running"));
    host.stop(STOP);
}

/// Rule 13: the tombstones are gone, the group's offsets too, and still nothing runs again.
#[test]
fn behind_the_retention_the_position_alone_keeps_old_records_from_running_again() {
    let shop = Shop::new(&THREE, "[saga]\nretention = \"0s\"\n");
    let orders = some_orders("o", 20);
    let host = shop.start();
    shop.produce(&orders);
    shop.await_ends(&orders, &Death::never(), PATIENCE);
    host.stop(STOP);
    // What is past its retention goes with the first look behind a start.
    let host = shop.start();
    until("no saga is known any more", || {
        host.journal().count_by_status().unwrap().iter().all(|(_, count)| *count == 0).then_some(())
    });
    host.stop(STOP);
    let topics = rusqlite::Connection::open(shop.data().join("topics.db")).unwrap();
    assert!(topics.execute("UPDATE committed SET next_offset = 0, metadata = ''", []).unwrap() > 0);
    drop(topics);

    let host = shop.start();
    let more = some_orders("p", 3);
    shop.produce(&more);
    let ends = shop.await_ends(&[orders.clone(), more.clone()].concat(), &Death::never(), PATIENCE);
    assert_eq!(ends.len(), orders.len() + more.len());
    assert_eq!(host.live().status().events, more.len() as u64, "the old ones were not even read as events");
    shop.assert_right(&[orders, more].concat(), &*host.journal());
    host.stop(STOP);
}

#[test]
fn without_a_deadline_no_saga_has_one() {
    for (deadline, expected) in [("\"off\"", false), ("\"15m\"", true)] {
        let (shop, host, operator) = started(&["order"], &format!("[saga]\ndeadline = {deadline}\n"));
        let order = some_orders("o", 1);
        shop.send(&order_record(&order[0]));
        await_done(&operator, &order[0].order_id);
        let (_, due) = host.journal().next_due().unwrap();
        assert_eq!(due.is_some(), expected, "deadline = {deadline}");
        host.stop(STOP);
    }
}

#[test]
fn dead_letters_stay_in_the_journal_where_their_topic_is_off() {
    for (topic, expected) in [("off", 0), ("letters", 1)] {
        let (shop, host, operator) = started(&["hostile"], &format!("[topics]\ndead-letters = \"{topic}\"\n"));
        shop.send(&tried("s-1", "invalid", "none"));
        operator.await_status("s-1", "compensated");
        assert_eq!(operator.await_letters(1).len(), 1);
        until("all is out", || {
            let identity = host.journal().identity();
            (identity.confirmed == identity.last_batch).then_some(())
        });
        let names = ["off".into(), "letters".into(), "shop.dead-letters".into()];
        let made: Vec<_> = shop.topics().topics(&names).unwrap().into_keys().collect();
        assert_eq!(made.len(), expected, "{made:?}");
        let out = if expected == 0 { 0 } else { shop.read(&["letters"]).len() };
        assert_eq!(out, expected);
        host.stop(STOP);
    }
}

/// Several subscribe to one event: who is named runs first.
#[test]
fn plugins_run_in_the_order_that_is_configured() {
    let first = |order: &str| {
        let mut shop = Shop::new(&["order", "payment"], "");
        let file = shop.dir.path().join("sagahost.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{order}\n{text}")).unwrap();
        let config = sagahost::config::Config::load(&file).unwrap_or_else(|faults| panic!("{faults}"));
        shop.config = config;
        let host = shop.start();
        let operator = Operator::of(&host);
        let orders = some_orders("o", 1);
        shop.send(&order_record(&orders[0]));
        await_done(&operator, &orders[0].order_id);
        let saga = operator.saga(&orders[0].order_id).unwrap();
        host.stop(STOP);
        let ran = saga.timeline.into_iter().filter(|line| line.what == "attempt");
        ran.filter_map(|line| line.participant).collect::<Vec<_>>()
    };
    assert_eq!(first(""), ["order", "payment"]);
    assert_eq!(first("plugin-order = [\"payment\"]"), ["payment", "order"]);
}
