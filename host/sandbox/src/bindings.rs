//! The contract of `wit/plugin.wit` as Rust types, and the way into a guest: from the core's `Call` to what the two
//! exported functions take. Invariant: nothing is copied on the way in, except by wasmtime into the guest's memory.

use sagahost_saga::{
    id,
    outcome::{Call, Evidence, Saved, UndoCall},
};

mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "plugin-http",
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: { default: trappable },
    });
}

pub(crate) use generated::{
    PluginHttp as World, PluginHttpPre as WorldPre,
    sagahost::plugin::{config, counters, http, log, store, types as wit},
};

/// What a call passes in; it owns the few parts that are made for the call.
pub(crate) struct Passed<'a> {
    attributes: Vec<(&'a str, &'a str)>,
    seed: [u8; 32],
    budget_ms: u32,
    call: &'a Call,
}

impl<'a> Passed<'a> {
    pub(crate) fn new(call: &'a Call, budget_ms: u32) -> Self {
        let attributes = call.event.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Self { attributes, seed: id::seed(&call.idempotency_key), budget_ms, call }
    }

    pub(crate) fn event(&self) -> wit::Event<'_> {
        let event = &self.call.event;
        wit::Event {
            id: &event.key.id,
            saga_id: event.saga.as_str(),
            kind: event.kind.as_str(),
            source: &event.key.source,
            time_ms: event.time.0,
            content_type: &event.content_type,
            data: &event.data,
            attributes: &self.attributes,
        }
    }

    pub(crate) fn context(&self) -> wit::Context<'_> {
        wit::Context {
            step_id: &self.call.step_id,
            attempt: self.call.attempt,
            idempotency_key: &self.call.idempotency_key,
            now_ms: self.call.now.0,
            budget_ms: self.budget_ms,
            seed: &self.seed,
            state: self.call.state.as_ref().map(saved),
        }
    }

    pub(crate) fn step<'b>(&'b self, undo: &'b UndoCall) -> wit::Step<'b> {
        let cause = &undo.cause;
        wit::Step {
            event: self.event(),
            evidence: match &undo.evidence {
                Evidence::Done(undo) => wit::Evidence::Done(saved(undo)),
                Evidence::Uncertain => wit::Evidence::Uncertain,
                Evidence::NeverRan => wit::Evidence::NeverRan,
            },
            cause: wit::Cause {
                code: &cause.code,
                detail: &cause.detail,
                participant: cause.participant.as_ref().map(|name| name.as_str()),
                event_kind: cause.event_kind.as_ref().map(|kind| kind.as_str()),
            },
            plugin_version: &undo.plugin_version,
        }
    }
}

fn saved(saved: &Saved) -> wit::Saved<'_> {
    wit::Saved { data: &saved.data, format: saved.format }
}
