//! How SQLite's failures become the journal's. Invariant: what a person can act on (full, corrupt, held by another
//! program) is an error of its own, with what to do.

use std::path::Path;

use rusqlite::ErrorCode;
use sagahost_journal::{Contended, JournalError};

/// Less free space than this beside a failed write: the disk is full, whatever SQLite calls it.
const FREE_BYTES_MIN: u64 = 64 * 1024;

/// A failure inside this module, before it becomes the journal's.
#[derive(Debug)]
pub(super) enum Fault {
    Sqlite(rusqlite::Error),
    Journal(JournalError),
    /// What a batch was built on is no longer so.
    Conflict(Vec<Contended>),
    /// The end of a transaction failed in a way that leaves open whether it is durable.
    Unknown(rusqlite::Error),
}

pub(super) type Outcome<T> = Result<T, Fault>;

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<JournalError> for Fault {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

/// The end of a transaction failed. A full disk and a held lock are said before anything is durable. Behind a failed
/// write or sync the log may hold the transaction as a whole, and whoever opens it next would find it.
pub(super) fn at_the_end(error: rusqlite::Error) -> Fault {
    match error.sqlite_error_code() {
        Some(ErrorCode::SystemIoFailure) => Fault::Unknown(error),
        _ => Fault::Sqlite(error),
    }
}

/// A row that does not say what it must.
pub(super) fn corrupt(what: impl Into<String>) -> Fault {
    Fault::Journal(JournalError::Corrupt(what.into()))
}

pub(super) fn failed(what: impl Into<String>) -> Fault {
    Fault::Journal(JournalError::Failed(what.into()))
}

impl Fault {
    /// In words for the owner of the journal in `dir`.
    pub(super) fn told(self, dir: &Path) -> JournalError {
        match self {
            Self::Journal(error) => error,
            Self::Sqlite(error) | Self::Unknown(error) => told_by_sqlite(&error, dir),
            Self::Conflict(lost) => JournalError::Failed(Contended::text(&lost)),
        }
    }
}

fn told_by_sqlite(error: &rusqlite::Error, dir: &Path) -> JournalError {
    let file = dir.join(super::FILE);
    let file = file.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => disk_full(dir, error),
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if nothing_free(dir) => disk_full(dir, error),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(dir, &error.to_string()),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::Failed(format!(
            "{file} is locked by another program (a backup, or a database shell with an open transaction): end it"
        )),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            JournalError::Unusable(format!(
                "{file} cannot be written ({error}): the host needs read and write permission on {}",
                dir.display()
            ))
        }
        _ => match error {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..) => JournalError::Corrupt(format!("{file}: {error}")),
            _ => JournalError::Failed(format!("{file}: {error}")),
        },
    }
}

/// Of the file as a whole, with what to do.
pub(super) fn damaged(dir: &Path, what: &str) -> JournalError {
    JournalError::Corrupt(format!(
        "{}: {what}. Stop the host, keep the files for analysis and restore the newest backup of the data directory; \
         the start then says which batches the backup lacks",
        dir.join(super::FILE).display()
    ))
}

fn disk_full(dir: &Path, error: &rusqlite::Error) -> JournalError {
    JournalError::DiskFull(format!(
        "{} has no room for the journal ({error}); nothing of the batch is journaled: free some space",
        dir.display()
    ))
}

fn nothing_free(dir: &Path) -> bool {
    fs4::available_space(dir).is_ok_and(|free| free < FREE_BYTES_MIN)
}
