//! Wakes what parked while a plugin or a service was away, page by page: an hour's worth must not return to memory within a
//! second. Invariant: whatever parked before a switch, or in a chain that began before it, is woken.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use sagahost_journal::{Journal, JournalError, SagaKey};
use sagahost_wire::BatchNo;
use tracing::warn;

use crate::{
    inbox::Inbox,
    mailbox::Item,
    planted::{self, Planted},
    serving::Serving,
    stage::Stage,
    step::{Backoff, Next, Now, Part, Steady, Stop, Wait},
};

/// Sagas that are woken at a time.
const PAGE: usize = 1_000;
/// Before the next look whether there is room for a page.
const TICK: Duration = Duration::from_millis(25);

pub struct Parked {
    pub stage: Arc<Stage>,
    pub inbox: Inbox,
    pub journal: Arc<dyn Journal>,
    pub serving: Arc<ArcSwap<Serving>>,
    /// No saga is woken while this many items wait for workers or calls are outside.
    pub queue_events_max: usize,
    pub stop: Stop,
    /// For which all is woken, or is being woken; and the life of the stage in which.
    pub known: Option<(Arc<Serving>, u64)>,
    /// What parked in these moments is not in the journal yet: it is woken again when this batch is.
    pub again_at: Option<BatchNo>,
    /// Waking continues behind this saga; None: none is left.
    pub after: Option<SagaKey>,
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
        self.look();
        let Some(after) = self.after else { return wait(None) };
        if self.is_crowded() {
            return wait(Some(now.steady.after(TICK)));
        }
        match self.wake(after) {
            Ok(next) => {
                self.backoff.reset();
                self.after = next;
            }
            Err(error) => {
                warn!(%error, "failed to wake what is parked; trying again");
                self.not_before = now.steady.after(self.backoff.pause());
            }
        }
        Next::Again
    }
}

impl Parked {
    /// Is everybody to be woken, from the first one on?
    fn look(&mut self) {
        let (serving, life) = (self.serving.load_full(), self.stage.life());
        let same = |(known, since): &(Arc<Serving>, u64)| Arc::ptr_eq(known, &serving) && *since == life;
        if !self.known.as_ref().is_some_and(same) {
            // Of another life nothing is under way.
            let switched = self.known.as_ref().is_some_and(|(_, since)| *since == life);
            self.again_at = switched.then(|| BatchNo(self.stage.last_sealed().0 + 1));
            (self.known, self.after) = (Some((serving, life)), Some(SagaKey(0)));
        } else if self.again_at.is_some_and(|batch| self.journal.identity().last_batch >= batch || self.stage.drained())
            && !planted::on(Planted::WakeOnce)
        {
            (self.again_at, self.after) = (None, Some(SagaKey(0)));
        }
    }

    fn is_crowded(&self) -> bool {
        let Inbox { mailboxes, calls, .. } = &self.inbox;
        mailboxes.queued() + calls.out() >= self.queue_events_max
    }

    /// A page. Returns behind which saga the next one begins.
    fn wake(&self, after: SagaKey) -> Result<Option<SagaKey>, JournalError> {
        let parked = self.journal.parked_sagas(after, PAGE)?;
        for (_, saga) in &parked {
            self.inbox.post(saga, Item::TopologyChanged);
        }
        Ok(parked.last().filter(|_| parked.len() == PAGE).map(|(key, _)| *key))
    }
}
