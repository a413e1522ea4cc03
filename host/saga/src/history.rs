//! The timeline of a saga: what `sagas show` prints. Invariant: entries are only ever appended.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    id::{Direction, EventKey, Kind, Participant, Time},
    input::Status,
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub at: Time,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// An event was taken in. `fused`: it was emitted in the same chain.
    Event {
        kind: Kind,
        key: EventKey,
        note: EventNote,
    },
    /// An attempt ended.
    Attempt {
        participant: Participant,
        kind: Kind,
        direction: Direction,
        attempt: u32,
        outcome: Arc<str>,
        code: Arc<str>,
        detail: Arc<str>,
        took: Duration,
        version: Arc<str>,
    },
    Emitted {
        participant: Option<Participant>,
        kind: Kind,
        id: Arc<str>,
    },
    /// Parked, retried later, expired, released: with the reason.
    Parked {
        participant: Participant,
        kind: Kind,
        why: Arc<str>,
        until: Option<Time>,
    },
    Status {
        to: Status,
        cause: Arc<str>,
        detail: Arc<str>,
    },
    /// A person did something.
    Operator {
        by: Arc<str>,
        did: Arc<str>,
        reason: Arc<str>,
    },
    DeadLetter {
        key: Arc<str>,
        code: Arc<str>,
        closed: Option<Arc<str>>,
    },
    /// A plugin's request left the host, or should have: what it was, and what came back.
    Sent {
        participant: Participant,
        direction: Direction,
        attempt: u32,
        what: Arc<str>,
        took: Duration,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventNote {
    TakenIn,
    Fused,
    Late,
    Duplicate,
    Failure,
    Ignored,
}

impl EventNote {
    /// As timelines and JSON write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TakenIn => "taken-in",
            Self::Fused => "fused",
            Self::Late => "late",
            Self::Duplicate => "duplicate",
            Self::Failure => "failure",
            Self::Ignored => "ignored",
        }
    }
}
