//! What every implementation of `Journal` owes the host. Invariant: nothing here knows which implementation it asks.
//!
//! An implementation runs it with `journal_contract!(|| a new, empty place)`, which makes one test of each promise.
#![expect(clippy::unwrap_used, reason = "a promise that is broken ends the test")]

pub mod arrival;
pub mod endings;
pub mod letters;
pub mod ownership;
pub mod sagas;
pub mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use sagahost_saga::{
    event::{AsItCame, Event, Origin},
    id::{EventKey, Kind, Participant, SagaId, Time},
    input::{Letter, Status, Wake},
    outcome::{Behaviour, Problem},
};
use sagahost_wire::{BatchNo, Outgoing, Partition, Position, StoredLetter};

use super::{
    BatchWrite, CommitAnswer, Identity, Journal, JournalError, LeftOut, LetterFilter, LetterRemoval, LetterRetention,
    OutboxBatch, PluginWrite, PublicationNotes, RemovedLetters, SagaFilter, SagaKey, SagaListRow, SagaWrite,
};

/// Where one journal lives.
pub trait Place {
    /// Opens it as a new owner of the app "shop"; a handle opened before may still be in use.
    fn open(&self) -> Box<dyn Journal>;
}

pub type Promise = fn(&dyn Place);

/// One test of each promise, for the places that `$place` makes.
#[macro_export]
macro_rules! journal_contract {
    ($place:expr; $($group:ident: $($promise:ident),+;)+) => {
        $(mod $group {
            use super::*;

            $(#[test]
            fn $promise() {
                let promise: $crate::contract::Promise = $crate::contract::$group::$promise;
                promise(&$place());
            })+
        })+
    };
    ($place:expr) => {
        $crate::journal_contract! {
            $place;
            arrival: everything_comes_back, gap_is_refused, failed_commit_leaves_nothing, outbox_in_order,
                     confirmation_removes_and_never_goes_back, rows_left_out, publication_notes,
                     positions_are_replaced, commands_wait_until_done;
            ownership: stale_epoch, incarnations_by_batch, owner_without_batch, new_lineage, anchor, moved_position, closed_handle;
            sagas: keys_in_order_of_arrival, key_of_a_saga_that_has_one, wrong_key_is_refused, due_in_order,
                   deadlines_in_order, parked_and_in_doubt, listed_by_status_and_notes, counted_by_status,
                   spilled_rows;
            endings: digests_while_needed, removed_in_bites, removed_key_is_not_given_again,
                     requests_go_with_their_saga, quarantine, quarantine_without_a_row;
            letters: round_trip, reopened_under_its_key, filtered_and_grouped, open_letter_keeps_its_saga,
                     closed_letters_go, undecodable_letters_beyond_their_bounds_go, old_undecodable_letters_go,
                     letters_of_open_sagas_stay, removed_letters_are_counted;
            values: store_scan_by_prefix, store_scan_edges, store_scan_by_bytes, store_of_participants_apart, versions_of_keys,
                    stale_read_is_a_conflict, counters_come_back, counters_change_by_differences,
                    counter_out_of_bounds_is_a_conflict, admission, pauses_and_history;
        }
    };
}
/// Takes batches with the right numbers.
struct Owner {
    journal: Box<dyn Journal>,
    identity: Identity,
}

impl Owner {
    fn of(place: &dyn Place) -> Self {
        let journal = place.open();
        let identity = journal.identity();
        Self { journal, identity }
    }
    fn next(&self) -> BatchWrite {
        BatchWrite { number: BatchNo(self.journal.identity().last_batch.0 + 1), at: Time(1), ..BatchWrite::default() }
    }
    fn commit(&self, change: impl FnOnce(&mut BatchWrite)) -> Vec<(SagaId, SagaKey)> {
        let mut batch = self.next();
        change(&mut batch);
        done(self.journal.commit(self.identity.epoch, &batch))
    }
    fn sagas(&self, sagas: Vec<SagaWrite>) -> Vec<(SagaId, SagaKey)> {
        self.commit(|batch| batch.sagas = sagas)
    }
    fn change_plugins(&self, write: PluginWrite) {
        self.journal.change_plugins(self.identity.epoch, &write).unwrap();
    }
    fn list(&self, filter: SagaFilter) -> Vec<String> {
        let rows: Vec<SagaListRow> = self.journal.sagas(&filter).unwrap();
        rows.into_iter().map(|row| row.id.to_string()).collect()
    }
    fn outbox(&self) -> Vec<OutboxBatch> {
        self.journal.outbox(BatchNo(0), 100).unwrap()
    }
    fn letters(&self, filter: LetterFilter) -> Vec<String> {
        self.journal.letters(&filter).unwrap().into_iter().map(|letter| letter.key).collect()
    }
}

