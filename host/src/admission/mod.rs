//! The sandbox, the plugin directory and the data directory as `sagahost-serving` knows them. Invariant: code is admitted
//! from bytes that stood still while they were read.

mod compiling;
mod directory;
mod services;
mod watch;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use sagahost_manifest::{Manifest, Report, host_calls::HostCalls, sends::Config};
use sagahost_private as private;
use sagahost_processor::{
    code::{Callable, Ran},
    step::Signal,
};
use sagahost_saga::{
    id::Time,
    outcome::{Behaviour, Call},
};
use sagahost_sandbox::{
    Compiler, Engine, EngineError, admission,
    cache::CodeCache,
    digests::{DigestError, DigestStore},
    key::{CodeKey, KeyError},
};
use sagahost_serving::{
    Plugins,
    admission::{
        Admission, Admitted, Archive, ArchiveError, Archived, DirectorySnapshot, Look, Plugin, PluginSettings, Verdict,
        Watch,
    },
    settings::Settings,
    view::PluginsView,
};

pub use self::services::Services;
use self::{compiling::Compilers, watch::FileWatch};
use crate::threads::Clocks;

/// In the data directory: the listing as JSON, as of the last change.
pub(crate) const LISTING: &str = "plugins.json";
/// In the data directory: compiled code, and the bytes of plugins by their digest.
pub(crate) const CACHE: &str = "cache";
pub(crate) const ARCHIVE: &str = "plugins";

/// Why plugins cannot be looked after at all.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    #[error("failed to start the sandbox")]
    Sandbox { source: EngineError },
    #[error("failed to prepare the directory of compiled code")]
    Cache { source: io::Error },
    #[error("failed to use the stored versions of plugins")]
    Stored { source: DigestError },
}

/// Does whoever asks about a file wait for its compiler?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compiling {
    Awaited,
    /// A host does not.
    Beside,
}

/// The plugins of the configuration's directory, in the sandbox; no file of it is read yet.
///
/// # Errors
/// The sandbox does not start, or the data directory cannot be used.
pub fn plugins(
    settings: Settings,
    key: Result<CodeKey, KeyError>,
    clocks: Clocks,
    compiler: Compiler,
    compiling: Compiling,
    services: Services,
) -> Result<Plugins, AdmissionError> {
    let cache = CodeCache::open(&settings.data_dir.join(CACHE), key);
    let cache = cache.map_err(|source| AdmissionError::Cache { source })?;
    let engine = Engine::with_compiler(settings.limits.clone(), Some(cache), compiler);
    let engine = engine.map_err(|source| AdmissionError::Sandbox { source })?;
    let kept = DigestStore::open(&settings.data_dir.join(ARCHIVE));
    let digests = kept.map_err(|source| AdmissionError::Stored { source })?;
    let dir = settings.plugins_dir.clone();
    let archive = DataDir { digests, listing: settings.data_dir.join(LISTING) };
    let compilers = (compiling == Compiling::Beside).then(|| Compilers::new(engine.clone()));
    Ok(Plugins::new(settings, Arc::new(Sandbox { engine, compilers, dir, clocks, services }), Arc::new(archive)))
}

struct Sandbox {
    engine: Arc<Engine>,
    /// None: who asks waits for the compiler.
    compilers: Option<Arc<Compilers>>,
    dir: PathBuf,
    clocks: Clocks,
    services: Services,
}

struct Version {
    plugin: Arc<sagahost_sandbox::Plugin>,
    clocks: Clocks,
}

struct DataDir {
    digests: DigestStore,
    listing: PathBuf,
}

impl Callable for Version {
    fn digest(&self) -> &Arc<str> {
        self.plugin.digest()
    }

    fn behaviour(&self) -> Behaviour {
        self.plugin.behaviour()
    }

    fn sends(&self) -> Option<Config> {
        self.plugin.sends().then(|| self.plugin.config_shared().clone())
    }

    fn with_config(&self, config: &Config) -> Option<Arc<dyn Callable>> {
        let plugin = Arc::new(self.plugin.with_config(config.clone()));
        Some(Arc::new(Self { plugin, clocks: self.clocks.clone() }))
    }

    fn run(&self, call: &Call, host: Box<dyn HostCalls>) -> Ran {
        let ran = self.plugin.run(call, host);
        Ran { end: ran.end.map_err(Into::into), host: ran.host, took: ran.took, now: self.clocks.now() }
    }
}

impl Sandbox {
    fn bytes_max(&self) -> usize {
        self.engine.limits().component_bytes_max
    }

