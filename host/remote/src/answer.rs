//! What an answer means. Invariant: a step counts as one that did not happen only where the service itself said so, or where
//! nothing of the call left this host.
//!
//! `Sagahost-Outcome` goes before the status. A status alone may come from a gateway or a proxy in between: 404 and 503 say
//! nothing of the step then, and 409 is "still running" by draft-ietf-httpapi-idempotency-key-header.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use hyper::body::Bytes;
use sagahost_manifest::{Limits, Manifest, allowance::Allowance, answer::Measure};
use sagahost_net::Failed;
use sagahost_saga::{
    id::{Direction, Kind},
    outcome::{
        Call, Completion, Crash, Delay, Emission, End, Outcome, Problem, Progress, Rejection, Saved, StateChange, Undo,
        UndoOutcome, Undone,
    },
    topology::Role,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{cloud_events, request};

/// Stands on each answer of a host that speaks of a saga or a step.
pub const OUTCOME: HeaderName = HeaderName::from_static("sagahost-outcome");
/// RFC 9457
const PROBLEM: &str = "application/problem+json";
/// Of what is kept of a problem's text.
const DETAIL_CHARS_MAX: usize = 2_000;
/// A service that names a later time is asked again then.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// How a call ended, and whether anything of it left the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    pub end: End,
    pub left: bool,
    /// As far as the service can be reached.
    pub reach: Reach,
}

/// Is whoever answers the service that was meant?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Answers,
    /// Nobody answers, or not to the end.
    Away,
    /// What answers is not this participant, or does not let this host in.
    Misdirected,
}

/// What both directions have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// The body is its result.
    Done,
    NothingToUndo,
    Rejected,
    Invalid,
    Stuck,
    /// What it says can be no answer to what it was asked.
    OfTheOtherDirection,
    /// Nothing happened, or that is not known (`left`).
    Again {
        left: bool,
    },
    Misdirected,
    Unsent,
}

/// What the service answered to a step, kept for its undoing.
pub(crate) struct Kept {
    pub answer: Box<RawValue>,
    pub truncated: bool,
}

impl Kept {
    /// An answer that was too long is kept as no bytes at all; one without a body is `null`.
    pub fn write(body: &[u8], bytes_max: usize) -> Arc<[u8]> {
        match body {
            [] => Arc::from(*b"null"),
            body if body.len() > bytes_max => Arc::from([]),
            body => request::json_of(body).get().as_bytes().into(),
        }
    }

    pub fn read(data: &[u8]) -> Self {
        if data.is_empty() {
            Self { truncated: true, ..Self::nothing() }
        } else {
            Self { answer: request::json_of(data), truncated: false }
        }
    }

    pub fn nothing() -> Self {
        Self { answer: RawValue::NULL.to_owned(), truncated: false }
    }
}

/// Nobody answered, or not to the end.
pub fn of_failure(call: &Call, failed: &Failed) -> Meaning {
    match failed {
        Failed::Unsent { what, .. } => {
            let end = End::unsent(call, Problem::new("away", what));
            Meaning { end, left: false, reach: Reach::Away }
        }
        Failed::Sent { code, what } => {
            let end = unknown(call, code, what);
            Meaning { end, left: true, reach: Reach::Away }
        }
    }
}

/// What an answer is measured against.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'t> {
    pub manifest: &'t Manifest,
    /// Status codes by which this service rejects, beside 402 and 422.
    pub rejected: &'t [u16],
    pub limits: &'t Arc<Limits>,
}

/// `now`: for a `Retry-After` that names a date.
pub fn of_response(call: &Call, terms: Terms<'_>, response: &Response<Bytes>, now: SystemTime) -> Meaning {
    let meaning = read(call, terms, response, now);
    // The same check as for a plugin: an answer that breaks the manifest or the limits does not count as one.
    let measure = Measure { manifest: terms.manifest, limits: terms.limits, call };
    let mut end = measure.end(meaning.end, &mut Allowance::new(terms.limits.clone()));
    if let End::Outcome(Outcome::Unknown { uncertain, .. }) = &mut end {
        *uncertain |= meaning.left;
    }
    Meaning { end, ..meaning }
}

