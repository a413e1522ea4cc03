//! How many sagas a second the journal takes: each arrives once, with 500 bytes of record and 900 bytes of outbox.
//! Invariant: every batch is one durable commit, as in the host.
//!
//! `cargo run --release -p sagahost-journal-sqlite --example journal_rate [-- DIR]`

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::Path,
    sync::Arc,
    time::Instant,
};

use sagahost_journal::{BatchWrite, CommitAnswer, CounterWrite, Journal, JournalError, Name, SagaKey, SagaWrite, Seen};
use sagahost_journal_sqlite::{OpenOptions, SqliteJournal};
use sagahost_saga::{
    id::{Participant, SagaId, Time, hex, sha256},
    input::{Status, Wake},
};
use sagahost_wire::{BatchNo, Outgoing, Partition, Position};

const SAGA_BYTES: usize = 500;
const OUTBOX_BYTES: usize = 900;

fn main() -> Result<(), JournalError> {
    let dir = env::args().nth(1).unwrap_or_else(|| "target/journal-rate".to_owned());
    println!("journal in {dir}, synchronous=FULL; sagas a second:");
    for (batch, batches) in [(1_000, 200), (100, 1_000), (10, 3_000)] {
        let path = Path::new(&dir).join(format!("batches-of-{batch}"));
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(|error| JournalError::Failed(error.to_string()))?;
        }
        let journal = SqliteJournal::open(&path, "rate", OpenOptions::default())?;
        let arriving = run(&journal, batch, batches, |_| None)?;
        let (keys, again) = (batch * batches, 1 + batch * batches);
        let changing = run(&journal, batch, batches / 2, |n| {
            // Anywhere among those journaled before.
            Some(SagaKey(i64::try_from(n * 7_919 % keys + 1).unwrap_or(again as i64)))
        })?;
        journal.close()?;
        println!("batches of {batch:>5}: {arriving:>8.0} arriving, {changing:>8.0} changing");
    }
    Ok(())
}

fn run(
    journal: &SqliteJournal,
    batch: usize,
    batches: usize,
    key: impl Fn(usize) -> Option<SagaKey>,
) -> Result<f64, JournalError> {
    let epoch = journal.identity().epoch;
    let first = usize::try_from(journal.identity().last_batch.0).unwrap_or(0);
    let mut busy = std::time::Duration::ZERO;
    for number in first + 1..=first + batches {
        let write = one_batch(number, batch, &key);
        let began = Instant::now();
        let committed = journal.commit(epoch, &write)?;
        assert!(matches!(committed, CommitAnswer::Done(_)), "{committed:?}");
        busy += began.elapsed();
    }
    Ok((batch * batches) as f64 / busy.as_secs_f64())
}

/// One unit of an article, which is made where it is not there.
fn sold(article: u32) -> (Name, CounterWrite) {
    let write = CounterWrite { lo: 1, hi: i64::MAX, delta: -1, initial: Some(1 << 40), seen: Seen::Either };
    ((Participant::from("inventory"), format!("article-{article}")), write)
}

fn one_batch(number: usize, size: usize, key: &impl Fn(usize) -> Option<SagaKey>) -> BatchWrite {
    let first = (number - 1) * size;
    let sagas: Vec<SagaWrite> = (first..first + size).map(|n| saga(n, key(n))).collect();
    let outbox = sagas.iter().map(|saga| record(&saga.id)).collect();
    BatchWrite {
        number: BatchNo(number as u64),
        at: Time(number as u64),
        sagas,
        outbox,
        counters: (0..20).map(sold).collect(),
        positions: BTreeMap::from([(
            Partition::new("order-created", 0),
            Position {
                next: (first + size) as i64,
                last: Some(((first + size) as i64 - 1, number as u64)),
                topic_id: None,
            },
        )]),
        confirmed: BatchNo(number.saturating_sub(2) as u64),
        ..BatchWrite::default()
    }
}

fn saga(n: usize, key: Option<SagaKey>) -> SagaWrite {
    // A saga that changes is known by the number that it arrived with.
    let n = key.map_or(n, |key| usize::try_from(key.0 - 1).unwrap_or(0));
    SagaWrite {
        id: SagaId::from(hex(&sha256(&[&n.to_be_bytes()])[..16])),
        key,
        bytes: vec![b's'; SAGA_BYTES],
        status: Status::Completed,
        wake: Wake { remove_at: Some(Time(n as u64)), ..Wake::default() },
        notes: Vec::new(),
        updated: Time(n as u64),
        spilled_events: Vec::new(),
        spilled_history: Vec::new(),
        digests: BTreeSet::new(),
    }
}

fn record(id: &SagaId) -> Outgoing {
    Outgoing {
        topic: Arc::from("order-completed"),
        key: Some(id.as_str().as_bytes().to_vec()),
        value: Some(vec![b'v'; OUTBOX_BYTES - 132]),
        headers: vec![("ce_id".to_owned(), Some(vec![b'i'; 32])), ("ce_source".to_owned(), Some(vec![b'o'; 20]))],
    }
}
