//! A step: one participant handling one event of one saga. Invariant: a step that is done stays done; what happens to
//! it later stands in the plan of the compensation.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    event::Event,
    id::{self, Direction, Participant, SagaId, Time, sha256},
    mutation::{self, Mutation},
    outcome::{Behaviour, Problem, Saved},
    topology::{Retry, Role},
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub participant: Participant,
    pub event: Event,
    /// As the manifest said when the event was taken in.
    pub role: Role,
    /// The step whose emission is this step's event; none where it came from outside this app.
    pub cause: Option<u32>,
    pub stage: Stage,
    /// Place in the order of first starts.
    pub start: Option<u32>,
    /// Forward attempts so far, over all versions of the plugin.
    pub attempts: u32,
    pub budget: Budget,
    /// An attempt may have had its effect outside although it brought no answer.
    pub uncertain: bool,
    /// Its calls are journaled before they run; or its attempt sends requests.
    pub outside: bool,
    pub undo: Option<Saved>,
    /// Who did the step, or tried it last.
    pub by: Behaviour,
    pub deadline: Option<Time>,
    pub park_until: Option<Time>,
    /// A `finish-on` event came: no longer to be undone.
    pub released: bool,
    /// Taken in by a `compensating` subscription after the fence: it is part of the undoing, not undone itself.
    pub compensating: bool,
    pub problem: Option<Problem>,
}

/// How far the forward direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// Waits for its turn, or for its plugin.
    Ready,
    Early(Early),
    /// A call is out. `launched`: a call that was journaled first has left since.
    Started {
        launched: bool,
    },
    Retrying {
        at: Time,
    },
    /// Only an operator moves it.
    Blocked,
    Done,
    Rejected,
    /// In a dead letter; the saga continued, or compensates.
    GivenUp,
    /// The fence came first: it never runs, and a result that still comes is late.
    Abandoned,
    /// As `GivenUp`: the participant says that the event is not one that it could handle. That stays true behind the fence.
    Invalid,
    /// Its attempt stopped at a request, which is out: the `number`th that left in this attempt, of which the last
    /// `interrupted` ended unseen by the host.
    Sending {
        number: u32,
        interrupted: u32,
    },
}

/// What an early event waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Early {
    /// The `after` kinds of its subscription.
    After,
    /// The participant said so; another step of its own being done may change that.
    NotYet,
}

/// Attempts of the current digest: new code begins with a full budget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Budget {
    pub digest: Arc<str>,
    pub used: u32,
}

impl Budget {
    /// Counts an attempt that ended and says whether it was the last one.
    pub fn spend(&mut self, digest: &Arc<str>, retry: &Retry) -> bool {
        // An attempt that the host did not see end counts for whichever code ran before or runs next.
        if self.digest.is_empty() {
            self.digest = digest.clone();
        } else if !digest.is_empty() && self.digest != *digest {
            *self = Self { digest: digest.clone(), used: 0 };
        }
        self.used += 1;
        self.used >= retry.attempts_max && !mutation::on(Mutation::EndlessAttempts)
    }
}

impl Step {
    pub fn id(&self) -> String {
        id::step_id(&self.participant, &self.event.key)
    }
    pub fn key(&self, saga: &SagaId, direction: Direction, ordinal: u32) -> String {
        let ordinal = if mutation::on(Mutation::OneKeyForAll) { 0 } else { ordinal };
        id::idempotency_key(saga, &self.id(), direction, ordinal)
    }
    /// Is the forward direction still to be decided, by whomever?
    pub fn pending(&self) -> bool {
        match self.stage {
            Stage::Ready
            | Stage::Early(_)
            | Stage::Started { .. }
            | Stage::Sending { .. }
            | Stage::Retrying { .. }
            | Stage::Blocked => true,
            Stage::Done | Stage::Rejected | Stage::GivenUp | Stage::Abandoned | Stage::Invalid => false,
        }
    }
    /// Not running, not over: it takes room among what is parked.
    pub fn parked(&self) -> bool {
        self.pending() && !self.started()
    }
    pub fn started(&self) -> bool {
        matches!(self.stage, Stage::Started { .. } | Stage::Sending { .. })
    }
    /// How many requests its attempt has sent, where one is out.
    pub fn sent(&self) -> u32 {
        if let Stage::Sending { number, .. } = self.stage { number } else { 0 }
    }
    /// A pivot that happened, or may have.
    pub fn pivoted(&self) -> bool {
        self.role == Role::Pivot && (self.stage == Stage::Done || self.uncertain || (self.outside && self.started()))
    }
    /// Would undoing it be work?
    pub fn undoable(&self) -> bool {
        self.role == Role::Compensable && self.stage == Stage::Done && self.undo.is_some() && !self.released
    }
}

/// Before the attempt after number `used`: uniform over 0 to min(cap, base·2^(used-1)), from a hash, so that a re-run
/// waits as long.
pub(crate) fn backoff(retry: &Retry, used: u32, key: &str, attempt: u32) -> Duration {
    let factor = 1u32.checked_shl(used.saturating_sub(1)).unwrap_or(u32::MAX);
    let ceiling = retry.base.saturating_mul(factor).min(retry.cap);
    let ceiling = u64::try_from(ceiling.as_millis()).unwrap_or(u64::MAX);
    let hash = sha256(&[b"jitter", key.as_bytes(), &attempt.to_be_bytes()]);
    let mut draw = [0; 8];
    draw.copy_from_slice(&hash[..8]);
    Duration::from_millis(u64::from_be_bytes(draw) % ceiling.saturating_add(1).max(1))
}