    fn admitted(&self, admission::Admitted { plugin, file, bytes }: admission::Admitted) -> Admitted {
        let (manifest, clocks) = (plugin.manifest().clone(), self.clocks.clone());
        Admitted { plugin: Arc::new(Plugin { manifest, code: Arc::new(Version { plugin, clocks }) }), file, bytes }
    }
}

impl Admission for Sandbox {
    fn look(&self) -> Result<DirectorySnapshot, Report> {
        let mut looks = match directory::snapshot(&self.dir) {
            // An app of services alone has none.
            Err(_) if self.services.are_there() && !self.dir.exists() => DirectorySnapshot::new(),
            looks => looks?,
        };
        looks.extend(self.services.files().map(|file| (file.to_owned(), directory::look(file))));
        Ok(looks)
    }

    fn watch(&self, changed: Arc<Signal>) -> Box<dyn Watch> {
        self.compilers.iter().for_each(|compilers| compilers.tell(changed.clone()));
        Box::new(FileWatch::new(&self.dir, changed))
    }

    fn is_of(&self, file: &Path, digest: &str) -> bool {
        directory::is_of(file, digest, self.bytes_max())
    }

    fn is_there(&self, file: &Path) -> bool {
        file.exists()
    }

    fn admit(&self, file: &Path, look: &Look, settings: &PluginSettings) -> Verdict {
        let bytes = match directory::read(file, look, self.bytes_max()) {
            Ok(bytes) => bytes,
            Err(report) => return Verdict::Refused(report),
        };
        if self.services.has(file) {
            return self.services.admit(bytes, file, settings).map_or_else(Verdict::Refused, Verdict::Admitted);
        }
        if let Some(compilers) = &self.compilers {
            let digest = admission::digest(&bytes);
            if let Some(compiling) = compilers.under_way(&digest) {
                return Verdict::Compiling(compiling);
            }
            if admission::needs_compiling(&bytes, &digest, &self.engine) {
                let (manifest, since) = (admission::manifest(&bytes), self.clocks.now().wall);
                return Verdict::Compiling(compilers.compile(&digest, bytes, manifest, since));
            }
        }
        match admission::admit(bytes, file, &self.engine, settings) {
            Ok(admitted) => Verdict::Admitted(self.admitted(admitted)),
            Err(report) => Verdict::Refused(report),
        }
    }

    fn is_compiling(&self, digest: &str) -> bool {
        self.compilers.as_ref().is_some_and(|compilers| compilers.under_way(digest).is_some())
    }

    fn admit_stored(&self, bytes: Arc<[u8]>, file: &Path, settings: &PluginSettings) -> Result<Admitted, Report> {
        if Manifest::is_of_service(&bytes) {
            return self.services.admit_stored(bytes, file);
        }
        Ok(self.admitted(admission::admit_stored(bytes, file, &self.engine, settings)?))
    }

    fn forget_compiled(&self, wanted: &dyn Fn(&str) -> bool, since: Time) -> io::Result<usize> {
        self.engine.forget_compiled(wanted, file_time(since))
    }
}

impl Archive for DataDir {
    fn put(&self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.digests.put(bytes).map_err(failed)?;
        Ok(())
    }

    fn get(&self, digest: &str) -> Result<Option<Arc<[u8]>>, ArchiveError> {
        self.digests.get(digest).map_err(failed)
    }

    fn has(&self, digest: &str) -> bool {
        self.digests.has(digest)
    }

    fn list(&self) -> Result<Vec<Archived>, ArchiveError> {
        let stored = self.digests.list().map_err(failed)?.into_iter();
        let archived = stored.map(|stored| {
            let file = self.digests.path(&stored.digest);
            Archived { digest: stored.digest, manifest: stored.manifest, file }
        });
        Ok(archived.collect())
    }

    fn retain(&self, needed: &BTreeSet<Arc<str>>, since: Time) -> Result<usize, ArchiveError> {
        self.digests.retain(needed, file_time(since)).map_err(failed)
    }

    fn write_listing(&self, view: &PluginsView) -> io::Result<()> {
        private::write(&self.listing, &[&serde_json::to_vec_pretty(view)?])
    }
}

fn failed(error: DigestError) -> ArchiveError {
    match error {
        DigestError::Damaged(_) => ArchiveError::Damaged { source: Box::new(error) },
        DigestError::Io { .. } => ArchiveError::Failed { source: Box::new(error) },
    }
}

fn file_time(time: Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(time.0)
}
