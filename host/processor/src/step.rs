//! Steps: how the parts of the processor are driven, and time as they see it. Invariant: a step never waits. What it would
//! wait for it returns, and whoever drives it calls again.
//!
//! A step may call the traits of the journal and the transport, and such a call may take its time; then it is the last
//! that the step does, and what follows from it belongs to the next step, which is given the time anew.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sagahost_saga::id::Time;

use crate::fatal::Fatal;

/// Time that only grows, from some moment before the host began: for waiting, never for what is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Steady(pub Duration);

impl Steady {
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }
    /// Zero where `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The time at which a step begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Time of day, as the sagas see it. It may jump.
    pub wall: Time,
    pub steady: Steady,
}

/// How those who drive parts are woken: of whoever sleeps on a signal.
pub trait Bell: Send + Sync {
    /// Wakes one.
    fn ring(&self);
    fn ring_all(&self);
    /// Until the bell rings, or for `at_most`; not at all where `still` no longer holds.
    fn sleep(&self, still: &dyn Fn() -> bool, at_most: Option<Duration>);
}

/// A counter that moves when there may be something to do. Who looked at it before it looked for work, and finds none,
/// sleeps until it moved past what it saw: a wake-up cannot be lost.
#[derive(Default)]
pub struct Signal {
    moved: AtomicU64,
    /// None: nobody sleeps on it, as in a simulation.
    bell: OnceLock<Arc<dyn Bell>>,
}

impl Signal {
    pub fn seen(&self) -> u64 {
        self.moved.load(Ordering::SeqCst)
    }
    /// There is work for one.
    pub fn raise(&self) {
        self.moved.fetch_add(1, Ordering::SeqCst);
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }
    /// There may be work for everybody who sleeps on it.
    pub fn raise_all(&self) {
        self.moved.fetch_add(1, Ordering::SeqCst);
        if let Some(bell) = self.bell.get() {
            bell.ring_all();
        }
    }
    /// The bell of whoever waits for it; the first one counts.
    pub fn bell(&self, make: impl FnOnce() -> Arc<dyn Bell>) -> &Arc<dyn Bell> {
        self.bell.get_or_init(make)
    }
}

/// Until when a part has nothing to do.
#[derive(Clone)]
pub struct Wait {
    pub signal: Arc<Signal>,
    /// What the part saw of it before it looked for work.
    pub seen: u64,
    /// At the latest; None: only the signal tells.
    pub until: Option<Steady>,
}

/// What follows a step.
pub enum Next {
    Again,
    Wait(Wait),
    /// The part is done with; `Err`: and so is the host.
    Ended(Result<(), Fatal>),
}

/// A part of the processor.
pub trait Part: Send {
    fn step(&mut self, now: Now) -> Next;
}

/// A part is told to end. Whoever tells also raises the signals that it may sleep on.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A pause that doubles each time, up to a bound.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next: Duration,
    first: Duration,
    max: Duration,
}

impl Backoff {
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, first, max }
    }
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause
    }
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_its_bound() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_millis(500));
        let pauses: Vec<_> = (0..3).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [200, 400, 500]);
        backoff.reset();
        assert_eq!(backoff.pause().as_millis(), 200);
    }
}
