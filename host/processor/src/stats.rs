//! What the host counts. Invariant: a counter only grows while the host runs.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::unhandled::UnhandledKinds;

#[derive(Debug, Default)]
pub struct Stats {
    /// Records read.
    pub records: AtomicU64,
    /// Of these, skipped unread: this host's own, or handled before.
    pub records_skipped: AtomicU64,
    /// Events from records that changed a saga.
    pub events: AtomicU64,
    /// Events that were acted on before: a producer's doubles.
    pub duplicates: AtomicU64,
    /// Plugin calls, chains that were run again included.
    pub calls: AtomicU64,
    pub chains_rerun: AtomicU64,
    pub journal_commits: AtomicU64,
    pub publications: AtomicU64,
    /// Events of kinds that no plugin here handles.
    pub unhandled: UnhandledKinds,
    /// By digest.
    plugins: Mutex<HashMap<Arc<str>, PluginCalls>>,
}

/// Calls of one version of a plugin.
#[derive(Clone, Debug)]
pub struct PluginCalls {
    pub calls: u64,
    /// Of these: traps, deadlines, memory stops, invalid outcomes.
    pub failures: u64,
    /// Microseconds, to 1 %.
    pub took: Histogram<u64>,
}

impl PluginCalls {
    fn new() -> Self {
        let took = Histogram::new(2).expect("two digits are a precision that histograms have");
        Self { calls: 0, failures: 0, took }
    }
}

impl Stats {
    pub fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
    pub fn called(&self, digest: &Arc<str>, failed: bool, took: Duration) {
        Self::add(&self.calls, 1);
        let mut plugins = self.plugins.lock();
        if !plugins.contains_key(digest) {
            plugins.insert(digest.clone(), PluginCalls::new());
        }
        let Some(calls) = plugins.get_mut(digest) else { return };
        calls.calls += 1;
        calls.failures += u64::from(failed);
        calls.took.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
    pub fn of_plugin(&self, digest: &str) -> Option<PluginCalls> {
        self.plugins.lock().get(digest).cloned()
    }
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}
