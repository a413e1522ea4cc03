//! One saga of a mock host. Invariant: what is shown of it is what an operator of a real host would see.

use std::fmt::Write as _;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Answer, MockHost, Status, golden,
    protocol::{Request, SagaReport, Sent},
    timeline,
};

/// One saga: `host.saga("o-1")`.
pub struct SagaOf<'h> {
    host: &'h mut MockHost,
    id: String,
}

impl<'h> SagaOf<'h> {
    pub(crate) fn new(host: &'h mut MockHost, id: &str) -> Self {
        Self { host, id: id.to_owned() }
    }

    /// Delivers an event of this saga.
    #[track_caller]
    pub fn send(self, event: impl Into<Sent>) -> Answer<'h> {
        self.host.act(Request::Send(event.into().in_saga(self.id)))
    }

    /// See [`MockHost::compensate`].
    #[track_caller]
    pub fn compensate(self) -> Answer<'h> {
        self.host.compensate(&self.id)
    }

    /// An operator has what is stuck, or waits for its next attempt, tried again now.
    #[track_caller]
    pub fn retry(self) -> Answer<'h> {
        self.host.act(Request::Retry { saga: self.id })
    }

    /// An operator says that what is stuck was undone by hand.
    #[track_caller]
    pub fn resolve_as_undone(self) -> Answer<'h> {
        self.resolve(false)
    }

    /// An operator accepts that what is stuck stays as it is.
    #[track_caller]
    pub fn accept(self) -> Answer<'h> {
        self.resolve(true)
    }

    #[track_caller]
    fn resolve(self, accept: bool) -> Answer<'h> {
        let reason = "the test says so".to_owned();
        self.host.act(Request::Resolve { saga: self.id, accept, plugin: None, reason })
    }

    /// Delivers every event of this saga once more, those that plugins emitted too.
    #[track_caller]
    pub fn redeliver(self) -> Answer<'h> {
        self.host.act(Request::Redeliver { saga: self.id })
    }

    /// It has this status. Panics otherwise.
    #[track_caller]
    pub fn is(self, status: Status) -> Self {
        let (report, status) = (self.host.report(&self.id), status.name());
        assert!(report.status == status, "expected saga {} to be {status}\n\n{}", self.id, report.text());
        self
    }

    /// It waits for a person. Panics otherwise.
    #[track_caller]
    pub fn needs_operator(self) -> Self {
        self.is(Status::NeedsOperator)
    }

    /// It ended with this result. Panics otherwise.
    #[track_caller]
    pub fn finished(self, result: Value) -> Self {
        let report = self.host.report(&self.id);
        let told = &report.result;
        assert!(*told == result, "expected saga {} to end with {result}, not {told}\n\n{}", self.id, report.text());
        self
    }

    /// All that is known of it.
    #[track_caller]
    pub fn report(self) -> SagaReport {
        self.host.report(&self.id)
    }

    /// What the only plugin that keeps something in it keeps. Panics where it is not a `T`, or where several do.
    #[track_caller]
    pub fn state<T: DeserializeOwned>(self) -> Option<T> {
        let state = self.host.report(&self.id).state;
        let names: Vec<&String> = state.keys().collect();
        match names[..] {
            [] => None,
            [name] => Some(typed(name, &state[name])),
            _ => panic!("several plugins keep something in saga {}, so name one with `state_of`: {names:?}", self.id),
        }
    }

    /// What this plugin keeps in it. Panics where it is not a `T`.
    #[track_caller]
    pub fn state_of<T: DeserializeOwned>(self, plugin: &str) -> Option<T> {
        self.host.report(&self.id).state.get(plugin).map(|state| typed(plugin, state))
    }

    /// What happened in it, as text that is the same on every run.
    #[track_caller]
    pub fn timeline(self) -> String {
        self.host.report(&self.id).text()
    }

    /// The timeline is what stands in this file, a path from the crate's directory. Panics with the lines that differ.
    /// With the environment variable `UPDATE_GOLDEN=1` the file is written instead.
    #[track_caller]
    pub fn golden(self, file: &str) {
        let text = self.host.report(&self.id).text();
        if let Err(why) = golden::compare(file, &text) {
            panic!("{why}");
        }
    }
}

#[track_caller]
fn typed<T: DeserializeOwned>(plugin: &str, state: &Value) -> T {
    match serde_json::from_value(state.clone()) {
        Ok(state) => state,
        Err(error) => panic!("the state of {plugin} is not a valid {}: {error}: {state}", std::any::type_name::<T>()),
    }
}

impl SagaReport {
    /// Status, cause, timeline, and what an operator could type.
    pub fn text(&self) -> String {
        let mut text = format!("saga {} is {}\n", self.saga, self.status);
        if let Some(cause) = &self.cause {
            let _ = writeln!(text, "  cause  {cause}");
        }
        if !self.result.is_null() {
            let _ = writeln!(text, "  result {}", self.result);
        }
        for (name, value) in &self.notes {
            let _ = writeln!(text, "  note   {name}={value}");
        }
        text += &timeline::text(&self.timeline);
        for next in &self.next {
            let _ = writeln!(text, "  next   {next}");
        }
        text
    }
}
