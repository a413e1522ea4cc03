//! The plugin's side of the component boundary; only in WebAssembly. Invariant: nothing here decides anything.

use std::marker::PhantomData;

use crate::{
    Context, Level, Participant,
    bindings::{
        exports::sagahost::plugin::participant as wit_participant,
        sagahost::plugin::{config, counters, http as wit_http, log, store, types as wit},
    },
    contract::{self, Evidence, Outcome, Progress, StateChange, Undo, UndoOutcome},
    host::Host,
    http::{Failure, Made, Request, Response},
};

/// What the export macro exports: a participant behind the generated bindings, and what it imports. (An import that nobody calls
/// is none: a plugin that sends nothing is one of world `plugin`.)
pub struct Exported<P, I>(PhantomData<(P, I)>);

/// The imports of one world.
pub trait Imported {
    fn host() -> Box<dyn Host>;
}

/// World `plugin`.
pub struct Silent;

/// World `plugin-http`.
pub struct Sending;

impl Imported for Silent {
    fn host() -> Box<dyn Host> {
        Box::new(Imports)
    }
}

impl Imported for Sending {
    fn host() -> Box<dyn Host> {
        Box::new(ImportsHttp)
    }
}

impl<P: Participant, I: Imported> wit_participant::Guest for Exported<P, I> {
    fn handle_event(event: wit::Event, context: wit::Context) -> Result<wit::Outcome, String> {
        report_panics();
        let ctx = Context::new(I::host(), event.into(), context.into());
        P::handle_event(&ctx).map(Into::into)
    }

    fn compensate(step: wit::Step, context: wit::Context) -> Result<wit::UndoOutcome, String> {
        report_panics();
        let step = contract::Step::from(step);
        let ctx = Context::new(I::host(), step.event.clone(), context.into());
        P::compensate(step, &ctx).map(Into::into)
    }
}

/// A panic becomes a bare `unreachable`; the host shows the text that was logged with this field.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(|s| &**s));
        let text = text.unwrap_or("a panic without a text");
        let text = match panic.location() {
            Some(place) => format!("{text} ({}:{})", place.file(), place.line()),
            None => text.to_owned(),
        };
        let fields = [("sagahost-panic".to_owned(), "true".to_owned())];
        log::write(log::Level::Error, &text, &fields);
    }));
}

struct Imports;

impl Host for Imports {
    fn log(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        let level = match level {
            Level::Trace => log::Level::Trace,
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
            Level::Error => log::Level::Error,
        };
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        log::write(level, message, &fields);
    }
    fn config(&self, key: &str) -> Option<String> {
        config::get(key)
    }
    fn store_get(&self, key: &str) -> Option<Vec<u8>> {
        store::get(key)
    }
    fn store_put(&self, key: &str, value: &[u8]) {
        store::put(key, value);
    }
    fn store_delete(&self, key: &str) {
        store::delete(key);
    }
    fn store_scan(&self, prefix: &str, after: Option<&str>, limit: u32) -> Vec<(String, Vec<u8>)> {
        store::scan(prefix, after, limit).into_iter().map(|entry| (entry.key, entry.value)).collect()
    }
    fn counter_ensure(&self, name: &str, initial: i64) {
        counters::ensure(name, initial);
    }
    fn counter_take(&self, name: &str, amount: u64) -> bool {
        counters::take(name, amount)
    }
    fn counter_give(&self, name: &str, amount: u64) {
        counters::give(name, amount);
    }
    fn counter_read(&self, name: &str) -> Option<i64> {
        counters::read(name)
    }
}

/// What `Imports` has, and requests.
struct ImportsHttp;

impl Host for ImportsHttp {
    fn log(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        Imports.log(level, message, fields);
    }
    fn config(&self, key: &str) -> Option<String> {
        Imports.config(key)
    }
    fn store_get(&self, key: &str) -> Option<Vec<u8>> {
        Imports.store_get(key)
    }
    fn store_put(&self, key: &str, value: &[u8]) {
        Imports.store_put(key, value);
    }
    fn store_delete(&self, key: &str) {
        Imports.store_delete(key);
    }
    fn store_scan(&self, prefix: &str, after: Option<&str>, limit: u32) -> Vec<(String, Vec<u8>)> {
        Imports.store_scan(prefix, after, limit)
    }
    fn counter_ensure(&self, name: &str, initial: i64) {
        Imports.counter_ensure(name, initial);
    }
    fn counter_take(&self, name: &str, amount: u64) -> bool {
        Imports.counter_take(name, amount)
    }
    fn counter_give(&self, name: &str, amount: u64) {
        Imports.counter_give(name, amount);
    }
    fn counter_read(&self, name: &str) -> Option<i64> {
        Imports.counter_read(name)
    }
    fn http_send(&self, request: Request) -> Result<Response, Failure> {
        let Request { method, url, headers, body, timeout_ms } = request;
        let answer = wit_http::send(&wit_http::Request { method, url, headers, body, timeout_ms });
        answer.map(Into::into).map_err(|wit_http::Failure { sent, code, detail }| Failure { sent, code, detail })
    }
    fn http_calls(&self) -> Vec<Made> {
        let made = |call: wit_http::Call| {
            let wit_http::Request { method, url, headers, body, timeout_ms } = call.request;
            let request = Request { method, url, headers, body, timeout_ms };
            Made { key: call.key, request, response: call.response.map(Into::into) }
        };
        wit_http::calls().into_iter().map(made).collect()
    }
}

