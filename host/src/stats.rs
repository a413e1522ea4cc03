//! What the host counts. Invariant: a counter only grows while the host runs.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct Stats {
    /// Records read.
    pub records: AtomicU64,
    /// Of these, skipped unread: this host's own, or handled before.
    pub records_skipped: AtomicU64,
    /// Events from records that changed a saga.
    pub events: AtomicU64,
    /// Plugin calls, chains that were run again included.
    pub calls: AtomicU64,
    pub chains_rerun: AtomicU64,
    pub journal_commits: AtomicU64,
    pub publications: AtomicU64,
}

impl Stats {
    pub fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}
