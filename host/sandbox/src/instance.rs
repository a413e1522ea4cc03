//! Several calls in one instance: for plugins that an operator lets keep theirs (`isolation = "reuse"`), and for the law
//! checker, where what a guest keeps in its memory shows. Invariant: an instance whose call did not return is not called
//! again; a plugin that nobody said anything about has a fresh one for each attempt.

use std::{any::Any, sync::Arc, time::Instant};

use parking_lot::Mutex;

use sagahost_manifest::host_calls::{Entries, HostCalls, HostFault, Level, PageBounds};
use sagahost_saga::outcome::{Call, End, Outcome, UndoOutcome};
use wasmtime::Store;

use crate::{
    bindings::World,
    call::{Plugin, Ran},
    engine::{Engine, Slot},
    guest::Guest,
};

/// A guest may leak: after so many calls another instance takes over …
const CALLS_MAX: u32 = 10_000;
/// … or when its memory has grown by so much.
const GROWN_BYTES_MAX: usize = 4 << 20;

/// An instance with a memory. It occupies a place of the engine's until it is dropped.
pub struct Instance {
    store: Store<Guest>,
    world: World,
    /// It trapped: wasmtime does not let anybody in again.
    dead: bool,
    calls: u32,
    /// What it had when it was made.
    born_bytes: usize,
    _slot: Slot,
}

/// Those of one plugin that wait for its next calls.
#[derive(Default)]
pub(crate) struct Residents(Mutex<Vec<Instance>>);

impl Residents {
    /// In the one that was used last: its memory is in the caches. Where there is no place for another, in a fresh one.
    pub fn run(&self, plugin: &Plugin, call: &Call, host: Box<dyn HostCalls>) -> Ran {
        let idle = self.0.lock().pop();
        let made = || Instance::new(plugin, plugin.engine.slot_to_stay()?).ok();
        let Some(mut instance) = idle.or_else(made) else { return plugin.run_fresh(call, host) };
        let ran = instance.call(plugin, call, host);
        if !instance.dead && !instance.is_worn() {
            self.0.lock().push(instance);
        }
        ran
    }
}

impl Instance {
    /// The error is the cause for people.
    pub(crate) fn new(plugin: &Plugin, slot: Slot) -> Result<Self, String> {
        let mut store = plugin.engine.store(Guest::new(Box::new(Nothing), plugin));
        let world = plugin.pre.instantiate(&mut store);
        Engine::rests(&mut store);
        match world {
            Ok(world) => {
                let born_bytes = store.data().memory_bytes_peak;
                Ok(Self { store, world, dead: false, calls: 0, born_bytes, _slot: slot })
            }
            Err(error) => Err(plugin.crash(error, &store).map_or_else(|e| e.to_string(), |crash| crash.detail)),
        }
    }

    /// Can it be called again?
    pub fn lives(&self) -> bool {
        !self.dead
    }

    fn is_worn(&self) -> bool {
        let grown = self.store.data().memory_bytes_peak - self.born_bytes;
        self.calls >= CALLS_MAX || grown > GROWN_BYTES_MAX
    }

    /// As [`Plugin::run`], in this instance of that plugin. `None`, and nothing is called, once it trapped.
    pub fn run(&mut self, plugin: &Plugin, call: &Call, host: Box<dyn HostCalls>) -> Option<Ran> {
        (!self.dead).then(|| self.call(plugin, call, host))
    }

    fn call(&mut self, plugin: &Plugin, call: &Call, host: Box<dyn HostCalls>) -> Ran {
        let began = Instant::now();
        self.calls += 1;
        plugin.engine.refill(&mut self.store);
        let limits = plugin.engine.limits_shared();
        self.store.data_mut().next(host, limits.clone());
        let end = match plugin.reads(&call.formats()) {
            true => plugin.called(&mut self.store, Ok(&self.world), call),
            false => Ok(End::unreadable(call)),
        };
        Engine::rests(&mut self.store);
        self.dead = match &end {
            Ok(End::Outcome(Outcome::Unknown { .. }) | End::Undo(UndoOutcome::Unknown { .. })) | Err(_) => true,
            Ok(End::Outcome(_) | End::Undo(_)) => false,
        };
        let fuel = plugin.engine.fuel_used(&self.store);
        let host = self.store.data_mut().next(Box::new(Nothing), limits);
        let memory_bytes_peak = self.store.data().memory_bytes_peak;
        Ran { end, host, took: began.elapsed(), memory_bytes_peak, fuel }
    }
}

/// What an instance reaches while it is made, and between its calls.
struct Nothing;

impl Nothing {
    fn refused<T>() -> Result<T, HostFault> {
        Err(HostFault::Guest("it calls the host before it is called itself".to_owned()))
    }
}

impl HostCalls for Nothing {
    fn log(&mut self, _: Level, _: &str, _: &[(String, String)]) {}
    fn store_get(&mut self, _: &str) -> Result<Option<Arc<[u8]>>, HostFault> {
        Self::refused()
    }
    fn store_put(&mut self, _: &str, _: Vec<u8>) -> Result<(), HostFault> {
        Self::refused()
    }
    fn store_delete(&mut self, _: &str) -> Result<(), HostFault> {
        Self::refused()
    }
    fn store_scan(&mut self, _: &str, _: Option<&str>, _: PageBounds) -> Result<Entries, HostFault> {
        Self::refused()
    }
    fn counter_ensure(&mut self, _: &str, _: i64) -> Result<(), HostFault> {
        Self::refused()
    }
    fn counter_take(&mut self, _: &str, _: u64) -> Result<bool, HostFault> {
        Self::refused()
    }
    fn counter_give(&mut self, _: &str, _: u64) -> Result<(), HostFault> {
        Self::refused()
    }
    fn counter_read(&mut self, _: &str) -> Result<Option<i64>, HostFault> {
        Self::refused()
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
