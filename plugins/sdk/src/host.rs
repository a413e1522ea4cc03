//! What a participant may ask of its host during a call. Invariant: the only way out of a handler besides its outcome.

use crate::http::{Failure, Made, Request, Response};

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every detail.
    Trace,
    /// For whoever writes the plugin.
    Debug,
    /// For whoever runs it.
    Info,
    /// Unexpected, and dealt with.
    Warn,
    /// A person must act.
    Error,
}

/// The host calls of `wit/plugin.wit`. In WebAssembly they are imports; in a native test the host of
/// `sagahost-testkit` answers them. Handlers use [`Context`](crate::Context) instead.
pub trait Host {
    /// Writes a log line.
    fn log(&self, level: Level, message: &str, fields: &[(&str, &str)]);
    /// Scalars as text, arrays and tables as JSON.
    fn config(&self, key: &str) -> Option<String>;
    /// The value under this key.
    fn store_get(&self, key: &str) -> Option<Vec<u8>>;
    /// Puts a value under this key.
    fn store_put(&self, key: &str, value: &[u8]);
    /// Removes a key.
    fn store_delete(&self, key: &str);
    /// Keys with this prefix in byte order, after `after`, at most `limit`.
    fn store_scan(&self, prefix: &str, after: Option<&str>, limit: u32) -> Vec<(String, Vec<u8>)>;
    /// Creates a counter; no change where it exists.
    fn counter_ensure(&self, name: &str, initial: i64);
    /// Takes `amount` if at least that much is there.
    fn counter_take(&self, name: &str, amount: u64) -> bool;
    /// Adds `amount`.
    fn counter_give(&self, name: &str, amount: u64);
    /// The exact value.
    fn counter_read(&self, name: &str) -> Option<i64>;
    /// Sends a request, in world `plugin-http`.
    fn http_send(&self, request: Request) -> Result<Response, Failure> {
        panic!(
            "{} {}: say in `#[participant(http = [\"{}\"])]` that it sends requests",
            request.method, request.url, request.url
        )
    }
    /// What the step asked for that is to be undone.
    fn http_calls(&self) -> Vec<Made> {
        Vec::new()
    }
}
