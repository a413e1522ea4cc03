//! A call as a request. Invariant: it depends on the call alone, so that a second attempt differs in `Sagahost-Attempt` and in
//! nothing else.
//!
//! Forward, the body is the event's data, and its context is in `ce-*` headers: CloudEvents 1.0, HTTP protocol binding,
//! binary mode. Back, it is a JSON object.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request,
    header::{ACCEPT, CONTENT_TYPE},
};
use hyper::body::Bytes;
use sagahost_codec::timestamp;
use sagahost_outbound::identify;
use sagahost_saga::{
    id::{self, Direction},
    outcome::{Call, Cause, Evidence, Saved, UndoCall},
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{answer::Kept, cloud_events, settings::RemoteSettings};

/// How many events led to this one, for a service that is a host itself: two that ask each other come to an end.
const HOPS: HeaderName = HeaderName::from_static("sagahost-hops");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The body of an undoing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UndoBody<'c> {
    saga_id: &'c str,
    kind: &'c str,
    event: Box<RawValue>,
    evidence: &'static str,
    /// What the service answered when it did the step.
    undo: Box<RawValue>,
    /// That was too long to be kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    cause: CauseBody<'c>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CauseBody<'c> {
    code: &'c str,
    detail: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    participant: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_kind: Option<&'c str>,
}

/// Why nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// The service was never asked for the step.
    NeverRan,
    /// Nobody says where it is undone.
    NoUndoUrl,
}

/// Is there nothing to send, or no place to send it to?
pub fn unasked(call: &Call, settings: &RemoteSettings) -> Option<Unasked> {
    match (call.direction, &call.undo) {
        (Direction::Forward, _) => None,
        (Direction::Undo, Some(UndoCall { evidence: Evidence::NeverRan, .. })) => Some(Unasked::NeverRan),
        (Direction::Undo, _) => settings.undo_url.is_none().then_some(Unasked::NoUndoUrl),
    }
}

/// # Errors
/// It is not to be sent.
pub fn request(call: &Call, settings: &RemoteSettings) -> Result<Request<Bytes>, Unasked> {
    if let Some(why) = unasked(call, settings) {
        return Err(why);
    }
    let (url, body) = match (call.direction, &call.undo, &settings.undo_url) {
        (Direction::Forward, _, _) => (&settings.url, Bytes::copy_from_slice(&call.event.data)),
        (Direction::Undo, Some(undo), Some(url)) => (url, Bytes::from(undo_body(call, undo))),
        (Direction::Undo, _, _) => return Err(Unasked::NoUndoUrl),
    };
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.clone();
    let headers = request.headers_mut();
    match call.direction {
        Direction::Forward => context(call, headers),
        Direction::Undo => drop(headers.insert(CONTENT_TYPE, JSON)),
    }
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/cloudevents+json, */*;q=0.1"));
    identify(headers, &key(call), call);
    if call.event.hops > 0 {
        headers.insert(HOPS, HeaderValue::from(call.event.hops));
    }
    for header in &settings.headers {
        header.insert_into(headers);
    }
    Ok(request)
}

/// The same on every attempt, and of this direction alone.
pub fn key(call: &Call) -> String {
    id::hex(&id::sha256(&[call.idempotency_key.as_bytes()]))
}

fn context(call: &Call, headers: &mut HeaderMap) {
    let event = &call.event;
    let content_type = HeaderValue::from_str(&event.content_type).unwrap_or(JSON);
    headers.insert(CONTENT_TYPE, content_type);
    let time = timestamp::format(event.time);
    let own = [
        ("ce-specversion", "1.0"),
        ("ce-id", &event.key.id),
        ("ce-source", &event.key.source),
        ("ce-type", event.kind.as_str()),
        ("ce-time", &time),
        ("ce-sagaid", event.saga.as_str()),
    ];
    for (name, value) in own {
        headers.insert(name, ascii(value));
    }
    let others = event.attributes.iter().filter(|(name, _)| !matches!(name.as_str(), "traceparent" | "tracestate"));
    for (name, value) in others {
        // CloudEvents 1.0, 3.1: names of attributes are lower-case letters and digits; other headers have no place here.
        let fits = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let name = HeaderName::try_from(format!("ce-{name}")).ok().filter(|name| fits && !headers.contains_key(name));
        if let Some(name) = name {
            headers.insert(name, ascii(value));
        }
    }
}

/// CloudEvents 1.0, HTTP protocol binding, 3.1.3.2: what is not printable ASCII, blanks, quotes and `%` are percent-encoded.
fn ascii(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.extend([byte >> 4, byte & 15].map(|nibble| char::from(b"0123456789ABCDEF"[usize::from(nibble)])));
        }
    }
    HeaderValue::try_from(encoded).expect("it is printable ASCII")
}

fn undo_body(call: &Call, undo: &UndoCall) -> Vec<u8> {
    let kept = match &undo.evidence {
        Evidence::Done(Saved { data, .. }) => Kept::read(data),
        Evidence::Uncertain | Evidence::NeverRan => Kept::nothing(),
    };
    let Cause { code, detail, participant, event_kind } = &undo.cause;
    let body = UndoBody {
        saga_id: call.event.saga.as_str(),
        kind: call.event.kind.as_str(),
        event: json_of(&call.event.data),
        evidence: evidence(&undo.evidence),
        undo: kept.answer,
        truncated: kept.truncated,
        cause: CauseBody {
            code,
            detail,
            participant: participant.as_ref().map(|name| name.as_str()),
            event_kind: event_kind.as_ref().map(|kind| kind.as_str()),
        },
    };
    serde_json::to_vec(&body).expect("it has only text keys, so it can be JSON")
}

fn evidence(evidence: &Evidence) -> &'static str {
    match evidence {
        Evidence::Done(_) => "done",
        Evidence::Uncertain => "uncertain",
        Evidence::NeverRan => "never-ran",
    }
}

/// Data as JSON: as it is where it is that already, else as text, else in base64.
pub(crate) fn json_of(data: &[u8]) -> Box<RawValue> {
    if let Ok(json) = serde_json::from_slice::<Box<RawValue>>(data) {
        return json;
    }
    let text = std::str::from_utf8(data).map_or_else(|_| cloud_events::base64(data), str::to_owned);
    serde_json::value::to_raw_value(&text).expect("text can be JSON")
}
