//! Plugin files in memory, for tests: a file's bytes are its manifest. Invariant: what is not a manifest is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use sagahost_manifest::{Fault, Manifest, Report, host_calls::HostCalls};
use sagahost_processor::{
    code::{Callable, Ran},
    step::Signal,
};
use sagahost_saga::{
    id::Time,
    outcome::{Behaviour, Call},
};

use crate::{
    admission::{
        Admission, Admitted, Archive, ArchiveError, Archived, Compiling, DirectorySnapshot, Look, Plugin,
        PluginSettings, Verdict, Watch,
    },
    view::PluginsView,
};

#[derive(Default)]
pub(crate) struct Memory {
    /// Of the plugin directory.
    pub(crate) files: Mutex<BTreeMap<PathBuf, Arc<[u8]>>>,
    /// Of these files, those that are being compiled.
    pub(crate) compiling: Mutex<BTreeSet<PathBuf>>,
    /// The oldest first.
    kept: Mutex<Vec<Arc<[u8]>>>,
}

/// The text of a manifest.
pub(crate) fn manifest(name: &str, version: &str, data_format: u32) -> String {
    let subscriptions = serde_json::json!([{ "kind": "Try" }]);
    let manifest = serde_json::json!({
        "name": name, "version": version, "contract": "0.1.0", "subscriptions": subscriptions, "data-format": data_format,
    });
    manifest.to_string()
}

pub(crate) fn admitted(bytes: &[u8], file: &Path) -> Result<Admitted, Report> {
    let Ok(manifest) = Manifest::parse(bytes) else {
        return Err(Report::of(file, Fault::new("it is not a manifest", "the file", "write one")));
    };
    let version = Version { digest: digest(bytes), version: manifest.version.as_str().into() };
    let plugin = Arc::new(Plugin { manifest: Arc::new(manifest), code: Arc::new(version) });
    Ok(Admitted { plugin, file: file.to_owned(), bytes: bytes.into() })
}

fn digest(bytes: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(bytes).into()
}

struct Version {
    digest: Arc<str>,
    version: Arc<str>,
}

impl Callable for Version {
    fn digest(&self) -> &Arc<str> {
        &self.digest
    }
    fn behaviour(&self) -> Behaviour {
        Behaviour { digest: self.digest.clone(), config: "".into(), version: self.version.clone() }
    }
    fn run(&self, _: &Call, _: Box<dyn HostCalls>) -> Ran {
        unreachable!("no test here runs a call")
    }
}

struct NoWatch;

impl Watch for NoWatch {
    fn is_elsewhere(&self) -> bool {
        false
    }
}

impl Admission for Memory {
    fn look(&self) -> Result<DirectorySnapshot, Report> {
        let look = |bytes: &Arc<[u8]>| {
            let bytes = bytes.len() as u64;
            Look::File { device: 0, inode: 0, bytes, modified_ns: 0, changed_ns: 0 }
        };
        Ok(self.files.lock().iter().map(|(file, bytes)| (file.clone(), look(bytes))).collect())
    }
    fn watch(&self, _: Arc<Signal>) -> Box<dyn Watch> {
        Box::new(NoWatch)
    }
    fn is_of(&self, file: &Path, wanted: &str) -> bool {
        self.files.lock().get(file).is_some_and(|bytes| *digest(bytes) == *wanted)
    }
    fn is_there(&self, file: &Path) -> bool {
        self.files.lock().contains_key(file)
    }
    fn admit(&self, file: &Path, _: &Look, _: &PluginSettings) -> Verdict {
        let bytes = self.files.lock()[file].clone();
        if self.compiling.lock().contains(file) {
            return Verdict::Compiling(Compiling { digest: digest(&bytes), manifest: None, since: Time(0) });
        }
        admitted(&bytes, file).map_or_else(Verdict::Refused, Verdict::Admitted)
    }
    fn is_compiling(&self, _: &str) -> bool {
        !self.compiling.lock().is_empty()
    }
    fn admit_stored(&self, bytes: Arc<[u8]>, file: &Path, _: &PluginSettings) -> Result<Admitted, Report> {
        admitted(&bytes, file)
    }
    fn forget_compiled(&self, _: &dyn Fn(&str) -> bool, _: Time) -> io::Result<usize> {
        Ok(0)
    }
}

impl Archive for Memory {
    fn put(&self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.kept.lock().push(bytes.into());
        Ok(())
    }
    fn get(&self, wanted: &str) -> Result<Option<Arc<[u8]>>, ArchiveError> {
        Ok(self.kept.lock().iter().find(|bytes| *digest(bytes) == *wanted).cloned())
    }
    fn has(&self, wanted: &str) -> bool {
        self.kept.lock().iter().any(|bytes| *digest(bytes) == *wanted)
    }
    fn list(&self) -> Result<Vec<Archived>, ArchiveError> {
        let archived = |bytes: &Arc<[u8]>| {
            let manifest = Manifest::parse(bytes).expect("only manifests are kept");
            Archived { digest: digest(bytes), manifest, file: PathBuf::from("kept") }
        };
        Ok(self.kept.lock().iter().rev().map(archived).collect())
    }
    fn retain(&self, _: &BTreeSet<Arc<str>>, _: Time) -> Result<usize, ArchiveError> {
        Ok(0)
    }
    fn write_listing(&self, _: &PluginsView) -> io::Result<()> {
        Ok(())
    }
}
