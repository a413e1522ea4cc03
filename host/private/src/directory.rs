//! A directory with what is in it and above it: accepted, narrowed to its owner, or refused. Invariant: nothing in it is
//! opened, and no link in it is followed.

use std::{
    fs::{self, DirBuilder, Metadata, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use crate::{
    AccessError,
    access::{self, Kind, MODE_BITS, OPEN_BITS},
    account::Account,
    file,
};

const DIRECTORY_MODE: u32 = 0o700;

/// The names in a directory that are its owner's own; others are left alone.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    pub files: &'a [&'a str],
    pub sockets: &'a [&'a str],
    /// With all files in them.
    pub directories: &'a [&'a str],
}

/// A directory that this user has for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secured {
    /// Without any link.
    pub path: PathBuf,
    /// What others could read until now, with the mode that it had.
    pub narrowed: Vec<(PathBuf, u32)>,
}

/// Makes the directory where it is absent. It may be reached through a link; in it none is followed. What killed processes
/// were writing there is removed.
///
/// # Errors
/// It, something in it or a directory above it belongs to another user or can be written by others; or it cannot be used.
pub fn secure(dir: &Path, contents: &Contents) -> Result<Secured, AccessError> {
    make_dir(dir).map_err(|source| io_error("create", dir, source))?;
    let path = fs::canonicalize(dir).map_err(|source| io_error("find", dir, source))?;
    let account = Account::current();
    check_above(&path)?;
    let mut found = Vec::new();
    let mut look = |entry: PathBuf, kind| -> Result<bool, AccessError> {
        let metadata = checked(&entry, kind, account)?;
        let there = metadata.is_some();
        found.extend(metadata.map(|metadata| (entry, metadata)));
        Ok(there)
    };
    look(path.clone(), Kind::Directory)?;
    for name in contents.files {
        look(path.join(name), Kind::File)?;
    }
    for name in contents.sockets {
        look(path.join(name), Kind::Socket)?;
    }
    for name in contents.directories {
        let below = path.join(name);
        if look(below.clone(), Kind::Directory)? {
            for file in files(&below)? {
                look(file, Kind::File)?;
            }
        }
    }
    for entry in files(&path)? {
        let metadata = fs::symlink_metadata(&entry).ok().filter(|metadata| metadata.uid() == account.user);
        found
            .extend(metadata.filter(|metadata| file::is_abandoned(&entry, metadata)).map(|metadata| (entry, metadata)));
    }
    let mut narrowed = Vec::new();
    for (path, metadata) in found {
        if file::is_abandoned(&path, &metadata) {
            remove(&path)?;
            continue;
        }
        if let Some(mode) = narrow(&path, &metadata, account)? {
            narrowed.push((path, mode));
        }
    }
    Ok(Secured { path, narrowed })
}

/// The directories above a path without links: can others put another entry in place of one of ours?
///
/// # Errors
/// They can, or that cannot be seen.
pub fn check_above(path: &Path) -> Result<(), AccessError> {
    let account = Account::current();
    for above in path.ancestors().skip(1) {
        let metadata = fs::symlink_metadata(above).map_err(|source| io_error("look at", above, source))?;
        if let Some(flaw) = access::flaw_above(&metadata, account) {
            return Err(AccessError::Above { path: above.to_owned(), below: path.to_owned(), flaw });
        }
    }
    Ok(())
}

/// A directory for this user alone, and those above it that are absent. One that is there stays as it is.
///
/// # Errors
/// It cannot be made.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir)?;
    // A umask may have taken more than others have.
    fs::set_permissions(dir, Permissions::from_mode(DIRECTORY_MODE))
}

/// None: there is nothing. A host that runs may have removed it a moment ago.
fn checked(path: &Path, kind: Kind, account: &Account) -> Result<Option<Metadata>, AccessError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("look at", path, source)),
    };
    match access::flaw(&metadata, kind, account) {
        None => Ok(Some(metadata)),
        Some(flaw) => Err(AccessError::Flawed { path: path.to_owned(), flaw }),
    }
}

fn remove(path: &Path) -> Result<(), AccessError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path, error)),
        _ => Ok(()),
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, AccessError> {
    let entries = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    entries.map_err(|source| io_error("read", dir, source))
}

/// The mode that it had, where others could do something with it. What belongs to root is root's to change.
fn narrow(path: &Path, metadata: &Metadata, account: &Account) -> Result<Option<u32>, AccessError> {
    let mode = metadata.mode() & MODE_BITS;
    if mode & OPEN_BITS == 0 || metadata.uid() != account.user {
        return Ok(None);
    }
    match fs::set_permissions(path, Permissions::from_mode(mode & !OPEN_BITS)) {
        Ok(()) => Ok(Some(mode)),
        // A file that was there a moment ago: a host that runs replaces its listing.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error("take the permissions of others from", path, source)),
    }
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> AccessError {
    AccessError::Io { doing, path: path.to_owned(), source }
}
