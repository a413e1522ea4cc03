//! Problem documents (RFC 9457). Invariant: `Sagahost-Outcome` is on each answer that speaks of a saga or a step, and on no
//! other; where it is missing nothing is known, and the same request may be sent again.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use sagahost_saga::id::SagaId;
use serde_json::{Map, Value, json};

use crate::ids::path_of_saga;

pub const OUTCOME: &str = "sagahost-outcome";
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What of a saga or a step an answer speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Completed,
    Rejected,
    Invalid,
    Undone,
    NothingToUndo,
    Stuck,
    Running,
    Compensated,
    NeedsOperator,
}

impl Outcome {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Rejected => "rejected",
            Self::Invalid => "invalid",
            Self::Undone => "undone",
            Self::NothingToUndo => "nothing-to-undo",
            Self::Stuck => "stuck",
            Self::Running => "running",
            Self::Compensated => "compensated",
            Self::NeedsOperator => "needs-operator",
        }
    }

    pub fn put_on(self, response: &mut Response) {
        response.headers_mut().insert(OUTCOME, HeaderValue::from_static(self.name()));
    }
}

#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: String,
    detail: String,
    saga: Option<SagaId>,
    outcome: Option<Outcome>,
    retry_after: Option<Duration>,
    more: Map<String, Value>,
}

impl Problem {
    pub fn new(status: StatusCode, code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            detail: detail.into(),
            saga: None,
            outcome: None,
            retry_after: None,
            more: Map::new(),
        }
    }

    pub fn bad_request(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// Nothing is known of the request: it may be sent again.
    pub fn unavailable(code: &str, detail: impl Into<String>) -> Self {
        let again = Duration::from_secs(1);
        Self { retry_after: Some(again), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail) }
    }

    /// It speaks of that saga, or of a step of it.
    pub fn of(self, saga: &SagaId, outcome: Outcome) -> Self {
        Self { outcome: Some(outcome), ..self.about(saga) }
    }

    /// It names the saga, and says nothing of what becomes of it.
    pub fn about(self, saga: &SagaId) -> Self {
        Self { saga: Some(saga.clone()), ..self }
    }

    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, code, detail, saga, outcome, retry_after, more } = self;
        let mut document = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "code": code,
            "detail": detail,
        });
        if let Value::Object(members) = &mut document {
            if let Some(saga) = &saga {
                members.insert("sagaId".to_owned(), saga.as_str().into());
                members.insert("instance".to_owned(), path_of_saga(saga).into());
            }
            members.extend(more);
        }
        let mut response = (status, document.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(after) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs()));
        }
        if let Some(saga) = saga {
            put_location(&mut response, &saga);
        }
        outcome.into_iter().for_each(|outcome| outcome.put_on(&mut response));
        response
    }
}

pub fn put_location(response: &mut Response, saga: &SagaId) {
    if let Ok(path) = HeaderValue::try_from(path_of_saga(saga)) {
        response.headers_mut().insert(LOCATION, path);
    }
}