fn read(call: &Call, terms: Terms<'_>, response: &Response<Bytes>, now: SystemTime) -> Meaning {
    let said = said(call.direction, response, terms.rejected);
    let problem = || problem(response);
    let after = retry_after(response.headers(), now);
    let forward = call.direction == Direction::Forward;
    let (end, left) = match said {
        Said::Unsent => (End::unsent(call, problem()), false),
        Said::Misdirected => (End::unsent(call, misdirected(response)), false),
        Said::Done if forward => return done(call, terms, response),
        Said::Done => (undone(call, response), false),
        Said::NothingToUndo => (End::Undo(UndoOutcome::NothingToUndo), false),
        Said::Rejected if forward => match events_of_problem(response) {
            Ok(emit) => {
                let rejection = Rejection { problem: problem(), emit, attributes: Vec::new() };
                (End::Outcome(Outcome::Rejected(rejection)), false)
            }
            Err(why) => (unknown(call, "bad-answer", &why), true),
        },
        Said::Invalid if forward => (End::Outcome(Outcome::Invalid(problem())), false),
        Said::Rejected | Said::Invalid | Said::Stuck => (End::Undo(UndoOutcome::Stuck(problem())), false),
        Said::OfTheOtherDirection => (unknown(call, "bad-answer", &other_direction(call, response)), true),
        Said::Again { left } => {
            let delay = Delay { problem: problem(), after };
            (if forward { End::Outcome(Outcome::Retry(delay)) } else { End::Undo(UndoOutcome::Retry(delay)) }, left)
        }
    };
    let reach = match said {
        Said::Misdirected => Reach::Misdirected,
        Said::Unsent => Reach::Away,
        Said::Again { .. } if of_a_gateway(response) => Reach::Away,
        _ => Reach::Answers,
    };
    Meaning { end, left, reach }
}

fn said(direction: Direction, response: &Response<Bytes>, rejected: &[u16]) -> Said {
    let named = response.headers().get(OUTCOME).and_then(|value| value.to_str().ok());
    let named = named.and_then(|name| by_name(direction, name));
    named.unwrap_or_else(|| match response.status().as_u16() {
        status if direction == Direction::Forward && rejected.contains(&status) => Said::Rejected,
        status => by_status(direction, status, response),
    })
}

/// None: a name that is not known here says nothing.
fn by_name(direction: Direction, name: &str) -> Option<Said> {
    Some(match (name, direction) {
        ("completed", Direction::Forward) | ("undone" | "compensated", Direction::Undo) => Said::Done,
        ("nothing-to-undo", Direction::Undo) => Said::NothingToUndo,
        // Of the saga that the step began over there nothing stands.
        ("rejected" | "compensated", Direction::Forward) => Said::Rejected,
        ("invalid", _) => Said::Invalid,
        ("stuck" | "needs-operator" | "rejected", Direction::Undo) => Said::Stuck,
        ("retry", _) => Said::Again { left: false },
        ("uncertain" | "running", _) | ("needs-operator", Direction::Forward) => Said::Again { left: true },
        ("unsent", _) => Said::Unsent,
        ("completed", Direction::Undo) | ("undone" | "nothing-to-undo" | "stuck", Direction::Forward) => {
            Said::OfTheOtherDirection
        }
        _ => return None,
    })
}

/// A status would be read as what it contradicts.
fn other_direction(call: &Call, response: &Response<Bytes>) -> String {
    let named = response.headers().get(OUTCOME).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (asked, field) = match call.direction {
        Direction::Forward => ("a step", "url"),
        Direction::Undo => ("an undoing", "undo-url"),
    };
    format!("it answered `{named}` to {asked}: look whether `{field}` is the right address")
}

fn by_status(direction: Direction, status: u16, response: &Response<Bytes>) -> Said {
    match status {
        200 | 201 | 204 => Said::Done,
        402 | 422 if direction == Direction::Forward => Said::Rejected,
        402 | 422 => Said::Stuck,
        425 | 429 => Said::Again { left: false },
        401 | 403 | 300..=399 => Said::Misdirected,
        404 | 405 | 410 if !is_problem(response) => Said::Misdirected,
        408 | 409 => Said::Again { left: true },
        400..=499 => Said::Invalid,
        // 202, 5xx, and what no service should say.
        _ => Said::Again { left: true },
    }
}

/// It speaks for a service behind it that it cannot reach.
fn of_a_gateway(response: &Response<Bytes>) -> bool {
    matches!(response.status().as_u16(), 502..=504) && !response.headers().contains_key(OUTCOME)
}

