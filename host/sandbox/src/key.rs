//! The key that marks compiled code as this user's own on this machine. Invariant: it never lies beside the code that it
//! marks, and nobody but this user and root can read it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use hmac::{Hmac, Mac as _};
use sagahost_private::{self as private, AccessError};
use sha2::Sha256;
use thiserror::Error;

const FILE: &str = "compiled-code.key";
const KEY_BYTES: usize = 32;
pub(crate) const MARK_BYTES: usize = 32;
/// Part of what is marked; another use of the key must have another one.
const USE: &[u8] = b"sagahost compiled code 1";

/// Why there is no key, so that compiled code is not kept.
#[derive(Debug, Error)]
pub enum KeyError {
    #[error("no place for the key is known: neither XDG_STATE_HOME nor HOME is set")]
    NoPlace,
    #[error("`compiled-code-key` is \"off\"")]
    Off,
    #[error("the key {} would be in the data directory, beside the code", .0.display())]
    Beside(PathBuf),
    #[error("the key {} cannot be used: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the key cannot be used: {0}")]
    Access(#[from] AccessError),
    #[error("the key {} does not have {KEY_BYTES} bytes: remove it, and another one is made", .0.display())]
    Length(PathBuf),
    #[error("no random bytes for a key: {0}")]
    Random(String),
}

pub struct CodeKey([u8; KEY_BYTES]);

impl fmt::Debug for CodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeKey")
    }
}

impl CodeKey {
    /// The key of this user, in the directory for what programs remember.
    ///
    /// # Errors
    /// As of `of_file`, or that directory is not known.
    pub fn of_user(data_dir: &Path) -> Result<Self, KeyError> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
        Self::of_file(&state.ok_or(KeyError::NoPlace)?.join("sagahost").join(FILE), data_dir)
    }

    /// The key in this file, which is made where it is absent.
    ///
    /// # Errors
    /// The file is in `data_dir`, other users can read or write it or what is above it, or it can be neither read nor made.
    pub fn of_file(path: &Path, data_dir: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io { path: path.to_owned(), source };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        private::make_dir(parent).map_err(failed)?;
        let file = fs::canonicalize(parent).map_err(failed)?.join(path.file_name().unwrap_or_default());
        if fs::canonicalize(data_dir).is_ok_and(|data| file.starts_with(data)) {
            return Err(KeyError::Beside(file));
        }
        private::check_above(&file)?;
        let bytes = match private::read_secret(&file, KEY_BYTES + 1) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&file)?,
            read => read.map_err(failed)?,
        };
        bytes.try_into().map(Self).map_err(|_| KeyError::Length(file))
    }

    /// What this user marks code of this digest with, compiled for this engine.
    pub(crate) fn mark(&self, digest: &str, engine: &str, code: &[u8]) -> [u8; MARK_BYTES] {
        self.marked(digest, engine, code).finalize().into_bytes().into()
    }

    /// In constant time.
    pub(crate) fn is_mark(&self, mark: &[u8], digest: &str, engine: &str, code: &[u8]) -> bool {
        self.marked(digest, engine, code).verify_slice(mark).is_ok()
    }

    fn marked(&self, digest: &str, engine: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key may have any length");
        for part in [USE, digest.as_bytes(), engine.as_bytes(), code] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }
}

/// Two hosts may start at once: the key of the first one counts.
fn make(file: &Path) -> Result<Vec<u8>, KeyError> {
    let failed = |source| KeyError::Io { path: file.to_owned(), source };
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| KeyError::Random(error.to_string()))?;
    match private::create_once(file, &key) {
        Ok(()) => Ok(key.to_vec()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            private::read_secret(file, KEY_BYTES + 1).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}
