//! One wasmtime engine for all plugins: pooled instances, deterministic settings, deadlines.
//! Invariant: compiled code is loaded only where this engine's compiler made it, or the cache (`cache`) vouches for it.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    num::NonZeroUsize,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use parking_lot::{Condvar, Mutex};
use sagahost_manifest::Limits;
use thiserror::Error;
use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, Store, UpdateDeadline,
    component::{Component, HasSelf, Linker},
};

use crate::{
    bindings::{World, WorldPre},
    cache::CodeCache,
    compiler::{CompileError, Compiler},
    crash,
    guest::Guest,
    turns::{Clock, Turns},
};

/// Files that cannot be compiled and are remembered: as many as nobody has at one time.
const REFUSED_MAX: usize = 1_000;
/// How often running calls look at their clock.
const TICK: Duration = Duration::from_millis(5);

#[derive(Debug, Error)]
pub enum EngineError {
    #[error("the limits do not fit together: {0}")]
    Limits(String),
    #[error(
        "failed to set up the sandbox: {0} (each of instances-max times memories-max memories reserves 4 GiB of address \
         space, not of memory: lower them where `ulimit -v` is set)"
    )]
    Wasmtime(String),
}

pub struct Engine {
    wasmtime: wasmtime::Engine,
    linker: Linker<Guest>,
    limits: Arc<Limits>,
    meter: Meter,
    compiler: Compiler,
    /// What was compiled, until nobody wants it any more; faults of files too, so that nobody tries again.
    compiled: Mutex<BTreeMap<Arc<str>, Result<Component, CompileError>>>,
    cache: Option<CodeCache>,
    /// Part of a cache file's name: code compiled by another version or for another processor is not looked at.
    compatibility: String,
    /// For instances of one call.
    free: Mutex<u32>,
    freed: Condvar,
    /// For instances that stay, beside those of one call: none of these waits for one of them.
    free_to_stay: Mutex<u32>,
    turns: Arc<Turns>,
}

/// Does compiled code count what it executes? That costs time, so it is for the law checker alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meter {
    Off,
    Fuel,
}

impl Engine {
    /// One that compiles in this process. `cache`: where compiled code is kept between starts; none: nowhere.
    pub fn new(limits: Limits, cache: Option<CodeCache>) -> Result<Arc<Self>, EngineError> {
        Self::with_compiler(limits, cache, Compiler::Here)
    }

    pub fn with_compiler(
        limits: Limits,
        cache: Option<CodeCache>,
        compiler: Compiler,
    ) -> Result<Arc<Self>, EngineError> {
        Self::with(limits, cache, Meter::Off, compiler)
    }

    /// One whose calls say how much fuel they took: the same number on every machine, which a time never is. Its code is
    /// slower, and never serves.
    pub fn metered(limits: Limits) -> Result<Arc<Self>, EngineError> {
        Self::with(limits, None, Meter::Fuel, Compiler::Here)
    }

