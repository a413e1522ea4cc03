//! Tells readers of this process that something was committed, so that they need not wait for their next look.
//! Invariant: who asked before a commit happened is woken by it, or returns at once.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

#[derive(Default)]
pub(super) struct Commits {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Commits {
    pub fn happened(&self) {
        *self.count.lock() += 1;
        self.changed.notify_all();
    }

    pub fn count(&self) -> u64 {
        *self.count.lock()
    }

    /// Waits until more than `seen` have happened; returns how many.
    pub fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        let mut count = self.count.lock();
        if *count == seen {
            self.changed.wait_for(&mut count, timeout);
        }
        *count
    }
}
