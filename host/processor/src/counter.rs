//! What chains do with counters: calls with their answers, and what a whole batch of them takes for granted. Invariant: while
//! a counter is within the bounds of a batch, every call of every chain in it has the answer that it was given.
//!
//! `take` and `give` remember only their answers, so that sagas which share a counter do not conflict as long as the
//! answer stays the same (escrow: O'Neil, "The Escrow Transactional Method", 1986).

use sagahost_journal::{CounterWrite, Seen, Stale};

use crate::planted::{self, Planted};

/// A call, with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CounterCall {
    Ensure(i64),
    Take { amount: i64, answer: bool },
    Give(i64),
    Read(Option<i64>),
}

/// The calls of one attempt on one counter. `kept`: the attempt completed, so they count.
#[derive(Clone, Debug, Default)]
struct CounterRun {
    calls: Vec<CounterCall>,
    kept: bool,
}

/// What the chain did with one counter, in order.
#[derive(Clone, Debug, Default)]
pub struct CounterTrace {
    runs: Vec<CounterRun>,
}

impl CounterTrace {
    pub fn note(&mut self, call: CounterCall) {
        match self.runs.last_mut() {
            Some(run) => run.calls.push(call),
            None => self.runs.push(CounterRun { calls: vec![call], kept: false }),
        }
    }

    /// The running attempt is over; `keep`: what it did counts.
    pub fn end_attempt(&mut self, keep: bool) {
        if let Some(run) = self.runs.last_mut().filter(|run| !run.calls.is_empty()) {
            run.kept = keep;
            self.runs.push(CounterRun::default());
        }
    }

    /// The value as the running attempt sees it, over `base`, which the trace was made on.
    pub fn now(&self, base: Option<i64>) -> Option<i64> {
        let mut value = base;
        for (index, run) in self.runs.iter().enumerate() {
            let current = index + 1 == self.runs.len();
            let after = run.over(value).expect("a trace replays over the value that it was made on");
            if run.kept || current {
                value = after;
            }
        }
        value
    }

    /// Plays the calls over `value`: the new value, or `Stale` when an answer would be another one.
    pub fn replay(&self, mut value: Option<i64>) -> Result<Option<i64>, Stale> {
        for run in &self.runs {
            let after = run.over(value)?;
            if run.kept {
                value = after;
            }
        }
        Ok(value)
    }

    pub fn writes(&self) -> bool {
        self.runs.iter().any(|run| run.kept && run.calls.iter().any(|call| !matches!(call, CounterCall::Read(_))))
    }
}

impl CounterRun {
    fn over(&self, value: Option<i64>) -> Result<Option<i64>, Stale> {
        self.calls.iter().try_fold(value, |value, call| call.replay(value))
    }
}

impl CounterCall {
    fn replay(&self, value: Option<i64>) -> Result<Option<i64>, Stale> {
        match (self, value) {
            (Self::Ensure(initial), None) => Ok(Some(*initial)),
            (Self::Ensure(_), Some(_)) => Ok(value),
            (Self::Take { amount, answer }, Some(there)) => match (there >= *amount, answer) {
                (true, true) => Ok(Some(there - amount)),
                (false, false) => Ok(value),
                (true, false) | (false, true) => Err(Stale),
            },
            (Self::Give(amount), Some(there)) => there.checked_add(*amount).map(Some).ok_or(Stale),
            (Self::Take { .. } | Self::Give(_), None) => Err(Stale),
            (Self::Read(answer), _) if *answer == value => Ok(value),
            (Self::Read(_), _) => Err(Stale),
        }
    }
}

/// What the chains of one batch, taken together, do to a counter, and between which values their answers hold.
#[derive(Clone, Debug)]
pub struct CounterBounds {
    /// What the first of them found.
    found: Option<i64>,
    lo: i128,
    hi: i128,
    delta: i128,
    initial: Option<i64>,
    seen: Seen,
}

impl CounterBounds {
    pub fn new(found: Option<i64>) -> Self {
        let (lo, hi) = (i64::MIN.into(), i64::MAX.into());
        Self { found, lo, hi, delta: 0, initial: None, seen: Seen::Either }
    }

