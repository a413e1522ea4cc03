//! A plugin of the sandbox as code that the testkit's simulated app calls. Invariant: what is called here is what a
//! host calls, with the same limits; only store, counters and time are the app's.

use std::sync::Arc;

use sagahost_manifest::{Manifest, host_calls::HostCalls};
use sagahost_saga::outcome::{Behaviour, Call};
use sagahost_sandbox::Plugin;
use sagahost_testkit::{Code, Ran};

/// An admitted plugin.
pub struct Component(pub Arc<Plugin>);

impl Code for Component {
    fn manifest(&self) -> &Arc<Manifest> {
        self.0.manifest()
    }

    fn behaviour(&self) -> Behaviour {
        self.0.behaviour()
    }

    fn run(&self, call: &Call, host: Box<dyn HostCalls>) -> Result<Ran, String> {
        let ran = self.0.run(call, host);
        Ok(Ran { end: ran.end.map_err(|error| error.to_string())?, host: ran.host, took: ran.took })
    }
}
