//! Problem documents (RFC 9457). Invariant: `Sagahost-Outcome` is on each answer that speaks of a saga or a step, and on no
//! other; where it is missing nothing is known, and the same request may be sent again.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use sagahost_saga::id::SagaId;
use serde::Serialize;

use crate::{
    document::{Members, member, raw},
    ids::path_of_saga,
};

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
    /// Nothing of the request happened: it may be sent again.
    Retry,
    /// What happened under this key is not known.
    Uncertain,
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
            Self::Retry => "retry",
            Self::Uncertain => "uncertain",
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
    more: Members,
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
            more: Members::new(),
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

    pub fn stopping() -> Self {
        Self::unavailable("stopping", "the host stops")
    }

    /// There is none, or it is others'.
    pub fn no_such_saga() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no-such-saga", "there is no such saga")
    }

    /// It speaks of that saga, or of a step of it.
    pub fn of(self, saga: &SagaId, outcome: Outcome) -> Self {
        self.about(saga).saying(outcome)
    }

    /// Of what was asked for.
    pub fn saying(self, outcome: Outcome) -> Self {
        Self { outcome: Some(outcome), ..self }
    }

    /// It names the saga, and says nothing of what becomes of it.
    pub fn about(self, saga: &SagaId) -> Self {
        Self { saga: Some(saga.clone()), ..self }
    }

    pub fn with(mut self, name: &str, value: &impl Serialize) -> Self {
        member(&mut self.more, name, value);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, code, detail, saga, outcome, retry_after, more: mut members } = self;
        member(&mut members, "type", &"about:blank");
        member(&mut members, "title", &status.canonical_reason().unwrap_or_default());
        member(&mut members, "status", &status.as_u16());
        member(&mut members, "code", &code);
        member(&mut members, "detail", &detail);
        if let Some(saga) = &saga {
            member(&mut members, "sagaId", &saga.as_str());
            member(&mut members, "instance", &path_of_saga(saga));
        }
        let mut response = (status, raw(&members).get().to_owned()).into_response();
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
