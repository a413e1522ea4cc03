//! What holds for SQLite, beyond the contract of journals. Invariant: a fault is a real one (a full file system, a
//! damaged file), not a pretended one.
#![expect(clippy::unwrap_used, reason = "a test")]

mod faults;
mod layout;
mod opening;

use std::collections::BTreeSet;

use sagahost_journal::{SagaWrite, contract::Place, journal_contract};
use tempfile::TempDir;

use super::*;

/// A directory that lives as long as the test. Handles pass the lock: the contract is about epochs.
struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn open_with(&self, options: OpenOptions) -> Result<SqliteJournal, JournalError> {
        SqliteJournal::open(self.path(), "shop", options)
    }
    /// As a host does.
    fn host(&self) -> Result<SqliteJournal, JournalError> {
        self.open_with(OpenOptions::default())
    }
}

impl Place for Dir {
    fn open(&self) -> Box<dyn Journal> {
        Box::new(self.open_with(OpenOptions { past_the_lock: true, ..OpenOptions::default() }).unwrap())
    }
}

/// The same with ids that all have one hash.
struct Collisions(Dir);

impl Place for Collisions {
    fn open(&self) -> Box<dyn Journal> {
        let options = OpenOptions { past_the_lock: true, ..OpenOptions::default() };
        Box::new(SqliteJournal::open_with(self.0.path(), "shop", options, |_| 42).unwrap())
    }
}

mod contract {
    use super::*;

    journal_contract!(Dir::new);
}

mod contract_with_collisions {
    use super::*;

    journal_contract!(|| Collisions(Dir::new()));
}

/// Journals it; the keys that it gave.
#[track_caller]
fn commit(journal: &SqliteJournal, batch: &BatchWrite) -> Vec<(SagaId, SagaKey)> {
    match journal.commit(journal.identity().epoch, batch) {
        Ok(CommitAnswer::Done(keys)) => keys,
        other => panic!("not journaled: {other:?}"),
    }
}

/// A batch of `sagas` sagas of 1 KiB.
fn batch(number: u64, sagas: usize) -> BatchWrite {
    let saga = |n| SagaWrite {
        id: SagaId::from(format!("order-{number}-{n}")),
        key: None,
        bytes: vec![7; 1024],
        status: Status::Running,
        wake: sagahost_saga::input::Wake::default(),
        notes: Vec::new(),
        updated: Time(number),
        spilled_events: Vec::new(),
        spilled_history: Vec::new(),
        digests: BTreeSet::new(),
    };
    BatchWrite { number: BatchNo(number), sagas: (0..sagas).map(saga).collect(), ..BatchWrite::default() }
}
