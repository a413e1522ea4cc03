//! Plugin bytes by content, kept while an unfinished saga refers to them. Invariant: a file `DIGEST.wasm` has exactly
//! the bytes of that digest, or it is not given out.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use sagahost_manifest::Manifest;
use sagahost_private as private;
use thiserror::Error;

use crate::{admission::digest, pack};

const EXTENSION: &str = "wasm";

#[derive(Debug, Error)]
pub enum DigestError {
    #[error("failed to {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("failed to use {}: its bytes are damaged (copy the plugin file of that version there again)", .0.display())]
    Damaged(PathBuf),
}

/// `<data>/plugins`
#[derive(Clone, Debug)]
pub struct DigestStore {
    dir: PathBuf,
}

/// A stored version, as far as its manifest tells.
#[derive(Clone, Debug)]
pub struct Stored {
    pub digest: Arc<str>,
    pub manifest: Manifest,
    /// When it was admitted last.
    pub admitted: SystemTime,
}

impl DigestStore {
    /// Makes the directory if it is absent.
    pub fn open(dir: &Path) -> Result<Self, DigestError> {
        private::make_dir(dir).map_err(|source| fail("create", dir, source))?;
        Ok(Self { dir: dir.to_owned() })
    }

    pub fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{digest}.{EXTENSION}"))
    }

    /// Keeps the bytes; the version becomes the newest of its plugin.
    pub fn put(&self, bytes: &[u8]) -> Result<Arc<str>, DigestError> {
        let digest = digest(bytes);
        let path = self.path(&digest);
        let intact = private::read(&path, bytes.len()).is_ok_and(|there| there == bytes);
        if intact {
            let file = private::open_or_create(&path).map_err(|source| fail("open", &path, source))?;
            file.set_modified(SystemTime::now()).map_err(|source| fail("touch", &path, source))?;
        } else {
            private::write(&path, &[bytes]).map_err(|source| fail("write", &path, source))?;
        }
        Ok(digest)
    }

    /// Looks at no byte of it.
    pub fn has(&self, digest: &str) -> bool {
        self.path(digest).is_file()
    }

    /// None: not stored.
    pub fn get(&self, wanted: &str) -> Result<Option<Arc<[u8]>>, DigestError> {
        let path = self.path(wanted);
        match private::read(&path, usize::MAX) {
            Ok(bytes) if *digest(&bytes) == *wanted => Ok(Some(bytes.into())),
            Ok(_) => Err(DigestError::Damaged(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(fail("read", &path, source)),
        }
    }

    /// All versions whose manifest can be read, newest first.
    pub fn list(&self) -> Result<Vec<Stored>, DigestError> {
        let mut stored: Vec<Stored> =
            self.files()?.into_iter().filter_map(|(digest, path)| stored(digest, &path)).collect();
        stored.sort_by(|a, b| b.admitted.cmp(&a.admitted).then_with(|| a.digest.cmp(&b.digest)));
        Ok(stored)
    }

    /// Removes all others that were admitted before `since`; returns how many.
    pub fn retain(&self, referenced: &BTreeSet<Arc<str>>, since: SystemTime) -> Result<usize, DigestError> {
        let mut removed = 0;
        let old = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).is_ok_and(|time| time < since);
        for (_, path) in self.files()?.into_iter().filter(|(digest, path)| !referenced.contains(digest) && old(path)) {
            fs::remove_file(&path).map_err(|source| fail("remove", &path, source))?;
            removed += 1;
        }
        Ok(removed)
    }

    fn files(&self) -> Result<Vec<(Arc<str>, PathBuf)>, DigestError> {
        let entries = fs::read_dir(&self.dir).map_err(|source| fail("read", &self.dir, source))?;
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        Ok(paths
            .filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION))
            .filter_map(|path| Some((Arc::from(path.file_stem()?.to_str()?), path.clone())))
            .collect())
    }
}

fn stored(digest: Arc<str>, path: &Path) -> Option<Stored> {
    let manifest = pack::manifest_of(&private::read(path, usize::MAX).ok()?)?;
    let admitted = fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    Some(Stored { digest, manifest, admitted })
}

fn fail(doing: &'static str, path: &Path, source: io::Error) -> DigestError {
    DigestError::Io { doing, path: path.to_owned(), source }
}
