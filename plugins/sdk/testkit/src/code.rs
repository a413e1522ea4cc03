//! Code that can be called, wherever it runs. Invariant: an attempt changes nothing but the host calls that it is
//! given; whoever calls decides what becomes of those.

use std::{sync::Arc, time::Duration};

use sagahost_manifest::{Manifest, host_calls::HostCalls};
use sagahost_saga::outcome::{Behaviour, Call, End};

/// A plugin: natively compiled into the test ([`Native`](crate::Native)), or a component in the sandbox.
pub trait Code: Send {
    /// What it says of itself.
    fn manifest(&self) -> &Arc<Manifest>;

    /// Which code with which configuration.
    fn behaviour(&self) -> Behaviour;

    /// Runs one attempt on these host calls, and gives them back. A trap is an end like any other; `Err`: the host could not do
    /// its job, so there was no attempt.
    fn run(&self, call: &Call, host: Box<dyn HostCalls>) -> Result<Ran, String>;
}

/// An attempt that is over.
pub struct Ran {
    /// Measured against manifest and limits.
    pub end: End,
    /// What was given.
    pub host: Box<dyn HostCalls>,
    /// Real time.
    pub took: Duration,
}
