//! Which code serves a participant. Invariant: a registry never changes what it serves; whoever replaces a plugin makes
//! a new one, and calls in flight keep the code they began with.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use sagahost_manifest::{Manifest, settings::Settings};
use sagahost_saga::id::{Direction, Participant};

use crate::{
    admission::{Admitted, admit_stored},
    call::Plugin,
    digests::{DigestStore, Stored},
    engine::Engine,
};

/// A snapshot; cloning it shares everything.
#[derive(Clone)]
pub struct Registry {
    serving: BTreeMap<Participant, Arc<Plugin>>,
    /// Every version in the data directory, newest first.
    stored: Arc<[Stored]>,
    shelf: Arc<Shelf>,
}

/// Loads stored versions when they are asked for.
struct Shelf {
    engine: Arc<Engine>,
    digests: DigestStore,
    settings: BTreeMap<String, Settings>,
    /// None: it cannot be loaded; said once.
    loaded: Mutex<HashMap<Arc<str>, Option<Arc<Plugin>>>>,
}

/// Who takes a call.
#[derive(Clone, Debug)]
pub enum Pick {
    Plugin(Arc<Plugin>),
    /// The plugin is not in the directory, or no version of it reads the data.
    Nothing {
        why: String,
    },
}

impl Registry {
    pub fn new(
        admitted: &[Admitted],
        stored: Vec<Stored>,
        engine: Arc<Engine>,
        digests: DigestStore,
        settings: BTreeMap<String, Settings>,
    ) -> Self {
        let serving = admitted.iter().map(|admitted| (admitted.plugin.name(), admitted.plugin.clone())).collect();
        let shelf = Shelf { engine, digests, settings, loaded: Mutex::default() };
        Self { serving, stored: stored.into(), shelf: Arc::new(shelf) }
    }

    pub fn serving(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        self.serving.values()
    }

    pub fn plugin(&self, participant: &Participant) -> Option<&Arc<Plugin>> {
        self.serving.get(participant)
    }

    /// Manifests of plugins that were admitted before and are away now, newest version of each.
    pub fn away(&self) -> BTreeMap<Participant, &Manifest> {
        let mut away = BTreeMap::new();
        for stored in self.stored.iter() {
            let name = Participant::new(&stored.manifest.name);
            if !self.serving.contains_key(&name) {
                away.entry(name).or_insert(&stored.manifest);
            }
        }
        away
    }

    /// The code for a call that must read `formats`: the serving one, else the newest stored one that can. A participant
    /// whose file was taken away handles nothing, for the operator wants it to pause; but what it did is still undone,
    /// by the code in the store.
    /// Loading a stored version the first time takes as long as compiling it.
    pub fn pick(&self, participant: &Participant, formats: &[u32], direction: Direction) -> Pick {
        match (self.serving.get(participant), direction) {
            (Some(serving), _) if serving.reads(formats) => return Pick::Plugin(serving.clone()),
            (None, Direction::Forward) => {
                return Pick::Nothing { why: format!("plugin {participant} is not in the plugin directory") };
            }
            (Some(_), _) | (None, Direction::Undo) => {}
        }
        let stored = self.stored.iter().filter(|stored| stored.manifest.name == participant.as_str());
        let mut readable = stored.filter(|stored| stored.manifest.reads(formats));
        readable.find_map(|stored| self.shelf.load(stored)).map_or_else(
            || {
                let call = match direction {
                    Direction::Forward => "handle-event",
                    Direction::Undo => "compensate",
                };
                let why = format!("no version of plugin {participant} reads data formats {formats:?}, for {call}");
                Pick::Nothing { why }
            },
            Pick::Plugin,
        )
    }
}

impl Shelf {
    fn load(&self, stored: &Stored) -> Option<Arc<Plugin>> {
        // Held while compiling: two workers that need the same old version should not compile it twice.
        let mut loaded = self.loaded.lock();
        loaded.entry(stored.digest.clone()).or_insert_with(|| self.read(stored)).clone()
    }

    fn read(&self, stored: &Stored) -> Option<Arc<Plugin>> {
        let path = self.digests.path(&stored.digest);
        let bytes = match self.digests.get(&stored.digest) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return None,
            Err(error) => {
                tracing::error!(%error, "an older version of plugin {} is lost", stored.manifest.name);
                return None;
            }
        };
        admit_stored(bytes, &path, &self.engine, &self.settings)
            .map(|admitted| admitted.plugin)
            .map_err(
                |report| tracing::error!(%report, "an older version of plugin {} is of no use", stored.manifest.name),
            )
            .ok()
    }
}
