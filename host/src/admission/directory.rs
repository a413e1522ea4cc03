//! The plugin directory, looked at as often as it changes. Invariant: nothing is ever written into it, and no file is opened
//! that has not stood still.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::OFlags;
use sagahost_manifest::{Fault, Report};
use sagahost_sandbox::admission::digest;
use sagahost_serving::admission::{DirectorySnapshot, Look};

const EXTENSION: &str = "wasm";

/// What is in the directory now; no file is opened.
pub(super) fn snapshot(dir: &Path) -> Result<DirectorySnapshot, Report> {
    let files = files(dir).map_err(|fault| Report::of(dir, fault))?;
    Ok(files.into_iter().map(|file| (file.clone(), look(&file))).collect())
}

/// Are these the bytes of that version?
pub(super) fn is_of(file: &Path, wanted: &str, bytes_max: usize) -> bool {
    let before = look(file);
    read(file, &before, bytes_max).is_ok_and(|bytes| *digest(&bytes) == *wanted)
}

/// Symbolic links are followed: whoever ships plugins may switch them so.
pub(super) fn look(file: &Path) -> Look {
    seen(fs::metadata(file))
}

fn seen(metadata: io::Result<Metadata>) -> Look {
    let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
    match metadata {
        Ok(metadata) if metadata.is_dir() => Look::Directory,
        Ok(metadata) if !metadata.is_file() => Look::Special,
        Ok(metadata) => Look::File {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        },
        Err(error) => Look::Unreadable(error.to_string()),
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Fault> {
    let entries = fs::read_dir(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Fault::new("it does not exist", "the plugin directory", "make it and copy plugins (*.wasm) there")
        }
        io::ErrorKind::NotADirectory => {
            Fault::new("it is a file, not a directory", "the plugin directory", "name the directory of the plugins")
        }
        _ => Fault::new(format!("it cannot be read: {error}"), "the plugin directory", "check its permissions"),
    })?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION))
        .filter(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')))
        .collect();
    files.sort();
    Ok(files)
}

/// The bytes of a file that looks as it did `before`.
pub(super) fn read(file: &Path, before: &Look, bytes_max: usize) -> Result<Arc<[u8]>, Report> {
    let refuse = |what: String, fix: &str| Report::of(file, Fault::new(what, "the file", fix));
    let unreadable = |error: &dyn std::fmt::Display| {
        refuse(format!("it cannot be read: {error}"), "check its permissions, or remove it")
    };
    let bytes = match before {
        Look::Unreadable(error) => return Err(unreadable(error)),
        Look::Directory => return Err(refuse("it is a directory".to_owned(), "put the plugin file itself there")),
        Look::Special => return Err(refuse("it is no regular file".to_owned(), "put the plugin file itself there")),
        Look::File { bytes, .. } => *bytes,
    };
    if bytes > bytes_max as u64 {
        let what = format!("it has {bytes} bytes, {bytes_max} are allowed");
        return Err(refuse(what, "raise `component-bytes-max` in `[limits]`"));
    }
    match unchanged(file, before, bytes) {
        Ok(Some(bytes)) => Ok(bytes.into()),
        Ok(None) => {
            let fix = "it is read again when it stands still; write it under another name and rename it";
            Err(refuse("it changed while it was read".to_owned(), fix))
        }
        Err(error) => Err(unreadable(&error)),
    }
}

/// The file is opened once, so that what is compared is what is read, and a pipe that has taken its name does not make
/// anybody wait. None: it is not what was looked at, or changed meanwhile.
fn unchanged(file: &Path, before: &Look, bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let mut options = File::options();
    let file = options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(file)?;
    if seen(file.metadata()) != *before {
        return Ok(None);
    }
    let mut read = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    (&file).take(bytes + 1).read_to_end(&mut read)?;
    let same = read.len() as u64 == bytes && seen(file.metadata()) == *before;
    Ok(same.then_some(read))
}