impl From<wit_http::Response> for Response {
    fn from(wit_http::Response { status, headers, body }: wit_http::Response) -> Self {
        Self { status, headers, body }
    }
}

impl From<wit::Event> for contract::Event {
    fn from(event: wit::Event) -> Self {
        let wit::Event { id, saga_id, kind, source, time_ms, content_type, data, attributes } = event;
        Self { id, saga_id, kind, source, time_ms, content_type, data, attributes }
    }
}

impl From<wit::Saved> for contract::Saved {
    fn from(saved: wit::Saved) -> Self {
        Self { data: saved.data, format: saved.format }
    }
}

impl From<wit::Context> for contract::Attempt {
    fn from(context: wit::Context) -> Self {
        let wit::Context { step_id, attempt, idempotency_key, now_ms, budget_ms, seed, state } = context;
        Self { step_id, attempt, idempotency_key, now_ms, budget_ms, seed, state: state.map(Into::into) }
    }
}

impl From<wit::Step> for contract::Step {
    fn from(step: wit::Step) -> Self {
        let evidence = match step.evidence {
            wit::Evidence::Done(saved) => Evidence::Done(saved.into()),
            wit::Evidence::Uncertain => Evidence::Uncertain,
            wit::Evidence::NeverRan => Evidence::NeverRan,
        };
        let wit::Cause { code, detail, participant, event_kind } = step.cause;
        let cause = contract::Cause { code, detail, participant, event_kind };
        Self { event: step.event.into(), evidence, cause, plugin_version: step.plugin_version }
    }
}

impl From<contract::Problem> for wit::Problem {
    fn from(problem: contract::Problem) -> Self {
        Self { code: problem.code, detail: problem.detail }
    }
}

impl From<contract::Delay> for wit::Delay {
    fn from(delay: contract::Delay) -> Self {
        Self { problem: delay.problem.into(), after_ms: delay.after_ms }
    }
}

impl From<contract::Emission> for wit::Emission {
    fn from(emission: contract::Emission) -> Self {
        let contract::Emission { kind, data, content_type, saga_id, after_seconds, attributes } = emission;
        Self { kind, data, content_type, saga_id, after_seconds, attributes }
    }
}

fn emissions(emit: Vec<contract::Emission>) -> Vec<wit::Emission> {
    emit.into_iter().map(Into::into).collect()
}

impl From<StateChange> for wit::StateChange {
    fn from(change: StateChange) -> Self {
        match change {
            StateChange::Keep => Self::Keep,
            StateChange::Put(data) => Self::Put(data),
            StateChange::Delete => Self::Delete,
        }
    }
}

impl From<Outcome> for wit::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Completed(completion) => Self::Completed(completion.into()),
            Outcome::Rejected(rejection) => Self::Rejected(wit::Rejection {
                problem: rejection.problem.into(),
                emit: emissions(rejection.emit),
                attributes: rejection.attributes,
            }),
            Outcome::Retry(delay) => Self::Retry(delay.into()),
            Outcome::NotYet(problem) => Self::NotYet(problem.into()),
            Outcome::Invalid(problem) => Self::Invalid(problem.into()),
        }
    }
}

impl From<contract::Completion> for wit::Completion {
    fn from(completion: contract::Completion) -> Self {
        let undo = match completion.undo {
            Undo::NothingToUndo => wit::Undo::NothingToUndo,
            Undo::Data(data) => wit::Undo::Data(data),
        };
        let progress = match completion.progress {
            Progress::GoingOn => wit::Progress::GoingOn,
            Progress::Finished(result) => wit::Progress::Finished(result),
        };
        let attributes = completion.attributes;
        Self { emit: emissions(completion.emit), state: completion.state.into(), undo, progress, attributes }
    }
}

impl From<UndoOutcome> for wit::UndoOutcome {
    fn from(outcome: UndoOutcome) -> Self {
        match outcome {
            UndoOutcome::Undone(undone) => Self::Undone(wit::Undone {
                emit: emissions(undone.emit),
                state: undone.state.into(),
                attributes: undone.attributes,
            }),
            UndoOutcome::NothingToUndo => Self::NothingToUndo,
            UndoOutcome::Retry(delay) => Self::Retry(delay.into()),
            UndoOutcome::Stuck(problem) => Self::Stuck(problem.into()),
        }
    }
}

/// Exports a participant and writes its manifest; `#[participant]` calls it.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($participant:ty, $imports:ident) => {
        const _: () = {
            type Exported = $crate::__private::Exported<$participant, $crate::__private::$imports>;
    $crate::__export_plugin_http_impl!(Exported with_types_in $crate::bindings);

            const MANIFEST: &str = <$participant as $crate::Participant>::MANIFEST;
            #[used]
            #[unsafe(link_section = "sagahost:manifest")]
            static SECTION: [u8; MANIFEST.len()] = $crate::__private::bytes(MANIFEST);
        };
    };
}
