//! The way back of a saga in quarantine. Invariant: what was kept aside for it is taken in again in its order, and only when
//! the journal has all of it.

use std::{sync::Arc, time::Duration};

use sagahost_journal::{Journal, JournalError};
use sagahost_saga::id::SagaId;
use sagahost_wire::{BatchNo, Epoch};

use crate::{
    inbox::Inbox,
    mailbox::Item,
    stage::Stage,
    step::{Next, Now, Part, Steady, Wait},
};

/// How long the batch is waited for that has what was kept aside a moment ago.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a release reaches.
#[derive(Clone)]
pub struct Releases {
    pub(crate) stage: Arc<Stage>,
    pub(crate) inbox: Inbox,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) epoch: Epoch,
}

impl Releases {
    pub fn is_quarantined(&self, saga: &SagaId) -> bool {
        self.stage.is_quarantined(saga)
    }

    pub fn of(&self, saga: &SagaId) -> Release {
        Release { reach: self.clone(), saga: saga.clone(), released: None, waiting: None }
    }
}

/// Ends when the saga is released.
pub struct Release {
    reach: Releases,
    saga: SagaId,
    /// How many events are taken in again.
    pub released: Option<Result<usize, JournalError>>,
    /// The batch to wait for, and until when.
    waiting: Option<(BatchNo, Steady)>,
}

impl Release {
    fn begin(&mut self, now: Now) -> Result<(), JournalError> {
        self.reach.journal.release(self.reach.epoch, &self.saga)?;
        let staged = BatchNo(self.reach.stage.last_sealed().0 + 1);
        self.reach.stage.release(&self.saga);
        self.waiting = Some((staged, now.steady.after(PATIENCE)));
        Ok(())
    }

    fn take_in_again(&self) -> Result<usize, JournalError> {
        let count = self.reach.inbox.take_in_again(Some(&self.saga), &*self.reach.journal)?;
        self.reach.inbox.take_up_calls_of(&self.saga, &*self.reach.journal, true)?;
        self.reach.inbox.post(&self.saga, Item::TopologyChanged);
        Ok(count)
    }
}

impl Part for Release {
    fn step(&mut self, now: Now) -> Next {
        let signal = self.reach.stage.progress.clone();
        let seen = signal.seen();
        let Some((staged, until)) = self.waiting else {
            if let Err(error) = self.begin(now) {
                self.released = Some(Err(error));
                return Next::Ended(Ok(()));
            }
            return Next::Again;
        };
        self.reach.stage.urge();
        let journaled = self.reach.stage.drained() || self.reach.journal.identity().last_batch >= staged;
        if !journaled && now.steady < until {
            return Next::Wait(Wait { signal, seen, until: Some(until) });
        }
        self.released = Some(self.take_in_again());
        Next::Ended(Ok(()))
    }
}
