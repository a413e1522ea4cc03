//! The sandbox as code that the processor can call.

use std::sync::Arc;

use sagahost_manifest::host_calls::HostCalls;
use sagahost_processor::{
    code::{Callable, Code, Pick, Ran},
    step::Now,
};
use sagahost_saga::outcome::{Behaviour, Call};
use sagahost_sandbox::{
    Plugin,
    registry::{self, Registry},
};

/// Tells the time.
pub type NowFn = Arc<dyn Fn() -> Now + Send + Sync>;

/// What a registry serves.
pub struct Sandboxed {
    pub registry: Registry,
    pub now: NowFn,
}

struct Version {
    plugin: Arc<Plugin>,
    now: NowFn,
}

impl Code for Sandboxed {
    fn pick(&self, call: &Call) -> Pick {
        match self.registry.pick(&call.participant, &call.formats(), call.direction) {
            registry::Pick::Plugin(plugin) => Pick::Plugin(Arc::new(Version { plugin, now: self.now.clone() })),
            registry::Pick::Nothing { why } => Pick::Nothing { why },
        }
    }
}

impl Callable for Version {
    fn digest(&self) -> &Arc<str> {
        self.plugin.digest()
    }

    fn behaviour(&self) -> Behaviour {
        self.plugin.behaviour()
    }

    fn run(&self, call: &Call, host: Box<dyn HostCalls>) -> Ran {
        let ran = self.plugin.run(call, host);
        Ran { end: ran.end.map_err(Into::into), host: ran.host, took: ran.took, now: (self.now)() }
    }
}
