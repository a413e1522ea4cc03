//! The data directory is this user's alone. Invariant: nothing in it is opened before it was checked here, but by a client
//! that looks for the socket of a running host.

use std::path::{Path, PathBuf};

use sagahost_journal::JournalError;
use sagahost_operator::socket;
use sagahost_private::{self as private, AccessError, Contents};
use sagahost_saga::notation::with_causes;
use sagahost_sandbox::key::{CodeKey, KeyError};
use tracing::warn;

use crate::{
    admission,
    config::{CodeKeyPlace, Config, DataAccess},
};

/// Of an app without a configuration file: where its plugins are, for commands that name the data directory alone.
pub const PLUGIN_DIRECTORY: &str = "plugin-directory";

/// Everything that a host makes there; a test compares it with what one has made.
pub const CONTENTS: Contents<'static> = Contents {
    files: &[
        "journal.lock",
        "journal.db",
        "journal.db-wal",
        "journal.db-shm",
        "journal.db-journal",
        "topics.db",
        "topics.db-wal",
        "topics.db-shm",
        "topics.db-journal",
        socket::POINTER,
        admission::LISTING,
        PLUGIN_DIRECTORY,
    ],
    sockets: &[socket::NAME],
    directories: &[admission::CACHE, admission::ARCHIVE],
};

/// Makes the directory where it is absent, and takes from others what they could read of it.
///
/// # Errors
/// Another user can have written something in it, or can put another directory in its place.
pub fn secure(config: &Config) -> Result<(), JournalError> {
    match config.data_access {
        DataAccess::Private => check(config).map_err(|error| JournalError::Unusable(with_causes(&error))),
        DataAccess::Unchecked => {
            warn!("who may write the data directory is not checked, as `data-access` says");
            Ok(())
        }
    }
}

fn check(config: &Config) -> Result<(), AccessError> {
    let secured = private::secure(&config.data_dir, &CONTENTS)?;
    if let Some((first, mode)) = secured.narrowed.first() {
        let others = secured.narrowed.len() - 1;
        warn!(
            path = %first.display(), mode = format!("{mode:04o}"), others,
            "other users could read the data directory: it is for its owner alone from now on"
        );
    }
    // Whoever can replace the socket gets what operators ask, and answers them.
    match &config.admin.socket {
        Some(socket) => private::check_above(&resolved(socket)),
        None => Ok(()),
    }
}

/// Without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    path.parent().and_then(|parent| parent.canonicalize().ok()).map_or_else(|| path.to_owned(), |dir| dir.join(name))
}

impl Config {
    /// The key that marks compiled code, made where it is absent.
    ///
    /// # Errors
    /// There is none: compiled code is not kept.
    pub fn code_key(&self) -> Result<CodeKey, KeyError> {
        match &self.compiled_code_key {
            CodeKeyPlace::Off => Err(KeyError::Off),
            CodeKeyPlace::File(file) => CodeKey::of_file(file, &self.data_dir),
            CodeKeyPlace::State => CodeKey::of_user(&self.data_dir),
        }
    }
}
