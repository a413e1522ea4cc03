//! What a test sets and what its operator asks for. Invariant: a name that does not exist is refused, with the one that
//! was probably meant.

use std::{sync::Arc, time::Duration};

use sagahost_manifest::report::{Fault, hint};
use sagahost_saga::{
    id::{Direction, Participant},
    input::{Command, Input},
};

use super::{Death, Engine};
use crate::protocol::{self, Done, Happened, Request};

const OPERATOR: &str = "test";

impl Engine {
    pub(super) fn set(&mut self, request: Request) -> Result<(), String> {
        match request {
            Request::Config { plugin, key, value } => self.configure(plugin.as_deref(), key, value)?,
            Request::Counter { plugin, name, value } => {
                let plugin = self.named(plugin.as_deref())?;
                Arc::make_mut(self.world.values.entry(plugin).or_default()).counters.insert(name, value);
            }
            Request::Store { plugin, key, value } => {
                let plugin = self.named(plugin.as_deref())?;
                let bytes = value.to_string().into_bytes().into();
                Arc::make_mut(self.world.values.entry(plugin).or_default()).store.insert(key, bytes);
            }
            Request::SagaIdAt { pointer } if pointer.starts_with('/') => self.saga_id_at = Some(pointer),
            Request::SagaIdAt { pointer } => {
                return Err(format!("`{pointer}` is not a JSON pointer: one begins with `/`, as in /orderId"));
            }
            Request::SagaDeadline { ms } => {
                self.topology.bounds.saga_deadline = Some(Duration::from_millis(ms));
            }
            Request::Hold { kind } => {
                self.hold.insert(kind.as_str().into());
            }
            Request::Answer { method, url, answer, times } => self.world.outside.script(method, url, answer, times)?,
            Request::Kill { plugin, during, first, last } => {
                let participant = self.named(plugin.as_deref())?;
                let direction = match during {
                    protocol::Direction::Handle => Direction::Forward,
                    protocol::Direction::Compensate => Direction::Undo,
                };
                self.deaths.push(Death { participant, direction, attempts: first..=last });
            }
            _ => return Err("this request sets nothing".to_owned()),
        }
        Ok(())
    }

    fn configure(&mut self, plugin: Option<&str>, key: String, value: serde_json::Value) -> Result<(), String> {
        let name = match plugin {
            Some(_) => self.named(plugin)?,
            None => self.owner_of(&key)?,
        };
        let plugin = self.plugins.get_mut(&name).expect("a name that was found is there");
        if !plugin.manifest.config.contains_key(&key) {
            let known = plugin.manifest.config.keys().map(String::as_str);
            return Err(format!("plugin {name} has no configuration key `{key}`; {}", hint(&key, known)));
        }
        plugin.settings.config.insert(key, value);
        plugin.code = None;
        Ok(())
    }

    /// The only plugin that has this configuration key.
    fn owner_of(&self, key: &str) -> Result<Participant, String> {
        let owners = self.plugins.iter().filter(|(_, plugin)| plugin.manifest.config.contains_key(key));
        match owners.map(|(name, _)| name).collect::<Vec<_>>()[..] {
            [owner] => Ok(owner.clone()),
            [] => {
                let known = self.plugins.values().flat_map(|plugin| plugin.manifest.config.keys());
                let known: Vec<&str> = known.map(String::as_str).collect();
                Err(format!("no plugin has a configuration key `{key}`; {}", hint(key, known)))
            }
            ref several => {
                let names: Vec<&str> = several.iter().map(|name| name.as_str()).collect();
                Err(format!("several plugins have a configuration key `{key}`, so name one: {}", names.join(", ")))
            }
        }
    }

    pub(super) fn operate(&mut self, request: Request) -> Result<Done, String> {
        let by = OPERATOR.to_owned();
        let (saga, command) = match request {
            Request::Cancel { saga, reason } => (saga, Command::Cancel { by, reason }),
            Request::Retry { saga } => (saga, Command::Retry { by }),
            Request::Resolve { saga, accept, plugin, reason } => {
                let participant = plugin.as_deref().map(|name| self.named(Some(name))).transpose()?;
                (saga, Command::Resolve { by, reason, accept, participant })
            }
            _ => return Err("no operator asks for this".to_owned()),
        };
        self.ready()?;
        let saga = saga.into();
        self.world.current = Clone::clone(&saga);
        let mut happened = Happened::default();
        self.chain(&saga, Input::Operator(command), &mut happened)?;
        self.settle(&mut happened)?;
        Ok(self.happened(&saga, happened))
    }

    /// Code of every plugin, loaded with its settings.
    pub(super) fn ready(&mut self) -> Result<(), String> {
        for (name, plugin) in self.plugins.iter_mut().filter(|(_, plugin)| plugin.code.is_none()) {
            let refused = |faults: Vec<Fault>| format!("plugin {name} is not admitted:{}", crate::faults(&faults));
            plugin.code = Some((plugin.load)(&plugin.settings).map_err(refused)?);
        }
        Ok(())
    }
}
