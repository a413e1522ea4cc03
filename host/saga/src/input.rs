//! What enters a saga's mailbox, and what comes out. Invariant: everything that one input causes is in one
//! `Transition`; the host commits all of it or nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    event::{Attributes, Event},
    id::{Direction, EventKey, Kind, Participant, Time, hex},
    outcome::{Behaviour, Call, End, Outcome, Problem, UndoOutcome},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// An event of this saga: from the transport, or emitted by an earlier step of the same chain.
    /// `spilled`: the data hash that this event's key has among the ids that were spilled to rows, where it is there.
    Received {
        event: Event,
        spilled: Option<[u8; 16]>,
    },
    /// A request over HTTP brings an event: as `Received`, but a conflict is an answer and never a dead letter (SEMANTICS.md,
    /// rule 17). `to`: the one participant that it asks for a step; None: it begins the saga.
    Requested {
        event: Event,
        spilled: Option<[u8; 16]>,
        to: Option<Participant>,
    },
    /// A forward attempt ended. `left`: something of it left the host, so that on any end but a completed one the step may
    /// have happened outside.
    Returned {
        call: CallRef,
        by: Behaviour,
        outcome: Outcome,
        left: bool,
        took: Duration,
    },
    /// A compensating attempt ended.
    Undone {
        call: CallRef,
        by: Behaviour,
        outcome: UndoOutcome,
        took: Duration,
    },
    /// Something of this saga's may be due: retries, delayed events, deadlines, park expiries. The saga looks at its
    /// own durable times; a stale one is ignored. `deadlines`: false after a stall, when queued results come first
    /// (SEMANTICS.md, rule 9): then only retries and delayed emissions fire.
    Due {
        deadlines: bool,
    },
    /// An attempt stopped at a request that is to leave the host.
    Sends {
        call: CallRef,
        by: Behaviour,
    },
    /// What became of that request is known: the attempt continues. `left`: it left the host. `what`: for people, the request and
    /// its answer.
    Resumed {
        call: CallRef,
        left: bool,
        what: std::sync::Arc<str>,
        took: Duration,
    },
    /// That a call outside began is durable: it may leave now. Also sent after a crash for calls whose end is not known
    /// (`interrupted`).
    Started {
        call: CallRef,
        interrupted: bool,
    },
    /// Participants were paused, resumed or admitted: what is parked for them may continue.
    TopologyChanged,
    Operator(Command),
}

impl Input {
    /// The attempt `call` ended in the host itself: the code of `by` answered with `end`.
    pub fn ended(call: &Call, by: Behaviour, end: End, took: Duration) -> Self {
        Self::ended_outside(CallRef::from(call), by, end, false, took)
    }

    /// An attempt ended; `left`: something of it had left the host.
    pub fn ended_outside(call: CallRef, by: Behaviour, end: End, left: bool, took: Duration) -> Self {
        match end {
            End::Outcome(outcome) => Self::Returned { call, by, outcome, left, took },
            End::Undo(outcome) => Self::Undone { call, by, outcome, took },
        }
    }
}

/// Names one attempt. An answer for an attempt that is no longer the current one is late.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallRef {
    pub participant: Participant,
    pub step_id: String,
    pub direction: Direction,
    pub attempt: u32,
    pub ordinal: u32,
    /// Of a plugin's attempt that stopped at a request: how many it has sent. 0: the call itself.
    pub send: u32,
}

impl From<&Call> for CallRef {
    fn from(call: &Call) -> Self {
        Self {
            participant: call.participant.clone(),
            step_id: call.step_id.clone(),
            direction: call.direction,
            attempt: call.attempt,
            ordinal: call.ordinal,
            send: call.send,
        }
    }
}

/// What a person asks for. `by`: who, `reason`: why; both are journaled in the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    Cancel {
        by: String,
        reason: String,
    },
    /// Try what is stuck, blocked or waiting for a retry again, now.
    Retry {
        by: String,
    },
    /// Declare stuck steps undone by hand (`accept` false), or accept that they stay done (`accept` true).
    Resolve {
        by: String,
        reason: String,
        accept: bool,
        participant: Option<Participant>,
    },
    /// Run the participant of one open dead letter of this saga again with the letter's event.
    Redrive {
        by: String,
        letter: String,
        participant: Participant,
        event: RedrivenEvent,
    },
    /// The letter is closed without running anything.
    Discard {
        by: String,
        letter: String,
        reason: String,
    },
}

/// An event as a dead letter keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedrivenEvent(pub Event);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Run an attempt and bring its end back as `Returned` or `Undone`.
    Call(Call),
    /// Publish; fuse with local subscribers when the event belongs to this saga.
    Publish(Publish),
    /// What a step that a request asked for emits, forward or `undoing`: it belongs to whoever asked.
    Answer {
        request: EventKey,
        undoing: bool,
        event: Event,
    },
    OpenLetter(Letter),
    /// A dead letter of which the saga knows nothing: should it be redriven, the event is taken in as if it came then.
    KeepAside(Letter),
    CloseLetter {
        key: String,
        how: String,
    },
    /// Rows of their own for known ids and history entries (oldest first) that no longer fit into the record.
    Spill {
        events: Vec<([u8; 16], [u8; 16])>,
        history: Vec<crate::history::Entry>,
    },
}

