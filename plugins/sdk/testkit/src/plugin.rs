//! One plugin of a mock host. Invariant: nothing here reaches into another plugin's values.

use std::ops::RangeInclusive;

use serde_json::Value;

use crate::{
    MockHost,
    protocol::{Direction, Request},
};

/// One plugin: `host.plugin("payment")`.
pub struct PluginOf<'h> {
    host: &'h mut MockHost,
    name: String,
}

impl<'h> PluginOf<'h> {
    pub(crate) fn new(host: &'h mut MockHost, name: &str) -> Self {
        Self { host, name: name.to_owned() }
    }

    fn name(&self) -> Option<String> {
        Some(self.name.clone())
    }

    /// Sets a configuration key.
    #[track_caller]
    pub fn config(self, key: &str, value: impl Into<Value>) -> Self {
        self.host.set(Request::Config { plugin: self.name(), key: key.to_owned(), value: value.into() });
        self
    }

    /// Sets a counter.
    #[track_caller]
    pub fn counter(self, name: &str, value: i64) -> Self {
        self.host.set(Request::Counter { plugin: self.name(), name: name.to_owned(), value });
        self
    }

    /// Puts a value into its store, as JSON.
    #[track_caller]
    pub fn store(self, key: &str, value: impl Into<Value>) -> Self {
        self.host.set(Request::Store { plugin: self.name(), key: key.to_owned(), value: value.into() });
        self
    }

    /// Of each step, these attempts to handle an event die in the middle.
    #[track_caller]
    pub fn dies_handling(self, attempts: RangeInclusive<u32>) -> Self {
        self.dies(Direction::Handle, attempts)
    }

    /// Of each step, these attempts to compensate die in the middle.
    #[track_caller]
    pub fn dies_compensating(self, attempts: RangeInclusive<u32>) -> Self {
        self.dies(Direction::Compensate, attempts)
    }

    #[track_caller]
    fn dies(self, during: Direction, attempts: RangeInclusive<u32>) -> Self {
        let (first, last) = attempts.into_inner();
        self.host.set(Request::Kill { plugin: self.name(), during, first, last });
        self
    }

    /// The value of a counter. Panics where there is none of this name.
    #[track_caller]
    pub fn counter_value(self, name: &str) -> i64 {
        self.host.counter_of(Some(&self.name), name)
    }

    /// The value under a key of its store; null where there is none.
    #[track_caller]
    pub fn stored(self, key: &str) -> Value {
        self.host.value(Request::Stored { plugin: self.name(), key: key.to_owned() })
    }
}
