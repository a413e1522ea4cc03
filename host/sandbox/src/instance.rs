//! Several calls in one instance, for the law checker: what a guest keeps in its memory shows there. Invariant: no event
//! of a host is ever handled here; a host makes a fresh instance for each attempt.

use std::{any::Any, sync::Arc, time::Instant};

use sagahost_manifest::host_calls::{Entries, HostCalls, HostFault, Level, PageBounds};
use sagahost_saga::outcome::{Call, End, Outcome, UndoOutcome};
use wasmtime::Store;

use crate::{
    bindings::World,
    call::{Plugin, Ran},
    engine::{Engine, Slot},
    guest::Guest,
};

/// An instance with a memory. It occupies a place of the engine's until it is dropped.
pub struct Instance<'p> {
    plugin: &'p Plugin,
    store: Store<Guest>,
    world: World,
    /// It trapped: wasmtime does not let anybody in again.
    dead: bool,
    _slot: Slot<'p>,
}

impl<'p> Instance<'p> {
    pub(crate) fn new(plugin: &'p Plugin) -> Result<Self, String> {
        let slot = plugin.engine.slot();
        let mut store = plugin.engine.store(Guest::new(Box::new(Nothing), plugin));
        let world = plugin.pre.instantiate(&mut store);
        Engine::rests(&mut store);
        match world {
            Ok(world) => Ok(Self { plugin, store, world, dead: false, _slot: slot }),
            Err(error) => Err(plugin.crash(error, &store).map_or_else(|e| e.to_string(), |crash| crash.detail)),
        }
    }

    /// Can it be called again?
    pub fn lives(&self) -> bool {
        !self.dead
    }

    /// As [`Plugin::run`], in this instance. `None`, and nothing is called, once it trapped.
    pub fn run(&mut self, call: &Call, host: Box<dyn HostCalls>) -> Option<Ran> {
        if self.dead {
            return None;
        }
        let began = Instant::now();
        self.plugin.engine.refill(&mut self.store);
        let limits = self.plugin.engine.limits_shared();
        self.store.data_mut().next(host, limits.clone());
        let end = match self.plugin.reads(&call.formats()) {
            true => self.plugin.called(&mut self.store, Ok(&self.world), call),
            false => Ok(End::unreadable(call)),
        };
        Engine::rests(&mut self.store);
        self.dead = match &end {
            Ok(End::Outcome(Outcome::Unknown { .. }) | End::Undo(UndoOutcome::Unknown { .. })) | Err(_) => true,
            Ok(End::Outcome(_) | End::Undo(_)) => false,
        };
        let fuel = self.plugin.engine.fuel_used(&self.store);
        let host = self.store.data_mut().next(Box::new(Nothing), limits);
        let memory_bytes_peak = self.store.data().memory_bytes_peak;
        Some(Ran { end, host, took: began.elapsed(), memory_bytes_peak, fuel })
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