    /// The trace of the next chain, which holds over what those before it left.
    pub fn add(&mut self, trace: &CounterTrace) {
        for run in trace.runs.iter().filter(|run| !run.calls.is_empty()) {
            let before = self.clone();
            run.calls.iter().for_each(|call| self.call(call));
            if !run.kept {
                self.undo(before);
            }
        }
    }

    /// An attempt that does not count: its answers bind, what it did is undone.
    fn undo(&mut self, before: Self) {
        let CounterBounds { delta, initial, .. } = before;
        match (self.found, initial) {
            // What it began with itself bounds nobody else.
            (None, None) => *self = Self { seen: Seen::Absent, ..before },
            (Some(_), None) => *self = Self { delta, initial, seen: Seen::Present, ..self.clone() },
            (_, Some(_)) => *self = Self { delta, initial, ..self.clone() },
        }
    }

    fn call(&mut self, call: &CounterCall) {
        match *call {
            CounterCall::Ensure(initial) => {
                if self.found.is_none() || self.seen == Seen::Either {
                    self.initial.get_or_insert(initial);
                }
            }
            CounterCall::Take { amount, answer: true } => {
                self.at_least(amount.into());
                self.delta -= i128::from(amount);
            }
            CounterCall::Take { amount, answer: false } => self.at_most(i128::from(amount) - 1),
            CounterCall::Give(amount) => {
                self.at_most(i128::from(i64::MAX) - i128::from(amount));
                self.delta += i128::from(amount);
            }
            CounterCall::Read(Some(value)) => {
                self.at_least(value.into());
                self.at_most(value.into());
            }
            CounterCall::Read(None) => self.seen = Seen::Absent,
        }
    }

    fn at_least(&mut self, value: i128) {
        self.lo = self.lo.max(value - self.delta);
        self.exists();
    }

    fn at_most(&mut self, value: i128) {
        self.hi = self.hi.min(value - self.delta);
        self.exists();
    }

    fn exists(&mut self) {
        if self.initial.is_none() {
            self.seen = Seen::Present;
        }
    }

