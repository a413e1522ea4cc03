//! Whom a plugin asks over HTTP. Invariant: what the test says of the next requests comes before what it says of all.

use serde_json::Value;

use crate::{
    MockHost,
    protocol::{Request, Scripted},
};

/// Some of a plugin's requests: `host.http("POST", "https://gateway.example/v1/charges")`. A key is acted upon once: what comes
/// under it again is answered as before, unless that was 429 or 5xx.
pub struct HttpOf<'h> {
    host: &'h mut MockHost,
    method: String,
    url: String,
}

impl<'h> HttpOf<'h> {
    pub(crate) fn new(host: &'h mut MockHost, method: &str, url: &str) -> Self {
        Self { host, method: method.to_owned(), url: url.to_owned() }
    }

    /// All of them are answered so that nothing else is said of. A body is JSON, or text.
    #[track_caller]
    pub fn answers(self, status: u16, body: impl Into<Value>) -> Self {
        self.script(Scripted::Response { status, body: body.into() }, None)
    }

    /// The next one is answered so.
    #[track_caller]
    pub fn answers_once(self, status: u16, body: impl Into<Value>) -> Self {
        self.script(Scripted::Response { status, body: body.into() }, Some(1))
    }

    /// The next one arrives and is acted upon, and its answer is lost: the plugin sees a time-out.
    #[track_caller]
    pub fn loses_answer(self) -> Self {
        self.script(Scripted::Lost, Some(1))
    }

    /// The next one never leaves the host.
    #[track_caller]
    pub fn is_unreachable_once(self) -> Self {
        self.script(Scripted::Unreachable, Some(1))
    }

    #[track_caller]
    fn script(self, answer: Scripted, times: Option<u32>) -> Self {
        let (method, url) = (self.method.clone(), self.url.clone());
        self.host.set(Request::Answer { method, url, answer, times });
        self
    }
}
