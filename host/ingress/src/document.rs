//! A saga as those see it who asked for it. Invariant: names are in camelCase, as in all that HTTP carries here; what is not known
//! is left out; and what a participant wrote comes as it wrote it, numbers of any length too.

use std::collections::BTreeMap;

use sagahost_codec::timestamp;
use sagahost_saga::{
    Saga,
    history::{Entry, What},
    id::Time,
    outcome::Cause,
    view::{StepState, StepView},
};
use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};

/// Of a JSON object.
pub type Members = BTreeMap<String, Box<RawValue>>;

pub fn member(members: &mut Members, name: &str, value: &(impl Serialize + ?Sized)) {
    members.insert(name.to_owned(), raw(value));
}

pub fn raw(value: &(impl Serialize + ?Sized)) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("it has names for keys, and numbers that JSON knows")
}

/// `GET /sagas/ID`
pub fn of_saga(saga: &Saga, app: &str) -> Box<RawValue> {
    let mut members = Members::new();
    member(&mut members, "sagaId", saga.id().as_str());
    member(&mut members, "app", app);
    member(&mut members, "status", saga.status().name());
    member(&mut members, "version", &saga.version());
    member(&mut members, "created", &time(saga.created()));
    member(&mut members, "updated", &time(saga.touched()));
    member(&mut members, "steps", &saga.steps().map(|step| of_step(&step)).collect::<Vec<_>>());
    if let Some(ended) = saga.ended() {
        member(&mut members, "ended", &time(ended));
    }
    if let Some(cause) = saga.cause() {
        member(&mut members, "cause", &of_cause(cause));
    }
    if let Some(result) = saga.result() {
        member(&mut members, "result", &readable(result));
    }
    if !saga.needs().is_empty() {
        let needs = saga.needs().iter().map(|need| json!({ "code": *need.code, "detail": *need.detail }));
        member(&mut members, "needs", &needs.collect::<Vec<_>>());
    }
    raw(&members)
}

pub fn of_step(step: &StepView<'_>) -> Value {
    let mut line = json!({
        "participant": step.participant.as_str(),
        "kind": step.kind.as_str(),
        "state": step.state.name(),
        "attempts": step.attempts,
    });
    let Value::Object(members) = &mut line else { return line };
    if let Some(at) = step.next_at {
        members.insert("nextAt".to_owned(), time(at));
    }
    if let Some(problem) = step.problem {
        members.insert("problem".to_owned(), json!({ "code": problem.code, "detail": problem.detail }));
    }
    line
}

pub fn of_cause(Cause { code, detail, participant, event_kind }: &Cause) -> Value {
    let mut members = Map::new();
    members.insert("code".to_owned(), code.as_str().into());
    members.insert("detail".to_owned(), detail.as_str().into());
    if let Some(participant) = participant {
        members.insert("participant".to_owned(), participant.as_str().into());
    }
    if let Some(kind) = event_kind {
        members.insert("kind".to_owned(), kind.as_str().into());
    }
    Value::Object(members)
}

/// Steps that are done although the saga is compensated: an operator accepted them as they are.
pub fn accepted(saga: &Saga) -> Vec<Value> {
    saga.steps().filter(|step| step.state == StepState::Accepted).map(|step| of_step(&step)).collect()
}

/// What was said and done, as a line of a timeline.
pub fn of_entry(entry: &Entry) -> (&'static str, Value) {
    let (name, mut line) = match &entry.what {
        What::Event { kind, key, note } => {
            ("event", json!({ "kind": kind.as_str(), "id": &*key.id, "source": &*key.source, "note": note.name() }))
        }
        What::Attempt { participant, kind, direction, attempt, outcome, code, detail, took, version } => (
            "attempt",
            json!({
                "participant": participant.as_str(), "kind": kind.as_str(), "direction": direction.name(),
                "attempt": attempt, "outcome": &**outcome, "code": &**code, "detail": &**detail,
                "tookMicros": u64::try_from(took.as_micros()).unwrap_or(u64::MAX), "version": &**version,
            }),
        ),
        What::Emitted { participant, kind, id } => (
            "emitted",
            json!({ "participant": participant.as_ref().map(|name| name.as_str()), "kind": kind.as_str(), "id": &**id }),
        ),
        What::Parked { participant, kind, why, until } => (
            "parked",
            json!({
                "participant": participant.as_str(), "kind": kind.as_str(), "why": &**why, "until": until.map(time),
            }),
        ),
        What::Status { to, cause, detail } => {
            ("status", json!({ "status": to.name(), "cause": &**cause, "detail": &**detail }))
        }
        What::Operator { by, did, reason } => ("operator", json!({ "by": &**by, "did": &**did, "reason": &**reason })),
        What::Sent { participant, direction, attempt, what, took } => (
            "request",
            json!({
                "participant": participant.as_str(), "direction": direction.name(), "attempt": attempt,
                "said": &**what, "tookMicros": u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            }),
        ),
        What::DeadLetter { key, code, closed } => {
            ("dead-letter", json!({ "key": &**key, "code": &**code, "closed": closed.as_deref() }))
        }
    };
    if let Value::Object(members) = &mut line {
        members.retain(|_, value| !value.is_null() && value != "");
        members.insert("at".to_owned(), time(entry.at));
    }
    (name, line)
}

fn time(at: Time) -> Value {
    timestamp::format(at).into()
}

/// JSON where it is that, else text.
fn readable(bytes: &[u8]) -> Box<RawValue> {
    json_of(bytes).unwrap_or_else(|| raw(&String::from_utf8_lossy(bytes)))
}

/// As it was written. None: it is none.
pub fn json_of(bytes: &[u8]) -> Option<Box<RawValue>> {
    serde_json::from_slice(bytes).ok()
}
