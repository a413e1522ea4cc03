//! The way back of a saga in quarantine. Invariant: what was kept aside for it is taken in again in its order, and only when
//! the journal has all of it.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use sagahost_journal::{Journal, JournalError};
use sagahost_saga::id::SagaId;
use sagahost_wire::{BatchNo, Epoch};

use crate::{
    inbox::Inbox,
    mailbox::Item,
    serving::Serving,
    stage::Stage,
    step::{Next, Now, Part, Steady, Wait},
};

/// How long the batch is waited for that has what was kept aside a moment ago.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at whether there is such a batch.
const LOOK: Duration = Duration::from_millis(5);

/// Ends when the saga is released; `released` says how many events are taken in again.
pub struct Release {
    pub stage: Arc<Stage>,
    pub inbox: Inbox,
    pub journal: Arc<dyn Journal>,
    pub serving: Arc<ArcSwap<Serving>>,
    pub epoch: Epoch,
    pub saga: SagaId,
    pub released: Option<Result<usize, JournalError>>,
    /// The batch to wait for, and until when.
    waiting: Option<(BatchNo, Steady)>,
}

impl Release {
    pub(crate) fn new(
        stage: Arc<Stage>,
        inbox: Inbox,
        journal: Arc<dyn Journal>,
        serving: Arc<ArcSwap<Serving>>,
        (epoch, saga): (Epoch, SagaId),
    ) -> Self {
        Self { stage, inbox, journal, serving, epoch, saga, released: None, waiting: None }
    }

    fn begin(&mut self, now: Now) -> Result<(), JournalError> {
        self.journal.release(self.epoch, &self.saga)?;
        let staged = BatchNo(self.stage.last_sealed().0 + 1);
        self.stage.release(&self.saga);
        self.waiting = Some((staged, now.steady.after(PATIENCE)));
        Ok(())
    }

    fn take_in_again(&self) -> Result<usize, JournalError> {
        let count = self.inbox.take_in_again(Some(&self.saga), &*self.journal, &self.serving.load())?;
        self.inbox.post(&self.saga, Item::TopologyChanged);
        Ok(count)
    }
}

impl Part for Release {
    fn step(&mut self, now: Now) -> Next {
        let signal = self.stage.settled.clone();
        let seen = signal.seen();
        let Some((staged, until)) = self.waiting else {
            if let Err(error) = self.begin(now) {
                self.released = Some(Err(error));
                return Next::Ended(Ok(()));
            }
            return Next::Again;
        };
        self.stage.urge();
        let journaled = self.stage.drained() || self.journal.identity().last_batch >= staged;
        if !journaled && now.steady < until {
            return Next::Wait(Wait { signal, seen, until: Some(now.steady.after(LOOK).min(until)) });
        }
        self.released = Some(self.take_in_again());
        Next::Ended(Ok(()))
    }
}
