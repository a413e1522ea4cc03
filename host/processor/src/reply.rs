//! Answers to those who wait for what they asked for.

use std::sync::Arc;

use sagahost_saga::input::Answer;

/// Why what was asked for was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Declined {
    /// The journal could not be written.
    #[error("{0}")]
    Journal(String),
    #[error("{0}")]
    Failed(String),
}

/// Told once, when the batch is journaled or it is certain that it never will be.
#[derive(Clone)]
pub struct Reply(Arc<dyn Fn(Result<Answer, Declined>) + Send + Sync>);

impl Reply {
    /// `tell` must not wait.
    pub fn new(tell: impl Fn(Result<Answer, Declined>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
    pub fn done(&self, answer: Answer) {
        (self.0)(Ok(answer));
    }
    pub fn declined(&self, why: Declined) {
        (self.0)(Err(why));
    }
}
