//! How a saga stands, as the answer to the request that began it. Invariant: an answer says what is true for good, or that it is
//! not decided.
//!
//! | the saga | answer |
//! |---|---|
//! | completed | 200, its result |
//! | compensated | 409: nothing of it stands |
//! | compensated, with a step that an operator accepted as it is | 500, and the step |
//! | needs an operator, in quarantine | 500 |
//! | anything else | not decided: 202 |

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, ETAG, RETRY_AFTER},
};
use sagahost_saga::{
    Saga,
    id::SagaId,
    input::Status,
    outcome::Cause,
    view::{StepState, StepView},
};
use serde_json::json;

use crate::{
    document,
    prefer::Prefer,
    problem::{Outcome, Problem, put_location},
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// When to ask again, where nothing better is known.
const AGAIN: Duration = Duration::from_secs(1);

/// None: it is not decided.
pub fn of_begun(saga: &Saga) -> Option<Response> {
    match saga.status() {
        Status::Completed => Some(completed(saga)),
        Status::Compensated => Some(compensated(saga).into_response()),
        Status::NeedsOperator | Status::Quarantined => Some(needs_operator(saga).into_response()),
        Status::Waiting | Status::Running | Status::Finishing | Status::Compensating => None,
    }
}

fn completed(saga: &Saga) -> Response {
    let result = saga.result().unwrap_or_default();
    let mut response = match serde_json::from_slice::<serde::de::IgnoredAny>(result) {
        Ok(_) => json(StatusCode::OK, result.to_vec()),
        // A saga whose part here ends with an event has none; and a result need not be JSON.
        Err(_) if result.is_empty() => json(StatusCode::OK, b"null".to_vec()),
        Err(_) => (StatusCode::OK, result.to_vec()).into_response(),
    };
    Outcome::Completed.put_on(&mut response);
    put_location(&mut response, saga.id());
    put_version(&mut response, saga);
    response
}

/// With the code of whoever made it fail.
pub fn compensated(saga: &Saga) -> Problem {
    let accepted = document::accepted(saga);
    let cause = saga.cause();
    let said = |text: &str| with_cause(Problem::new(StatusCode::CONFLICT, code(saga, cause), text), cause);
    if accepted.is_empty() {
        let detail = cause.map_or_else(|| "it was undone".to_owned(), |cause| cause.detail.clone());
        return said(&detail).of(saga.id(), Outcome::Compensated);
    }
    let detail = "the saga is compensated but for steps that an operator accepted as they are";
    let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, code(saga, cause), detail);
    with_cause(problem, cause).of(saga.id(), Outcome::Compensated).with("steps", &accepted)
}

/// A participant's own code, where one of them is why the saga failed.
fn code(saga: &Saga, cause: Option<&Cause>) -> String {
    let Some(cause) = cause else { return "compensated".to_owned() };
    let failed = |step: &StepView<'_>| {
        cause.participant.as_ref() == Some(step.participant) && cause.event_kind.as_ref() == Some(step.kind)
    };
    let problem = saga.steps().filter(failed).find_map(|step| step.problem);
    problem.map_or_else(|| cause.code.clone(), |problem| problem.code.clone())
}

fn with_cause(problem: Problem, cause: Option<&Cause>) -> Problem {
    match cause {
        Some(cause) => problem.with("cause", &document::of_cause(cause)),
        None => problem,
    }
}

pub fn needs_operator(saga: &Saga) -> Problem {
    let needs = saga.needs().iter().map(|need| need.code.to_string());
    let stuck = saga.steps().filter(|step| matches!(step.state, StepState::CompensationFailed | StepState::Blocked));
    let mut codes: Vec<String> =
        needs.chain(stuck.filter_map(|step| step.problem).map(|problem| problem.code.clone())).collect();
    codes.dedup();
    let detail = "the saga waits for an operator: how it ends is not known";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "needs-operator", detail)
        .of(saga.id(), Outcome::NeedsOperator)
        .with("codes", &codes)
}

/// It is under way.
pub fn undecided(saga: &SagaId) -> Response {
    let mut response = json(StatusCode::ACCEPTED, json!({ "sagaId": saga.as_str() }).to_string().into_bytes());
    Outcome::Running.put_on(&mut response);
    put_location(&mut response, saga);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(AGAIN.as_secs()));
    response
}

/// Says what of `Prefer` was done.
pub fn applied(mut response: Response, prefer: Prefer) -> Response {
    if let Some(applied) = prefer.applied().and_then(|applied| HeaderValue::try_from(applied).ok()) {
        response.headers_mut().insert(HeaderName::from_static("preference-applied"), applied);
    }
    response
}

pub fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = (status, body).into_response();
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// The version grows with each change; an id may be used again when its saga is gone.
pub fn etag(saga: &Saga) -> String {
    format!("\"{:x}.{}\"", saga.created().0, saga.version())
}

pub fn put_version(response: &mut Response, saga: &Saga) {
    if let Ok(tag) = HeaderValue::try_from(etag(saga)) {
        response.headers_mut().insert(ETAG, tag);
    }
}
