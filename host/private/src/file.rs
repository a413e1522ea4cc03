//! Files of this user alone. Invariant: no link is followed, nothing but a regular file is read, and what is made has mode
//! 0600 under any umask that leaves the owner's permissions alone.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    time::{Duration, SystemTime},
};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use tempfile::NamedTempFile;

use crate::{
    access::{self, Flaw, Kind, MODE_BITS, OPEN_BITS},
    account::Account,
};

const FILE_MODE: u32 = 0o600;
/// Of a file that is being written and has not its own name yet.
const SUFFIX: &str = ".new";
/// Whoever writes for so long was killed.
const ABANDONED: Duration = Duration::from_hours(1);

/// Opening a pipe must not wait for whoever writes into it.
fn flags() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

/// For reading, where nobody else can have written it.
///
/// # Errors
/// It is absent, it is a link or no regular file, others can write it, or it cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    checked(OpenOptions::new().read(true).custom_flags(flags()).open(path))
}

/// For reading and writing, as a lock is.
///
/// # Errors
/// As of `open`, but that it is made where it is absent.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).custom_flags(flags());
    checked(options.open(path))
}

/// At most this many bytes of a file.
///
/// # Errors
/// As of `open`, or it has more.
pub fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    read_all(open(path)?, bytes_max)
}

/// The same of a file that nobody else may read.
///
/// # Errors
/// As of `read`, or others can read it.
pub fn read_secret(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let mode = file.metadata()?.mode() & MODE_BITS;
    if mode & OPEN_BITS != 0 {
        let text =
            format!("other users can read it (mode {mode:04o}), and it must be secret: remove it; a new one is made");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    read_all(file, bytes_max)
}

/// The same, whoever has written it: a link or a pipe is not read.
///
/// # Errors
/// As of `read`, but that others may write it.
pub fn read_of_anyone(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(flags()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(refused(Flaw::NotAFile));
    }
    read_all(file, bytes_max)
}

fn read_all(file: File, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take((bytes_max as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        let text = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// Replaces a file or makes it: readers see the old one or the whole new one.
///
/// # Errors
/// It cannot be written; then nothing of it is left.
pub fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    beside(path, parts)?.persist(path)?;
    Ok(())
}

/// Makes a file that nobody has made yet, whole or not at all.
///
/// # Errors
/// It is there already, or it cannot be written.
pub fn create_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    beside(path, &[bytes])?.persist_noclobber(path)?;
    Ok(())
}

/// With another name, on disk.
fn beside(path: &Path, parts: &[&[u8]]) -> io::Result<NamedTempFile> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let prefix = [name, OsStr::new(".")].join(OsStr::new(""));
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::Builder::new().prefix(&prefix).suffix(SUFFIX).tempfile_in(dir)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Was it being written by a process that was killed?
pub(crate) fn is_abandoned(path: &Path, metadata: &fs::Metadata) -> bool {
    let unfinished = path.as_os_str().as_encoded_bytes().ends_with(SUFFIX.as_bytes()) && metadata.is_file();
    let now = SystemTime::now();
    unfinished && metadata.modified().is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > ABANDONED))
}

/// Makes an empty file where there is none. None is opened: closing it would take away the locks that this process has on
/// it, which a database needs.
///
/// # Errors
/// It cannot be made.
pub fn create_empty(path: &Path) -> io::Result<()> {
    match mknodat(CWD, path, FileType::RegularFile, Mode::from_raw_mode(FILE_MODE), 0) {
        Err(error) if error == rustix::io::Errno::EXIST => Ok(()),
        made => Ok(made?),
    }
}

fn checked(file: io::Result<File>) -> io::Result<File> {
    let file = match file {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(refused(Flaw::Link));
        }
        other => other?,
    };
    match access::flaw(&file.metadata()?, Kind::File, Account::current()) {
        None => Ok(file),
        Some(flaw) => Err(refused(flaw)),
    }
}

fn refused(flaw: Flaw) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("it {flaw}"))
}
