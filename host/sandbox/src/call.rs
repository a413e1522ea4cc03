//! One attempt: a fresh instance, the call, what came back. Invariant: whatever a guest does, the caller gets its host
//! calls back, and a trap or a deadline is an outcome, not an error.

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use sagahost_manifest::{
    Manifest,
    answer::{Measure, uncaught},
};
use sagahost_saga::{
    id::{Direction, Participant},
    outcome::{Behaviour, Call, Crash, End, Outcome, UndoOutcome},
};
use thiserror::Error;
use wasmtime::Store;

use crate::{
    answer,
    bindings::{Passed, WorldPre},
    crash,
    engine::Engine,
    guest::{BoxError, Entries, Guest, HostCalls, HostFault, Level},
};

/// An admitted plugin, ready to be called: code, manifest and configuration.
pub struct Plugin {
    pub(crate) engine: Arc<Engine>,
    pub(crate) pre: WorldPre<Guest>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) digest: Arc<str>,
    pub(crate) config: Arc<BTreeMap<String, String>>,
    pub(crate) config_hash: Arc<str>,
}

/// The host could not do its job: this is no attempt of the plugin's.
#[derive(Debug, Error)]
#[error("failed to call plugin {plugin}: {source}")]
pub struct HostError {
    pub plugin: String,
    pub source: BoxError,
}

pub struct Ran {
    pub end: Result<End, HostError>,
    /// What the caller passed in.
    pub host: Box<dyn HostCalls>,
    /// From the moment at which an instance was free.
    pub took: Duration,
    pub memory_bytes_peak: usize,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.manifest.name, self.manifest.version, self.digest)
    }
}

impl Plugin {
    pub fn name(&self) -> Participant {
        Participant::new(&self.manifest.name)
    }

    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// SHA-256 of the file, hexadecimal.
    pub fn digest(&self) -> &Arc<str> {
        &self.digest
    }

    /// What the guest reads through `config`: all keys with a value, scalars as text.
    pub fn config(&self) -> &BTreeMap<String, String> {
        &self.config
    }

    /// Which code with which configuration.
    pub fn behaviour(&self) -> Behaviour {
        Behaviour {
            digest: self.digest.clone(),
            config: self.config_hash.clone(),
            version: Arc::from(self.manifest.version.as_str()),
        }
    }

    /// Does it understand all these data formats?
    pub fn reads(&self, formats: &[u32]) -> bool {
        self.manifest.reads(formats)
    }

    /// Runs one attempt. Blocks: until an instance is free, then for the budget at most (host calls not counted).
    pub fn run(&self, call: &Call, host: Box<dyn HostCalls>) -> Ran {
        if !self.reads(&call.formats()) {
            return Ran { end: Ok(End::unreadable(call)), host, took: Duration::ZERO, memory_bytes_peak: 0 };
        }
        let _slot = self.engine.slot();
        let began = Instant::now();
        let mut store = self.engine.store(Guest::new(host, self.config.clone(), self.engine.limits_shared()));
        let end = match call.direction {
            Direction::Forward => self.handle_event(&mut store, call),
            Direction::Undo => self.compensate(&mut store, call),
        };
        let guest = store.into_data();
        let end = end.map_err(|source| HostError { plugin: self.manifest.name.clone(), source });
        Ran { end, host: guest.host, took: began.elapsed(), memory_bytes_peak: guest.memory_bytes_peak }
    }

    /// Makes an instance and throws it away: do the exports have the right types, does it fit into the limits?
    pub(crate) fn try_out(&self) -> Result<(), String> {
        let _slot = self.engine.slot();
        let guest = Guest::new(Box::new(Nothing), self.config.clone(), self.engine.limits_shared());
        let mut store = self.engine.store(guest);
        match self.pre.instantiate(&mut store) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.crash(error, &store).map_or_else(|e| e.to_string(), |crash| crash.detail)),
        }
    }

    fn handle_event(&self, store: &mut Store<Guest>, call: &Call) -> Result<End, BoxError> {
        let passed = Passed::new(call, self.engine.limits().budget_ms);
        let answer = self.pre.instantiate(&mut *store).and_then(|world| {
            world.sagahost_plugin_participant().call_handle_event(&mut *store, passed.event(), passed.context())
        });
        let crash = match answer {
            Ok(Ok(outcome)) => {
                let outcome = answer::outcome(outcome, self.manifest.data_format);
                return Ok(self.measure(call).end(End::Outcome(outcome)));
            }
            Ok(Err(text)) => uncaught(&text, self.engine.limits()),
            Err(error) => self.crash(error, store)?,
        };
        Ok(End::Outcome(Outcome::Unknown { crash, uncertain: false }))
    }

    fn compensate(&self, store: &mut Store<Guest>, call: &Call) -> Result<End, BoxError> {
        let Some(undo) = &call.undo else {
            return Err("a compensation without evidence was asked for".into());
        };
        let passed = Passed::new(call, self.engine.limits().budget_ms);
        let answer = self.pre.instantiate(&mut *store).and_then(|world| {
            world.sagahost_plugin_participant().call_compensate(&mut *store, passed.step(undo), passed.context())
        });
        let crash = match answer {
            Ok(Ok(outcome)) => {
                let outcome = answer::undo_outcome(outcome, self.manifest.data_format);
                return Ok(self.measure(call).end(End::Undo(outcome)));
            }
            Ok(Err(text)) => uncaught(&text, self.engine.limits()),
            Err(error) => self.crash(error, store)?,
        };
        Ok(End::Undo(UndoOutcome::Unknown { crash }))
    }

    fn measure<'a>(&'a self, call: &'a Call) -> Measure<'a> {
        Measure { manifest: &self.manifest, limits: self.engine.limits(), call }
    }

    fn crash(&self, error: wasmtime::Error, store: &Store<Guest>) -> Result<Crash, BoxError> {
        crash::explain(error, store.data(), self.engine.limits())
    }
}

/// What an instance gets that is only tried out.
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
    fn store_scan(&mut self, _: &str, _: Option<&str>, _: u32) -> Result<Entries, HostFault> {
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
