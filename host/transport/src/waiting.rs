//! A source for whoever reads by itself, in a thread of its own. Invariant: it sleeps until the source rings, or until the
//! source wants to be polled again, and holds nothing back: what is paused or sought takes effect at once.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sagahost_wire::Partition;

use super::{Assignment, Polled, Source, TransportError};

pub struct Waiting {
    source: Box<dyn Source>,
    rung: Arc<(Mutex<bool>, Condvar)>,
}

impl Waiting {
    pub fn new(mut source: Box<dyn Source>) -> Self {
        let rung: Arc<(Mutex<bool>, Condvar)> = Arc::default();
        let bell = rung.clone();
        source.on_ready(Arc::new(move || {
            *bell.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            bell.1.notify_one();
        }));
        Self { source, rung }
    }

    /// The next item; none: nothing came within the timeout.
    ///
    /// # Errors
    /// Those of the source.
    pub fn poll(&mut self, timeout: Duration) -> Result<Option<Polled>, TransportError> {
        let end = Instant::now() + timeout;
        loop {
            *self.rung.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
            let polls = self.source.poll(1)?;
            if let Some(item) = polls.items.into_iter().next() {
                return Ok(Some(item));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let rung = self.rung.0.lock().unwrap_or_else(PoisonError::into_inner);
            let nap = polls.within.map_or(left, |within| within.min(left));
            drop(self.rung.1.wait_timeout_while(rung, nap, |rung| !*rung));
        }
    }

    /// # Errors
    /// Those of the source.
    pub fn assign(&mut self, assignments: &[Assignment]) -> Result<(), TransportError> {
        self.source.assign(assignments)
    }

    /// # Errors
    /// Those of the source.
    pub fn pause(&mut self, partitions: &[Partition]) -> Result<(), TransportError> {
        self.source.pause(partitions)
    }

    /// # Errors
    /// Those of the source.
    pub fn resume(&mut self, partitions: &[Partition]) -> Result<(), TransportError> {
        self.source.resume(partitions)
    }

    /// # Errors
    /// Those of the source.
    pub fn seek(&mut self, positions: &[(Partition, i64)]) -> Result<(), TransportError> {
        self.source.seek(positions)
    }
}
