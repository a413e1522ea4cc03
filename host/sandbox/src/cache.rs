//! Compiled code, kept between starts. Invariant: code is given out only where its file carries the mark of this user's
//! key for that digest and that engine; a checksum would only say that whoever wrote the file could count.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use sagahost_private as private;

use crate::key::{CodeKey, KeyError, MARK_BYTES};

/// First bytes of a cache file; the number changes with its layout. The first layout had a checksum and no mark.
const MAGIC: &[u8; 8] = b"sagacwa2";
const EARLIER_MAGIC: &[u8; 8] = b"sagacwa1";
const DIGEST_LETTERS: usize = 64;

/// `<data>/cache`
pub struct CodeCache {
    dir: PathBuf,
    /// None: nothing is kept, and nothing that is there is used.
    key: Option<CodeKey>,
}

impl CodeCache {
    /// Makes the directory where it is absent.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(dir: &Path, key: Result<CodeKey, KeyError>) -> io::Result<Self> {
        private::make_dir(dir)?;
        let key = match key {
            Ok(key) => Some(key),
            Err(reason) => {
                tracing::warn!(%reason, "compiled code is not kept: plugins are compiled at each start");
                None
            }
        };
        Ok(Self { dir: dir.to_owned(), key })
    }

    /// `engine`: what else the code depends on. None: absent, of another user or machine, or damaged.
    pub(crate) fn get(&self, digest: &str, engine: &str) -> Option<Vec<u8>> {
        let (key, path) = (self.key.as_ref()?, self.path(digest, engine));
        let mut file = match private::read(&path, usize::MAX) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a file of compiled code cannot be used: compiling again");
                return None;
            }
        };
        let header = MAGIC.len() + MARK_BYTES;
        let ours = file.len() > header
            && file.starts_with(MAGIC)
            && key.is_mark(&file[MAGIC.len()..header], digest, engine, &file[header..]);
        if !ours {
            // After an upgrade each file is of the earlier layout once.
            if !file.starts_with(EARLIER_MAGIC) {
                let path = path.display();
                tracing::warn!(%path, "a file of compiled code was written elsewhere or is damaged: compiling again");
            }
            return None;
        }
        file.drain(..header);
        Some(file)
    }

    /// What cannot be kept is compiled again at the next start.
    pub(crate) fn put(&self, digest: &str, engine: &str, code: &[u8]) {
        let Some(key) = &self.key else { return };
        let path = self.path(digest, engine);
        if let Err(error) = private::write(&path, &[MAGIC, &key.mark(digest, engine, code), code]) {
            tracing::warn!(path = %path.display(), %error, "failed to cache compiled code: it is compiled at each start");
        }
    }

    /// Removes code, of whatever engine, that was written before `since` and whose digest is not `wanted`; returns how
    /// many files.
    pub(crate) fn forget(&self, wanted: impl Fn(&str) -> bool, since: SystemTime) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let idle = digest_of(&entry.file_name()).is_some_and(|digest| !wanted(&digest));
            if idle && entry.metadata().and_then(|file| file.modified()).is_ok_and(|written| written < since) {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn path(&self, digest: &str, engine: &str) -> PathBuf {
        self.dir.join(format!("{digest}-{engine}.cwasm"))
    }
}

/// Whose compiled code a cache file is, or was to be when its writer was killed. None: it is no file of the cache.
fn digest_of(name: &OsStr) -> Option<String> {
    let (digest, rest) = name.to_str()?.split_once('-')?;
    let hex = digest.len() == DIGEST_LETTERS && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    (hex && rest.contains(".cwasm")).then(|| digest.to_owned())
}
