//! A call in a thread of its own, whose answer is looked for in slices. Invariant: whoever looks never waits longer than
//! it says, though the call may never come back; then its thread is left to itself.

use std::{thread, time::Duration};

use crossbeam_channel::{Receiver, bounded};

pub(super) struct Aside<T>(Receiver<T>);

impl<T: Send + 'static> Aside<T> {
    /// None: there is no thread for it.
    pub fn start(name: &str, call: impl FnOnce() -> T + Send + 'static) -> Option<Self> {
        let (answer, answered) = bounded(1);
        let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ = answer.send(call());
        });
        started.is_ok().then_some(Self(answered))
    }

    pub fn answer(&self, wait: Duration) -> Option<T> {
        self.0.recv_timeout(wait).ok()
    }
}
