//! Files and directories that belong to one user: made so, read so, and checked where others may have made them.
//! Invariant: what `secure` accepted can be changed only by this process's user and by root, until one of these allows it.
//!
//! In reading order: `account` (who this process is, and whose group it has to itself), `access` (is this file ours
//! alone), `directory` (a directory with what is in it and above it), `file` (files of our own).

mod access;
mod account;
mod directory;
mod file;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf};

use thiserror::Error;

pub use self::{
    access::Flaw,
    directory::{Contents, Secured, check_above, make_dir, secure},
    file::{create_empty, create_once, open, open_or_create, read, read_of_anyone, read_secret, write},
};

/// Why a file or a directory is not used.
#[derive(Debug, Error)]
pub enum AccessError {
    #[error("failed to {doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{} {flaw}: {}", path.display(), flaw.advice(path))]
    Flawed { path: PathBuf, flaw: Flaw },
    #[error(
        "{}, which is above {}, {flaw}: take that from them (`chown`, `chmod go-w`), or choose another place",
        path.display(), below.display()
    )]
    Above { path: PathBuf, below: PathBuf, flaw: Flaw },
}
