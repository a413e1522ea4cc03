//! A plugin of the sandbox as code that the testkit's simulated app calls. Invariant: what is called here is what a
//! host calls, with the same limits; only store, counters and time are the app's.

use std::{any::Any, sync::Arc};

use sagahost_manifest::{
    Manifest,
    counter::CounterFault,
    host_calls::{Entries, HostCalls, HostFault, Level},
};
use sagahost_saga::outcome::{Behaviour, Call};
use sagahost_sandbox::Plugin;
use sagahost_testkit::{
    Code, Ran,
    values::{Attempt, Line, LogLevel},
};

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
        let ran = self.0.run(call, Box::new(Calls(attempt)));
        let end = ran.end.map_err(|error| error.to_string())?;
        let calls = ran.host.into_any().downcast::<Calls>().expect("the sandbox gives back what it was given");
        Ok(Ran { end, attempt: calls.0, took: ran.took })
    }
}

struct Calls(Attempt);

fn fault(fault: CounterFault) -> HostFault {
    HostFault::Guest(fault.to_string())
}

impl HostCalls for Calls {
    fn log(&mut self, level: Level, message: &str, fields: &[(String, String)]) {
        let level = match level {
            Level::Trace => LogLevel::Trace,
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        self.0.log(Line { level, message: message.to_owned(), fields: fields.to_vec() });
    }
    fn store_get(&mut self, key: &str) -> Result<Option<Arc<[u8]>>, HostFault> {
        Ok(self.0.get(key))
    }
    fn store_put(&mut self, key: &str, value: Vec<u8>) -> Result<(), HostFault> {
        self.0.put(key, value);
        Ok(())
    }
    fn store_delete(&mut self, key: &str) -> Result<(), HostFault> {
        self.0.delete(key);
        Ok(())
    }
    fn store_scan(&mut self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Entries, HostFault> {
        Ok(self.0.scan(prefix, after, limit))
    }
    fn counter_ensure(&mut self, name: &str, initial: i64) -> Result<(), HostFault> {
        self.0.ensure(name, initial);
        Ok(())
    }
    fn counter_take(&mut self, name: &str, amount: u64) -> Result<bool, HostFault> {
        self.0.take(name, amount).map_err(fault)
    }
    fn counter_give(&mut self, name: &str, amount: u64) -> Result<(), HostFault> {
        self.0.give(name, amount).map_err(fault)
    }
    fn counter_read(&mut self, name: &str) -> Result<Option<i64>, HostFault> {
        Ok(self.0.read(name))
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
