//! Answers to those who wait for what they asked for.

use std::sync::Arc;

use sagahost_journal::JournalError;
use sagahost_saga::input::Answer;

/// Why what was asked for was not done. The variants are kinds: refused, unavailable for the moment, broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Declined {
    /// Refused: nothing can be done to the saga before it is released.
    #[error("saga {saga} is quarantined: {why}")]
    Quarantined { saga: String, why: String },
    /// Refused: nobody can tell whether an earlier version took the event in.
    #[error("{why}")]
    Undecided { why: String },
    /// Unavailable: everything in memory was dropped before it was journaled. It never will be.
    #[error("the host began again from its journal before this was written: nothing is changed, try again")]
    BeganAgain,
    /// Unavailable: others changed what it was built on before it was journaled.
    #[error("{why}: nothing is changed, try again")]
    Conflict { why: String },
    /// Broken: the journal was not written.
    #[error("failed to write the journal: nothing is changed")]
    NotWritten { source: JournalError },
    /// Broken: the journal may have been written.
    #[error("failed to write the journal, and whether it was written is not known")]
    Unknown { source: JournalError },
}

/// Called once, when the batch is journaled or it is certain that it never will be. Dropped, it is the same as
/// [`Declined::BeganAgain`].
pub struct Reply<T = Answer>(Arc<dyn Fn(Result<T, Declined>) + Send + Sync>);

impl<T> Clone for Reply<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + 'static> Reply<T> {
    /// `tell` must not wait.
    pub fn new(tell: impl Fn(Result<T, Declined>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
    pub fn done(&self, answer: T) {
        (self.0)(Ok(answer));
    }
    pub fn declined(&self, why: Declined) {
        (self.0)(Err(why));
    }
    /// To be kept with the batch.
    pub fn promise(self, answer: T) -> Promise {
        Promise(Box::new(move |journaled| (self.0)(journaled.map(|()| answer))))
    }
}

/// What is answered once the batch is journaled.
pub struct Promise(Box<dyn FnOnce(Result<(), Declined>) + Send>);

impl Promise {
    pub(crate) fn keep(self) {
        (self.0)(Ok(()));
    }
    pub(crate) fn decline(self, why: Declined) {
        (self.0)(Err(why));
    }
}