    pub fn write(&self) -> CounterWrite {
        let within = |bound: i128| bound.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        let (lo, hi) = (within(self.lo), within(self.hi));
        if planted::on(Planted::TrustCounters) {
            let (lo, hi, seen) = (i64::MIN, i64::MAX, Seen::Either);
            return CounterWrite { lo, hi, delta: self.delta as i64, initial: self.initial, seen };
        }
        // Modulo 2^64, as it is added.
        CounterWrite { lo, hi, delta: self.delta as i64, initial: self.initial, seen: self.seen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of calls; `false`: the attempt did not complete.
    fn trace(runs: &[(&[CounterCall], bool)]) -> CounterTrace {
        let run = |(calls, kept): &(&[CounterCall], bool)| CounterRun { calls: calls.to_vec(), kept: *kept };
        CounterTrace { runs: runs.iter().map(run).collect() }
    }

    fn take(amount: i64, answer: bool) -> CounterCall {
        CounterCall::Take { amount, answer }
    }

    #[test]
    fn what_changes_no_answer_is_no_conflict() {
        let sold = trace(&[(&[CounterCall::Ensure(10), take(3, true)], true)]);
        assert_eq!(sold.replay(None), Ok(Some(7)), "nobody made the counter");
        for there in [3, 4, 1_000] {
            assert_eq!(sold.replay(Some(there)), Ok(Some(there - 3)), "others took and gave");
        }
        let refused = trace(&[(&[take(3, false)], true)]);
        for there in [0, 2] {
            assert_eq!(refused.replay(Some(there)), Ok(Some(there)));
        }
        let given = trace(&[(&[CounterCall::Give(5)], true)]);
        assert_eq!(given.replay(Some(-2)), Ok(Some(3)));
    }

    #[test]
    fn an_answer_that_would_be_another_one_is_stale() {
        let sold = trace(&[(&[take(3, true)], true)]);
        assert_eq!(sold.replay(Some(2)), Err(Stale), "sold out meanwhile");
        assert_eq!(sold.replay(None), Err(Stale), "it is gone");
        let refused = trace(&[(&[take(3, false)], true)]);
        assert_eq!(refused.replay(Some(3)), Err(Stale), "stock was given back: it would be sold now");
        assert_eq!(trace(&[(&[CounterCall::Give(1)], true)]).replay(Some(i64::MAX)), Err(Stale));
        let read = trace(&[(&[CounterCall::Read(Some(7))], true)]);
        assert_eq!(read.replay(Some(7)), Ok(Some(7)));
        assert_eq!(read.replay(Some(8)), Err(Stale));
        assert_eq!(read.replay(None), Err(Stale));
        assert_eq!(trace(&[(&[CounterCall::Read(None)], true)]).replay(Some(0)), Err(Stale), "absent is not zero");
    }

    /// An attempt that failed wrote nothing, but its outcome hangs on what it was told.
    #[test]
    fn an_attempt_that_does_not_count_is_checked_and_changes_nothing() {
        let failed = trace(&[(&[take(3, true)], false), (&[take(4, true)], true)]);
        assert_eq!(failed.replay(Some(4)), Ok(Some(0)), "the three are not taken");
        assert_eq!(trace(&[(&[take(3, true)], false)]).replay(Some(2)), Err(Stale));
        assert!(!trace(&[(&[take(3, true)], false)]).writes());
        assert!(!trace(&[(&[CounterCall::Read(None)], true)]).writes());
        assert!(failed.writes());
    }

    #[test]
    fn calls_of_one_attempt_see_each_other() {
        let twice =
            trace(&[(&[take(3, true), take(3, false), CounterCall::Give(1), CounterCall::Read(Some(3))], true)]);
        assert_eq!(twice.replay(Some(5)), Ok(Some(3)));
        assert_eq!(twice.replay(Some(6)), Err(Stale), "the second would have been sold, too");
    }

    /// Every row of up to four calls from a few, with the answers that they get over `found`.
    fn traces(found: Option<i64>) -> Vec<CounterTrace> {
        let mut all = vec![(CounterTrace::default(), found)];
        let mut from = 0;
        for _ in 0..4 {
            let to = all.len();
            for index in from..to {
                for call in 0..8 {
                    let (mut trace, _) = all[index].clone();
                    let now = trace.now(found);
                    match (call, now) {
                        (0, _) => trace.note(CounterCall::Ensure(2)),
                        (1, _) => trace.note(CounterCall::Read(now)),
                        (2 | 3, Some(there)) => trace.note(take(call - 1, there >= call - 1)),
                        (4, Some(_)) => trace.note(CounterCall::Give(1)),
                        (5, _) => trace.end_attempt(true),
                        (6, _) => trace.end_attempt(false),
                        _ => continue,
                    }
                    all.push((trace, found));
                }
            }
            from = to;
        }
        all.into_iter().map(|(trace, _)| trace).collect()
    }

    #[test]
    fn within_its_bounds_a_batch_is_what_its_chains_are_one_after_the_other() {
        let (mut held, mut stale) = (0, 0);
        for found in [None, Some(0), Some(1), Some(2), Some(4)] {
            for mut trace in traces(found) {
                trace.end_attempt(true);
                for times in [1, 2] {
                    let mut bounds = CounterBounds::new(found);
                    let one_by_one = |there| (0..times).try_fold(there, |there, _| trace.replay(there));
                    if one_by_one(found).is_err() {
                        continue;
                    }
                    (0..times).for_each(|_| bounds.add(&trace));
                    let write = bounds.write();
                    assert_eq!(write.apply(found), one_by_one(found), "{trace:?} {times} over {found:?}: {write:?}");
                    for there in [None, Some(-1), Some(0), Some(1), Some(2), Some(3), Some(4), Some(5)] {
                        match write.apply(there) {
                            Ok(then) => {
                                held += 1;
                                assert_eq!(Ok(then), one_by_one(there), "{trace:?} over {there:?}: {write:?}");
                            }
                            Err(Stale) => stale += 1,
                        }
                    }
                }
            }
        }
        assert!(held > 10_000 && stale > 10_000, "{held} {stale}");
    }

    #[test]
    fn many_gives_do_not_overflow_their_sum() {
        let give = trace(&[(&[CounterCall::Give(i64::MAX)], true)]);
        let mut bounds = CounterBounds::new(Some(i64::MIN));
        bounds.add(&give);
        bounds.add(&give);
        assert_eq!(bounds.write().apply(Some(i64::MIN)), Ok(Some(i64::MAX - 1)));
    }
}
