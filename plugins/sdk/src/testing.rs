//! A host in memory, for native tests of one participant. Invariant: like the real one, it keeps the effects of an
//! attempt only when the step is done (or undone), and it refuses what the manifest does not allow.
//!
//! ```
//! use sagahost_sdk::{prelude::*, testing::TestHost};
//!
//! #[event(example = {"name": "Ada"})]
//! struct GuestArrived { name: String }
//! #[event]
//! struct GuestGreeted { text: String }
//!
//! #[derive(Config)]
//! struct Doorman {
//!     #[config(default = "Hello")]
//!     greeting: String,
//! }
//!
//! #[participant(name = "doorman", emits = [GuestGreeted])]
//! impl Doorman {
//!     #[on(GuestArrived, role = nothing_to_undo)]
//!     fn greet(&self, _: &Context, guest: GuestArrived) -> Handled {
//!         let text = format!("{}, {}!", self.greeting, guest.name);
//!         Ok(Done::nothing_to_undo().emit(GuestGreeted { text }))
//!     }
//! }
//!
//! TestHost::<Doorman>::new()
//!     .config("greeting", "Welcome")
//!     .send(GuestArrived { name: "Ada".into() })
//!     .completed()
//!     .emitted(GuestGreeted { text: "Welcome, Ada!".into() });
//! ```

use std::{cell::RefCell, collections::BTreeMap, fmt::Display, marker::PhantomData, rc::Rc};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Context, Emission, Event, Evidence, Host, Level, Participant,
    contract::{self, Attempt, Cause, Outcome, Saved, StateChange, Undo, UndoOutcome},
    event,
};

/// What survives an attempt.
#[derive(Clone, Default)]
struct Kept {
    store: BTreeMap<String, Vec<u8>>,
    counters: BTreeMap<String, i64>,
}

#[derive(Default)]
struct World {
    kept: Kept,
    config: BTreeMap<String, String>,
    log: Vec<(Level, String)>,
}

struct Calls(Rc<RefCell<World>>);

/// One participant, one saga at a time (see [`saga`](Self::saga)), everything in memory.
pub struct TestHost<P> {
    world: Rc<RefCell<World>>,
    manifest: Value,
    saga: String,
    states: BTreeMap<String, Saved>,
    done: Vec<(contract::Event, Undo)>,
    events: u64,
    attempt: u32,
    now_ms: u64,
    participant: PhantomData<P>,
}

impl<P: Participant> Default for TestHost<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Participant> TestHost<P> {
    /// A host with nothing in it, in saga `saga-1`. Panics where the manifest is wrong: where an example event is not
    /// read by its own handler.
    pub fn new() -> Self {
        let manifest = match serde_json::from_str(P::MANIFEST) {
            Ok(manifest) => manifest,
            Err(error) => panic!("the manifest is no JSON: {error}\n{}", P::MANIFEST),
        };
        let host = Self {
            world: Rc::default(),
            manifest,
            saga: "saga-1".to_owned(),
            states: BTreeMap::new(),
            done: Vec::new(),
            events: 0,
            attempt: 1,
            now_ms: 1_700_000_000_000,
            participant: PhantomData,
        };
        host.check_examples();
        host
    }

    /// The manifest.
    pub fn manifest(&self) -> &Value {
        &self.manifest
    }

    /// Sets a configuration key. Panics where the manifest has none of this name.
    #[must_use]
    pub fn config(self, key: &str, value: impl Display) -> Self {
        assert!(
            self.manifest["config"].get(key).is_some(),
            "there is no configuration key `{key}`: {}",
            self.manifest["config"]
        );
        self.world.borrow_mut().config.insert(key.to_owned(), value.to_string());
        self
    }

    /// From here on, events belong to this saga.
    pub fn saga(&mut self, id: &str) -> &mut Self {
        id.clone_into(&mut self.saga);
        self
    }

    /// The number of the attempts that follow; 1 at first.
    pub fn attempt(&mut self, attempt: u32) -> &mut Self {
        self.attempt = attempt;
        self
    }

    /// Sets a counter.
    pub fn set_counter(&mut self, name: &str, value: i64) -> &mut Self {
        self.world.borrow_mut().kept.counters.insert(name.to_owned(), value);
        self
    }

    /// The value of a counter.
    pub fn counter(&self, name: &str) -> Option<i64> {
        self.world.borrow().kept.counters.get(name).copied()
    }

    /// The value of a key in the store, as JSON.
    pub fn stored(&self, key: &str) -> Option<Value> {
        self.world.borrow().kept.store.get(key).and_then(|bytes| event::decode(bytes).ok())
    }