/// An event to publish. Its source is `sagahost/<app>/<participant>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    pub event: Event,
    /// False for an event that must not be run by this app's own chain although it concerns this saga (`SagaFailed`
    /// is answered by nobody; an event for another saga comes back through the transport).
    pub fuse: bool,
}

/// A record that the host gave up on, with the reason. Kept by event and participant: a new failure reopens it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// `event key|participant`, see [`letter_key`]; for another content under a known id `event key|#hash`.
    pub key: String,
    pub participant: Option<Participant>,
    pub event: Event,
    pub problem: Problem,
    pub attempts: u32,
    pub by: Behaviour,
    pub at: Time,
}

impl Letter {
    /// Of an event for which its saga has no room (see [`Saga::no_room`](crate::Saga::no_room)).
    pub fn kept_aside(event: Event, problem: Problem, at: Time) -> Self {
        let key = content_key(&event);
        Self { key, participant: None, event, problem, attempts: 0, by: Behaviour::default(), at }
    }
}

/// Each of several contents under one id has a letter of its own.
pub(crate) fn content_key(event: &Event) -> String {
    format!("{}#{}", letter_key(&event.key, None), hex(&event.data_hash()[..4]))
}

/// Of a compensation that failed. No participant has a `/` in its name.
pub(crate) fn undo_letter_key(event: &EventKey, participant: &Participant) -> String {
    format!("{}/undo", letter_key(event, Some(participant)))
}

pub fn letter_key(event: &EventKey, participant: Option<&Participant>) -> String {
    format!("{event}|{}", participant.map_or("", |p| p.as_str()))
}

/// What one input causes. The saga itself has changed too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transition {
    /// In the order in which they must happen.
    pub effects: Vec<Effect>,
    pub disposition: Disposition,
    /// For the operator's answer: what the command did, or why it did nothing.
    pub answer: Option<Answer>,
    /// After `Returned` and `Undone`: the attempt's own writes (store, counters) become part of the chain. False:
    /// they vanish, as if it had not run (rejected, failed, late, refused).
    pub keep_writes: bool,
}

/// What became of the input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Disposition {
    /// The saga changed: it must be staged.
    #[default]
    Changed,
    /// A duplicate: the event was acted on before. Nothing changed.
    Known,
    /// No participant acts on events of this kind. Nothing changed.
    Unhandled,
    /// What a request brought is not taken in. Nothing changed.
    Refused(Refused),
    /// Nothing changed: the timer is stale, nothing waited for it. Nothing needs to be written.
    Nothing(&'static str),
}

/// Why a request is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its key came before, with other data.
    OtherData,
    /// The saga exists: another event began it.
    SagaExists,
    /// The saga has ended or is called off, and no step of it can begin any more.
    SagaOver,
    /// Whoever is asked takes such an event only in a saga that compensates, and this one does not.
    NotCompensating,
    /// The saga has come to one of its bounds.
    NoRoom,
}

impl Refused {
    /// As timelines and JSON write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OtherData => "other-data",
            Self::SagaExists => "saga-exists",
            Self::SagaOver => "saga-over",
            Self::NotCompensating => "not-compensating",
            Self::NoRoom => "no-room",
        }
    }
}

impl Disposition {
    /// Why nothing changed; none where something did.
    pub fn nothing(&self) -> Option<&'static str> {
        match self {
            Self::Changed => None,
            Self::Known => Some("the event is known"),
            Self::Unhandled => Some("no participant acts on this kind"),
            Self::Refused(why) => Some(why.name()),
            Self::Nothing(why) => Some(why),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub done: bool,
    pub text: String,
}

/// Searchable notes on the saga.
pub type Notes = Attributes;

/// An assertion about the core's own doing failed: the saga and the input go into quarantine, nothing else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("saga invariant broken: {what}")]
pub struct Broken {
    pub what: String,
}

/// Asked by the host for indexes of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wake {
    /// Earliest retry or delayed emission.
    pub at: Option<Time>,
    /// Earliest deadline or park expiry.
    pub deadline: Option<Time>,
    /// When the record may be removed: terminal, no open dead letter, retention over.
    pub remove_at: Option<Time>,
    /// Something is parked for a participant that is not serving.
    pub waits_for_plugin: bool,
    /// A call outside began, and its end is not known.
    pub in_doubt: bool,
}

/// The kinds that matter for listing sagas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Only tombstones, parked events or nothing at all so far.
    Waiting,
    Running,
    Finishing,
    Completed,
    Compensating,
    Compensated,
    NeedsOperator,
    /// Its record could not be read, or an invariant broke (said by the host, never by the core).
    Quarantined,
}

impl Status {
    pub fn terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }

    /// As pages, commands and JSON write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Finishing => "finishing",
            Self::Completed => "completed",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
            Self::NeedsOperator => "needs-operator",
            Self::Quarantined => "quarantined",
        }
    }
}

/// For `Kind`s in messages.
pub fn kind_list(kinds: &[Kind]) -> String {
    kinds.iter().map(Kind::as_str).collect::<Vec<_>>().join(", ")
}
