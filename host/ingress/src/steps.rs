//! A participant of this host is asked for a step by another host or service, and to undo it. Invariant: what is answered of a
//! step is what its saga here says, and a repeated request has the same answer.
//!
//! | the step | answer |
//! |---|---|
//! | done | 200 `completed`, with the events that it emitted |
//! | rejected | 422 `rejected` |
//! | its request is invalid | 400 `invalid` |
//! | undone since, or called off before it ran | 409 `compensated` |
//! | waits for an operator | 500 `needs-operator` |
//! | anything else | 202 `running` |

use std::{sync::Arc, time::Instant};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE, request::Parts};
use percent_encoding::percent_decode_str;
use sagahost_codec::{json_of_request, saga_of_request, timestamp};
use sagahost_journal::{Name, requests};
use sagahost_manifest::{answer::is_json, manifest::is_kind};
use sagahost_processor::request::{Admission, Asks, emitted};
use sagahost_saga::{
    Saga,
    event::{Attributes, Event},
    id::{EventKey, Kind, Participant, SagaId},
    input::Status,
    view::{StepState, StepView},
};
use serde_json::value::RawValue;

use crate::{
    begin::{must_be_json, refusal, request_id, trace},
    body::Whole,
    callers::Caller,
    document::{self, Members, json_of, member, raw},
    ingress::Ingress,
    key,
    prefer::Prefer,
    problem::{Outcome, Problem},
    settings::Route,
    standing::{self, applied},
};

const BATCH: HeaderValue = HeaderValue::from_static("application/cloudevents-batch+json");

/// # Errors
/// It is not taken in, or the step is not done.
pub async fn step(
    ingress: &Arc<Ingress>,
    caller: &Caller,
    route: &Route,
    (participant, saga_id): (&Participant, Option<&str>),
    (head, body): (Parts, Body),
) -> Result<Response, Problem> {
    let prefer = Prefer::read(&head.headers);
    let until = Instant::now() + prefer.wait(ingress.settings.wait);
    let key = key::read(&head.headers).map_err(|why| Problem::bad_request("invalid-key", why))?;
    if ingress.callers.only_json() {
        must_be_json(&head.headers)?;
    }
    let Whole { bytes, room } = ingress.bodies.read(body, &caller.name, ingress.stopping()).await?;
    let asked = Asked { headers: &head.headers, body: &bytes, participant, saga_id };
    let event = asked.event(ingress, caller, route, key.as_deref())?;
    drop(bytes);
    let (saga, kind, key) = (event.saga.clone(), event.kind.clone(), event.key.clone());
    let asks = Asks::Step { event, of: participant.clone() };
    match ingress.admit(asks, caller, room, until).await? {
        Admission::TakenIn | Admission::Known => {}
        refused => return not_taken_in(ingress, refused, &saga, (participant, &kind)).await,
    }
    let mut following = ingress.follow(&saga, until);
    while let Some(look) = following.next().await? {
        let Some(saga) = look else { continue };
        if let Some(response) = of_step(ingress, &saga, participant, &key).await? {
            return Ok(applied(response, prefer));
        }
    }
    Ok(applied(standing::undecided(&saga), prefer))
}

/// What that says of the step: whoever asked may have asked before, under another key.
async fn not_taken_in(
    ingress: &Ingress,
    admission: Admission,
    saga: &SagaId,
    (participant, kind): (&Participant, &Kind),
) -> Result<Response, Problem> {
    let refused = || refusal(admission.clone(), saga, kind);
    Err(match admission {
        Admission::SagaOver => match ingress.look(saga).await? {
            // What that saga was about is undone, or will be: the step will never run.
            Some(over) if over.cause().is_some() => standing::compensated(&over),
            // The end that it speaks of has come.
            Some(_) if ends(ingress, participant, kind) => return Ok(with_events(&[], saga, Outcome::Completed)),
            Some(_) | None => refused().of(saga, Outcome::Rejected),
        },
        Admission::NoRoom | Admission::NotCompensating => refused().of(saga, Outcome::Rejected),
        // Something else was asked for under this key, and what became of that it does not say.
        Admission::OtherBody => refused().saying(Outcome::Uncertain),
        Admission::Unhandled => refused().saying(Outcome::Retry),
        Admission::Foreign => Problem::no_such_saga().saying(Outcome::Invalid),
        Admission::SagaExists | Admission::TooLate(_) | Admission::TakenIn | Admission::Known => refused(),
    })
}

fn ends(ingress: &Ingress, participant: &Participant, kind: &Kind) -> bool {
    let serving = ingress.reach.inbox.serving.load();
    serving.topology.member(participant).is_some_and(|member| member.finish_on.contains(kind))
}

