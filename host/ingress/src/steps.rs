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
use sagahost_journal::requests;
use sagahost_manifest::answer::is_json;
use sagahost_processor::request::{Admission, Request, emitted};
use sagahost_saga::{
    Saga,
    event::{Attributes, Event},
    history::What,
    id::{Direction, EventKey, Kind, Participant, SagaId},
    input::{Command, Status},
    view::{StepState, StepView},
};
use serde_json::{Value, json, value::RawValue};

use crate::{
    begin::{must_be_json, refusal, request_id, trace},
    body,
    callers::Caller,
    document,
    ingress::{Ingress, Look, quarantined},
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
    let body = body::read(body, &ingress.bodies).await?;
    let asked = Asked { headers: &head.headers, body: &body.bytes, participant, saga_id };
    let event = asked.event(ingress, caller, route, key.as_deref())?;
    let (saga, kind, id) = (event.saga.clone(), event.kind.clone(), event.key.clone());
    may_ask(ingress, caller, &saga).await?;
    let request = Request { event, to: Some(participant.clone()), principal: caller.name.clone() };
    match ingress.admit(request, until).await? {
        Admission::TakenIn | Admission::Known => {}
        // What that saga was about is undone: the step will never run.
        Admission::SagaOver => return over(ingress, &saga).await,
        refused => return Err(refusal(refused, &saga, &kind)),
    }
    drop(body);
    let mut following = ingress.follow(&saga, until);
    while let Some(look) = following.next().await? {
        if let Some(response) = of_step(ingress, look, &saga, participant, &id).await? {
            return Ok(applied(response, prefer));
        }
    }
    Ok(applied(standing::undecided(&saga), prefer))
}

/// A saga of others is as if it did not exist. One in which nothing has happened is nobody's: a cancel came before all else.
async fn may_ask(ingress: &Ingress, caller: &Caller, saga: &SagaId) -> Result<(), Problem> {
    if ingress.sees(caller, saga).await? {
        return Ok(());
    }
    match ingress.look(saga).await? {
        Look::Absent => Ok(()),
        Look::Here(saga) if saga.steps().next().is_none() => Ok(()),
        Look::Here(_) | Look::Quarantined(_) => {
            Err(Problem::new(StatusCode::NOT_FOUND, "no-such-saga", "there is no such saga"))
        }
    }
}

