//! When committed offsets are renewed although nothing moved. Invariant: the time is journaled, and is wall time, so that
//! neither restarts nor a machine that sleeps puts it off.
//!
//! A broker forgets the offsets of a group without members, and a transactional id, after seven days by default, or
//! much sooner where it is configured to. A touch is one batch without events, with the offsets of all partitions.

use std::time::Duration;

use sagahost_journal::{Journal, JournalError};
use sagahost_saga::id::Time;
use sagahost_wire::Epoch;
use tracing::{debug, warn};

use crate::{stage::Stage, step::Now};

/// A small part of every expiry that makes sense, and one small transaction.
pub const TOUCH_EVERY: Duration = Duration::from_secs(3600);

pub struct Touch {
    /// None: not known, the journal is of an earlier version.
    due: Option<Time>,
    /// The next batch that is journaled carries all offsets.
    asked: bool,
}

impl Touch {
    pub fn new(due: Option<Time>) -> Self {
        Self { due, asked: false }
    }

    /// A time further ahead than any touch is set for means that the clock was set back.
    fn is_due(&self, now: Time) -> bool {
        self.due.is_none_or(|due| due <= now || due > now.after(TOUCH_EVERY))
    }

    /// Asks for a touch where one is due.
    pub fn look(&mut self, stage: &Stage, now: Now) {
        if self.is_due(now.wall) {
            if !std::mem::replace(&mut self.asked, true) {
                debug!("renewing the committed offsets of all partitions");
            }
            // Again until a batch carries it: one that failed takes the request with it.
            stage.touch(now);
        }
    }

    /// A batch was journaled, and so will be published: the next touch is journaled where this was one.
    pub fn journaled(&mut self, journal: &dyn Journal, epoch: Epoch, now: Now) -> Result<(), JournalError> {
        if !std::mem::take(&mut self.asked) {
            return Ok(());
        }
        let due = now.wall.after(TOUCH_EVERY);
        self.due = Some(due);
        match journal.set_touch_due(epoch, due) {
            Err(error @ JournalError::StaleEpoch { .. }) => Err(error),
            Err(error) => {
                warn!(%error, "failed to journal when the committed offsets are renewed next");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touch_is_due_by_wall_time_whatever_the_clock_did() {
        let now = Time(1_700_000_000_000);
        let due = |due: Option<Time>| Touch::new(due).is_due(now);
        assert!(due(None), "an earlier version journaled nothing");
        assert!(due(Some(now)));
        assert!(due(Some(now.before(Duration::from_secs(1)))), "the machine slept");
        assert!(!due(Some(now.after(Duration::from_secs(1)))));
        assert!(!due(Some(now.after(TOUCH_EVERY))));
        assert!(due(Some(now.after(TOUCH_EVERY * 2))), "the clock was set back");
    }
}