/// A request for a step, before it is an event.
struct Asked<'a> {
    headers: &'a HeaderMap,
    body: &'a [u8],
    participant: &'a Participant,
    saga_id: Option<&'a str>,
}

impl Asked<'_> {
    fn event(&self, ingress: &Ingress, caller: &Caller, route: &Route, key: Option<&str>) -> Result<Event, Problem> {
        let content_type = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let refused = |why: sagahost_codec::Undecodable| Problem::bad_request(why.code, why.detail);
        let json = content_type.is_empty() || is_json(content_type);
        let data = if json { json_of_request(self.body).map_err(refused)? } else { self.body };
        let saga = self.saga()?;
        let kind = self.kind(ingress)?;
        let time = self.attribute("time")?.as_deref().and_then(timestamp::parse).unwrap_or_else(|| ingress.now());
        // Without a key it is the only event of its kind in its saga.
        let key = key.map_or_else(|| format!("{saga} {kind}"), str::to_owned);
        let source = Event::source_of_request(&ingress.reach.app, true, &route.path);
        Ok(Event {
            key: EventKey::new(source, request_id(route, caller, &key)),
            saga,
            kind,
            time,
            content_type: if content_type.is_empty() { "application/json" } else { content_type }.into(),
            data: data.into(),
            attributes: self.attributes()?,
            hops: self.hops(),
            origin: None,
            record_key: None,
        })
    }

    /// CloudEvents 1.0, HTTP protocol binding, 3.1.3.2: percent-encoded.
    fn attribute(&self, name: &str) -> Result<Option<String>, Problem> {
        let name = format!("ce-{name}");
        let mut all = self.headers.get_all(&name).into_iter();
        let Some(value) = all.next() else { return Ok(None) };
        let wrong = || Problem::bad_request("invalid-header", format!("header {name} is there twice, or not text"));
        let text = value.to_str().ok().filter(|_| all.next().is_none()).ok_or_else(wrong)?;
        let text = percent_decode_str(text).decode_utf8().map_err(|_| wrong())?;
        Ok(Some(text.into_owned()))
    }

    fn saga(&self) -> Result<SagaId, Problem> {
        let refused = |why: sagahost_codec::Undecodable| Problem::bad_request(why.code, why.detail);
        if let Some(saga) = self.attribute("sagaid")? {
            return saga_of_request(&saga).map_err(refused);
        }
        match self.saga_id {
            Some(pointer) => sagahost_codec::data_of_request(self.body, pointer).map(|(_, saga)| saga).map_err(refused),
            None => Err(Problem::bad_request("missing-saga-id", "send the saga id in the header ce-sagaid")),
        }
    }

    /// What it says, else the one kind that the participant handles.
    fn kind(&self, ingress: &Ingress) -> Result<Kind, Problem> {
        if let Some(kind) = self.attribute("type")? {
            let wrong = || Problem::bad_request("invalid-header", "header ce-type is not a valid kind");
            return if is_kind(&kind) { Ok(Kind::new(kind)) } else { Err(wrong()) };
        }
        let serving = ingress.reach.inbox.serving.load();
        let member = serving.topology.member(self.participant);
        match member.map(|member| member.subscriptions.as_slice()) {
            Some([one]) => Ok(one.kind.clone()),
            Some(_) | None => {
                let detail =
                    format!("send the kind of the event in the header ce-type: {} handles several", self.participant);
                Err(Problem::bad_request("missing-kind", detail))
            }
        }
    }

    fn attributes(&self) -> Result<Attributes, Problem> {
        const OWN: [&str; 6] = ["specversion", "id", "source", "type", "time", "sagaid"];
        let mut attributes = trace(self.headers);
        let names = self.headers.keys().filter_map(|name| name.as_str().strip_prefix("ce-"));
        for name in names.filter(|name| !OWN.contains(name) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
            let known = attributes.iter().any(|(known, _)| known == name);
            if let Some(value) = self.attribute(name)?.filter(|_| !known) {
                attributes.push((name.to_owned(), value));
            }
        }
        Ok(attributes)
    }

    fn hops(&self) -> u32 {
        let said = self.headers.get("sagahost-hops").and_then(|value| value.to_str().ok());
        said.and_then(|hops| hops.parse().ok()).unwrap_or(0)
    }
}

