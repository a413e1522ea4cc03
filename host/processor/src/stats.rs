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

/// What takes longer counts as this: no budget allows it, and no time-out of a service.
const CALL_MAX: Duration = Duration::from_secs(3_600);

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
        // One that grows does so in `record` alone, and saturates at what it has.
        let took = Histogram::new_with_bounds(1, CALL_MAX.as_micros() as u64, 2);
        let took = took.expect("two digits are a precision that histograms have");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_how_long_calls_took_and_not_what_a_histogram_had_room_for() {
        let (stats, digest) = (Stats::default(), Arc::from("d"));
        for micros in [2, 3_000, 3_000, 40_000, 1_500_000] {
            stats.called(&digest, false, Duration::from_micros(micros));
        }
        let calls = stats.of_plugin("d").expect("it was called");
        let at = |quantile| calls.took.value_at_quantile(quantile) as f64;
        for (quantile, micros) in [(0.2, 2.0), (0.5, 3_000.0), (0.8, 40_000.0), (1.0, 1_500_000.0)] {
            assert!((at(quantile) / micros - 1.0).abs() <= 0.01, "{quantile}: {} us, not {micros}", at(quantile));
        }
        assert_eq!((calls.calls, calls.failures), (5, 0));
    }
}
