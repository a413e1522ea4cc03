//! A plugin of the sandbox as code that the testkit's simulated app calls. Invariant: what is called here is what a
//! host calls, with the same limits; only store, counters and time are the app's.

use std::sync::Arc;

use sagahost_manifest::Manifest;
use sagahost_saga::outcome::{Behaviour, Call};
use sagahost_sandbox::Plugin;
use sagahost_testkit::{Code, Ran, values::Attempt};

/// An admitted plugin.
pub struct Component(pub Arc<Plugin>);

impl Code for Component {
    fn manifest(&self) -> &Arc<Manifest> {
        self.0.manifest()
    }

    fn behaviour(&self) -> Behaviour {
        self.0.behaviour()
    }

    fn run(&self, call: &Call, attempt: Attempt) -> Result<Ran, String> {
        let ran = self.0.run(call, Box::new(attempt));
        let end = ran.end.map_err(|error| error.to_string())?;
        let attempt = ran.host.into_any().downcast::<Attempt>().expect("the sandbox gives back what it was given");
        Ok(Ran { end, attempt: *attempt, took: ran.took })
    }
}
