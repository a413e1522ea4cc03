//! Which code serves a participant. Invariant: a registry never changes what it serves; whoever replaces a plugin makes
//! a new one, and calls in flight keep the code they began with.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use sagahost_manifest::sends::Began;
use sagahost_processor::code::{Code, Pick, gone, same};
use sagahost_saga::{
    id::{Direction, Participant},
    outcome::{Behaviour, Call},
};

use crate::admission::{self, Admission, Admitted, Archive, ArchiveError, Archived, Plugin, PluginSettings};

/// Why no code takes a call.
#[derive(Debug)]
enum NoCode {
    /// There is none.
    Absent(String),
    /// Whether there is any is not known: the data directory could not be read.
    Unknown(ArchiveError),
}

pub(crate) struct Registry {
    serving: BTreeMap<Participant, Arc<Plugin>>,
    /// Every version in the data directory, newest first.
    stored: Vec<Archived>,
    shelf: Shelf,
}

/// Loads stored versions when they are asked for.
pub(crate) struct Shelf {
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) archive: Arc<dyn Archive>,
    pub(crate) settings: PluginSettings,
    pub(crate) loaded: Mutex<HashMap<Arc<str>, Arc<Loaded>>>,
}

/// A version that was asked for. Held while it is compiled: two workers that need the same one do not compile it twice, and
/// those that need another do not wait for it. Inner None: it cannot be loaded; said once.
type Loaded = Mutex<Option<Option<Arc<Plugin>>>>;

impl Registry {
    pub(crate) fn new<'a>(
        serving: impl IntoIterator<Item = &'a Admitted>,
        stored: Vec<Archived>,
        shelf: Shelf,
    ) -> Self {
        let serving = serving.into_iter().map(|admitted| (admitted.plugin.name(), admitted.plugin.clone())).collect();
        Self { serving, stored, shelf }
    }

    /// The code for a call that must read `formats`: the serving one, else the newest stored one that can. A participant
    /// whose file was taken away handles nothing, for the operator wants it to pause; but what it did is still undone,
    /// by the code in the data directory.
    /// Loading a stored version the first time takes as long as compiling it.
    fn plugin(&self, participant: &Participant, formats: &[u32], direction: Direction) -> Result<Arc<Plugin>, NoCode> {
        match (self.serving.get(participant), direction) {
            (Some(serving), _) if serving.reads(formats) => return Ok(serving.clone()),
            (None, Direction::Forward) => {
                return Err(NoCode::Absent(format!("plugin {participant} is not in the plugin directory")));
            }
            (Some(_), _) | (None, Direction::Undo) => {}
        }
        let stored = self.stored.iter().filter(|stored| stored.manifest.name == participant.as_str());
        for stored in stored.filter(|stored| stored.manifest.reads(formats)) {
            if let Some(plugin) = self.shelf.load(stored).map_err(NoCode::Unknown)? {
                return Ok(plugin);
            }
        }
        let call = match direction {
            Direction::Forward => "handle-event",
            Direction::Undo => "compensate",
        };
        let why = format!("no version of plugin {participant} reads data formats {formats:?}, for {call}");
        Err(NoCode::Absent(why))
    }
}

impl Code for Registry {
    fn pick(&self, call: &Call) -> Pick {
        match self.plugin(&call.participant, &call.formats(), call.direction) {
            Ok(plugin) => Pick::Plugin(plugin.code.clone()),
            Err(NoCode::Absent(why)) => Pick::Nothing { why },
            Err(NoCode::Unknown(error)) => Pick::Failed { error: Box::new(error) },
        }
    }

    fn pick_same(&self, call: &Call, began: &Began) -> Pick {
        match self.file(&call.participant, &began.by) {
            Ok(Some(plugin)) => same(plugin.code.clone(), call, began),
            Ok(None) => Pick::Nothing { why: gone(call, began) },
            Err(error) => Pick::Failed { error: Box::new(error) },
        }
    }
}

impl Registry {
    /// The file that began an attempt, with whatever configuration.
    fn file(&self, participant: &Participant, by: &Behaviour) -> Result<Option<Arc<Plugin>>, ArchiveError> {
        let serving = self.serving.get(participant);
        if let Some(serving) = serving.filter(|plugin| plugin.code.behaviour().digest == by.digest) {
            return Ok(Some(serving.clone()));
        }
        let stored = self.stored.iter().find(|stored| stored.digest == by.digest);
        Ok(stored.map(|stored| self.shelf.load(stored)).transpose()?.flatten())
    }
}

impl Shelf {
    fn load(&self, stored: &Archived) -> Result<Option<Arc<Plugin>>, ArchiveError> {
        let loaded = self.loaded.lock().entry(stored.digest.clone()).or_default().clone();
        let mut loaded = loaded.lock();
        if let Some(known) = &*loaded {
            return Ok(known.clone());
        }
        // A failure that may pass is not remembered.
        let Archived { digest, file, .. } = stored;
        let admitted = admission::load(&*self.archive, &*self.admission, digest, file, &self.settings)?;
        let plugin = admitted.map(|admitted| admitted.plugin);
        *loaded = Some(plugin.clone());
        Ok(plugin)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use std::path::Path;

    use expect_test::expect;

    use super::*;
    use crate::memory::{Memory, admitted, manifest};

    #[test]
    fn old_data_goes_to_the_newest_version_that_reads_it() {
        let memory = Arc::new(Memory::default());
        for (version, format) in [("0.1.0", 1), ("0.2.0", 1), ("0.3.0", 2)] {
            memory.put(manifest("p", version, format).as_bytes()).unwrap();
        }
        let registry = |serving: &[Admitted]| {
            let (admission, archive) = (memory.clone(), memory.clone());
            let shelf = Shelf { admission, archive, settings: BTreeMap::new(), loaded: Mutex::default() };
            Registry::new(serving, memory.list().unwrap(), shelf)
        };
        let picked = |registry: &Registry, formats: &[u32], direction: Direction| {
            let picked = registry.plugin(&"p".into(), formats, direction);
            match picked {
                Ok(plugin) => plugin.manifest.version.clone(),
                Err(NoCode::Absent(why)) => why,
                Err(NoCode::Unknown(error)) => panic!("{error}"),
            }
        };
        let present = registry(&[admitted(manifest("p", "0.4.0", 3).as_bytes(), Path::new("p.wasm")).unwrap()]);
        let picks = [&[][..], &[3], &[2], &[1], &[1, 2]].map(|formats| picked(&present, formats, Direction::Undo));
        expect![[r#"
            0.4.0
            0.4.0
            0.3.0
            0.2.0
            no version of plugin p reads data formats [1, 2], for compensate"#]]
        .assert_eq(&picks.join("\n"));
        let away = registry(&[]);
        assert_eq!(picked(&away, &[1], Direction::Undo), "0.2.0");
        assert_eq!(picked(&away, &[1], Direction::Forward), "plugin p is not in the plugin directory");
    }
}