    /// The participant's state in the current saga. Panics where it is no `T`.
    pub fn state<T: DeserializeOwned>(&self) -> Option<T> {
        let saved = self.states.get(&self.saga)?;
        match event::decode(&saved.data) {
            Ok(state) => Some(state),
            Err(error) => panic!("failed to read the state: {error}"),
        }
    }

    /// Every log line so far.
    pub fn log(&self) -> Vec<(Level, String)> {
        self.world.borrow().log.clone()
    }

    /// Delivers an event. Its effects stay when the answer is `Done`.
    pub fn send<E: Event>(&mut self, event: E) -> Answer {
        self.send_json(E::KIND, event::encode(&event))
    }

    /// Delivers an event of any kind with these bytes as JSON.
    pub fn send_json(&mut self, kind: &str, data: impl AsRef<[u8]>) -> Answer {
        let event = self.event(kind, data.as_ref());
        self.send_event(event)
    }

    /// Delivers an event as it is.
    pub fn send_event(&mut self, event: contract::Event) -> Answer {
        let before = self.world.borrow().kept.clone();
        let answer = P::handle_event(&self.context(&event, "forward"));
        match &answer {
            Ok(Outcome::Completed(completion)) => {
                self.check_emitted(&completion.emit);
                let finishes = self.manifest["finishes"] == Value::Bool(true);
                let finished = matches!(completion.progress, contract::Progress::Finished(_));
                assert!(finishes || !finished, "it ended the saga, but its manifest has no `finishes`");
                self.change_state(&completion.state);
                self.done.push((event, completion.undo.clone()));
            }
            Ok(Outcome::Rejected(rejection)) => self.check_emitted(&rejection.emit),
            _ => {}
        }
        if !matches!(answer, Ok(Outcome::Completed(_))) {
            self.world.borrow_mut().kept = before;
        }
        Answer(answer)
    }

    /// Undoes the last step that was done, as the host does when the saga fails. A step with nothing to undo is left
    /// alone.
    pub fn undo(&mut self) -> UndoAnswer {
        let Some((event, undo)) = self.done.pop() else { panic!("there is no step to undo") };
        match undo {
            Undo::NothingToUndo => UndoAnswer(Ok(UndoOutcome::NothingToUndo)),
            Undo::Data(data) => {
                let format = self.manifest["data-format"].as_u64().and_then(|format| u32::try_from(format).ok());
                self.compensate(event, Evidence::Done(Saved { data, format: format.unwrap_or(1) }))
            }
        }
    }

    /// Compensates an event whose step was never done.
    pub fn undo_never_ran<E: Event>(&mut self, event: E) -> UndoAnswer {
        let event = self.event(E::KIND, &event::encode(&event));
        self.compensate(event, Evidence::NeverRan)
    }

    /// Compensates a step with whatever evidence.
    pub fn compensate(&mut self, event: contract::Event, evidence: Evidence) -> UndoAnswer {
        let before = self.world.borrow().kept.clone();
        let ctx = self.context(&event, "back");
        let cause = Cause { code: "rejected".to_owned(), detail: "a test".to_owned(), ..Cause::default() };
        let version = self.manifest["version"].as_str().unwrap_or_default().to_owned();
        let answer = P::compensate(contract::Step { event, evidence, cause, plugin_version: version }, &ctx);
        match &answer {
            Ok(UndoOutcome::Undone(undone)) => {
                self.check_emitted(&undone.emit);
                self.change_state(&undone.state);
            }
            _ => self.world.borrow_mut().kept = before,
        }
        UndoAnswer(answer)
    }

    fn event(&mut self, kind: &str, data: &[u8]) -> contract::Event {
        self.events += 1;
        contract::Event {
            id: format!("event-{}", self.events),
            saga_id: self.saga.clone(),
            kind: kind.to_owned(),
            source: "test".to_owned(),
            time_ms: self.now_ms,
            content_type: "application/json".to_owned(),
            data: data.to_vec(),
            attributes: Vec::new(),
        }
    }

    fn context(&self, event: &contract::Event, direction: &str) -> Context {
        let step_id = format!("{}/{}/{}", event.saga_id, self.manifest["name"].as_str().unwrap_or_default(), event.id);
        let seed: Vec<u8> = step_id.bytes().chain([0; 32]).take(32).collect();
        let attempt = Attempt {
            idempotency_key: format!("{step_id}/{direction}/0"),
            step_id,
            attempt: self.attempt,
            now_ms: self.now_ms,
            budget_ms: 1_000,
            seed,
            state: self.states.get(&event.saga_id).cloned(),
        };
        Context::new(Box::new(Calls(Rc::clone(&self.world))), event.clone(), attempt)
    }

