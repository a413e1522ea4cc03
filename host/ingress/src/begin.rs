//! A request that begins a saga. Invariant: one key is one request: the same one attaches, another one is refused.

use std::{sync::Arc, time::Instant};

use axum::{body::Body, response::Response};
use http::{HeaderMap, StatusCode, header::CONTENT_TYPE, request::Parts};
use sagahost_codec::data_of_request;
use sagahost_manifest::answer::is_json;
use sagahost_processor::request::{Admission, Asks};
use sagahost_saga::{
    event::{Attributes, Event},
    id::{EventKey, Kind, SagaId, hex, sha256},
};

use crate::{
    callers::Caller,
    ingress::Ingress,
    key,
    prefer::Prefer,
    problem::{Outcome, Problem},
    settings::Route,
    standing::{self, applied},
};

/// How the route says that a saga begins.
pub struct Beginning<'r> {
    pub kind: &'r Kind,
    pub saga_id: &'r str,
    pub key_required: bool,
    pub conflict: bool,
}

/// # Errors
/// It is not taken in, or its saga did not complete.
pub async fn begin(
    ingress: &Arc<Ingress>,
    caller: &Caller,
    route: &Route,
    of: Beginning<'_>,
    parts: (Parts, Body),
) -> Result<Response, Problem> {
    // In a place of its own, which is free again while it waits.
    let begun = Box::pin(take_in(ingress, caller, route, of, parts)).await?;
    let Begun { saga, prefer, until } = begun;
    let mut following = ingress.follow(&saga, until);
    while let Some(look) = following.next().await? {
        if let Some(response) = look.and_then(|saga| standing::of_begun(&saga)) {
            return Ok(applied(response, prefer));
        }
    }
    Ok(applied(standing::undecided(&saga), prefer))
}

/// A request that is taken in, now or before.
struct Begun {
    saga: SagaId,
    prefer: Prefer,
    until: Instant,
}

async fn take_in(
    ingress: &Arc<Ingress>,
    caller: &Caller,
    route: &Route,
    of: Beginning<'_>,
    (head, body): (Parts, Body),
) -> Result<Begun, Problem> {
    let prefer = Prefer::read(&head.headers);
    let until = Instant::now() + prefer.wait(ingress.settings.wait);
    let key = key::read(&head.headers).map_err(|why| Problem::bad_request("invalid-key", why))?;
    if key.is_none() && of.key_required {
        let detail = "this route wants an Idempotency-Key, so that a request that is sent again is known";
        return Err(Problem::bad_request("key-required", detail));
    }
    must_be_json(&head.headers)?;
    let body = ingress.bodies.read(body, &caller.name, ingress.stopping()).await?;
    let (data, saga) =
        data_of_request(&body.bytes, of.saga_id).map_err(|why| Problem::bad_request(why.code, why.detail))?;
    let event = Event {
        key: EventKey::new(
            Event::source_of_request(&ingress.reach.app, false, &route.path),
            // No key has a space.
            request_id(route, caller, &key.unwrap_or_else(|| format!(" {saga}"))),
        ),
        saga: saga.clone(),
        kind: of.kind.clone(),
        time: ingress.now(),
        content_type: "application/json".into(),
        data: data.into(),
        attributes: trace(&head.headers),
        hops: 0,
        origin: None,
        record_key: None,
    };
    match ingress.admit(Asks::Begin(event), caller, body.room, until).await? {
        Admission::TakenIn => {}
        Admission::Known if of.conflict => {
            let saga_now = ingress.look(&saga).await?;
            if saga_now.is_some_and(|saga| standing::of_begun(&saga).is_none()) {
                return Err(running(&saga));
            }
        }
        Admission::Known => {}
        refused => return Err(refusal(refused, &saga, of.kind)),
    }
    Ok(Begun { saga, prefer, until })
}

fn running(saga: &SagaId) -> Problem {
    let detail = "the same request came before, and its saga is under way";
    Problem::new(StatusCode::CONFLICT, "request-in-progress", detail).of(saga, Outcome::Running)
}

/// # Errors
/// The body is something else.
pub fn must_be_json(headers: &HeaderMap) -> Result<(), Problem> {
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // It would be taken for the data.
    let event = said.trim_start().to_ascii_lowercase().starts_with("application/cloudevents");
    if is_json(said) && !event {
        return Ok(());
    }
    let detail = "the body must be JSON: send it with `Content-Type: application/json`";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", detail))
}

/// The id of the event that a request is.
pub fn request_id(route: &Route, caller: &Caller, key: &str) -> String {
    hex(&sha256(&[b"request", route.name().as_bytes(), caller.name.as_bytes(), key.as_bytes()])[..16])
}

/// The trace that the request is part of (W3C Trace Context).
pub fn trace(headers: &HeaderMap) -> Attributes {
    const BYTES_MAX: usize = 512;
    let of = |name: &str| {
        let mut all = headers.get_all(name).into_iter();
        let value = all.next()?.to_str().ok()?;
        (all.next().is_none() && value.len() <= BYTES_MAX).then(|| (name.to_owned(), value.to_owned()))
    };
    let Some(parent) = of("traceparent") else { return Attributes::new() };
    std::iter::once(parent).chain(of("tracestate")).collect()
}

/// Why it is not taken in.
pub fn refusal(admission: Admission, saga: &SagaId, kind: &Kind) -> Problem {
    let new = |status, code: &str, detail: &str| Problem::new(status, code, detail);
    match admission {
        Admission::OtherBody => new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "key-reused",
            "another request had this Idempotency-Key: a key is for one request and its repetitions",
        ),
        // Of a saga of others nothing is said but that its id is taken.
        Admission::SagaExists | Admission::Foreign => {
            new(StatusCode::CONFLICT, "saga-exists", "the saga exists: another request or event began it").about(saga)
        }
        Admission::SagaOver => {
            let detail = "the saga has ended or is called off: no step of it begins any more";
            new(StatusCode::CONFLICT, "saga-over", detail).about(saga)
        }
        Admission::NotCompensating => {
            let detail = format!("{kind} is for sagas that compensate, and this one does not");
            new(StatusCode::CONFLICT, "not-compensating", &detail).about(saga)
        }
        Admission::TooLate(why) => new(StatusCode::INTERNAL_SERVER_ERROR, "too-late", &why).about(saga),
        Admission::NoRoom => {
            new(StatusCode::CONFLICT, "no-room", "the saga has come to one of its bounds ([saga])").about(saga)
        }
        Admission::Unhandled => {
            Problem::unavailable("nobody-handles", format!("no plugin here handles {kind} at the moment"))
        }
        Admission::TakenIn | Admission::Known => unreachable!("it is taken in"),
    }
}
