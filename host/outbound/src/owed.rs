//! What is owed to a saga while something of it is out. Invariant: it is paid once, also by a task that ends in a panic.

use std::time::Instant;

use sagahost_manifest::http::Failure;
use sagahost_processor::outside::{Answer, Answers, Came};
use sagahost_saga::{
    id::{Direction, SagaId},
    input::CallRef,
    outcome::{Behaviour, Call, Crash, End, Outcome, UndoOutcome},
};
use tracing::debug;

/// A call or a request that left, and whose answer is owed.
pub struct Owed {
    answers: Answers,
    saga: SagaId,
    call: CallRef,
    by: Behaviour,
    at: Instant,
    answered: bool,
}

impl Owed {
    pub fn new(answers: Answers, saga: SagaId, call: &Call, by: Behaviour) -> Self {
        Self { answers, saga, call: CallRef::from(call), by, at: Instant::now(), answered: false }
    }

    pub fn answer(mut self, came: Came, left: bool) {
        self.pay(came, left);
    }

    fn pay(&mut self, came: Came, left: bool) {
        let Self { saga, call, by, at, .. } = self;
        debug!(%saga, participant = %call.participant, left, "a call outside ended: {}", came.said());
        self.answers.answer(saga, call, Answer { by: by.clone(), came, left, took: at.elapsed() });
        self.answered = true;
    }
}

impl Drop for Owed {
    /// Where a task ends without an end, for a panic, its saga does not wait for ever. (When all tasks end, so does the host,
    /// and the next one finds the call in doubt.)
    fn drop(&mut self) {
        if self.answered || !std::thread::panicking() {
            return;
        }
        let (code, detail) = ("host-panicked".to_owned(), "the host panicked while the call was out".to_owned());
        let came = match (self.call.send, self.call.direction) {
            (0, Direction::Forward) => {
                Came::End(End::Outcome(Outcome::Unknown { crash: Crash { code, detail }, uncertain: true }))
            }
            (0, Direction::Undo) => Came::End(End::Undo(UndoOutcome::Unknown { crash: Crash { code, detail } })),
            _ => Came::Answer { what: detail.clone(), answer: Err(Failure { sent: true, code, detail }) },
        };
        self.pay(came, true);
    }
}
