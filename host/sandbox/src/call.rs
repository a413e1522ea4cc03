//! One attempt: a fresh instance, the call, what came back. Invariant: whatever a guest does, the caller gets its host
//! calls back, and a trap or a deadline is an outcome, not an error.

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use sagahost_manifest::{
    Limits, Manifest,
    answer::{Measure, uncaught},
    host_calls::{BoxError, HostCalls},
    http::Grants,
    settings::config_hash,
};
use sagahost_saga::{
    id::{Direction, Participant},
    outcome::{Behaviour, Call, Crash, End, Outcome, UndoOutcome},
};
use thiserror::Error;
use wasmtime::Store;

use crate::{
    answer,
    bindings::{Passed, World, WorldPre},
    crash,
    engine::Engine,
    guest::Guest,
    instance::{Instance, Residents},
};

/// An admitted plugin, ready to be called: code, manifest and configuration.
pub struct Plugin {
    pub(crate) engine: Arc<Engine>,
    pub(crate) pre: WorldPre<Guest>,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) digest: Arc<str>,
    pub(crate) config: Arc<BTreeMap<String, String>>,
    pub(crate) grants: Arc<Grants>,
    /// It imports `http`.
    pub(crate) sends: bool,
    /// None: a fresh instance for each call.
    pub(crate) residents: Option<Residents>,
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
    /// Of an engine that counts it (`Engine::metered`): instructions and instantiation, the same on every machine.
    pub fuel: Option<u64>,
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

    /// What a call of it may use.
    pub fn limits(&self) -> &Limits {
        self.engine.limits()
    }

    /// Which code with which configuration.
    pub fn behaviour(&self) -> Behaviour {
        Behaviour {
            digest: self.digest.clone(),
            config: self.config_hash.clone(),
            version: Arc::from(self.manifest.version.as_str()),
        }
    }

    /// The same code with other values, which were it once: for an attempt that began with them.
    pub fn with_config(&self, config: Arc<BTreeMap<String, String>>) -> Self {
        let config_hash = config_hash(&config);
        let Self { engine, pre, manifest, digest, grants, .. } = self;
        Self {
            engine: engine.clone(),
            pre: pre.clone(),
            manifest: manifest.clone(),
            digest: digest.clone(),
            config,
            config_hash,
            grants: grants.clone(),
            sends: self.sends,
            residents: self.residents.is_some().then(Residents::default),
        }
    }

    pub fn config_shared(&self) -> &Arc<BTreeMap<String, String>> {
        &self.config
    }

    /// May a call of it stop at a request?
    pub fn sends(&self) -> bool {
        self.sends
    }

    /// Does it understand all these data formats?
    pub fn reads(&self, formats: &[u32]) -> bool {
        self.manifest.reads(formats)
    }

    /// Runs one attempt. Blocks: until an instance is free, then for the budget at most (host calls not counted).
    pub fn run(&self, call: &Call, host: Box<dyn HostCalls>) -> Ran {
        match &self.residents {
            Some(residents) => residents.run(self, call, host),
            None => self.run_fresh(call, host),
        }
    }

    pub(crate) fn run_fresh(&self, call: &Call, host: Box<dyn HostCalls>) -> Ran {
        if !self.reads(&call.formats()) {
            return Ran {
                end: Ok(End::unreadable(call)),
                host,
                took: Duration::ZERO,
                memory_bytes_peak: 0,
                fuel: None,
            };
        }
        let _slot = self.engine.slot();
        let began = Instant::now();
        let mut store = self.engine.store(Guest::new(host, self));
        let world = self.pre.instantiate(&mut store);
        let end = self.called(&mut store, world, call);
        let fuel = self.engine.fuel_used(&store);
        let guest = store.into_data();
        Ran { end, host: guest.host, took: began.elapsed(), memory_bytes_peak: guest.memory_bytes_peak, fuel }
    }

    /// Calls an instance, or says why there is none.
    pub(crate) fn called(
        &self,
        store: &mut Store<Guest>,
        world: wasmtime::Result<impl Borrow<World>>,
        call: &Call,
    ) -> Result<End, HostError> {
        let end = match call.direction {
            Direction::Forward => self.handle_event(store, world, call),
            Direction::Undo => self.compensate(store, world, call),
        };
        end.map_err(|source| HostError { plugin: self.manifest.name.clone(), source })
    }

    /// Makes an instance and throws it away: do the exports have the right types, does it fit into the limits?
    pub(crate) fn try_out(&self) -> Result<(), String> {
        self.instance().map(|_| ())
    }

    /// An instance that takes several calls; see there. The error is the cause for people.
    pub fn instance(&self) -> Result<Instance, String> {
        Instance::new(self, self.engine.slot())
    }

    fn handle_event(
        &self,
        store: &mut Store<Guest>,
        world: wasmtime::Result<impl Borrow<World>>,
        call: &Call,
    ) -> Result<End, BoxError> {
        let passed = Passed::new(call, self.engine.limits().budget_ms);
        let answer = world.and_then(|world| {
            let participant = world.borrow().sagahost_plugin_participant();
            participant.call_handle_event(&mut *store, passed.event(), passed.context())
        });
        let crash = match answer {
            Ok(Ok(outcome)) => {
                let outcome = answer::outcome(outcome, self.manifest.data_format);
                return Ok(self.measure(call).end(End::Outcome(outcome), &mut store.data_mut().allowance));
            }
            Ok(Err(text)) => uncaught(&text, self.engine.limits()),
            Err(error) => self.crash(error, store)?,
        };
        Ok(End::Outcome(Outcome::Unknown { crash, uncertain: false }))
    }

    fn compensate(
        &self,
        store: &mut Store<Guest>,
        world: wasmtime::Result<impl Borrow<World>>,
        call: &Call,
    ) -> Result<End, BoxError> {
        let Some(undo) = &call.undo else {
            return Err("a compensation without evidence was asked for".into());
        };
        let passed = Passed::new(call, self.engine.limits().budget_ms);
        let answer = world.and_then(|world| {
            let participant = world.borrow().sagahost_plugin_participant();
            participant.call_compensate(&mut *store, passed.step(undo), passed.context())
        });
        let crash = match answer {
            Ok(Ok(outcome)) => {
                let outcome = answer::undo_outcome(outcome, self.manifest.data_format);
                return Ok(self.measure(call).end(End::Undo(outcome), &mut store.data_mut().allowance));
            }
            Ok(Err(text)) => uncaught(&text, self.engine.limits()),
            Err(error) => self.crash(error, store)?,
        };
        Ok(End::Undo(UndoOutcome::Unknown { crash }))
    }

    fn measure<'a>(&'a self, call: &'a Call) -> Measure<'a> {
        Measure { manifest: &self.manifest, limits: self.engine.limits(), call }
    }

    pub(crate) fn crash(&self, error: wasmtime::Error, store: &Store<Guest>) -> Result<Crash, BoxError> {
        crash::explain(error, store.data(), self.engine.limits())
    }
}
