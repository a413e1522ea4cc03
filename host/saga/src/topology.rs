//! What the manifests and the operator say about who handles what: the fixed surroundings of a decision. Invariant:
//! participants stand in the order in which they run when several subscribe to one event.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use crate::id::{Kind, Participant};

/// What happens to a step when its saga fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It is undone by `compensate`.
    Compensable,
    /// Once it is done, nothing is compensated any more.
    Pivot,
    /// It stands behind the pivot: failures are retried forward.
    Retriable,
    NothingToUndo,
}

impl Role {
    /// As manifests, pages and JSON write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compensable => "compensable",
            Self::Pivot => "pivot",
            Self::Retriable => "retriable",
            Self::NothingToUndo => "nothing-to-undo",
        }
    }
}

/// In which phase of a saga a subscription takes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    Running,
    Compensating,
    Both,
}

/// What else happens when a step ends in a dead letter (attempts spent, invalid).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDeadLetter {
    Compensate,
    /// The saga waits for an operator.
    Block,
    Skip,
}

/// Exponential backoff with full jitter: before attempt n+1 wait uniform(0, min(cap, base·2^(n-1))).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    pub attempts_max: u32,
    pub base: Duration,
    pub cap: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts_max: 5, base: Duration::from_millis(200), cap: Duration::from_secs(60) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub kind: Kind,
    pub role: Role,
    pub when: When,
    /// This participant's steps of these kinds must be done first.
    pub after: Vec<Kind>,
    pub retry: Retry,
    pub undo_retry: Retry,
    /// From the moment at which the event was taken in to the end of its last attempt.
    pub deadline: Option<Duration>,
    /// How long an event waits for its predecessor (`after`, `not-yet`).
    pub park_ttl: Duration,
    pub on_dead_letter: OnDeadLetter,
}

/// An admitted participant, serving or paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: Participant,
    /// False: its plugin is away, its events park.
    pub serving: bool,
    /// It is a service that does not answer just now: its events park as well, and the deadlines of its steps run on.
    pub unreachable: bool,
    /// Calls may leave the host: `started` is journaled before each.
    pub outside_effects: bool,
    pub subscriptions: Vec<Subscription>,
    pub compensate_on: BTreeSet<Kind>,
    pub finish_on: BTreeSet<Kind>,
    pub finishes: bool,
}

impl Member {
    /// Do the deadlines of its steps run? Not while an operator has it paused, or its file is gone.
    pub fn hears_of_time(&self) -> bool {
        self.serving || self.unreachable
    }

    pub fn subscription(&self, kind: &Kind) -> Option<&Subscription> {
        self.subscriptions.iter().find(|s| s.kind == *kind)
    }
}

/// Every bound that the core keeps to; each is a configuration field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub hops_max: u32,
    pub emissions_per_outcome_max: usize,
    pub steps_per_saga_max: usize,
    /// What the steps of a saga keep: data of their events, undo data, state.
    pub data_bytes_max: usize,
    pub events_per_saga_max: usize,
    pub parked_per_saga_max: usize,
    /// Known ids and history entries kept in the record itself; more spill to rows of their own.
    pub inline_events_max: usize,
    pub inline_history_max: usize,
    /// Notes of a saga; further ones are dropped.
    pub notes_max: usize,
    /// In an app with a participant that `finishes`: from the first event to the end of this app's part.
    pub saga_deadline: Option<Duration>,
    /// How long a finished saga stays as a tombstone.
    pub retention: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            hops_max: 32,
            emissions_per_outcome_max: 32,
            steps_per_saga_max: 256,
            data_bytes_max: 16 << 20,
            events_per_saga_max: 4096,
            parked_per_saga_max: 64,
            inline_events_max: 32,
            inline_history_max: 32,
            notes_max: 64,
            saga_deadline: Some(Duration::from_secs(15 * 60)),
            retention: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    pub app: String,
    pub members: Vec<Member>,
    pub bounds: Bounds,
    /// The kind under which a failure is announced to other apps; `SagaFailed` unless configured otherwise.
    pub saga_failed: Option<Kind>,
}

impl Topology {
    /// The kind that announces a failure.
    pub fn saga_failed_kind(&self) -> Kind {
        self.saga_failed.clone().unwrap_or_else(|| Kind::new("SagaFailed"))
    }
    pub fn member(&self, name: &Participant) -> Option<&Member> {
        self.members.iter().find(|m| m.name == *name)
    }
    pub fn subscribers<'a>(&'a self, kind: &'a Kind) -> impl Iterator<Item = (&'a Member, &'a Subscription)> {
        self.members.iter().filter_map(move |m| m.subscription(kind).map(|s| (m, s)))
    }
    /// Does this app act on the kind at all: handle, finish or compensate?
    pub fn concerns(&self, kind: &Kind) -> bool {
        *kind == self.saga_failed_kind()
            || self
                .members
                .iter()
                .any(|m| m.subscription(kind).is_some() || m.finish_on.contains(kind) || m.compensate_on.contains(kind))
    }
    /// Does the saga's deadline run here (SEMANTICS.md, rule 5)?
    pub fn finishes(&self) -> bool {
        self.members.iter().any(|m| m.finishes)
    }
}