/// The saga ended before the step was asked for.
async fn over(ingress: &Ingress, saga: &SagaId) -> Result<Response, Problem> {
    match ingress.look(saga).await? {
        Look::Here(ended) if ended.status() == Status::Compensated => Err(standing::compensated(&ended)),
        Look::Here(_) | Look::Absent | Look::Quarantined(_) => Err(refusal(Admission::SagaOver, saga, &Kind::new(""))),
    }
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
            return Ok(Kind::new(kind));
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
            if let Some(value) = self.attribute(name)? {
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
    look: Look,
    id: &SagaId,
    participant: &Participant,
    event: &EventKey,
) -> Result<Option<Response>, Problem> {
    let saga = match look {
        Look::Absent => return Ok(None),
        Look::Quarantined(why) => return Err(quarantined(id, &why)),
        Look::Here(saga) => saga,
    };
    let step = saga.steps().find(|step| step.participant == participant && step.event == event);
    let Some(step) = step else {
        // An event that ends this participant's part asks for no step.
        return Ok(Some(completed(ingress, id, event).await?));
    };
    match step.state {
        StepState::Done => completed(ingress, id, event).await.map(Some),
        StepState::Rejected => Err(rejected(ingress, &step, id, event).await?),
        _ if is_invalid(ingress, &saga, &step).await? => Err(invalid(&step, id)),
        _ => match saga.status() {
            Status::Compensated => Err(standing::compensated(&saga)),
            Status::NeedsOperator | Status::Quarantined => Err(standing::needs_operator(&saga)),
            // Nobody will run it, and a letter waits for a decision.
            _ if step.state == StepState::GivenUp && saga.cause().is_none() => Err(standing::needs_operator(&saga)),
            Status::Waiting | Status::Running | Status::Finishing | Status::Compensating | Status::Completed => {
                Ok(None)
            }
        },
    }
}

async fn completed(ingress: &Ingress, saga: &SagaId, event: &EventKey) -> Result<Response, Problem> {
    let events = answer(ingress, requests::answer(&event.id)).await?;
    Ok(with_events(&events, saga, Outcome::Completed))
}

fn with_events(events: &[Event], saga: &SagaId, outcome: Outcome) -> Response {
    let body = Value::Array(events.iter().map(cloud_event).collect()).to_string();
    let mut response = (StatusCode::OK, body).into_response();
    response.headers_mut().insert(CONTENT_TYPE, BATCH);
    outcome.put_on(&mut response);
    crate::problem::put_location(&mut response, saga);
    response
}

async fn answer(ingress: &Ingress, name: sagahost_journal::Name) -> Result<Vec<Event>, Problem> {
    let row = ingress.store(name).await?;
    Ok(row.and_then(|row| emitted(&row)).unwrap_or_default())
}

/// CloudEvents 1.0, JSON event format.
fn cloud_event(event: &Event) -> Value {
    let mut document = json!({
        "specversion": "1.0",
        "id": &*event.key.id,
        "source": &*event.key.source,
        "type": event.kind.as_str(),
        "time": timestamp::format(event.time),
        "datacontenttype": &*event.content_type,
        "sagaid": event.saga.as_str(),
    });
    let Value::Object(members) = &mut document else { return document };
    for (name, value) in &event.attributes {
        members.entry(name.as_str()).or_insert_with(|| value.as_str().into());
    }
    let data = serde_json::from_slice::<Box<RawValue>>(&event.data).ok();
    match data.filter(|_| is_json(&event.content_type)).and_then(|raw| serde_json::from_str(raw.get()).ok()) {
        Some(json) => members.insert("data".to_owned(), json),
        None => members.insert("data_base64".to_owned(), base64(&event.data).into()),
    };
    document
}

fn base64(data: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(data)
}

async fn rejected(ingress: &Ingress, step: &StepView<'_>, saga: &SagaId, event: &EventKey) -> Result<Problem, Problem> {
    let events = answer(ingress, requests::answer(&event.id)).await?;
    let problem = of_problem(step, StatusCode::UNPROCESSABLE_ENTITY).of(saga, Outcome::Rejected);
    let events: Vec<Value> = events.iter().map(cloud_event).collect();
    Ok(if events.is_empty() { problem } else { problem.with("events", events.into()) })
}

fn invalid(step: &StepView<'_>, saga: &SagaId) -> Problem {
    of_problem(step, StatusCode::BAD_REQUEST).of(saga, Outcome::Invalid)
}

fn of_problem(step: &StepView<'_>, status: StatusCode) -> Problem {
    match step.problem {
        Some(problem) => Problem::new(status, problem.code.clone(), problem.detail.clone()),
        None => Problem::new(status, step.state.name(), "the participant gave no reason"),
    }
}

/// Did it say so itself, rather than fail too often?
async fn is_invalid(ingress: &Ingress, saga: &Saga, step: &StepView<'_>) -> Result<bool, Problem> {
    if step.problem.is_none() {
        return Ok(false);
    }
    let history = ingress.history(saga).await?;
    let last = history.iter().rev().find_map(|entry| match &entry.what {
        What::Attempt { participant, kind, direction: Direction::Forward, outcome, .. }
            if participant == step.participant && kind == step.kind =>
        {
            Some(outcome)
        }
        _ => None,
    });
    Ok(last.is_some_and(|outcome| outcome.as_ref() == "invalid"))
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
    let body = body::read(body, &ingress.bodies).await?;
    let wanted = |detail: String| Problem::bad_request("invalid-undo", detail);
    let asked: UndoBody = serde_json::from_slice(&body.bytes)
        .map_err(|error| wanted(format!("the body must be JSON with `sagaId`: {error}")))?;
    let saga = saga_of_request(&asked.saga_id).map_err(|why| wanted(why.detail))?;
    may_ask(ingress, caller, &saga).await?;
    let who = if caller.name.is_empty() { "http" } else { &caller.name };
    let reason =
        asked.cause.map_or_else(|| "asked over HTTP".to_owned(), |cause| format!("{}: {}", cause.code, cause.detail));
    let command = Command::Cancel { by: who.to_owned(), reason: reason.chars().take(500).collect() };
    let answer = ingress.command(&saga, command, until).await?;
    if !answer.done {
        return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "too-late", answer.text).of(&saga, Outcome::Stuck));
    }
    let mut following = ingress.follow(&saga, until);
    while let Some(look) = following.next().await? {
        if let Some(response) = of_undoing(ingress, look, &saga, participant).await? {
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

/// None: it is not decided.
async fn of_undoing(
    ingress: &Ingress,
    look: Look,
    id: &SagaId,
    participant: &Participant,
) -> Result<Option<Response>, Problem> {
    let saga = match look {
        Look::Absent => return Ok(None),
        Look::Quarantined(why) => return Err(quarantined(id, &why)),
        Look::Here(saga) => saga,
    };
    let mine = |step: &StepView<'_>| step.participant == participant;
    let stuck = |step: &StepView<'_>| matches!(step.state, StepState::CompensationFailed | StepState::Accepted);
    if let Some(step) = saga.steps().filter(mine).find(stuck) {
        let problem = of_problem(&step, StatusCode::INTERNAL_SERVER_ERROR).of(id, Outcome::Stuck);
        return Err(problem.with("step", document::of_step(&step)));
    }
    match saga.status() {
        // A tombstone: it never began here.
        Status::Waiting => Ok(Some(with_events(&[], id, Outcome::NothingToUndo))),
        Status::Compensated => {
            let undone = |step: &StepView<'_>| matches!(step.state, StepState::Compensated | StepState::UndoneByHand);
            let steps: Vec<EventKey> =
                saga.steps().filter(mine).filter(undone).map(|step| step.event.clone()).collect();
            let mut events = Vec::new();
            for event in &steps {
                events.extend(answer(ingress, requests::undone(&event.id)).await?);
            }
            let outcome = if steps.is_empty() { Outcome::NothingToUndo } else { Outcome::Undone };
            Ok(Some(with_events(&events, id, outcome)))
        }
        Status::NeedsOperator | Status::Quarantined => Err(standing::needs_operator(&saga)),
        Status::Running | Status::Finishing | Status::Completed | Status::Compensating => Ok(None),
    }
}
