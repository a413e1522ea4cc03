//! Where the socket is. Invariant: its path fits into a socket address (108 bytes with the final zero), and only the
//! user who runs the host can open it.

use std::{
    fs, io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use sagahost_private as private;

use crate::settings::Settings;

/// Of a socket's path: 108 with the final zero.
pub const PATH_BYTES_MAX: usize = 107;

pub const NAME: &str = "admin.sock";
/// In the data directory: where the socket is, when it cannot be there.
pub const POINTER: &str = "socket";
/// Longer than any path that fits.
const POINTER_BYTES_MAX: usize = 4096;

/// A socket's place while a host serves on it.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    pub path: PathBuf,
    /// Made for this socket, and removed with it.
    own_dir: Option<PathBuf>,
    pointer: Option<PathBuf>,
}

impl Place {
    /// For a host that starts. The data directory exists.
    pub fn make(settings: &Settings) -> io::Result<Self> {
        let pointer = settings.data_dir.join(POINTER);
        remove(&pointer)?;
        if let Some(path) = &settings.admin.socket {
            if !fits(path) {
                let text = format!("admin.socket: {} has more than {PATH_BYTES_MAX} bytes", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            return Ok(Self { path: path.clone(), own_dir: None, pointer: None });
        }
        let path = settings.data_dir.canonicalize()?.join(NAME);
        if fits(&path) {
            return Ok(Self { path, own_dir: None, pointer: None });
        }
        let dir = short_dir()?;
        let path = dir.join(NAME);
        private::write(&pointer, &[path.as_os_str().as_bytes()])?;
        Ok(Self { path, own_dir: Some(dir), pointer: Some(pointer) })
    }

    pub fn remove(&self) {
        let leftovers = [Some(&self.path), self.pointer.as_ref()];
        for file in leftovers.into_iter().flatten() {
            if let Err(error) = remove(file) {
                tracing::warn!(file = %file.display(), %error, "failed to remove the socket");
            }
        }
        if let Some(dir) = &self.own_dir
            && let Err(error) = fs::remove_dir(dir)
        {
            tracing::warn!(dir = %dir.display(), %error, "failed to remove the socket's directory");
        }
    }
}

/// For a client: where a host of this app would serve.
pub fn find(settings: &Settings) -> io::Result<PathBuf> {
    if let Some(path) = &settings.admin.socket {
        return Ok(path.clone());
    }
    // Root may ask the host of another user.
    match private::read_of_anyone(&settings.data_dir.join(POINTER), POINTER_BYTES_MAX) {
        Ok(bytes) => return pointed_at(PathBuf::from(std::ffi::OsStr::from_bytes(&bytes)), &settings.data_dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(settings.data_dir.canonicalize()?.join(NAME))
}

/// What a host that was killed has left behind in a temporary directory may be another user's by now.
fn pointed_at(path: PathBuf, data_dir: &Path) -> io::Result<PathBuf> {
    let owner = fs::metadata(data_dir)?.uid();
    match fs::symlink_metadata(path.parent().unwrap_or(&path)) {
        Ok(dir) if dir.uid() != owner => {
            let text = format!("{} belongs to user {}, the data directory to user {owner}", path.display(), dir.uid());
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
        Ok(_) | Err(_) => Ok(path),
    }
}

pub fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= PATH_BYTES_MAX
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A fresh directory that only we can enter.
fn short_dir() -> io::Result<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let bases = runtime.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp")]);
    let mut failed = io::Error::other("no temporary directory has a path that is short enough");
    for base in bases {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let dir = base.join(format!("sagahost-{}", sagahost_saga::id::hex(&random)));
        if !fits(&dir.join(NAME)) {
            continue;
        }
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
