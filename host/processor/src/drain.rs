//! How a stream ends: what was read is journaled and published, as far as the time allows. Invariant: nothing is cut off
//! before its time is over.

use std::{sync::Arc, time::Duration};

use crate::{
    stage::Stage,
    step::{Next, Now, Part, Steady, Wait},
};

/// Between two looks at what no signal reports: whether the parts that read have ended.
const LOOK: Duration = Duration::from_millis(2);

/// Ends when everything is out, or when its time is over.
pub struct Drain<Q> {
    pub stage: Arc<Stage>,
    /// Have all parts ended that read or wake? Nothing new comes in from then on.
    pub quiet: Q,
    pub until: Steady,
    /// Everything that was read is journaled.
    pub drained: bool,
}

impl<Q: Fn() -> bool + Send> Part for Drain<Q> {
    fn step(&mut self, now: Now) -> Next {
        let signal = self.stage.settled.clone();
        let seen = signal.seen();
        if !self.drained {
            self.stage.urge();
            self.drained = (self.quiet)() && self.stage.drained();
        }
        if self.drained && self.stage.unpublished() == 0 || now.steady >= self.until {
            return Next::Ended(Ok(()));
        }
        Next::Wait(Wait { signal, seen, until: Some(now.steady.after(LOOK).min(self.until)) })
    }
}