    fn with(
        limits: Limits,
        cache: Option<CodeCache>,
        meter: Meter,
        compiler: Compiler,
    ) -> Result<Arc<Self>, EngineError> {
        let faults: Vec<String> =
            limits.faults().into_iter().map(|(field, reason)| format!("{field} {reason}")).collect();
        if !faults.is_empty() {
            return Err(EngineError::Limits(faults.join("; ")));
        }
        let wasmtime = wasmtime::Engine::new(&config(&limits, meter))
            .map_err(|error| EngineError::Wasmtime(format!("{error:#}")))?;
        let mut linker = Linker::new(&wasmtime);
        World::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)
            .map_err(|error| EngineError::Wasmtime(format!("{error:#}")))?;
        tick(&wasmtime).map_err(|error| EngineError::Wasmtime(format!("failed to start a thread: {error}")))?;
        let turns = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let mut hasher = DefaultHasher::new();
        wasmtime.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Arc::new(Self {
            linker,
            compiler,
            compiled: Mutex::default(),
            cache,
            compatibility: format!("{:016x}", hasher.finish()),
            free: Mutex::new(limits.instances_max),
            freed: Condvar::new(),
            free_to_stay: Mutex::new(limits.instances_max),
            turns: Arc::new(Turns::new(turns)),
            limits: Arc::new(limits),
            meter,
            wasmtime,
        }))
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn limits_shared(&self) -> Arc<Limits> {
        self.limits.clone()
    }

    /// A place for one instance; waits until there is one. Waiting is backpressure, no attempt.
    pub(crate) fn slot(self: &Arc<Self>) -> Slot {
        let mut free = self.free.lock();
        self.freed.wait_while(&mut free, |free| *free == 0);
        *free -= 1;
        Slot { engine: self.clone(), stays: false }
    }

    /// A place for an instance that stays, if there is one.
    pub(crate) fn slot_to_stay(self: &Arc<Self>) -> Option<Slot> {
        let mut free = self.free_to_stay.lock();
        *free = free.checked_sub(1)?;
        Some(Slot { engine: self.clone(), stays: true })
    }

    /// A store for one call, with all limits set. (The default deadline would stop even the instantiation.)
    pub(crate) fn store(&self, guest: Guest) -> Store<Guest> {
        let mut store = Store::new(&self.wasmtime, guest);
        store.limiter(|guest| guest);
        self.refill(&mut store);
        store
    }

    /// What one call may use, from now on.
    pub(crate) fn refill(&self, store: &mut Store<Guest>) {
        let mut clock = Clock::new(self.turns.clone(), self.limits.budget());
        store.epoch_deadline_callback(move |_| {
            Ok(if clock.tick() { UpdateDeadline::Continue(1) } else { UpdateDeadline::Interrupt })
        });
        store.set_epoch_deadline(1);
        // Of one host call, or of what the call returns: lists are counted by what they take here, before they are made.
        store.set_hostcall_fuel(self.limits.outcome_bytes_max.saturating_add(64 * 1024));
        if self.meter == Meter::Fuel {
            store.set_fuel(u64::MAX).expect("this engine counts fuel");
        }
    }

    /// Its call is over: a turn that it had is free for others, until the next refill.
    pub(crate) fn rests(store: &mut Store<Guest>) {
        store.epoch_deadline_trap();
    }

    /// Fuel taken since the last refill; none where nobody counts.
    pub(crate) fn fuel_used(&self, store: &Store<Guest>) -> Option<u64> {
        store.get_fuel().ok().map(|left| u64::MAX - left)
    }

    /// Is its code there, or known not to come? Then `compile` answers at once.
    pub fn is_compiled(&self, digest: &str) -> bool {
        self.compiled.lock().contains_key(digest) || self.cached_code(digest).is_some()
    }

    /// Compiles a component, unless that was done already.
    ///
    /// # Errors
    /// It cannot be compiled, or not within the limits.
    pub fn compile(&self, digest: &str, bytes: &[u8]) -> Result<Component, CompileError> {
        if let Some(known) = self.compiled.lock().get(digest) {
            return known.clone();
        }
        if let Some(component) = self.cached_code(digest) {
            return Ok(component);
        }
        let compiled = self.compile_anew(digest, bytes);
        if !compiled.as_ref().is_err_and(|error| error.passing) {
            let mut all = self.compiled.lock();
            if all.values().filter(|known| known.is_err()).count() >= REFUSED_MAX {
                all.retain(|_, known| known.is_ok());
            }
            all.insert(digest.into(), compiled.clone());
        }
        compiled
    }

    fn cached_code(&self, digest: &str) -> Option<Component> {
        let code = self.cache.as_ref()?.get(digest, &self.compatibility)?;
        let loaded = self.load(&code).inspect_err(|error| {
            tracing::warn!(digest, %error, "compiled code in the cache is of no use: compiling again");
        });
        let component = loaded.ok()?;
        self.compiled.lock().insert(digest.into(), Ok(component.clone()));
        Some(component)
    }

    fn compile_anew(&self, digest: &str, bytes: &[u8]) -> Result<Component, CompileError> {
        let code = self.compiler.compile(bytes, &self.wasmtime, &self.limits, self.meter)?;
        if let Some(cache) = &self.cache {
            cache.put(digest, &self.compatibility, &code);
        }
        self.load(&code)
    }

    /// Removes compiled code, of whatever engine, that was written before `since` and whose digest is not `wanted`;
    /// returns how many files.
    pub fn forget_compiled(&self, wanted: impl Fn(&str) -> bool, since: SystemTime) -> io::Result<usize> {
        self.compiled.lock().retain(|digest, compiled| compiled.is_err() || wanted(digest));
        self.cache.as_ref().map_or(Ok(0), |cache| cache.forget(wanted, since))
    }

    #[expect(
        unsafe_code,
        reason = "the code comes from this engine's compiler, or from a cache file with the mark of this user's key"
    )]
    fn load(&self, code: &[u8]) -> Result<Component, CompileError> {
        // SAFETY: see the reason above; the key can be read by this host's user alone, and does not lie beside the cache.
        unsafe { Component::deserialize(&self.wasmtime, code) }.map_err(CompileError::from)
    }

    /// Imports and exports of the component against the world.
    pub(crate) fn link(&self, component: &Component) -> wasmtime::Result<WorldPre<Guest>> {
        WorldPre::new(self.linker.instantiate_pre(component)?)
    }
}

/// Gives its place back when dropped.
pub(crate) struct Slot {
    engine: Arc<Engine>,
    stays: bool,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.stays {
            *self.engine.free_to_stay.lock() += 1;
        } else {
            *self.engine.free.lock() += 1;
            self.engine.freed.notify_one();
        }
    }
}

pub(crate) fn config(limits: &Limits, meter: Meter) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    // As many stay as are made for one call.
    let instances = limits.instances_max.saturating_mul(2);
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(limits.core_instances_max))
        .total_memories(instances.saturating_mul(limits.memories_max))
        .total_tables(instances.saturating_mul(limits.tables_max))
        .max_core_instances_per_component(limits.core_instances_max)
        .max_memories_per_component(limits.memories_max)
        .max_tables_per_component(limits.tables_max)
        .max_memories_per_module(limits.memories_max)
        .max_tables_per_module(limits.tables_max)
        .max_component_instance_size(limits.instance_bytes_max)
        .max_core_instance_size(limits.instance_bytes_max)
        .max_memory_size(limits.memory_bytes_max)
        .table_elements(limits.table_elements_max)
        .linear_memory_keep_resident(limits.keep_resident_bytes)
        .table_keep_resident(64 * 1024);
    // Without it (kernels before 6.7) keeping pages resident costs more than it saves.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes);
    } else {
        pool.linear_memory_keep_resident(0).table_keep_resident(0);
    }
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .concurrency_support(false)
        .epoch_interruption(true)
        .consume_fuel(meter == Meter::Fuel)
        .max_wasm_stack(limits.stack_bytes_max)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_memory64(false)
        .wasm_backtrace_max_frames(NonZeroUsize::new(crash::FRAMES_MAX));
    config
}

/// Opens what the engine needs of `/proc/self`, before the process becomes one that even its own user may not look into.
pub fn prepare_process() {
    PoolingAllocationConfig::is_pagemap_scan_available();
}

/// Moves the epoch on as long as the engine lives.
fn tick(engine: &wasmtime::Engine) -> io::Result<()> {
    let engine = engine.weak();
    thread::Builder::new().name("epochs".to_owned()).spawn(move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    })?;
    Ok(())
}
