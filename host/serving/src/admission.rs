//! The boundary between plugin files and the code that serves. Invariant: a file that is not admitted changes nothing, and
//! its report has every fault that was found in it.
//!
//! On one side of it is the sandbox with a real directory; on the other the simulation, with native plugins and a directory
//! in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use sagahost_manifest::{Manifest, Report, settings::Settings};
use sagahost_processor::{code::Callable, step::Signal};
use sagahost_saga::{
    id::{Participant, Time},
    notation::with_causes,
    outcome::Behaviour,
};
use tracing::error;

use crate::view::PluginsView;

/// What a file is from outside. Two looks that agree: nobody has written it in between. Symbolic links are followed, so
/// that one which is turned to another file looks different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    File {
        device: u64,
        inode: u64,
        bytes: u64,
        modified_ns: i128,
        changed_ns: i128,
    },
    Directory,
    /// A socket, a pipe, a device: reading it might never end.
    Special,
    Unreadable(String),
}

/// By path.
pub type DirectorySnapshot = BTreeMap<PathBuf, Look>;

/// The operator's settings, by plugin name.
pub type PluginSettings = BTreeMap<String, Settings>;

/// What there is to say of a file.
#[derive(Clone, Debug)]
pub enum Verdict {
    Admitted(Admitted),
    /// All that is wrong with it; also that it has changed since it was looked at.
    Refused(Report),
    /// Nothing yet: its code is being compiled.
    Compiling(Compiling),
}

/// A file whose code is being compiled, beside all else that a host does.
#[derive(Clone, Debug)]
pub struct Compiling {
    pub digest: Arc<str>,
    /// None: it has none that can be read, which is said when it is compiled.
    pub manifest: Option<Arc<Manifest>>,
    pub since: Time,
}

/// The plugin directory, and what makes code of files.
pub trait Admission: Send + Sync {
    /// What is in the directory; no file is opened.
    ///
    /// # Errors
    /// It is missing, or cannot be read.
    fn look(&self) -> Result<DirectorySnapshot, Report>;

    /// Raises `changed` when the directory changes, as far as that can be noticed, and when something has been compiled.
    fn watch(&self, changed: Arc<Signal>) -> Box<dyn Watch>;

    /// Are these the bytes of that version? Then what is wrong with it is not in the file.
    fn is_of(&self, file: &Path, digest: &str) -> bool;

    /// Does this file exist, in whatever directory?
    fn is_there(&self, file: &Path) -> bool;

    /// Admits one file of the directory by itself. What has to be compiled first is compiled beside, and asked about again.
    fn admit(&self, file: &Path, look: &Look, settings: &PluginSettings) -> Verdict;

    /// Is that still under way?
    fn is_compiling(&self, digest: &str) -> bool;

    /// A version that was admitted before: what was configured for its successor is nothing to it. `file`: where its bytes
    /// come from, for people. Takes as long as compiling does, where its code was not kept.
    ///
    /// # Errors
    /// All that is wrong with it.
    fn admit_stored(&self, bytes: Arc<[u8]>, file: &Path, settings: &PluginSettings) -> Result<Admitted, Report>;

    /// Removes what was compiled before `since` of versions that are not `wanted`; returns how many files.
    ///
    /// # Errors
    /// They could not be looked through, or one of them not be removed.
    fn forget_compiled(&self, wanted: &dyn Fn(&str) -> bool, since: Time) -> io::Result<usize>;
}

/// Watches the plugin directory until it is dropped.
pub trait Watch: Send {
    /// The directory was made again, or a link was turned to another one: a new watch is needed.
    fn is_elsewhere(&self) -> bool;
}

/// What the data directory keeps of plugins: versions by digest, and the listing. What it gives out has exactly the bytes of
/// its digest.
pub trait Archive: Send + Sync {
    /// Keeps a version; it becomes the newest of its plugin.
    ///
    /// # Errors
    /// It could not be written.
    fn put(&self, bytes: &[u8]) -> Result<(), ArchiveError>;

    /// None: not kept.
    ///
    /// # Errors
    /// It could not be read, or is damaged.
    fn get(&self, digest: &str) -> Result<Option<Arc<[u8]>>, ArchiveError>;

    /// Reads no byte of it.
    fn has(&self, digest: &str) -> bool;

    /// All versions whose manifest can be read, newest first.
    ///
    /// # Errors
    /// They could not be looked through.
    fn list(&self) -> Result<Vec<Archived>, ArchiveError>;

    /// Removes versions that are not `needed` and were put before `since`; returns how many.
    ///
    /// # Errors
    /// They could not be looked through, or one of them not be removed.
    fn retain(&self, needed: &BTreeSet<Arc<str>>, since: Time) -> Result<usize, ArchiveError>;

    /// Leaves the listing where it can be read without a host.
    ///
    /// # Errors
    /// It could not be written.
    fn write_listing(&self, view: &PluginsView) -> io::Result<()>;
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// What is kept is not what was put there, and will not be.
    #[error("a stored version of a plugin is damaged")]
    Damaged { source: Box<dyn Error + Send + Sync> },
    /// The data directory could not be read or written; that may pass.
    #[error("failed to use the data directory")]
    Failed { source: Box<dyn Error + Send + Sync> },
}

/// A version that was kept, admitted again. None: it is lost, or does not load any more.
///
/// # Errors
/// It could not be read just now.
pub(crate) fn load(
    archive: &dyn Archive,
    admission: &dyn Admission,
    digest: &str,
    file: &Path,
    settings: &PluginSettings,
) -> Result<Option<Admitted>, ArchiveError> {
    let bytes = match archive.get(digest) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(error @ ArchiveError::Damaged { .. }) => {
            error!(error = with_causes(&error), "a stored version is lost");
            return Ok(None);
        }
        Err(error @ ArchiveError::Failed { .. }) => return Err(error),
    };
    let admitted = admission.admit_stored(bytes, file, settings);
    Ok(admitted.inspect_err(|report| error!(%report, "cannot load a stored version")).ok())
}

/// A version that is kept, as far as its manifest tells.
#[derive(Clone, Debug)]
pub struct Archived {
    pub digest: Arc<str>,
    pub manifest: Manifest,
    pub file: PathBuf,
}

/// A version of a plugin, with its configuration.
pub struct Plugin {
    pub manifest: Arc<Manifest>,
    pub code: Arc<dyn Callable>,
}

/// A version that may serve.
#[derive(Clone, Debug)]
pub struct Admitted {
    pub plugin: Arc<Plugin>,
    pub file: PathBuf,
    pub bytes: Arc<[u8]>,
}

impl Plugin {
    pub fn name(&self) -> Participant {
        Participant::new(&self.manifest.name)
    }

    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Of the file's bytes.
    pub fn digest(&self) -> &Arc<str> {
        self.code.digest()
    }

    /// Which code with which configuration.
    pub fn behaviour(&self) -> Behaviour {
        self.code.behaviour()
    }

    /// Does it understand all these data formats?
    pub fn reads(&self, formats: &[u32]) -> bool {
        self.manifest.reads(formats)
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.manifest.name, self.manifest.version, self.digest())
    }
}
