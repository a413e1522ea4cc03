//! Those who wait for a saga. Invariant: whoever watches before it looks at the journal misses no change: each is said behind its
//! commit. Nobody is waited for.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use sagahost_processor::{
    facts::{Batch, Reader},
    step::Now,
};
use sagahost_saga::id::SagaId;
use sagahost_wire::BatchNo;
use tokio::sync::watch;

/// By saga. A saga that nobody watches is not here.
#[derive(Default)]
pub struct Waiters(Mutex<HashMap<SagaId, watch::Sender<()>>>);

/// One who watches.
pub struct Watch {
    all: Arc<Waiters>,
    saga: SagaId,
    changes: watch::Receiver<()>,
}

impl Waiters {
    pub fn watch(self: &Arc<Self>, saga: &SagaId) -> Watch {
        let mut sagas = self.0.lock();
        let changes = sagas.entry(saga.clone()).or_insert_with(|| watch::Sender::new(())).subscribe();
        Watch { all: self.clone(), saga: saga.clone(), changes }
    }

    fn changed(&self, saga: &SagaId) {
        if let Some(sender) = self.0.lock().get(saga) {
            sender.send_replace(());
        }
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.0.lock().len()
    }
}

impl Watch {
    /// Until the saga changes.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The sender goes with the last one who watches, and this one still does.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut sagas = self.all.0.lock();
        if sagas.get(&self.saga).is_some_and(|sender| sender.receiver_count() <= 1) {
            sagas.remove(&self.saga);
        }
    }
}

impl Reader for Waiters {
    fn journaled(&self, batch: &Batch) {
        let sagas = self.0.lock();
        for sender in batch.chains.iter().filter_map(|chain| sagas.get(&chain.saga)) {
            sender.send_replace(());
        }
    }
    fn published(&self, _: BatchNo, _: Now) {}
    fn began_anew(&self) {
        self.0.lock().values().for_each(|sender| sender.send_replace(()));
    }
    fn quarantined(&self, saga: &SagaId) {
        self.changed(saga);
    }
    fn reads_calls(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saga_is_known_as_long_as_one_watches_it() {
        let all = Arc::new(Waiters::default());
        let (a, b) = (SagaId::new("a"), SagaId::new("b"));
        let first = all.watch(&a);
        let mut second = all.watch(&a);
        drop(first);
        assert_eq!(all.count(), 1);
        all.changed(&b);
        assert!(!second.changes.has_changed().expect("it is open"));
        all.began_anew();
        assert!(second.changes.has_changed().expect("it is open"), "what was journaled meanwhile nobody said");
        second.changes.mark_unchanged();
        all.changed(&a);
        assert!(second.changes.has_changed().expect("it is open"));
        second.changes.mark_unchanged();
        drop(second);
        assert_eq!(all.count(), 0);
        all.changed(&a);
    }
}
