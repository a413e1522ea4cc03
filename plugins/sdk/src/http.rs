//! Requests over HTTP, for a participant that says `http = […]`. Invariant: what is sent depends on what the handler is given, so
//! that every attempt sends the same.

use std::{fmt, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    contract::Delay,
    event,
    host::Host,
    outcome::{Fail, NotUndone},
};

/// A request, as the host gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// `https://…`
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// Empty: none.
    pub body: Vec<u8>,
    /// None: the operator's, which is also the most.
    pub timeout_ms: Option<u32>,
}

/// What came back, of any status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200, 404, …
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// No whole response came. As an answer of a handler, with `?`, it is another attempt: that sends the same request under the same
/// key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// False: provably nothing left the host.
    pub sent: bool,
    /// For programs: `timeout`, `unreachable`, …
    pub code: String,
    /// For people.
    pub detail: String,
}

/// A request that the step made when it was to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its `Idempotency-Key`.
    pub key: String,
    /// What was asked.
    pub request: Request,
    /// The last response that came, of whatever attempt. None: it may have arrived or not.
    pub response: Option<Response>,
}

/// Asks others over HTTP.
///
/// The first [`send`](Outgoing::send) ends the run. The request is journaled and sent, and the handler runs again from its
/// beginning, with the same input, until that `send` returns. So whatever stands before it must come out the same: there is no
/// clock but [`now_ms`](crate::Context::now_ms), which stands still for the whole attempt. Each request has a key of its own that
/// every attempt repeats (`Idempotency-Key`); an attempt that asks something else at the same place ends `diverged`.
///
/// ```
/// # use sagahost_sdk::{Context, Fail, json};
/// # fn charge(ctx: &Context, order_id: &str, cents: u64) -> Result<String, Fail> {
/// let charge = json!({ "reference": order_id, "amountCents": cents });
/// let response = ctx.http().post("https://gateway.example/v1/charges").json(&charge).send()?;
/// match response.status {
///     200 | 201 => Ok(response.json::<serde_json::Value>()?["id"].as_str().unwrap_or_default().to_owned()),
///     402 => Err(Fail::reject("DECLINED", response.text())),
///     status => Err(Fail::retry("GATEWAY", format!("it answered {status}"))),
/// }
/// # }
/// ```
pub struct Http<'a> {
    host: &'a dyn Host,
}

impl<'a> Http<'a> {
    pub(crate) fn new(host: &'a dyn Host) -> Self {
        Self { host }
    }

    /// Reads something.
    pub fn get(&self, url: impl Into<String>) -> Outgoing<'a> {
        self.request("GET", url)
    }

    /// Has something done.
    pub fn post(&self, url: impl Into<String>) -> Outgoing<'a> {
        self.request("POST", url)
    }

    /// Puts something in its place.
    pub fn put(&self, url: impl Into<String>) -> Outgoing<'a> {
        self.request("PUT", url)
    }

    /// Removes something.
    pub fn delete(&self, url: impl Into<String>) -> Outgoing<'a> {
        self.request("DELETE", url)
    }

    /// GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS.
    pub fn request(&self, method: &str, url: impl Into<String>) -> Outgoing<'a> {
        let request =
            Request { method: method.into(), url: url.into(), headers: Vec::new(), body: Vec::new(), timeout_ms: None };
        Outgoing { host: self.host, request }
    }

    /// In an `#[undo]` with [`Evidence::Uncertain`](crate::Evidence::Uncertain): what the step asked for, in order. Empty
    /// elsewhere.
    pub fn made(&self) -> Vec<Made> {
        self.host.http_calls()
    }
}

/// A request that is put together.
#[must_use = "nothing is sent before `send`"]
pub struct Outgoing<'a> {
    host: &'a dyn Host,
    request: Request,
}

impl Outgoing<'_> {
    /// Not `authorization` and the like: the operator adds secrets, which no plugin sees.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.headers.push((name.into(), value.into()));
        self
    }

    /// The body, as JSON.
    pub fn json<T: Serialize>(self, body: &T) -> Self {
        let body = event::encode(body);
        self.body("application/json", body)
    }

    /// The body, and what it is.
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.request.body = body.into();
        self.header("content-type", content_type)
    }

    /// Less than what the operator allows.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout_ms = Some(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX));
        self
    }

    /// Sends it, and waits: in the run in which the answer is known, it returns.
    pub fn send(self) -> Result<Response, Failure> {
        self.host.http_send(self.request)
    }
}

impl Response {
    /// 2xx
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first value of this header, if it has one.
    pub fn header(&self, name: &str) -> Option<&str> {
        let named = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as a `T`. With `?`, a body that is none is another attempt.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        event::decode(&self.body).map_err(|error| Failure {
            sent: true,
            code: "unreadable".into(),
            detail: format!("it answered {} with something unreadable: {error}", self.status),
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Fail {
    fn from(failure: Failure) -> Self {
        Self::Retry(Delay::new(failure.code, failure.detail))
    }
}

impl From<Failure> for NotUndone {
    fn from(failure: Failure) -> Self {
        Self::Retry(Delay::new(failure.code, failure.detail))
    }
}