    fn change_state(&mut self, change: &StateChange) {
        match change {
            StateChange::Keep => {}
            StateChange::Put(data) => {
                self.states.insert(self.saga.clone(), Saved { data: data.clone(), format: 1 });
            }
            StateChange::Delete => {
                self.states.remove(&self.saga);
            }
        }
    }

    fn check_emitted(&self, emitted: &[Emission]) {
        for emission in emitted {
            let list = if emission.saga_id.is_some() { "starts" } else { "emits" };
            let named = self.manifest[list].as_array().is_some_and(|kinds| kinds.iter().any(|k| *k == *emission.kind));
            assert!(named, "it emitted {}, which its manifest does not name under `{list}`", emission.kind);
        }
    }

    fn check_examples(&self) {
        for subscription in self.manifest["subscriptions"].as_array().into_iter().flatten() {
            if subscription["example"].is_null() {
                continue;
            }
            let host = Calls(Rc::new(RefCell::new(World { config: self.required(), ..World::default() })));
            let kind = subscription["kind"].as_str().unwrap_or_default().to_owned();
            let event = contract::Event {
                kind: kind.clone(),
                data: subscription["example"].to_string().into_bytes(),
                ..contract::Event::default()
            };
            let attempt = Attempt { attempt: 1, ..Attempt::default() };
            if let Ok(Outcome::Invalid(problem)) = P::handle_event(&Context::new(Box::new(host), event, attempt)) {
                panic!("the example of {kind} is invalid: {} ({})", problem.detail, problem.code);
            }
        }
    }

    /// Something for each key that has no default.
    fn required(&self) -> BTreeMap<String, String> {
        let keys = self.manifest["config"].as_object().into_iter().flatten();
        keys.filter(|(_, key)| key["required"] == Value::Bool(true))
            .map(|(name, key)| {
                let value = match key["type"].as_str() {
                    Some("integer" | "float") => "1",
                    Some("boolean") => "true",
                    Some("json") => "null",
                    _ => "text",
                };
                (name.clone(), value.to_owned())
            })
            .collect()
    }
}

/// How a handler answered.
#[derive(Debug)]
pub struct Answer(pub Result<Outcome, String>);

impl Answer {
    /// It is done. Panics otherwise.
    #[track_caller]
    pub fn completed(self) -> Emitted {
        match self.0 {
            Ok(Outcome::Completed(completion)) => Emitted {
                emit: completion.emit,
                notes: completion.attributes,
                result: match completion.progress {
                    contract::Progress::Finished(result) => Some(result),
                    contract::Progress::GoingOn => None,
                },
            },
            other => panic!("expected the step to be done, got {other:?}"),
        }
    }

    /// It was rejected with this code. Panics otherwise.
    #[track_caller]
    pub fn rejected(self, code: &str) -> Emitted {
        match self.0 {
            Ok(Outcome::Rejected(rejection)) if rejection.problem.code == code => {
                Emitted { emit: rejection.emit, notes: rejection.attributes, result: None }
            }
            other => panic!("expected a rejection with {code}, got {other:?}"),
        }
    }

    /// It wants another attempt, with this code. Panics otherwise.
    #[track_caller]
    pub fn retries(self, code: &str) {
        assert!(
            matches!(&self.0, Ok(Outcome::Retry(delay)) if delay.problem.code == code),
            "expected a retry with {code}, got {:?}",
            self.0
        );
    }

    /// It waits for another event, with this code. Panics otherwise.
    #[track_caller]
    pub fn not_yet(self, code: &str) {
        assert!(
            matches!(&self.0, Ok(Outcome::NotYet(problem)) if problem.code == code),
            "expected not-yet with {code}, got {:?}",
            self.0
        );
    }

    /// The event is invalid, with this code; returns the detail. Panics otherwise.
    #[track_caller]
    pub fn invalid(self, code: &str) -> String {
        match self.0 {
            Ok(Outcome::Invalid(problem)) if problem.code == code => problem.detail,
            other => panic!("expected invalid with {code}, got {other:?}"),
        }
    }
}

/// How an `#[undo]` function answered.
#[derive(Debug)]
pub struct UndoAnswer(pub Result<UndoOutcome, String>);

impl UndoAnswer {
    /// It is undone. Panics otherwise.
    #[track_caller]
    pub fn undone(self) -> Emitted {
        match self.0 {
            Ok(UndoOutcome::Undone(undone)) => Emitted { emit: undone.emit, notes: undone.attributes, result: None },
            other => panic!("expected the step to be undone, got {other:?}"),
        }
    }

    /// There was nothing to undo. Panics otherwise.
    #[track_caller]
    pub fn nothing_to_undo(self) {
        assert!(matches!(self.0, Ok(UndoOutcome::NothingToUndo)), "expected nothing to undo, got {:?}", self.0);
    }

