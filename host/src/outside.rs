//! All that leaves the host for others: calls of services, and requests of plugins. Invariant: whatever is launched is
//! answered, also where the configuration does not name its receiver any more.

use std::sync::Arc;

use sagahost_outbound::{Owed, Senders};
use sagahost_processor::{
    outside::{Answers, Came, Launch, Outside},
    step::Signal,
};
use sagahost_remote::{Callers, not_configured};
use sagahost_saga::id::SagaId;

pub struct Everybody {
    /// None: the configuration names no service.
    pub callers: Option<Arc<Callers>>,
    pub senders: Senders,
    answers: std::sync::OnceLock<Answers>,
}

impl Everybody {
    pub fn new(callers: Option<Arc<Callers>>, senders: Senders) -> Self {
        Self { callers, senders, answers: std::sync::OnceLock::new() }
    }

    /// Before the first one leaves. `changed`: raised when a service does not answer any more, or is to be asked again.
    pub fn begin(&self, answers: &Answers, changed: Arc<Signal>) {
        // A second time would be for another processor.
        let _ = self.answers.set(answers.clone());
        self.senders.begin(answers.clone());
        if let Some(callers) = &self.callers {
            callers.begin(answers.clone(), changed);
        }
    }

    /// Nothing leaves any more.
    pub fn stop(&self) {
        self.senders.stop();
        self.callers.iter().for_each(|callers| callers.stop());
    }
}

impl Outside for Everybody {
    fn launch(&self, saga: &SagaId, launch: Launch) {
        match (&launch.send, &self.callers, self.answers.get()) {
            (Some(_), ..) => self.senders.launch(saga, launch),
            (None, Some(callers), _) => callers.launch(saga, launch),
            (None, None, Some(answers)) => {
                let by = launch.by.unwrap_or_default();
                let owed = Owed::new(answers.clone(), saga.clone(), &launch.call, by);
                owed.answer(Came::End(not_configured(&launch.call)), false);
            }
            (None, None, None) => {}
        }
    }
}
