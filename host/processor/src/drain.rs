//! How a stream ends: what was read is journaled and published, as far as the time allows. Invariant: nothing is cut off
//! before its time is over.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::{
    outside::Calls,
    stage::Stage,
    step::{Next, Now, Part, Signal, Steady, Wait},
};

/// Parts that read or wake: while one is under way, more may come in.
#[derive(Clone)]
pub struct Feeding {
    parts: Arc<AtomicUsize>,
    progress: Arc<Signal>,
}

impl Feeding {
    pub(crate) fn new(stage: &Stage) -> Self {
        Self { parts: Arc::default(), progress: stage.progress.clone() }
    }

    /// Counted until it is dropped.
    pub fn by<P: Part>(&self, part: P) -> Feeds<P> {
        self.parts.fetch_add(1, Ordering::SeqCst);
        Feeds { part, feeding: self.clone() }
    }
}

/// One of them.
pub struct Feeds<P> {
    part: P,
    feeding: Feeding,
}

impl<P: Part> Part for Feeds<P> {
    fn step(&mut self, now: Now) -> Next {
        self.part.step(now)
    }
}

impl<P> Drop for Feeds<P> {
    fn drop(&mut self) {
        self.feeding.parts.fetch_sub(1, Ordering::SeqCst);
        self.feeding.progress.raise_all();
    }
}

/// Ends when everything is out, or when its time is over.
pub struct Drain {
    pub(crate) stage: Arc<Stage>,
    pub(crate) feeding: Feeding,
    /// Outside: their ends come in as well.
    pub(crate) calls: Arc<Calls>,
    pub(crate) until: Steady,
    /// Everything that was read is journaled.
    pub drained: bool,
}

impl Part for Drain {
    fn step(&mut self, now: Now) -> Next {
        let signal = self.stage.progress.clone();
        let seen = signal.seen();
        self.stage.urge();
        // Looked at anew each time: a batch that is journaled may let a call leave, and its end comes in as well.
        let fed = self.feeding.parts.load(Ordering::SeqCst) == 0 && self.calls.out() == 0;
        self.drained = fed && self.stage.drained();
        if self.drained && self.stage.unpublished() == 0 || now.steady >= self.until {
            return Next::Ended(Ok(()));
        }
        Next::Wait(Wait { signal, seen, until: Some(self.until) })
    }
}
