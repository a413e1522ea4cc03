//! Kinds that no plugin handles, and records of dead letters that are sent again, by plain clients of a real broker.
//! Invariant: each leaves a trace that the commands show.

use std::{sync::OnceLock, time::Duration};

use sagahost_demo::broker::{Broker, Options};
use sagahost_tests::{
    kafka_shop::{KafkaShop, Settings, Topics},
    wait::until,
};

const LONG: Duration = Duration::from_secs(60);

fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| Broker::start(Options::default()).expect("a broker"))
}

fn shop(name: &str, more: &str) -> KafkaShop<'static> {
    let settings = Settings { more: more.to_owned(), ..Settings::default() };
    KafkaShop::with(broker(), name, &["hostile"], &Topics(name.to_owned()), &settings)
}

fn headers<'h>(kind: &'h str, id: &'h str) -> [(&'h str, &'h str); 4] {
    [("ce_specversion", "1.0"), ("ce_type", kind), ("ce_source", "web"), ("ce_id", id)]
}

#[test]
fn a_kind_in_another_case_leaves_a_trace() {
    let shop = shop("kinds", "");
    let host = shop.start();
    shop.until("the host to serve", LONG, |_| true);
    let typo = headers("hostileTried", "e-1");
    let data = r#"{"id": "s-1"}"#;
    broker().produce("hostile-tried", [("s-1", data, &typo[..])]).unwrap();
    let status = shop.until("the event to be counted", LONG, |status| status.counter("unhandled") == 1);
    let line = &status.0["unhandled"][0];
    assert_eq!((&line["kind"], &line["meant"]), (&"hostileTried".into(), &"HostileTried".into()), "{line}");
    assert_eq!(line["topic"], "hostile-tried");
    let show = shop.command(&["sagas", "show", "s-1"]);
    assert_eq!(show.status.code(), Some(3), "no saga began: {show:?}");
    assert!(host.stop().success());
}

#[test]
fn a_letter_s_record_that_a_client_copies_back_redrives_the_letter() {
    let more = "[plugin.hostile.on.HostileTried]\non-dead-letter = \"block\"\n\
                retry = { attempts-max = 2, base = \"10ms\", cap = \"10ms\" }\n";
    let shop = shop("again", more);
    let host = shop.start();
    shop.until("the host to serve", LONG, |_| true);
    let data = r#"{"id": "a-1", "fault": "retry-until:3"}"#;
    broker().produce("hostile-tried", [("a-1", data, &headers("HostileTried", "a-1")[..])]).unwrap();
    shop.until("a letter", LONG, |status| status.number("open-letters") == 1);
    let published = until("the letter is published", || broker().committed("again.dead-letters").unwrap().pop());
    let copied: Vec<(&str, &str)> = published.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    broker().produce("hostile-tried", [(&*published.key, &*published.value, &copied[..])]).unwrap();
    shop.until("the letter to be closed", LONG, |status| status.number("open-letters") == 0);
    let closed = shop.ask(&["dead-letters", "list", "--closed"]);
    let how = closed[0]["closed"].as_str().unwrap_or_default();
    assert!(how.starts_with("redriven by record hostile-tried["), "{closed}");
    until("the participant is done", || {
        (shop.ask(&["sagas", "show", "a-1"])["steps"][0]["state"] == "done").then_some(())
    });
    assert!(host.stop().success());
}