#[track_caller]
fn done(committed: Result<CommitAnswer, JournalError>) -> Vec<(SagaId, SagaKey)> {
    match committed {
        Ok(CommitAnswer::Done(keys)) => keys,
        other => panic!("not journaled: {other:?}"),
    }
}

fn saga(id: &str) -> SagaWrite {
    SagaWrite {
        id: SagaId::from(id),
        key: None,
        bytes: id.as_bytes().to_vec(),
        status: Status::Running,
        wake: Wake::default(),
        notes: Vec::new(),
        updated: Time(5),
        spilled_events: Vec::new(),
        spilled_history: Vec::new(),
        digests: BTreeSet::new(),
    }
}

fn record(text: &str) -> Outgoing {
    Outgoing {
        topic: Arc::from("order-completed"),
        key: Some(text.as_bytes().to_vec()),
        value: Some(vec![0, 255, 1]),
        headers: vec![
            ("ce_id".to_owned(), Some(text.as_bytes().to_vec())),
            ("ce_id".to_owned(), Some(Vec::new())),
            ("ce_id".to_owned(), None),
        ],
    }
}

fn letter(key: &str, saga: Option<&str>) -> StoredLetter {
    StoredLetter {
        key: key.to_owned(),
        saga: saga.map(SagaId::from),
        participant: Some(Participant::from("payment")),
        kind: Some(Arc::from("OrderCreated")),
        code: "declined".to_owned(),
        detail: "the card was declined".to_owned(),
        attempts: 3,
        plugin_version: Arc::from("1.2.3"),
        at: Time(7),
        origin: Some((Partition::new("order-created", 2), 40)),
        record: Outgoing { key: None, value: None, ..record("x") },
        letter: saga.map(|saga| core_letter(key, saga)),
        closed: None,
    }
}

fn core_letter(key: &str, saga: &str) -> Letter {
    let event = Event {
        key: EventKey::new("shop", "e-1"),
        saga: SagaId::from(saga),
        kind: Kind::from("OrderCreated"),
        time: Time(6),
        content_type: Arc::from("application/json"),
        data: Arc::from(&b"\x00{}\xff"[..]),
        attributes: vec![("traceparent".to_owned(), "00-ab".to_owned())],
        hops: 2,
        origin: Some(Origin {
            topic: Arc::from("order-created"),
            partition: 2,
            offset: 40,
            record: Some(Arc::new(AsItCame {
                key: Some(vec![0xff]),
                value: None,
                headers: vec![("h".to_owned(), Some(vec![0, 0xfe])), ("null".to_owned(), None)],
            })),
        }),
        record_key: Some(Arc::from(&[0, 0xff][..])),
    };
    Letter {
        key: key.to_owned(),
        participant: Some(Participant::from("payment")),
        event,
        problem: Problem::new("declined", "the card was declined"),
        attempts: 3,
        by: Behaviour { digest: Arc::from("d1"), config: Arc::from("c1"), version: Arc::from("1.2.3") },
        at: Time(7),
    }
}

/// Partition, next offset, last (offset, timestamp).
type PositionOf = (i32, i64, Option<(i64, u64)>);

fn positions(entries: &[PositionOf]) -> BTreeMap<Partition, Position> {
    let position =
        |&(number, next, last)| (Partition::new("order-created", number), Position { next, last, topic_id: None });
    entries.iter().map(position).collect()
}
