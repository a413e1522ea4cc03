//! What a running plugin may ask of its host: log, store and counters, for the length of one attempt. Invariant: nothing of
//! it counts before the attempt's outcome is kept.

use std::{any::Any, sync::Arc};

use thiserror::Error;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Severity of a line that a guest logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Keys and values.
pub type Entries = Vec<(String, Arc<[u8]>)>;

#[derive(Debug, Error)]
pub enum HostFault {
    /// The guest's own fault: its call ends as a trap with this cause.
    #[error("{0}")]
    Guest(String),
    /// The host could not do its job: the call has no outcome at all.
    #[error(transparent)]
    Host(BoxError),
}

/// The effects of one attempt, kept by the host until the outcome decides over them.
pub trait HostCalls: Send + Any {
    fn log(&mut self, level: Level, message: &str, fields: &[(String, String)]);
    fn store_get(&mut self, key: &str) -> Result<Option<Arc<[u8]>>, HostFault>;
    fn store_put(&mut self, key: &str, value: Vec<u8>) -> Result<(), HostFault>;
    fn store_delete(&mut self, key: &str) -> Result<(), HostFault>;
    /// In byte order of the keys, those above `after` only.
    fn store_scan(&mut self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Entries, HostFault>;
    fn counter_ensure(&mut self, name: &str, initial: i64) -> Result<(), HostFault>;
    fn counter_take(&mut self, name: &str, amount: u64) -> Result<bool, HostFault>;
    fn counter_give(&mut self, name: &str, amount: u64) -> Result<(), HostFault>;
    fn counter_read(&mut self, name: &str) -> Result<Option<i64>, HostFault>;
    /// So that the caller gets its own type back.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}