    /// It wants another attempt, with this code. Panics otherwise.
    #[track_caller]
    pub fn retries(self, code: &str) {
        assert!(
            matches!(&self.0, Ok(UndoOutcome::Retry(delay)) if delay.problem.code == code),
            "expected a retry with {code}, got {:?}",
            self.0
        );
    }

    /// An operator must act, with this code. Panics otherwise.
    #[track_caller]
    pub fn stuck(self, code: &str) {
        assert!(
            matches!(&self.0, Ok(UndoOutcome::Stuck(problem)) if problem.code == code),
            "expected stuck with {code}, got {:?}",
            self.0
        );
    }
}

/// What an answer publishes.
#[derive(Debug)]
pub struct Emitted {
    emit: Vec<Emission>,
    notes: Vec<(String, String)>,
    result: Option<Vec<u8>>,
}

impl Emitted {
    /// The first event not yet looked at is this one. Panics otherwise.
    #[track_caller]
    pub fn emitted<E: Event>(mut self, event: E) -> Self {
        assert!(!self.emit.is_empty(), "expected {}, but nothing more was emitted", E::KIND);
        let got = self.emit.remove(0);
        let data = |emission: &Emission| event::decode::<Value>(&emission.data).ok();
        let expected = Emission::from(event);
        assert_eq!((&*got.kind, data(&got)), (&*expected.kind, data(&expected)));
        self
    }

    /// Exactly these kinds were emitted, in this order. Panics otherwise.
    #[track_caller]
    pub fn emitted_kinds(self, kinds: &[&str]) -> Self {
        let got: Vec<&str> = self.emit.iter().map(|emission| &*emission.kind).collect();
        assert_eq!(got, kinds);
        self
    }

    /// Nothing (more) was emitted. Panics otherwise.
    #[track_caller]
    pub fn emitted_nothing(self) -> Self {
        self.emitted_kinds(&[])
    }

    /// The saga got this note. Panics otherwise.
    #[track_caller]
    pub fn noted(self, name: &str, value: &str) -> Self {
        assert!(
            self.notes.iter().any(|note| note.0 == name && note.1 == value),
            "no note {name}={value} in {:?}",
            self.notes
        );
        self
    }

    /// The saga ended with this result. Panics otherwise.
    #[track_caller]
    pub fn finished(self, result: &Value) -> Self {
        let got = self.result.as_deref().and_then(|bytes| event::decode::<Value>(bytes).ok());
        assert_eq!(got.as_ref(), Some(result));
        self
    }

    /// The events, for a closer look.
    pub fn emissions(&self) -> &[Emission] {
        &self.emit
    }
}

impl Host for Calls {
    fn log(&self, level: Level, message: &str, _: &[(&str, &str)]) {
        self.0.borrow_mut().log.push((level, message.to_owned()));
    }
    fn config(&self, key: &str) -> Option<String> {
        self.0.borrow().config.get(key).cloned()
    }
    fn store_get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.borrow().kept.store.get(key).cloned()
    }
    fn store_put(&self, key: &str, value: &[u8]) {
        self.0.borrow_mut().kept.store.insert(key.to_owned(), value.to_vec());
    }
    fn store_delete(&self, key: &str) {
        self.0.borrow_mut().kept.store.remove(key);
    }
    fn store_scan(&self, prefix: &str, after: Option<&str>, limit: u32) -> Vec<(String, Vec<u8>)> {
        let world = self.0.borrow();
        let entries = world.kept.store.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let page = entries.filter(|(key, _)| after.is_none_or(|after| key.as_str() > after)).take(limit as usize);
        page.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
    fn counter_ensure(&self, name: &str, initial: i64) {
        self.0.borrow_mut().kept.counters.entry(name.to_owned()).or_insert(initial);
    }
    fn counter_take(&self, name: &str, amount: u64) -> bool {
        let mut world = self.0.borrow_mut();
        let Some(value) = world.kept.counters.get_mut(name) else {
            panic!("there is no counter `{name}` to take from")
        };
        match i64::try_from(amount) {
            Ok(amount) if *value >= amount => {
                *value -= amount;
                true
            }
            _ => false,
        }
    }
    fn counter_give(&self, name: &str, amount: u64) {
        let mut world = self.0.borrow_mut();
        let Some(value) = world.kept.counters.get_mut(name) else { panic!("there is no counter `{name}` to give to") };
        let sum = i64::try_from(amount).ok().and_then(|amount| value.checked_add(amount));
        *value = sum.unwrap_or_else(|| panic!("counter `{name}` overflows"));
    }
    fn counter_read(&self, name: &str) -> Option<i64> {
        self.0.borrow().kept.counters.get(name).copied()
    }
}
