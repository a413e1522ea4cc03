//! What waits for its turn to leave. Invariant: what waits is counted until it is dropped, however its wait ends.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Of all that waits for the same places. First come, first served, as long as it fits into memory: what is sent back to the
/// journal instead draws a time to come again, and finds places that nobody used meanwhile.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Of each, beside what it sends: a task, and what it is about.
const EACH_BYTES: usize = 4 << 10;

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
    bytes: usize,
}

impl Turns {
    /// `bytes`: what the one that waits from now on is to send.
    pub fn wait(&self, bytes: usize) -> Waiting<'_> {
        let own = bytes + EACH_BYTES;
        let others = self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting { all: self, own, others, bytes: self.bytes.fetch_add(own, Ordering::Relaxed) + own }
    }
}

impl Waiting<'_> {
    /// Does more wait than may?
    pub fn too_many(&self) -> bool {
        self.bytes > WAITING_BYTES_MAX
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.waiting.fetch_sub(1, Ordering::Relaxed);
        self.all.bytes.fetch_sub(self.own, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_many_is_told_by_bytes_and_none_is_forgotten() {
        let turns = Turns::default();
        let large: Vec<_> = (0..63).map(|_| turns.wait((1 << 20) - EACH_BYTES)).collect();
        assert!(large.iter().all(|waiting| !waiting.too_many()));
        let small: Vec<_> = (0..256).map(|_| turns.wait(0)).collect();
        assert!(small.iter().all(|waiting| !waiting.too_many()));
        let beyond = turns.wait(0);
        assert!(beyond.too_many(), "64 MiB wait");
        assert_eq!(beyond.others, 63 + 256);
        drop((beyond, large));
        let next = turns.wait(0);
        assert!(!next.too_many());
        assert_eq!(next.others, 256);
        drop((small, next));
        assert_eq!((turns.waiting.into_inner(), turns.bytes.into_inner()), (0, 0));
    }
}