/// None: it is not decided.
async fn of_step(
    ingress: &Ingress,
    saga: &Saga,
    participant: &Participant,
    event: &EventKey,
) -> Result<Option<Response>, Problem> {
    let events = || events_of(ingress, saga, vec![requests::answer(&event.id)]);
    let completed = |events: Vec<Event>| with_events(&events, saga.id(), Outcome::Completed);
    let step = saga.steps().find(|step| step.participant == participant && step.event == event);
    let Some(step) = step else {
        // An event that ends this participant's part asks for no step.
        return Ok(Some(completed(Vec::new())));
    };
    match step.state {
        StepState::Done => Ok(events().await?.map(completed)),
        StepState::Rejected => match events().await? {
            Some(events) => Err(rejected(&step, saga.id(), &events)),
            None => Ok(None),
        },
        _ if step.invalid => Err(of_problem(&step, StatusCode::BAD_REQUEST).of(saga.id(), Outcome::Invalid)),
        _ => match saga.status() {
            Status::Compensated => Err(standing::compensated(saga)),
            Status::NeedsOperator | Status::Quarantined => Err(standing::needs_operator(saga)),
            // Nobody will run it, and a letter waits for a decision.
            _ if step.state == StepState::GivenUp && saga.cause().is_none() => Err(standing::needs_operator(saga)),
            Status::Waiting | Status::Running | Status::Finishing | Status::Compensating | Status::Completed => {
                Ok(None)
            }
        },
    }
}

/// What steps emitted, or their undoing did. None: the saga is gone.
async fn events_of(ingress: &Ingress, saga: &Saga, names: Vec<Name>) -> Result<Option<Vec<Event>>, Problem> {
    let Some(rows) = ingress.rows_of(saga, names).await? else { return Ok(None) };
    let mut events = Vec::new();
    for row in rows.iter().flatten() {
        let unreadable = || {
            let detail = "what the step emitted cannot be read: a newer host wrote it, or it is damaged";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "unreadable", detail).of(saga.id(), Outcome::NeedsOperator)
        };
        events.extend(emitted(row).ok_or_else(unreadable)?);
    }
    Ok(Some(events))
}

fn with_events(events: &[Event], saga: &SagaId, outcome: Outcome) -> Response {
    let body = raw(&events.iter().map(cloud_event).collect::<Vec<_>>());
    let mut response = (StatusCode::OK, body.get().to_owned()).into_response();
    response.headers_mut().insert(CONTENT_TYPE, BATCH);
    outcome.put_on(&mut response);
    crate::problem::put_location(&mut response, saga);
    response
}

/// CloudEvents 1.0, JSON event format.
fn cloud_event(event: &Event) -> Box<RawValue> {
    let mut members = Members::new();
    for (name, value) in &event.attributes {
        member(&mut members, name, value);
    }
    member(&mut members, "specversion", "1.0");
    member(&mut members, "id", &*event.key.id);
    member(&mut members, "source", &*event.key.source);
    member(&mut members, "type", event.kind.as_str());
    member(&mut members, "time", &timestamp::format(event.time));
    member(&mut members, "datacontenttype", &*event.content_type);
    member(&mut members, "sagaid", event.saga.as_str());
    match json_of(&event.data).filter(|_| is_json(&event.content_type)) {
        Some(json) => member(&mut members, "data", &json),
        None => member(&mut members, "data_base64", &base64(&event.data)),
    }
    raw(&members)
}

fn base64(data: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(data)
}

fn rejected(step: &StepView<'_>, saga: &SagaId, events: &[Event]) -> Problem {
    let problem = of_problem(step, StatusCode::UNPROCESSABLE_ENTITY).of(saga, Outcome::Rejected);
    let events: Vec<_> = events.iter().map(cloud_event).collect();
    if events.is_empty() { problem } else { problem.with("events", &events) }
}

fn of_problem(step: &StepView<'_>, status: StatusCode) -> Problem {
    match step.problem {
        Some(problem) => Problem::new(status, problem.code.clone(), problem.detail.clone()),
        None => Problem::new(status, step.state.name(), "the participant gave no reason"),
    }
}

