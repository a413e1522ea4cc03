//! What parked for a plugin that was away goes on when other plugins serve. Invariant: whatever parked before the switch,
//! or in a chain that began before it, is woken.

use std::sync::Arc;

use arc_swap::ArcSwap;
use sagahost_journal::{Journal, JournalError};
use sagahost_wire::BatchNo;
use tracing::warn;

use crate::{
    inbox::Inbox,
    planted::{self, Planted},
    serving::Serving,
    stage::Stage,
    step::{Backoff, Next, Now, Part, Steady, Stop, Wait},
};

pub struct Parked {
    pub stage: Arc<Stage>,
    pub inbox: Inbox,
    pub journal: Arc<dyn Journal>,
    pub serving: Arc<ArcSwap<Serving>>,
    pub stop: Stop,
    /// For which all was woken.
    pub known: Arc<Serving>,
    /// What parked in these moments is not in the journal yet: it is woken again when this batch is.
    pub again_at: Option<BatchNo>,
    pub backoff: Backoff,
    pub not_before: Steady,
}

impl Part for Parked {
    fn step(&mut self, now: Now) -> Next {
        let signal = self.stage.settled.clone();
        let seen = signal.seen();
        if self.stop.asked() {
            return Next::Ended(Ok(()));
        }
        let wait = |until| Next::Wait(Wait { signal, seen, until });
        if now.steady < self.not_before {
            return wait(Some(self.not_before));
        }
        match self.wake() {
            Ok(()) => {
                self.backoff.reset();
                wait(None)
            }
            Err(error) => {
                warn!(%error, "failed to wake what is parked; trying again");
                self.not_before = now.steady.after(self.backoff.pause());
                Next::Again
            }
        }
    }
}

impl Parked {
    fn wake(&mut self) -> Result<(), JournalError> {
        let serving = self.serving.load_full();
        if !Arc::ptr_eq(&serving, &self.known) {
            let next = BatchNo(self.stage.last_sealed().0 + 1);
            self.inbox.wake_parked(&*self.journal)?;
            (self.known, self.again_at) = (serving, Some(next));
        }
        if planted::on(Planted::WakeOnce) {
            return Ok(());
        }
        if self.again_at.is_some_and(|batch| self.journal.identity().last_batch >= batch || self.stage.drained()) {
            self.inbox.wake_parked(&*self.journal)?;
            self.again_at = None;
        }
        Ok(())
    }
}
