//! The threads that all of the host's HTTP shares. Invariant: they are few, and what runs on them ends when they are dropped.

use std::{future::Future, io, time::Duration};

use tokio::{
    runtime::{Builder, Handle},
    task::JoinHandle,
};

const WORKERS: usize = 2;
/// Threads that look up names, which cannot be done without one.
const RESOLVERS_MAX: usize = 16;
const FAREWELL: Duration = Duration::from_secs(1);

pub struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    /// # Errors
    /// Its threads cannot be started.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(RESOLVERS_MAX)
            .thread_name("net")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle().spawn(future)
    }

    /// For a thread that is none of these.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.handle().block_on(future)
    }

    pub fn handle(&self) -> &Handle {
        self.0.as_ref().expect("it is taken away only when this is dropped").handle()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Futures go at once; a name that is being looked up may take its time.
            runtime.shutdown_timeout(FAREWELL);
        }
    }
}
