//! One saga that retries (rule 11). Invariant: it holds up nobody else, and its own later events wait
//! behind it.

use std::time::Duration;

use sagahost_operator::view::SagaView;
use sagahost_tests::{
    events::{event, tried},
    operator::{Operator, attempts},
    shop::Shop,
    wait::until,
};
use sagahost_transport::Transport as _;
use serde_json::{Value, json};

/// Twelve attempts, a tenth of a second apart on average; one worker, so that waiting would be seen.
const SLOW: &str = "[pipeline]\nworkers = 1\n[plugin.hostile.on.HostileTried]\n\
                    retry = { attempts-max = 100, base = \"200ms\", cap = \"200ms\" }\n";

fn tries(saga: &SagaView) -> u32 {
    saga.steps.first().map_or(0, |step| step.attempts)
}

#[test]
fn retries_delay_nobody_else_and_keep_the_sagas_order() {
    let shop = Shop::new(&["hostile"], SLOW);
    shop.topics().create_topics(&["hostile-tried".into()], 1).unwrap();
    let host = shop.start();
    let operator = Operator::of(&host);
    shop.send(&tried("slow", "retry-until:12", "none"));
    let later = |number: u32| {
        event(
            "HostileTried",
            "slow",
            &format!("later-{number}"),
            &json!({ "id": format!("later-{number}"), "fault": "none" }),
        )
    };
    (1..=3).for_each(|number| drop(shop.send(&later(number))));

    // Others come all the time, behind it in the same partition, and each ends while it retries.
    let mut others = 0;
    let mut rounds = 0;
    loop {
        let saga = format!("other-{others}");
        shop.send(&tried(&saga, "none", "none"));
        let other = operator.await_saga(&saga, "done", |saga| saga.steps[0].state == "done");
        assert_eq!(tries(&other), 1);
        let slow = operator.saga("slow").unwrap();
        if slow.steps[0].state == "done" {
            break;
        }
        let waiting = slow.steps[1..].iter().all(|step| step.state == "waiting" && step.attempts == 0);
        assert!(waiting, "a later event passed the one that retries: {:#?}", slow.steps);
        others += 1;
        rounds = tries(&slow);
    }
    assert!(others >= 10 && rounds > 6, "{others} others ended while the slow one was tried {rounds} times");

    let slow = operator
        .await_saga("slow", "done", |saga| saga.steps.len() == 4 && saga.steps.iter().all(|step| step.state == "done"));
    assert_eq!(attempts(&slow, "hostile").len(), 12 + 3);
    let began = slow.created.0.0;
    let ended = slow.timeline.iter().rfind(|line| line.what == "attempt").unwrap().at.0.0;
    assert!(ended - began > 500, "it retried for {} ms only, which shows nothing", ended - began);
    // An attempt that is due soon after the one before is not held back.
    let at: Vec<u64> = slow.timeline.iter().filter(|line| line.what == "attempt").map(|line| line.at.0.0).collect();
    let quickest = at.windows(2).map(|pair| pair[1] - pair[0]).take(11).min();
    assert!(quickest.is_some_and(|gap| gap < 200), "no two attempts were closer than {quickest:?} ms");
    let answers: Vec<String> = until("its answers are out", || {
        let records = shop.read(&["hostile-done"]);
        let of_slow = records.iter().filter(|record| record.key.as_deref() == Some(b"slow"));
        let id = |value: &[u8]| serde_json::from_slice::<Value>(value).unwrap()["id"].as_str().unwrap().to_owned();
        let ids: Vec<String> = of_slow.map(|record| id(record.value.as_deref().unwrap())).collect();
        (ids.len() == 4).then_some(ids)
    });
    assert_eq!(answers, ["slow", "later-1", "later-2", "later-3"]);
    host.stop(Duration::from_secs(10));
}

/// Rule 11: the wait behind a retry is bounded, and what is over the bound is kept for a person.
#[test]
fn more_events_than_may_wait_are_dead_letters_and_ask_for_an_operator() {
    let more = "[saga]\nparked-max = 3\n[plugin.hostile.on.HostileTried]\n\
                retry = { attempts-max = 9, base = \"1h\", cap = \"1h\" }\n";
    let shop = Shop::new(&["hostile"], more);
    let host = shop.start();
    let operator = Operator::of(&host);
    shop.send(&tried("s-1", "retry-until:2", "none"));
    for number in 0..4 {
        let id = format!("later-{number}");
        shop.send(&event("HostileTried", "s-1", &id, &json!({ "id": id, "fault": "none" })));
    }
    let saga = operator.await_saga("s-1", "over the bound", |saga| saga.letters.len() == 2);
    assert_eq!((saga.status.as_str(), saga.parked.len()), ("needs-operator", 3));
    let whys: Vec<_> = saga.parked.iter().map(|parked| parked.why.as_str()).collect();
    let behind = "waits behind an earlier event of the saga";
    assert_eq!(whys, ["waits for its next attempt", behind, behind]);
    let letters = operator.letters();
    assert!(letters.iter().all(|letter| letter.line.code == "parked-overflow"), "{letters:#?}");
    // Rule 13: the first one is its participant's, what follows is kept aside whole.
    let of_all = letters.iter().filter(|letter| letter.line.participant.is_none());
    assert_eq!(of_all.map(|letter| letter.value.as_deref().unwrap().contains("later-3")).collect::<Vec<_>>(), [true]);
    shop.send(&tried("s-2", "none", "none"));
    operator.await_saga("s-2", "done", |saga| saga.steps[0].state == "done");

    // The way on: what holds it up is tried again, and then what was kept.
    assert!(operator.retry("s-1").done);
    operator.await_saga("s-1", "free", |saga| saga.parked.is_empty());
    for letter in letters.iter().rev() {
        assert!(operator.redrive(&letter.line.key).unwrap().done);
    }
    let saga = operator
        .await_saga("s-1", "done", |saga| saga.steps.len() == 5 && saga.steps.iter().all(|step| step.state == "done"));
    assert_eq!((saga.status.as_str(), attempts(&saga, "hostile").len()), ("running", 6));
    assert!(operator.letters().is_empty());
    host.stop(Duration::from_secs(10));
}
