//! Calls that take long take turns on the processors, so that a thread of the host that wakes up finds one soon. Invariant:
//! of those that have run for longer than a slice no more execute at once than there are turns, and the time that a call
//! waits for its turn is no part of its running time.
//!
//! Slow calls run beside the workers, so there may be several for each processor. Each hop of a saga (reader, worker,
//! committer, publisher) would wait until some of them have had their time slices of the operating system.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// What a call may run before it needs a turn, and how long a turn is if others wait.
const SLICE: Duration = Duration::from_millis(20);

pub(crate) struct Turns {
    state: Mutex<State>,
    passed: Condvar,
}

struct State {
    free: usize,
    /// In the order in which they came.
    waiting: VecDeque<u64>,
    next: u64,
}

impl Turns {
    pub fn new(at_once: usize) -> Self {
        let state = State { free: at_once.max(1), waiting: VecDeque::new(), next: 0 };
        Self { state: Mutex::new(state), passed: Condvar::new() }
    }

    fn take(&self) {
        let mut state = self.state.lock();
        let own = state.next;
        state.next += 1;
        state.waiting.push_back(own);
        while state.free == 0 || state.waiting.front() != Some(&own) {
            self.passed.wait(&mut state);
        }
        state.waiting.pop_front();
        state.free -= 1;
        // With more than one turn the next one may have its own.
        self.passed.notify_all();
    }

    fn give_back(&self) {
        self.state.lock().free += 1;
        self.passed.notify_all();
    }

    fn is_wanted(&self) -> bool {
        !self.state.lock().waiting.is_empty()
    }
}

/// The running time of one call.
pub(crate) struct Clock {
    turns: Arc<Turns>,
    budget: Duration,
    began: Instant,
    /// For a turn.
    waited: Duration,
    /// Since when it has one.
    turn: Option<Instant>,
}

impl Clock {
    pub fn new(turns: Arc<Turns>, budget: Duration) -> Self {
        Self { turns, budget, began: Instant::now(), waited: Duration::ZERO, turn: None }
    }

    fn ran(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.waited)
    }

    /// The call has run for a while; it returns when it may run on. False: its time is over.
    pub fn tick(&mut self) -> bool {
        if self.ran() >= self.budget {
            return false;
        }
        match self.turn {
            None if self.ran() < SLICE => {}
            None => self.wait(),
            Some(since) if since.elapsed() < SLICE || !self.turns.is_wanted() => {}
            Some(_) => {
                self.turns.give_back();
                self.turn = None;
                self.wait();
            }
        }
        true
    }

    fn wait(&mut self) {
        let began = Instant::now();
        self.turns.take();
        self.waited += began.elapsed();
        self.turn = Some(Instant::now());
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        if self.turn.is_some() {
            self.turns.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::*;

    fn looping(turns: &Arc<Turns>, budget: Duration, at_work: &AtomicUsize, most: &AtomicUsize) -> Duration {
        let mut clock = Clock::new(turns.clone(), budget);
        let mut ran = Duration::ZERO;
        loop {
            let began = Instant::now();
            let slow = clock.turn.is_some();
            if slow {
                most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            }
            while began.elapsed() < Duration::from_millis(5) {
                std::hint::spin_loop();
            }
            if slow {
                at_work.fetch_sub(1, Ordering::SeqCst);
            }
            ran += began.elapsed();
            if !clock.tick() {
                return ran;
            }
        }
    }

    #[test]
    fn slow_calls_take_turns_and_each_has_its_whole_budget() {
        let budget = Duration::from_millis(100);
        for at_once in [1, 2] {
            let turns = Arc::new(Turns::new(at_once));
            let (at_work, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let ran: Vec<Duration> = thread::scope(|scope| {
                let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| looping(&turns, budget, &at_work, &most))).collect();
                calls.into_iter().map(|call| call.join().expect("no call panics")).collect()
            });
            assert!(most.into_inner() <= at_once);
            // What the operating system takes away meanwhile counts; four that share one turn would have had half of it.
            assert!(ran.iter().all(|ran| *ran >= budget * 3 / 4), "{ran:?}");
            assert_eq!(turns.state.lock().free, at_once, "each gave its turn back");
        }
    }

    #[test]
    fn a_call_that_ends_in_time_needs_no_turn() {
        let turns = Arc::new(Turns::new(1));
        turns.take();
        let mut clock = Clock::new(turns, Duration::from_secs(1));
        assert!(clock.tick());
        assert!(clock.turn.is_none());
    }
}
