//! Calls that run outside of the host, such as a service in another process, and requests of plugins. A first chain journals that the call
//! began; once that is durable the call leaves; its end is an input of its own. Invariant: in one life of the host a call
//! leaves at most once, and its end is kept until it is journaled.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use sagahost_manifest::{http, sends::Send};
use sagahost_saga::{
    id::SagaId,
    input::{CallRef, Input},
    outcome::{Behaviour, Call, End},
};

use crate::{
    inbox::Inbox,
    mailbox::Item,
    planted::{self, Planted},
};

/// Where such calls run.
pub trait Outside: std::marker::Send + Sync {
    /// Begins it, and returns at once. What becomes of it goes to [`Answers::answer`].
    fn launch(&self, saga: &SagaId, launch: Launch);
}

/// A call that leaves, or a request of one.
#[derive(Clone, Debug)]
pub struct Launch {
    pub call: Call,
    /// The version that takes it, or asks; None: none does.
    pub by: Option<Behaviour>,
    /// None: the call itself leaves.
    pub send: Option<Send>,
}

/// What came back.
#[derive(Clone, Debug)]
pub enum Came {
    /// The call has ended.
    End(End),
    /// Its request has. `what`: for people, the request and its answer.
    Answer { answer: http::Answer, what: String },
}

impl Came {
    /// For people.
    pub fn said(&self) -> &str {
        match self {
            Self::End(end) => end.name(),
            Self::Answer { what, .. } => what,
        }
    }
}

/// How it ended outside.
#[derive(Clone, Debug)]
pub struct Answer {
    pub by: Behaviour,
    pub came: Came,
    /// Something of the call left the host.
    pub left: bool,
    pub took: Duration,
}

impl Answer {
    /// Did whoever ran it break its word, rather than decide, or not be reached?
    pub(crate) fn is_at_fault(&self) -> bool {
        let Came::End(end) = &self.came else { return false };
        matches!(end.code(), Some("bad-answer" | "bad-outcome" | "payload-limit"))
    }

    pub(crate) fn input(&self, call: &CallRef) -> Input {
        let left = self.left && !planted::on(Planted::ForgetLeft);
        match &self.came {
            Came::End(end) => Input::ended_outside(call.clone(), self.by.clone(), end.clone(), left, self.took),
            Came::Answer { what, .. } => {
                Input::Resumed { call: call.clone(), left, what: what.as_str().into(), took: self.took }
            }
        }
    }
}

/// Takes what comes back.
#[derive(Clone)]
pub struct Answers {
    pub inbox: Inbox,
}

impl Answers {
    /// An end of a call that is not out is dropped: the host has begun anew since, and counts it as interrupted.
    pub fn answer(&self, saga: &SagaId, call: &CallRef, answer: Answer) {
        let calls = &self.inbox.calls;
        if calls.answered(saga, call, answer.clone()) {
            self.inbox.post(saga, Item::Answered { call: call.clone(), answer });
            calls.out.fetch_sub(1, Ordering::SeqCst);
            // A stop may wait for just this, and what it brought may be journaled by now.
            self.inbox.stage.progress.raise_all();
        }
    }
}

#[derive(Clone, Debug)]
enum State {
    /// It began before this host did, and its end is not known.
    Interrupted,
    /// It is durable that it began; its turn to leave has not come.
    Queued,
    Out,
    Answered(Answer),
}

impl State {
    /// None: it is out, and its end will be posted.
    fn next(&self, call: &CallRef) -> Option<Item> {
        let call = call.clone();
        match self {
            Self::Interrupted => Some(Item::Launch { call, interrupted: true }),
            Self::Queued => Some(Item::Launch { call, interrupted: false }),
            Self::Out => None,
            Self::Answered(_) if planted::on(Planted::DropAnswers) => None,
            Self::Answered(answer) => Some(Item::Answered { call, answer: answer.clone() }),
        }
    }
}

/// What this host knows of calls that began.
#[derive(Default)]
pub struct Calls {
    known: Mutex<BTreeMap<(SagaId, CallRef), State>>,
    /// Until its end is in a mailbox, a call is known nowhere else.
    out: AtomicUsize,
}

impl Calls {
    /// It is durable that the call began.
    pub(crate) fn queue(&self, saga: &SagaId, call: &CallRef) {
        self.known.lock().entry((saga.clone(), call.clone())).or_insert(State::Queued);
    }

    /// Hands out a call whose turn has come.
    pub(crate) fn launch(&self, saga: &SagaId, launch: Launch, outside: &dyn Outside) {
        let leaves = match self.known.lock().get_mut(&(saga.clone(), CallRef::from(&launch.call))) {
            Some(state @ State::Queued) => {
                *state = State::Out;
                self.out.fetch_add(1, Ordering::SeqCst);
                true
            }
            Some(State::Interrupted | State::Out | State::Answered(_)) | None => false,
        };
        if leaves {
            outside.launch(saga, launch);
        }
    }

    /// Has its turn to leave not come yet? Where everything began anew it may have been posted twice.
    pub(crate) fn is_queued(&self, saga: &SagaId, call: &CallRef) -> bool {
        matches!(self.known.lock().get(&(saga.clone(), call.clone())), Some(State::Queued))
    }

    /// False: it is not out.
    fn answered(&self, saga: &SagaId, call: &CallRef, answer: Answer) -> bool {
        match self.known.lock().get_mut(&(saga.clone(), call.clone())) {
            Some(state @ State::Out) => {
                *state = State::Answered(answer);
                true
            }
            Some(State::Interrupted | State::Queued | State::Answered(_)) | None => false,
        }
    }

    /// What is to be done about a call that the journal says has begun. `first`: the host begins; whatever left before is
    /// not known to have ended.
    pub(crate) fn resume(&self, saga: &SagaId, call: CallRef, first: bool) -> Option<Item> {
        let mut known = self.known.lock();
        let interrupted = first && !planted::on(Planted::ForgetInterrupted);
        let begins = if interrupted { State::Interrupted } else { State::Queued };
        let state = known.entry((saga.clone(), call.clone())).or_insert(begins);
        state.next(&call)
    }

    /// What to do about each known call when the host restarts from its journal. The end of one may be journaled already, in a
    /// batch whose commit reported a failure: handling it again changes nothing, and settles the call.
    pub(crate) fn resume_known(&self) -> Vec<(SagaId, Item)> {
        let known = self.known.lock();
        known.iter().filter_map(|((saga, call), state)| Some((saga.clone(), state.next(call)?))).collect()
    }

    /// What became of it is journaled.
    pub(crate) fn settled(&self, saga: SagaId, call: CallRef) {
        if let Some(State::Out) = self.known.lock().remove(&(saga, call)) {
            self.out.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Calls that left this host, and have not come back.
    pub fn out(&self) -> usize {
        self.out.load(Ordering::SeqCst)
    }

    /// Calls that began and whose end is not journaled.
    pub fn count(&self) -> usize {
        self.known.lock().len()
    }
}