/// Cancels the saga; the answer speaks of the participant.
///
/// # Errors
/// It is not undone, or not yet.
pub async fn undo(
    ingress: &Arc<Ingress>,
    caller: &Caller,
    participant: &Participant,
    (head, body): (Parts, Body),
) -> Result<Response, Problem> {
    let prefer = Prefer::read(&head.headers);
    let until = Instant::now() + prefer.wait(ingress.settings.wait);
    must_be_json(&head.headers)?;
    let Whole { bytes, room } = ingress.bodies.read(body, &caller.name, ingress.stopping()).await?;
    let wanted = |detail: String| Problem::bad_request("invalid-undo", detail);
    let asked: UndoBody = serde_json::from_slice(&bytes)
        .map_err(|error| wanted(format!("the body must be JSON with `sagaId`: {error}")))?;
    drop(bytes);
    let saga = saga_of_request(&asked.saga_id).map_err(|why| wanted(why.detail))?;
    let reason =
        asked.cause.map_or_else(|| "asked over HTTP".to_owned(), |cause| format!("{}: {}", cause.code, cause.detail));
    let asks = Asks::Cancel { saga: saga.clone(), reason: reason.chars().take(500).collect() };
    match ingress.admit(asks, caller, room, until).await? {
        Admission::TakenIn | Admission::Known => {}
        Admission::Foreign => return Err(Problem::no_such_saga().saying(Outcome::Stuck)),
        refused => return Err(refusal(refused, &saga, &Kind::new("")).of(&saga, Outcome::Stuck)),
    }
    let mut following = ingress.follow(&saga, until);
    while let Some(look) = following.next().await? {
        let Some(saga) = look else { continue };
        if let Some(response) = of_undoing(ingress, &saga, participant).await? {
            return Ok(applied(response, prefer));
        }
    }
    Ok(applied(standing::undecided(&saga), prefer))
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct UndoBody {
    saga_id: String,
    #[serde(default)]
    cause: Option<UndoCause>,
}

#[derive(serde::Deserialize)]
struct UndoCause {
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
}

/// Of this participant's steps, whatever becomes of others'. None: it is not decided.
async fn of_undoing(ingress: &Ingress, saga: &Saga, participant: &Participant) -> Result<Option<Response>, Problem> {
    let mine: Vec<_> = saga.steps().filter(|step| step.participant == participant).collect();
    let stuck = |step: &&StepView<'_>| matches!(step.state, StepState::CompensationFailed | StepState::Accepted);
    if let Some(step) = mine.iter().find(stuck) {
        let problem = of_problem(step, StatusCode::INTERNAL_SERVER_ERROR).of(saga.id(), Outcome::Stuck);
        return Err(problem.with("step", &document::of_step(step)));
    }
    if saga.cause().is_none() || !mine.iter().all(|step| step.undone) {
        return match saga.status() {
            Status::NeedsOperator | Status::Quarantined => Err(standing::needs_operator(saga)),
            _ => Ok(None),
        };
    }
    let undone = |step: &&StepView<'_>| matches!(step.state, StepState::Compensated | StepState::UndoneByHand);
    let undone: Vec<_> = mine.iter().filter(undone).map(|step| requests::undone(&step.event.id)).collect();
    let outcome = if undone.is_empty() { Outcome::NothingToUndo } else { Outcome::Undone };
    let events = events_of(ingress, saga, undone).await?;
    Ok(events.map(|events| with_events(&events, saga.id(), outcome)))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use sagahost_saga::id::Time;

    use super::*;

    #[track_caller]
    fn check(content_type: &str, data: &[u8], expect: Expect) {
        let event = Event {
            key: EventKey::new("sagahost/shop/payment", "e-1"),
            saga: "o-1".into(),
            kind: "PaymentProcessed".into(),
            time: Time(1_000),
            content_type: content_type.into(),
            data: data.into(),
            attributes: vec![("tenant".to_owned(), "north".to_owned()), ("type".to_owned(), "mine".to_owned())],
            hops: 0,
            origin: None,
            record_key: None,
        };
        expect.assert_eq(cloud_event(&event).get());
    }

    #[test]
    fn events_come_as_they_were_emitted() {
        check(
            "application/json",
            br#"{"cents":123456789012345678901234567890.10}"#,
            expect![[
                r#"{"data":{"cents":123456789012345678901234567890.10},"datacontenttype":"application/json","id":"e-1","sagaid":"o-1","source":"sagahost/shop/payment","specversion":"1.0","tenant":"north","time":"1970-01-01T00:00:01.000Z","type":"PaymentProcessed"}"#
            ]],
        );
        check(
            "application/json",
            b"no json",
            expect![[
                r#"{"data_base64":"bm8ganNvbg==","datacontenttype":"application/json","id":"e-1","sagaid":"o-1","source":"sagahost/shop/payment","specversion":"1.0","tenant":"north","time":"1970-01-01T00:00:01.000Z","type":"PaymentProcessed"}"#
            ]],
        );
        check(
            "application/avro",
            b"{}",
            expect![[
                r#"{"data_base64":"e30=","datacontenttype":"application/avro","id":"e-1","sagaid":"o-1","source":"sagahost/shop/payment","specversion":"1.0","tenant":"north","time":"1970-01-01T00:00:01.000Z","type":"PaymentProcessed"}"#
            ]],
        );
    }
}
