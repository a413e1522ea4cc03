//! The boundary to the code that sagas call. Invariant: whoever runs a call changes nothing but what it was handed.

use std::{sync::Arc, time::Duration};

use sagahost_manifest::{
    host_calls::{BoxError, HostCalls},
    sends::{Began, Config},
};
use sagahost_saga::outcome::{Behaviour, Call, End};

use crate::step::Now;

/// Which code serves. A set of it never changes what it serves; another set takes its place.
pub trait Code: Send + Sync {
    /// Loading an older version the first time may take as long as compiling it.
    fn pick(&self, call: &Call) -> Pick;
    /// That very version with that very configuration: an attempt that sent a request is run again by who began it.
    fn pick_same(&self, call: &Call, began: &Began) -> Pick {
        match self.pick(call) {
            Pick::Plugin(plugin) => same(plugin, call, began),
            picked => picked,
        }
    }
}

/// The version that began an attempt, if this is its code.
pub fn same(plugin: Arc<dyn Callable>, call: &Call, began: &Began) -> Pick {
    let fits = |plugin: &Arc<dyn Callable>| plugin.behaviour() == began.by;
    if fits(&plugin) {
        return Pick::Plugin(plugin);
    }
    let configured = plugin.with_config(&began.config).filter(fits);
    configured.map_or_else(|| Pick::Nothing { why: gone(call, began) }, Pick::Plugin)
}

/// Why an attempt that sent a request cannot go on.
pub fn gone(Call { participant, .. }: &Call, Began { by, .. }: &Began) -> String {
    format!("{participant} {}, which sent a request, is not there any more", by.version)
}

/// Who takes a call.
pub enum Pick {
    Plugin(Arc<dyn Callable>),
    /// The plugin is away, or no version of it reads the data.
    Nothing {
        why: String,
    },
    /// The host could not find out: then the call has no outcome at all.
    Failed {
        error: BoxError,
    },
}

/// One version of a plugin, with its configuration.
pub trait Callable: Send + Sync {
    fn digest(&self) -> &Arc<str>;
    fn behaviour(&self) -> Behaviour;
    /// Its calls leave the host: they are journaled first, and `run` is not asked.
    fn is_outside(&self) -> bool {
        false
    }
    /// A call may stop at a request; with what such a plugin is configured.
    fn sends(&self) -> Option<Config> {
        None
    }
    /// The same code with other values.
    fn with_config(&self, _: &Config) -> Option<Arc<dyn Callable>> {
        None
    }
    fn run(&self, call: &Call, host: Box<dyn HostCalls>) -> Ran;
}

/// What became of a call.
pub struct Ran {
    /// An error is the host's: then the call has no outcome at all.
    pub end: Result<End, BoxError>,
    /// What was handed in.
    pub host: Box<dyn HostCalls>,
    pub took: Duration,
    pub now: Now,
}
