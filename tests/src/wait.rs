//! Waiting for what a host does by itself. Invariant: a wait that times out says what it was for.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::shop::PATIENCE;

/// Looks again and again until there is something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
