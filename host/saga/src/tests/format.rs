//! The record as bytes. Invariant: the golden files are never written again; a change that breaks one needs a new version
//! of the format.

use std::sync::Arc;

use expect_test::expect;
use proptest::prelude::*;

use super::{
    script::play,
    world::{World, shop},
};
use crate::{Saga, event::AsItCame, format::FormatError, input::Status};

/// A life with something of everything in it.
const RICH: &str =
    "with data alike; with payment outside; with inline-max 8; with member mailer SagaFailed compensating
     with payment.OrderCreated emits ReminderDue after 5s; with payment.OrderCreated deadline 1m
     with order.InventoryUpdated after OrderCreated; away mailer
     InventoryUpdated#0; payment uncertain; inventory retries BUSY 5s; OrderCreated; wait 1s; OrderCreated=other
     payment undo stuck NO; order undo retries BUSY 5s; SagaFailed; PaymentProcessed#2; upgrade payment";
const GOLDEN: &[u8] = include_bytes!("../../tests/golden/saga-v6.bin");
const GOLDEN_V3: &[u8] = include_bytes!("../../tests/golden/saga-v3.bin");
const GOLDEN_V3_COMPENSATING: &[u8] = include_bytes!("../../tests/golden/saga-v3-compensating.bin");
const GOLDEN_V2: &[u8] = include_bytes!("../../tests/golden/saga-v2.bin");
const GOLDEN_COMPENSATING: &[u8] = include_bytes!("../../tests/golden/saga-v6-compensating.bin");
const GOLDEN_V4: &[u8] = include_bytes!("../../tests/golden/saga-v4.bin");
const GOLDEN_V4_COMPENSATING: &[u8] = include_bytes!("../../tests/golden/saga-v4-compensating.bin");
const GOLDEN_V5: &[u8] = include_bytes!("../../tests/golden/saga-v5.bin");
const GOLDEN_V5_COMPENSATING: &[u8] = include_bytes!("../../tests/golden/saga-v5-compensating.bin");
const GOLDEN_SENDING: &[u8] = include_bytes!("../../tests/golden/saga-v6-sending.bin");
const GOLDEN_UNDO_SENDING: &[u8] = include_bytes!("../../tests/golden/saga-v6-undo-sending.bin");
/// Its second request is out, for the second time; and one of its undoing is.
const SENDING: &str =
    "with data alike; payment sends; payment ok; payment sends; payment hangs; payment hangs; OrderCreated; crash";
const UNDO_SENDING: &str = "with data alike; payment sends; payment ok; inventory rejects EMPTY; payment undo sends; payment undo hangs; OrderCreated";
/// In the middle of undoing: one step is undone, the call for the next is outside, for the second time.
const COMPENSATING: &str = "with data alike; with payment outside; inventory rejects EMPTY; payment undo hangs; payment undo hangs; OrderCreated; crash";
/// As format 3 could say it: the next waits for its second attempt.
const COMPENSATING_V3: &str = "with data alike; inventory rejects EMPTY; payment undo retries BUSY 5s; OrderCreated";
/// Its first step keeps a record as it came.
const GOLDEN_V2_RECORD: &[u8] = include_bytes!("../../tests/golden/saga-v2-record.bin");

/// What format 2 could not say: a null header, and a key that is not the saga id's text.
fn richest() -> Saga {
    let mut saga = play(RICH).saga;
    let event = &mut saga.steps[0].event;
    event.record_key = Some([0, 0, 3, 0xf8][..].into());
    event.origin.as_mut().expect("it came from outside").record = Some(Arc::new(AsItCame {
        key: Some(vec![0, 0, 3, 0xf8]),
        value: None,
        headers: vec![
            ("null".to_owned(), None),
            ("empty".to_owned(), Some(vec![])),
            ("bytes".to_owned(), Some(vec![0, 0xff])),
        ],
    }));
    saga.record_key = Some([0, 0, 3, 0xf8][..].into());
    saga
}

fn sealed(record: &[u8]) -> Vec<u8> {
    let mut bytes = record.to_vec();
    bytes.extend_from_slice(&crate::format::checksum(record));
    bytes
}

/// Only when told to, and then the test fails: what was compiled in is the file as it was before.
fn write_golden(name: &str, saga: &Saga) {
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(&path, saga.encode()).expect("the golden file can be written");
        panic!("{path} is written; look at the difference, and run the test again without WRITE_GOLDEN");
    }
}

