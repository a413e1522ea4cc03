//! Tells readers of this process that something was committed, so that they need not look for it. Invariant: each commit
//! rings for every source that is there.

use std::sync::Weak;

use parking_lot::Mutex;

/// How the reader of one source is woken.
pub(super) type Bell = dyn Fn() + Send + Sync;

#[derive(Default)]
pub(super) struct Commits {
    bells: Mutex<Vec<Weak<Bell>>>,
}

impl Commits {
    pub fn happened(&self) {
        let mut there = Vec::new();
        self.bells.lock().retain(|bell| bell.upgrade().map(|bell| there.push(bell)).is_some());
        there.iter().for_each(|bell| bell());
    }

    pub fn ring(&self, bell: Weak<Bell>) {
        self.bells.lock().push(bell);
    }
}