/// The step happened.
fn done(call: &Call, Terms { manifest, limits, .. }: Terms<'_>, response: &Response<Bytes>) -> Meaning {
    let answers = |end| Meaning { end, left: true, reach: Reach::Answers };
    let emit = match events(response, manifest) {
        Ok(emit) => emit,
        Err(why) => return answers(unknown(call, "bad-answer", &why)),
    };
    let subscription = manifest.subscription(call.event.kind.as_str());
    let undo = match subscription.map(|subscription| (subscription.role, subscription.undo_bytes_max)) {
        Some((Role::Compensable, max)) => {
            let max = max.unwrap_or(limits.undo_bytes_max).min(limits.undo_bytes_max);
            Undo::Data(Saved { data: Kept::write(response.body(), max), format: manifest.data_format })
        }
        _ => Undo::NothingToUndo,
    };
    let completion =
        Completion { emit, state: StateChange::Keep, undo, progress: Progress::GoingOn, attributes: Vec::new() };
    answers(End::Outcome(Outcome::Completed(completion)))
}

fn undone(call: &Call, response: &Response<Bytes>) -> End {
    match cloud_events::read(content_type(response.headers()), response.body()).unwrap_or(Ok(Vec::new())) {
        Ok(emit) => End::Undo(UndoOutcome::Undone(Undone { emit, state: StateChange::Keep, attributes: Vec::new() })),
        Err(why) => unknown(call, "bad-answer", &why),
    }
}

/// What a step that is done emits.
fn events(response: &Response<Bytes>, manifest: &Manifest) -> Result<Vec<Emission>, String> {
    let (content_type, body) = (content_type(response.headers()), response.body());
    match (cloud_events::read(content_type, body), &manifest.emits[..]) {
        (Some(events), _) => events,
        (None, []) => Ok(Vec::new()),
        (None, _) if body.is_empty() => Ok(Vec::new()),
        (None, [kind]) => Ok(vec![Emission {
            kind: Kind::new(kind),
            data: Arc::from(&body[..]),
            content_type: (!content_type.is_empty()).then(|| content_type.to_owned()),
            saga: None,
            after: None,
            attributes: Vec::new(),
        }]),
        (None, kinds) => Err(format!(
            "its manifest names several kinds ({}), so the answer must be CloudEvents ({} or {}), and it is {}",
            kinds.join(", "),
            cloud_events::EVENT,
            cloud_events::BATCH,
            if content_type.is_empty() { "of no content type" } else { content_type },
        )),
    }
}

fn events_of_problem(response: &Response<Bytes>) -> Result<Vec<Emission>, String> {
    match cloud_events::read(content_type(response.headers()), response.body()) {
        Some(events) => events,
        None => match document(response).and_then(|document| document.events) {
            Some(list) => cloud_events::of_list(&list),
            None => Ok(Vec::new()),
        },
    }
}

fn unknown(call: &Call, code: &str, detail: &str) -> End {
    let crash = Crash { code: code.to_owned(), detail: cut(detail) };
    match call.direction {
        Direction::Forward => End::Outcome(Outcome::Unknown { crash, uncertain: true }),
        Direction::Undo => End::Undo(UndoOutcome::Unknown { crash }),
    }
}

/// Of RFC 9457, with `code` for machines and `events` for what follows from a rejection.
#[derive(Deserialize)]
struct Document {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    events: Option<Box<RawValue>>,
}

fn is_problem(response: &Response<Bytes>) -> bool {
    content_type(response.headers()).to_ascii_lowercase().starts_with(PROBLEM)
}

fn document(response: &Response<Bytes>) -> Option<Document> {
    if !is_problem(response) {
        return None;
    }
    serde_json::from_slice(response.body()).ok()
}

/// Its code is the document's `code`, else the last part of its `type`, else the status.
fn problem(response: &Response<Bytes>) -> Problem {
    let status = response.status();
    let document = document(response);
    let of_type = |document: &Document| {
        let last = document.kind.as_ref()?.rsplit(['/', ':', '#']).next()?;
        (!last.is_empty() && last != "blank").then(|| last.to_owned())
    };
    let code = document.as_ref().and_then(|document| document.code.clone().or_else(|| of_type(document)));
    let told = document.and_then(|document| document.detail.or(document.title));
    Problem::new(
        code.map_or_else(|| format!("http-{}", status.as_u16()), |code| cut(&code)),
        cut(&told.unwrap_or_else(|| answered(status))),
    )
}

fn misdirected(response: &Response<Bytes>) -> Problem {
    let status = response.status();
    let why = match status.as_u16() {
        401 | 403 => "it does not let this host in: look at its `headers`",
        300..=399 => "it sends this host elsewhere, which it does not follow: write that address as its `url`",
        _ => "nothing there knows of such a step: look at its `url`",
    };
    Problem::new("misdirected", format!("{}; {why}", answered(status)))
}

fn answered(status: StatusCode) -> String {
    format!("it answered {status}")
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

fn cut(text: &str) -> String {
    text.chars().take(DETAIL_CHARS_MAX).collect()
}