#[test]
fn a_saga_that_is_being_compensated_is_read_as_it_was_written() {
    let compensating = play(COMPENSATING).saga;
    write_golden("saga-v6-compensating.bin", &compensating);
    let saga = Saga::decode(GOLDEN_COMPENSATING).expect("the golden file is readable");
    assert_eq!(saga, compensating, "the same life makes the same record");
    assert_eq!(saga.encode(), GOLDEN_COMPENSATING);
    assert_eq!(saga.status(), Status::Compensating);
    assert!(saga.plan.len() >= 2 && saga.cause.is_some(), "{:?}", saga.plan);
}

#[test]
fn a_saga_whose_request_is_out_is_read_as_it_was_written() {
    for (name, script, golden) in [
        ("saga-v6-undo-sending.bin", UNDO_SENDING, GOLDEN_UNDO_SENDING),
        ("saga-v6-sending.bin", SENDING, GOLDEN_SENDING),
    ] {
        let sending = play(script).saga;
        write_golden(name, &sending);
        let saga = Saga::decode(golden).expect("the golden file is readable");
        assert_eq!(saga, sending, "the same life makes the same record");
        assert_eq!(saga.encode(), golden);
        assert_eq!(saga.in_doubt().iter().map(|call| call.send).max(), Some(if script == SENDING { 3 } else { 1 }));
    }
}

/// Formats 4 to 6 have the same shape. (When a call outside leaves, the record is no longer written once more.)
#[test]
fn records_of_formats_3_to_5_are_those_that_the_same_lives_make_today() {
    for (format, old, saga) in [
        (3, GOLDEN_V3, richest()),
        (3, GOLDEN_V3_COMPENSATING, play(COMPENSATING_V3).saga),
        (4, GOLDEN_V4, richest()),
        (4, GOLDEN_V4_COMPENSATING, play(COMPENSATING).saga),
        (5, GOLDEN_V5, richest()),
        (5, GOLDEN_V5_COMPENSATING, play(COMPENSATING).saga),
    ] {
        let read = Saga::decode(old).expect("the golden file is readable");
        assert_eq!(read, Saga { version: read.version, ..saga });
        assert_eq!((old[0], read.encode()[0]), (format, 6), "it is written in format 6");
    }
}

#[test]
fn golden_v6_is_read_as_it_was_written() {
    write_golden("saga-v6.bin", &richest());
    let saga = Saga::decode(GOLDEN).expect("the golden file is readable");
    assert_eq!(saga.encode(), GOLDEN);
    assert_eq!(saga.record_key.as_deref(), Some(&[0, 0, 3, 0xf8][..]));
    let event = &saga.steps[0].event;
    assert_eq!(event.record_key, saga.record_key);
    let record = event.origin.as_ref().and_then(|origin| origin.record.as_ref()).expect("it is kept as it came");
    let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    assert_eq!(headers, [("null", None), ("empty", Some(&[][..])), ("bytes", Some(&[0, 0xff][..]))]);
}

#[test]
fn a_record_kept_by_format_2_keeps_its_headers() {
    let saga = Saga::decode(GOLDEN_V2_RECORD).expect("the golden file is readable");
    let record = saga.steps[0].event.origin.as_ref().and_then(|origin| origin.record.as_ref());
    let record = record.expect("it is kept as it came");
    assert_eq!(record.key.as_deref(), Some(&b"o-1"[..]));
    let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    assert_eq!(headers, [("empty", Some(&[][..])), ("bytes", Some(&[0, 0xff][..]))]);
}

