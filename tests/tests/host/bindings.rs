//! CloudEvents as other bindings spell them, and records that a host of an earlier version read differently. Invariant:
//! nothing runs as another kind, or in another saga, than its record says, and nothing runs twice after an upgrade.

use std::time::Duration;

use rusqlite::{Connection, params};
use sagahost::host::Host;
use sagahost_tests::{
    events::{plain, tried},
    operator::Operator,
    shop::Shop,
    wait::until,
};
use sagahost_wire::Outgoing;

use crate::shops::await_done;

const STOP: Duration = Duration::from_secs(10);

fn started() -> (Shop, Host, Operator) {
    let shop = Shop::new(&["hostile"], "");
    sagahost_transport::Transport::create_topics(&shop.topics(), &["hostile-tried".into()], 1).unwrap();
    let host = shop.start();
    let operator = Operator::of(&host);
    (shop, host, operator)
}

/// Until everything that was sent so far is accounted for.
fn await_position(host: &Host, next: i64) {
    until("everything is handled", || {
        let positions = host.journal().positions().unwrap();
        positions.iter().find(|(at, _)| &*at.topic == "hostile-tried").filter(|(_, at)| at.next == next).map(drop)
    });
}

/// A record of saga `s-KEY` for those who look at its key and its topic only.
fn keyed(key: &str) -> Outgoing {
    let Outgoing { value, .. } = tried(key, "none", "none");
    plain("HostileTried", Some(key.as_bytes()), value.as_deref())
}

fn with(record: Outgoing, prefix: &str, attributes: &[(&str, &str)]) -> Outgoing {
    let header = |(name, value): &(&str, &str)| (format!("{prefix}{name}"), Some(value.as_bytes().to_vec()));
    Outgoing { headers: attributes.iter().map(header).collect(), ..record }
}

fn event_of(saga: &str, kind: &str, prefix: &str, record: Outgoing) -> Outgoing {
    let id = format!("{saga}-{prefix}");
    let attributes = [("specversion", "1.0"), ("id", id.as_str()), ("source", "web"), ("type", kind), ("sagaid", saga)];
    with(record, prefix, &attributes)
}

#[test]
fn a_record_runs_as_the_kind_and_in_the_saga_that_it_says() {
    let (shop, host, operator) = started();
    let prefixes = ["ce_", "ce-", "cloudEvents:", "cloudEvents_"];
    for (number, prefix) in prefixes.iter().enumerate() {
        // Somebody else's kind, in a topic whose plain records have another one.
        shop.send(&event_of(&format!("refused-{number}"), "HostileRefused", prefix, keyed(&format!("k-{number}"))));
        shop.send(&event_of(&format!("said-{number}"), "HostileTried", prefix, keyed(&format!("k-{number}"))));
        await_done(&operator, &format!("said-{number}"));
        assert!(operator.saga(&format!("k-{number}")).is_none(), "{prefix}: the key is not asked");
        assert!(operator.saga(&format!("refused-{number}")).is_none(), "{prefix}: nobody handles that kind");
    }
    assert_eq!(operator.letters(), []);
    for prefix in &prefixes {
        shop.send(&with(keyed("part"), prefix, &[("type", "HostileRefused"), ("sagaid", "other")]));
    }
    let letters = operator.await_letters(prefixes.len());
    for letter in &letters {
        assert_eq!((letter.line.code.as_str(), letter.line.saga.as_deref()), ("invalid-header", Some("other")));
    }
    // Workers take them as they come.
    for prefix in prefixes {
        let says = format!("the record has {prefix}type, but not");
        assert_eq!(letters.iter().filter(|letter| letter.line.detail.contains(&says)).count(), 1, "{letters:?}");
    }
    assert!(operator.saga("part").is_none() && operator.saga("other").is_none());
    host.stop(STOP);
}

/// A host that knew no spelling but Kafka's took such a record in as plain: it is its plain twin that stands for that
/// here, for it has the same identity.
#[test]
fn what_an_earlier_version_took_in_does_not_run_again() {
    let (shop, host, operator) = started();
    shop.send(&keyed("k-1"));
    await_done(&operator, "k-1");
    // Known in memory, and then from the journal.
    shop.send(&event_of("other", "HostileTried", "ce-", keyed("k-1")));
    await_position(&host, 2);
    assert_eq!(host.live().status().duplicates, 1);
    host.stop(STOP);
    let host = shop.start();
    let operator = Operator::of(&host);
    for (number, prefix) in ["ce-", "cloudEvents:", "cloudEvents_"].iter().enumerate() {
        shop.send(&event_of("other", "HostileTried", prefix, keyed("k-1")));
        await_position(&host, 3 + number as i64);
    }
    assert_eq!(host.live().status().duplicates, 3);
    assert!(operator.saga("other").is_none(), "no second saga");
    assert_eq!(operator.letters(), []);
    // One that the earlier version did not come to.
    shop.send(&event_of("new", "HostileTried", "ce-", keyed("k-2")));
    await_done(&operator, "new");
    assert!(operator.saga("k-2").is_none());
    host.stop(STOP);
}

#[test]
fn an_event_whose_former_saga_is_unreadable_waits_for_a_person() {
    let (shop, host, operator) = started();
    shop.send(&keyed("k-1"));
    await_done(&operator, "k-1");
    host.stop(STOP);
    let connection = Connection::open(shop.data().join("journal.db")).unwrap();
    let bytes: Vec<u8> = connection.query_row("SELECT bytes FROM saga WHERE id = 'k-1'", [], |row| row.get(0)).unwrap();
    let set = |bytes: &[u8]| connection.execute("UPDATE saga SET bytes = ?1 WHERE id = 'k-1'", params![bytes]).unwrap();
    set(&[9]);
    let host = shop.start();
    let operator = Operator::of(&host);
    shop.send(&event_of("other", "HostileTried", "ce-", keyed("k-1")));
    let letter = operator.await_letters(1).remove(0).line;
    assert_eq!((letter.code.as_str(), letter.saga.as_deref()), ("former-saga-unreadable", Some("other")));
    assert!(letter.detail.contains("saga k-1") && letter.detail.contains("format 9"), "{letter:?}");
    assert!(operator.saga("other").is_none());
    host.stop(STOP);

    set(&bytes);
    let host = shop.start();
    let operator = Operator::of(&host);
    let deed = operator.redrive(&letter.key).unwrap();
    assert!(!deed.done && deed.text.contains("took this record in as event hostile-tried/"), "{deed:?}");
    assert!(operator.saga("other").is_none());
    operator.discard(&letter.key, "done by the earlier version").unwrap();
    host.stop(STOP);
}
