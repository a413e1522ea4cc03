//! What waits for its turn to leave. Invariant: what waits is counted until it is dropped, however its wait ends.

use std::sync::atomic::{AtomicUsize, Ordering};

/// So many may wait for each that may be out: they are in memory.
const WAITING_PER_PLACE: usize = 16;

/// All that wait for the same places.
#[derive(Default)]
pub struct Turns {
    waiting: AtomicUsize,
    bytes: AtomicUsize,
}

/// One that waits, until it is dropped.
pub struct Waiting<'t> {
    all: &'t Turns,
    own: usize,
    pub others: usize,
    /// Of all that wait.
    pub bytes: usize,
}

impl Turns {
    /// `bytes`: of the one that waits from now on.
    pub fn wait(&self, bytes: usize) -> Waiting<'_> {
        let others = self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting { all: self, own: bytes, others, bytes: self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes }
    }
}

impl Waiting<'_> {
    /// Are there more before it than may wait for so many places?
    pub fn too_many(&self, places: usize) -> bool {
        self.others > WAITING_PER_PLACE * places
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.waiting.fetch_sub(1, Ordering::Relaxed);
        self.all.bytes.fetch_sub(self.own, Ordering::Relaxed);
    }
}
