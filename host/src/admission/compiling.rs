//! Files whose code is being compiled, beside all else that a host does. Invariant: each file is compiled once, few at a time,
//! and the signal of whoever waits for one is raised when it is done, whatever came of it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    thread,
    time::Duration,
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
/// Until a file is compiled again that this machine could not compile: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));

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
        self.begin(&mut state);
        compiling
    }

    /// Another thread, where one may run.
    fn begin(self: &Arc<Self>, state: &mut State) {
        if state.threads >= AT_ONCE {
            return;
        }
        let compilers = self.clone();
        match thread::Builder::new().name("compiles".to_owned()).spawn(move || compilers.work()) {
            Ok(_) => state.threads += 1,
            // One that runs comes to it.
            Err(error) if state.threads > 0 => warn!(%error, "failed to start a thread that waits for a compiler"),
            Err(error) => {
                error!(%error, "failed to start a thread that waits for a compiler; trying again");
                for (digest, _) in state.waiting.drain(..) {
                    state.all.remove(&digest);
                }
            }
        }
    }

    /// Until nothing waits.
    fn work(self: &Arc<Self>) {
        while let Some((digest, bytes)) = self.next() {
            self.compile_now(&digest, &bytes);
            let mut state = self.state.lock();
            state.all.remove(&digest);
            state.changed.iter().for_each(|changed| changed.raise());
        }
    }

    /// What came of it is known to the engine.
    fn compile_now(self: &Arc<Self>, digest: &str, bytes: &[u8]) {
        let (mut pause, longest) = PAUSE;
        while let Err(error) = self.engine.compile(digest, bytes)
            && error.passing
        {
            warn!(digest, %error, "failed to compile a plugin; trying again in {} s", pause.as_secs());
            // Others have this thread's turn until then.
            let mut state = self.state.lock();
            state.threads -= 1;
            if !state.waiting.is_empty() {
                self.begin(&mut state);
            }
            drop(state);
            thread::sleep(pause);
            pause = (pause * 2).min(longest);
            self.state.lock().threads += 1;
        }
    }

    fn next(&self) -> Option<(Arc<str>, Arc<[u8]>)> {
        let mut state = self.state.lock();
        let next = state.waiting.pop_front();
        state.threads -= usize::from(next.is_none());
        next
    }
}
