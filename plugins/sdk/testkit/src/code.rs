//! Code that can be called, wherever it runs. Invariant: an attempt changes nothing but the [`Attempt`] that it is
//! given; whoever calls decides what becomes of that.

use std::{sync::Arc, time::Duration};

use sagahost_manifest::Manifest;
use sagahost_saga::outcome::{Behaviour, Call, End};

use crate::values::Attempt;

/// A plugin: natively compiled into the test ([`Native`](crate::Native)), or a component in the sandbox.
pub trait Code: Send {
    /// What it says of itself.
    fn manifest(&self) -> &Arc<Manifest>;

    /// Which code with which configuration.
    fn behaviour(&self) -> Behaviour;

    /// Runs one attempt. A trap is an end like any other; `Err`: the host could not do its job, so there was no attempt.
    fn run(&self, call: &Call, attempt: Attempt) -> Result<Ran, String>;
}

/// An attempt that is over.
#[derive(Debug)]
pub struct Ran {
    /// Measured against manifest and limits.
    pub end: End,
    /// What it read, wrote and logged.
    pub attempt: Attempt,
    /// Real time.
    pub took: Duration,
}
