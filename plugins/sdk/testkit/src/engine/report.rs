//! From the core's types to what the protocol says. Invariant: nothing is left out that an assertion could ask for.

use sagahost_saga::{
    event::{Attributes, Event},
    history::Entry,
    id::{Direction, Participant, SagaId},
    input::Letter,
    outcome::{Call, Cause, Completion, End, Outcome, Rejection, UndoOutcome, Undone},
};
use sagahost_sdk::Level;
use serde_json::Value;

use super::Engine;
use crate::{
    protocol::{self, Attempted, DeadLetter, Done, Emitted, Happened, LogLine, SagaReport},
    timeline,
    values::Line,
};

/// JSON as it is, anything else as text.
pub(super) fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

impl Engine {
    pub(super) fn happened(&self, saga: &SagaId, happened: Happened) -> Done {
        Done::Happened(Happened { saga: saga.to_string(), status: self.status(saga), ..happened })
    }

    fn status(&self, saga: &SagaId) -> String {
        let record = self.world.sagas.get(saga);
        record.map_or_else(|| "unknown".to_owned(), |record| record.saga.status().name().to_owned())
    }

    pub(super) fn saga_report(&self, saga: &str) -> SagaReport {
        let status = self.status(&saga.into());
        let saga = saga.to_owned();
        let Some(record) = self.world.sagas.get(saga.as_str()) else {
            return SagaReport {
                saga,
                status,
                cause: None,
                result: Value::Null,
                notes: Vec::new(),
                state: Default::default(),
                next: Vec::new(),
                timeline: Vec::new(),
            };
        };
        let of = &record.saga;
        let history: Vec<Entry> = record.spilled_history.iter().chain(of.history()).cloned().collect();
        let states = self.plugins.keys().filter_map(|name| Some((name.to_string(), json(&of.state_of(name)?.data))));
        SagaReport {
            saga,
            status,
            cause: of.cause().map(cause),
            result: of.result().map_or(Value::Null, json),
            notes: of.notes().clone(),
            state: states.collect(),
            next: of.next_commands(),
            timeline: timeline::lines(&history),
        }
    }
}

fn cause(cause: &Cause) -> String {
    let by = cause.participant.as_ref().map(|who| format!(" by {who}")).unwrap_or_default();
    let on = cause.event_kind.as_ref().map(|kind| format!(" on {kind}")).unwrap_or_default();
    format!("{}{by}{on}: {}", cause.code, cause.detail)
}

pub(super) fn letter(saga: &SagaId, letter: &Letter) -> DeadLetter {
    DeadLetter {
        saga: saga.to_string(),
        plugin: letter.participant.as_ref().map(ToString::to_string),
        kind: letter.event.kind.to_string(),
        code: letter.problem.code.clone(),
        detail: letter.problem.detail.clone(),
    }
}

/// The source of an event says who emitted it: `sagahost/APP/PLUGIN`, or `sagahost/APP` for the host.
pub(super) fn emitted(event: &Event, app: &str) -> Emitted {
    let plugin = event.key.source.strip_prefix("sagahost/").and_then(|source| source.strip_prefix(app));
    Emitted {
        saga: event.saga.to_string(),
        kind: event.kind.to_string(),
        plugin: plugin.and_then(|rest| rest.strip_prefix('/')).map(str::to_owned),
        id: event.key.id.to_string(),
        data: json(&event.data),
        content_type: event.content_type.to_string(),
        attributes: event.attributes.clone(),
    }
}

pub(super) fn log_line(call: &Call, line: Line) -> LogLine {
    let level = match line.level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    LogLine {
        plugin: call.participant.to_string(),
        saga: call.event.saga.to_string(),
        level: level.to_owned(),
        message: line.message,
        fields: line.fields,
    }
}

pub(super) fn attempted(call: &Call, end: &End) -> Attempted {
    let (code, detail) = why(end);
    Attempted {
        saga: call.event.saga.to_string(),
        plugin: Participant::to_string(&call.participant),
        kind: call.event.kind.to_string(),
        direction: match call.direction {
            Direction::Forward => protocol::Direction::Handle,
            Direction::Undo => protocol::Direction::Compensate,
        },
        attempt: call.attempt,
        outcome: outcome(end).to_owned(),
        code,
        detail,
        notes: notes(end).cloned().unwrap_or_default(),
    }
}

/// The word of protocol 1 for what timelines call `unknown`. Nothing leaves this engine, so nothing is uncertain.
fn outcome(end: &End) -> &'static str {
    match end {
        End::Outcome(Outcome::Unknown { .. }) | End::Undo(UndoOutcome::Unknown { .. }) => "trapped",
        End::Outcome(outcome) => outcome.name(),
        End::Undo(outcome) => outcome.name(),
    }
}

/// Code and detail of what it ended with, both empty where it answered.
fn why(end: &End) -> (String, String) {
    if let End::Outcome(Outcome::Unreadable { formats }) | End::Undo(UndoOutcome::Unreadable { formats }) = end {
        return (String::new(), format!("it does not read data formats {formats:?}"));
    }
    let (code, detail) = end.why().unwrap_or_default();
    (code.to_owned(), detail.to_owned())
}

fn notes(end: &End) -> Option<&Attributes> {
    match end {
        End::Outcome(Outcome::Completed(Completion { attributes, .. }))
        | End::Outcome(Outcome::Rejected(Rejection { attributes, .. }))
        | End::Undo(UndoOutcome::Undone(Undone { attributes, .. })) => Some(attributes),
        End::Outcome(
            Outcome::Retry(_)
            | Outcome::NotYet(_)
            | Outcome::Invalid(_)
            | Outcome::Unknown { .. }
            | Outcome::Unreadable { .. }
            | Outcome::Unsent(_),
        )
        | End::Undo(
            UndoOutcome::NothingToUndo
            | UndoOutcome::Retry(_)
            | UndoOutcome::Stuck(_)
            | UndoOutcome::Unknown { .. }
            | UndoOutcome::Unreadable { .. }
            | UndoOutcome::Unsent(_),
        ) => None,
    }
}
