//! Whether a service is asked at all (Nygard, "Release It!": circuit breaker). Invariant: while it does not answer, at most one
//! call at a time finds that out, and each time that finds it so doubles the wait.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// So many in a row without an answer.
const IN_A_ROW: u32 = 5;
/// Or half of so many …
const OF_RECENT: usize = 20;
/// … in so long.
const RECENT: Duration = Duration::from_secs(10);
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
    in_a_row: u32,
    /// When each of the last calls ended, and whether it was answered.
    recent: VecDeque<(Instant, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Instant,
        wait: Duration,
    },
    /// One call is out to see.
    Trying {
        wait: Duration,
    },
}

/// May a call leave?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum May {
    Leave,
    /// Alone, to see whether the service answers.
    Try,
    No {
        until: Option<Instant>,
    },
}

/// What an end changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    Nothing,
    /// It was asked, and is not for so long.
    Away(Duration),
    Back,
}

impl Breaker {
    pub fn new() -> Self {
        Self { state: State::Closed, in_a_row: 0, recent: VecDeque::new() }
    }

    pub fn may(&mut self, now: Instant) -> May {
        match self.state {
            State::Closed => May::Leave,
            State::Open { until, wait } if until <= now => {
                self.state = State::Trying { wait };
                May::Try
            }
            State::Open { until, .. } => May::No { until: Some(until) },
            State::Trying { .. } => May::No { until: None },
        }
    }

    /// A call ended that was allowed to leave as `may`.
    pub fn ended(&mut self, may: May, answered: bool, now: Instant) -> Turned {
        match (self.state, may) {
            (State::Trying { .. }, May::Try) if answered => {
                *self = Self::new();
                Turned::Back
            }
            (State::Trying { wait }, May::Try) => self.open((wait * 2).min(WAIT.1), now),
            // Of a call that left before.
            (State::Open { .. } | State::Trying { .. }, _) => Turned::Nothing,
            (State::Closed, _) => self.count(answered, now),
        }
    }

    /// Nobody can be connected to: it is not even tried for as long again. None: it is asked already.
    pub fn postpone(&mut self, now: Instant) -> Option<Duration> {
        let State::Open { wait, .. } = self.state else { return None };
        let wait = (wait * 2).min(WAIT.1);
        self.state = State::Open { until: now + wait, wait };
        Some(wait)
    }

    fn count(&mut self, answered: bool, now: Instant) -> Turned {
        self.in_a_row = if answered { 0 } else { self.in_a_row + 1 };
        self.recent.push_back((now, answered));
        while self.recent.len() > OF_RECENT
            || self.recent.front().is_some_and(|(at, _)| now.duration_since(*at) > RECENT)
        {
            self.recent.pop_front();
        }
        let unanswered = self.recent.iter().filter(|(_, answered)| !answered).count();
        let half = self.recent.len() == OF_RECENT && 2 * unanswered >= OF_RECENT;
        if answered || !(half || self.in_a_row >= IN_A_ROW) {
            return Turned::Nothing;
        }
        self.open(WAIT.0, now)
    }

    fn open(&mut self, wait: Duration, now: Instant) -> Turned {
        self.recent.clear();
        self.in_a_row = 0;
        self.state = State::Open { until: now + wait, wait };
        Turned::Away(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        breaker: Breaker,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { breaker: Breaker::new(), start: Instant::now() }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn call(&mut self, ms: u64, answered: bool) -> Turned {
            let at = self.at(ms);
            let may = self.breaker.may(at);
            self.breaker.ended(may, answered, at)
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn five_in_a_row_and_one_that_is_answered_begins_anew() {
        let mut bench = Bench::new();
        let ends = [false, false, false, false, true, false, false, false, false];
        assert!(ends.map(|answered| bench.call(0, answered)).iter().all(|turned| *turned == Turned::Nothing));
        assert_eq!(bench.call(0, false), Turned::Away(SECOND));
    }

    #[test]
    fn half_of_twenty_in_ten_seconds() {
        let mut bench = Bench::new();
        for n in 0..19 {
            assert_eq!(bench.call(100 * n, n % 2 == 0), Turned::Nothing);
        }
        assert_eq!(bench.call(1_900, false), Turned::Away(SECOND));
        let mut slow = Bench::new();
        for n in 0..100 {
            assert_eq!(slow.call(1_000 * n, n % 2 == 0), Turned::Nothing, "one a second is too few to tell");
        }
    }

    #[test]
    fn one_at_a_time_tries_and_each_that_fails_doubles_the_wait() {
        let mut bench = Bench::new();
        for _ in 0..5 {
            bench.call(0, false);
        }
        assert_eq!(bench.breaker.may(bench.at(999)), May::No { until: Some(bench.at(1_000)) });
        assert_eq!(bench.breaker.may(bench.at(1_000)), May::Try);
        assert_eq!(bench.breaker.may(bench.at(1_000)), May::No { until: None }, "only one");
        assert_eq!(bench.breaker.ended(May::Leave, true, bench.at(1_001)), Turned::Nothing, "it left before");
        assert_eq!(bench.breaker.ended(May::Try, false, bench.at(1_001)), Turned::Away(2 * SECOND));
        let mut at = 1_001;
        let mut wait = 2_000;
        for _ in 0..8 {
            at += wait;
            wait = (2 * wait).min(60_000);
            assert_eq!(bench.call(at, false), Turned::Away(Duration::from_millis(wait)));
        }
        assert_eq!(bench.call(at + 60_000, true), Turned::Back);
        assert_eq!(bench.call(at + 60_000, false), Turned::Nothing, "counted anew");
    }
}