#[test]
fn golden_v2_is_read_as_it_was_written() {
    let mut world = World::new(shop());
    world.saga = Saga::decode(GOLDEN_V2).expect("the golden file is readable");
    let rewritten = world.saga.encode();
    assert_eq!(rewritten[0], 6, "what is read in format 2 is written in format 6");
    assert_eq!(Saga::decode(&rewritten).as_ref(), Ok(&world.saga));
    expect![[r#"
        = finishing
          order.InventoryUpdated: done
          order.OrderCreated: done
          payment.OrderCreated: done, 2 attempts
          inventory.PaymentProcessed: retrying
          late: 2
          open letter: event-id-reused
          open letter: failed-after-finish
    "#]]
    .assert_eq(&world.report());
    expect![[r#"
        [
            Entry {
                at: Time(
                    2000,
                ),
                what: Emitted {
                    participant: Some(
                        "payment",
                    ),
                    kind: "PaymentProcessed",
                    id: "7f5d07fe2b288eaa0e19a079d426e955",
                },
            },
            Entry {
                at: Time(
                    2000,
                ),
                what: Event {
                    kind: "PaymentProcessed",
                    key: sagahost/shop/payment/7f5d07fe2b288eaa0e19a079d426e955,
                    note: Fused,
                },
            },
            Entry {
                at: Time(
                    2000,
                ),
                what: Attempt {
                    participant: "inventory",
                    kind: "PaymentProcessed",
                    direction: Forward,
                    attempt: 1,
                    outcome: "retry",
                    code: "BUSY",
                    detail: "as told",
                    took: 3ms,
                    version: "1.0",
                },
            },
            Entry {
                at: Time(
                    2000,
                ),
                what: Parked {
                    participant: "inventory",
                    kind: "PaymentProcessed",
                    why: "again: BUSY",
                    until: Some(
                        Time(
                            7000,
                        ),
                    ),
                },
            },
            Entry {
                at: Time(
                    2000,
                ),
                what: DeadLetter {
                    key: "outside/OrderCreated|#16116d22",
                    code: "event-id-reused",
                    closed: None,
                },
            },
            Entry {
                at: Time(
                    2000,
                ),
                what: Event {
                    kind: "SagaFailed",
                    key: outside/SagaFailed,
                    note: Failure,
                },
            },
            Entry {
                at: Time(
                    2000,
                ),
                what: DeadLetter {
                    key: "outside/SagaFailed|",
                    code: "failed-after-finish",
                    closed: None,
                },
            },
            Entry {
                at: Time(
                    2000,
                ),
                what: Event {
                    kind: "PaymentProcessed",
                    key: outside/PaymentProcessed#2,
                    note: Late,
                },
            },
        ]
    "#]]
    .assert_eq(&format!("{:#?}\n", world.saga.history()));
}

#[test]
fn corrupt_records_are_refused_by_name() {
    let bytes = play("OrderCreated").saga.encode();
    let refused = |bytes: &[u8]| Saga::decode(bytes).expect_err("it must be refused").to_string();
    assert_eq!(Saga::decode(&[]), Err(FormatError::Empty));
    assert_eq!(
        refused(&[9, 1, 2]),
        "read a saga record of format 9: this host reads formats 2 to 6; a newer one wrote it"
    );
    let unreleased = "read a saga record of format 1: this host reads formats 2 to 6; a development version that was never \
                      released wrote it";
    assert_eq!(refused(&[1, 1, 2]), unreleased);
    assert_eq!(refused(&bytes[..5]), "read a saga record: its bytes are corrupt (only 5 bytes)");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    assert_eq!(refused(&flipped), "read a saga record: its bytes are corrupt (the checksum differs)");
    let longer = sealed(&[&bytes[..bytes.len() - 8], &[0]].concat());
    assert_eq!(refused(&longer), "read a saga record: its bytes are corrupt (1 bytes too many)");
}

#[test]
fn a_record_that_points_nowhere_is_refused() {
    let mut saga = play("inventory rejects EMPTY; OrderCreated").saga;
    saga.plan[0].step = 99;
    let refused = Saga::decode(&saga.encode()).expect_err("it must be refused").to_string();
    assert_eq!(refused, "read a saga record: its bytes are corrupt (the plan names step 99, which does not exist)");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Saga::decode(&bytes);
        for version in [2, 3, 4, 5] {
            let _ = Saga::decode(&sealed(&[&[version], &*bytes].concat()));
        }
    }

    #[test]
    fn a_changed_record_never_panics(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        for golden in [GOLDEN, GOLDEN_COMPENSATING, GOLDEN_V3_COMPENSATING, GOLDEN_V2_RECORD] {
            let mut record = golden[..golden.len() - 8].to_vec();
            let at = at.index(record.len());
            record[at] = to;
            if let Ok(saga) = Saga::decode(&sealed(&record)) {
                let topology = shop();
                let _ = (saga.check(&topology), saga.status(), saga.steps().count(), saga.next_commands());
            }
        }
    }
}
