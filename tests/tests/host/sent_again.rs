//! Records of dead letters that somebody copied from the topic for dead letters back to where they came from. Invariant of
//! all tests: what is sent again acts on the letter that it names, and only where it is that letter's record.

use std::time::Duration;

use sagahost::host::Host;
use sagahost_tests::{
    events::{plain, tried},
    operator::{Operator, attempts},
    shop::Shop,
    wait::until,
};
use sagahost_wire::Outgoing;

/// Two attempts, then the saga waits.
const BLOCKING: &str = "[plugin.hostile.on.HostileTried]\non-dead-letter = \"block\"\n\
                        retry = { attempts-max = 2, base = \"10ms\", cap = \"10ms\" }\n";

fn started() -> (Shop, Host, Operator) {
    let shop = Shop::new(&["hostile"], BLOCKING);
    let host = shop.start();
    let operator = Operator::of(&host);
    (shop, host, operator)
}

/// As tools copy it: key, value and headers as they are published, for the topic that the headers name.
fn published(shop: &Shop, count: usize) -> Outgoing {
    let letters = until(&format!("{count} letters are published"), || {
        Some(shop.read(&["shop.dead-letters"])).filter(|letters| letters.len() >= count)
    });
    let last = letters.into_iter().max_by_key(|letter| letter.timestamp_ms).unwrap();
    Outgoing { topic: "hostile-tried".into(), key: last.key, value: last.value, headers: last.headers }
}

fn closed(operator: &Operator, key: &str) -> String {
    until("the letter is closed", || operator.letter(key).line.closed)
}

#[test]
fn the_record_of_a_participant_s_letter_redrives_it() {
    let (shop, host, operator) = started();
    shop.send(&tried("s-1", "retry-until:3", "none"));
    let key = operator.await_letters(1).remove(0).line.key;
    let (partition, offset) = shop.send(&published(&shop, 1));
    let how = closed(&operator, &key);
    assert_eq!(how, format!("redriven by record {partition}@{offset}"));
    let saga = operator.await_saga("s-1", "done", |saga| saga.steps[0].state == "done");
    assert_eq!(attempts(&saga, "hostile"), ["handle retry", "handle retry", "handle completed"]);
    assert_eq!(operator.status().counters["duplicates"], 0);

    // The letter is closed: now it is an ordinary duplicate.
    shop.send(&published(&shop, 1));
    until("it is counted", || (operator.status().counters["duplicates"] == 1).then_some(()));
    host.stop(Duration::from_secs(10));
}

#[test]
fn a_letter_that_was_published_without_its_value_is_redriven_with_the_journal_s() {
    let (shop, host, operator) = started();
    shop.send(&tried("s-1", "retry-until:3", "none"));
    let key = operator.await_letters(1).remove(0).line.key;
    let mut record = published(&shop, 1);
    record.value = Some(Vec::new());
    record.headers.push(("sagahost-dlq-omitted".to_owned(), Some(b"value".to_vec())));
    shop.send(&record);
    closed(&operator, &key);
    operator.await_saga("s-1", "done", |saga| saga.steps[0].state == "done");
    assert_eq!(operator.letters(), []);
    host.stop(Duration::from_secs(10));
}

#[test]
fn a_record_that_was_mended_is_taken_in_and_one_that_was_not_keeps_its_letter() {
    let (shop, host, operator) = started();
    shop.send(&plain("HostileTried", Some(b"s-1"), Some(b"{")));
    let letter = operator.await_letters(1).remove(0).line;
    let mut record = published(&shop, 1);

    record.value = Some(b"{\"id\": ".to_vec());
    let (partition, offset) = shop.send(&record);
    let origin = format!("{partition}@{offset}");
    until("the letter is of the new record", || {
        (operator.letter(&letter.key).line.origin.as_ref() == Some(&origin)).then_some(())
    });
    assert_eq!(operator.letters().len(), 1, "one letter, not two");

    record.value = Some(br#"{"id": "s-1", "fault": "none"}"#.to_vec());
    let (partition, offset) = shop.send(&record);
    assert_eq!(closed(&operator, &letter.key), format!("sent again as {partition}@{offset}"));
    operator.await_saga("s-1", "done", |saga| saga.steps[0].state == "done");
    assert_eq!(operator.letters(), []);

    // None of it is read again by the next start.
    host.stop(Duration::from_secs(10));
    let host = shop.start();
    let operator = Operator::of(&host);
    shop.send(&tried("s-2", "none", "none"));
    operator.await_saga("s-2", "done", |saga| saga.steps[0].state == "done");
    assert_eq!(host.live().status().events, 1, "the only event since the start");
    host.stop(Duration::from_secs(10));
}

#[test]
fn a_record_that_only_has_the_letter_s_headers_is_itself() {
    let (shop, host, operator) = started();
    shop.send(&tried("s-1", "retry-until:3", "none"));
    let key = operator.await_letters(1).remove(0).line.key;
    let copied = published(&shop, 1).headers.into_iter().filter(|(name, _)| name.starts_with("sagahost-dlq-"));
    let mut other = tried("s-2", "none", "none");
    other.headers.extend(copied);
    shop.send(&other);
    operator.await_saga("s-2", "done", |saga| saga.steps[0].state == "done");
    let letters = operator.letters();
    assert_eq!((letters.len(), letters[0].line.key.as_str()), (1, key.as_str()), "it stays open");
    host.stop(Duration::from_secs(10));
}
