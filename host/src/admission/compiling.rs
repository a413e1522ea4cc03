//! Files whose code is being compiled, beside all else that a host does. Invariant: each file is compiled once, few at a time,
//! and the signal of whoever waits for one is raised when it is done, whatever came of it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    thread,
};

use parking_lot::Mutex;
use sagahost_manifest::Manifest;
use sagahost_processor::step::Signal;
use sagahost_saga::id::Time;
use sagahost_sandbox::Engine;
use sagahost_serving::admission::Compiling;
use tracing::{error, warn};

/// At one time: so that one file that takes long does not hold up the next.
const AT_ONCE: usize = 2;

/// Shared with the threads that wait for compilers.
pub(super) struct Compilers {
    engine: Arc<Engine>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(Arc<str>, Arc<[u8]>)>,
    /// By digest, those that wait too.
    all: BTreeMap<Arc<str>, Compiling>,
    threads: usize,
    /// Raised when something has been compiled.
    changed: Option<Arc<Signal>>,
}

impl Compilers {
    pub fn new(engine: Arc<Engine>) -> Arc<Self> {
        Arc::new(Self { engine, state: Mutex::default() })
    }

    pub fn tell(&self, changed: Arc<Signal>) {
        self.state.lock().changed = Some(changed);
    }

    /// None: it is not, or no longer.
    pub fn under_way(&self, digest: &str) -> Option<Compiling> {
        self.state.lock().all.get(digest).cloned()
    }

    /// Compiles it, unless that is under way.
    pub fn compile(
        self: &Arc<Self>,
        digest: &Arc<str>,
        bytes: Arc<[u8]>,
        manifest: Option<Manifest>,
        since: Time,
    ) -> Compiling {
        let mut state = self.state.lock();
        if let Some(compiling) = state.all.get(digest) {
            return compiling.clone();
        }
        let compiling = Compiling { digest: digest.clone(), manifest: manifest.map(Arc::new), since };
        state.all.insert(digest.clone(), compiling.clone());
        state.waiting.push_back((digest.clone(), bytes));
        if state.threads < AT_ONCE {
            let compilers = self.clone();
            let spawned = thread::Builder::new().name("compiles".to_owned()).spawn(move || compilers.work());
            match spawned {
                Ok(_) => state.threads += 1,
                // One that runs comes to it.
                Err(error) if state.threads > 0 => warn!(%error, "failed to start a thread that waits for a compiler"),
                Err(error) => {
                    error!(%error, "failed to start a thread that waits for a compiler; trying again");
                    state.all.remove(digest);
                    state.waiting.clear();
                }
            }
        }
        compiling
    }

    /// Until nothing waits.
    fn work(&self) {
        while let Some((digest, bytes)) = self.next() {
            // What came of it is known to the engine.
            let _ = self.engine.compile(&digest, &bytes);
            let mut state = self.state.lock();
            state.all.remove(&digest);
            state.changed.iter().for_each(|changed| changed.raise());
        }
    }

    fn next(&self) -> Option<(Arc<str>, Arc<[u8]>)> {
        let mut state = self.state.lock();
        let next = state.waiting.pop_front();
        state.threads -= usize::from(next.is_none());
        next
    }
}
