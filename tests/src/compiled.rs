//! Compiled code that the hosts of all tests share, since compiling is most of what a start takes. Invariant: a host's
//! cache stays its own; what it removes is removed for nobody else.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::built;

/// A host's cache of compiled code, filled before it starts. When this is dropped, what the host compiled is kept for
/// others.
pub struct Lent {
    cache: PathBuf,
}

/// For the host that will run on this data directory. One that is a link gets nothing: it is elsewhere for a reason, such
/// as little room.
pub fn lend(data: &Path) -> Lent {
    let cache = data.join("cache");
    if !data.is_symlink() {
        copy_new(&shelf(), &cache).expect("compiled code can be lent");
    }
    Lent { cache }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // The host's directory may be gone already.
        let _ = copy_new(&self.cache, &shelf());
    }
}

fn shelf() -> PathBuf {
    built::root().join("target/plugins/compiled-2")
}

/// Files are never changed once they have their name, so two directories can hold the same one.
fn copy_new(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from).into_iter().flatten().flatten() {
        let (source, target) = (file.path(), to.join(file.file_name()));
        if source.extension().is_none_or(|extension| extension != "cwasm") || target.exists() {
            continue;
        }
        match fs::hard_link(&source, &target) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => copy(&source, &target)?,
            // Another test was faster, or the host has removed it.
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Readers see all of the file or nothing.
fn copy(source: &Path, target: &Path) -> io::Result<()> {
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let number = COPIES.fetch_add(1, Ordering::Relaxed);
    let part = target.with_extension(format!("{}.{number}.part", std::process::id()));
    fs::copy(source, &part)?;
    fs::rename(&part, target)
}
