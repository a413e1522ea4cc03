//! Makes what a seed found short: fewer orders, parts in turn, fewer faults (delta debugging: Zeller, Hildebrandt,
//! "Simplifying and Isolating Failure-Inducing Input", 2002). Invariant: what is shown finds something as it stands.

use crate::{
    plan::{Ask, Fault},
    run::run,
};

/// Runs that are spent on it, at most.
const RUNS_MAX: usize = 1_000;

struct Shrinker {
    best: Ask,
    runs: usize,
}

/// `ask` finds something.
pub fn shrink(ask: Ask) -> Ask {
    let mut shrinker = Shrinker { best: ask, runs: 0 };
    shrinker.orders();
    let in_turn = Ask { in_turn: true, ..shrinker.best.clone() };
    shrinker.accept(in_turn);
    let without_requests = Ask { without_requests: true, ..shrinker.best.clone() };
    shrinker.accept(without_requests);
    shrinker.faults();
    shrinker.orders();
    shrinker.single_orders();
    shrinker.faults();
    shrinker.best
}

impl Shrinker {
    fn accept(&mut self, ask: Ask) -> bool {
        self.runs += 1;
        let finds = self.runs <= RUNS_MAX && run(ask.clone(), false).finding.is_some();
        if finds {
            self.best = ask;
        }
        finds
    }

    fn orders(&mut self) {
        let mut there = crate::plan::Plan::new(self.best.clone()).orders;
        let mut step = there / 2;
        while step > 0 {
            let fewer = Ask { orders: Some(there - step), ..self.best.clone() };
            if there > step && self.accept(fewer) {
                there -= step;
            } else {
                step /= 2;
            }
        }
    }

    /// Those in the midst; the others stay what they are.
    fn single_orders(&mut self) {
        self.less(
            |shrinker| {
                let orders = crate::plan::Plan::new(shrinker.best.clone()).orders;
                (0..orders).filter(|order| !shrinker.best.without_orders.contains(order)).collect()
            },
            |ask, orders: &[usize]| ask.without_orders.extend(orders),
        );
    }

    fn faults(&mut self) {
        self.less(Self::left, |ask, occasions: &[(Fault, u64)]| ask.without.extend(occasions));
    }

    /// Leaves out half of what is there, then quarters, then one after the other.
    fn less<T>(&mut self, mut there: impl FnMut(&mut Self) -> Vec<T>, without: impl Fn(&mut Ask, &[T])) {
        let mut parts = 2;
        loop {
            let left = there(self);
            if left.is_empty() || parts > 2 * left.len() || self.runs > RUNS_MAX {
                return;
            }
            let shorter = left.chunks(left.len().div_ceil(parts)).any(|chunk| {
                let mut ask = self.best.clone();
                without(&mut ask, chunk);
                self.accept(ask)
            });
            parts = if shorter { 2.max(parts / 2) } else { parts * 2 };
        }
    }

    /// What still goes wrong.
    fn left(&mut self) -> Vec<(Fault, u64)> {
        self.runs += 1;
        run(self.best.clone(), false).went_wrong
    }
}
