//! From the core's types to what the protocol says. Invariant: nothing is left out that an assertion could ask for.

use sagahost_saga::{
    event::{Attributes, Event},
    history::Entry,
    id::{Direction, Participant, SagaId},
    input::Letter,
    outcome::{Call, Cause, Crash, Delay, End, Outcome, Problem, UndoOutcome},
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
        record.map_or_else(|| "unknown".to_owned(), |record| timeline::status(record.saga.status()))
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
    let (outcome, problem, notes) = match end {
        End::Outcome(outcome) => forward(outcome),
        End::Undo(outcome) => undo(outcome),
    };
    let (code, detail) = problem.unwrap_or_default();
    Attempted {
        saga: call.event.saga.to_string(),
        plugin: Participant::to_string(&call.participant),
        kind: call.event.kind.to_string(),
        direction: match call.direction {
            Direction::Forward => protocol::Direction::Handle,
            Direction::Undo => protocol::Direction::Compensate,
        },
        attempt: call.attempt,
        outcome: outcome.to_owned(),
        code,
        detail,
        notes: notes.clone(),
    }
}

type Told<'a> = (&'static str, Option<(String, String)>, &'a Attributes);

const NONE: &Attributes = &Attributes::new();

fn forward(outcome: &Outcome) -> Told<'_> {
    match outcome {
        Outcome::Completed(completion) => ("completed", None, &completion.attributes),
        Outcome::Rejected(rejection) => ("rejected", problem(&rejection.problem), &rejection.attributes),
        Outcome::Retry(Delay { problem: why, .. }) => ("retry", problem(why), NONE),
        Outcome::NotYet(why) => ("not-yet", problem(why), NONE),
        Outcome::Invalid(why) => ("invalid", problem(why), NONE),
        Outcome::Unknown { crash, .. } => ("trapped", crashed(crash), NONE),
        Outcome::Unreadable { formats } => ("unreadable", unreadable(formats), NONE),
        Outcome::Unsent(why) => ("unsent", problem(why), NONE),
    }
}

fn undo(outcome: &UndoOutcome) -> Told<'_> {
    match outcome {
        UndoOutcome::Undone(undone) => ("undone", None, &undone.attributes),
        UndoOutcome::NothingToUndo => ("nothing-to-undo", None, NONE),
        UndoOutcome::Retry(Delay { problem: why, .. }) => ("retry", problem(why), NONE),
        UndoOutcome::Stuck(why) => ("stuck", problem(why), NONE),
        UndoOutcome::Unknown { crash } => ("trapped", crashed(crash), NONE),
        UndoOutcome::Unreadable { formats } => ("unreadable", unreadable(formats), NONE),
        UndoOutcome::Unsent(why) => ("unsent", problem(why), NONE),
    }
}

fn problem(problem: &Problem) -> Option<(String, String)> {
    Some((problem.code.clone(), problem.detail.clone()))
}

fn crashed(crash: &Crash) -> Option<(String, String)> {
    Some((crash.code.clone(), crash.detail.clone()))
}

fn unreadable(formats: &[u32]) -> Option<(String, String)> {
    Some((String::new(), format!("it does not read data formats {formats:?}")))
}
