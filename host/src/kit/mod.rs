//! What `sagahost new` writes: a plugin crate that builds, with tests, and the SDK that it needs. Invariant: nothing is
//! asked of the network, and versions are those that this binary was built and tested with.
//!
//! In reading order: `names` (what the author typed, and the Rust names that follow), `skeleton` (the files of the crate),
//! `sources` (the SDK as this binary carries it), `vendor` (how it is unpacked), `lock` (the versions).

mod lock;
mod names;
mod skeleton;
mod sources;
mod vendor;

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub use names::{NameError, Names};

/// A crate that was made.
#[derive(Clone, Debug)]
pub struct Made {
    pub names: Names,
    pub dir: PathBuf,
    pub sdk: Sdk,
}

/// Where the crate has its SDK from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sdk {
    /// Unpacked into `vendor`.
    Unpacked,
    /// The repository that the crate was made in; the way from the crate to its root.
    Repository(String),
}

#[derive(Debug, thiserror::Error)]
pub enum KitError {
    #[error("{} exists and is not empty: choose another name, or name a directory with --dir DIR", dir.display())]
    Occupied { dir: PathBuf },
    #[error("failed to write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Makes the crate in `dir`, which must be absent or empty. It appears whole or not at all.
pub fn make(names: Names, dir: &Path) -> Result<Made, KitError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| KitError::Write { path, source }
    };
    if occupied(dir).map_err(fail(dir))? {
        return Err(KitError::Occupied { dir: dir.to_owned() });
    }
    let dir = std::path::absolute(dir).map_err(fail(dir))?;
    let parent = dir.parent().unwrap_or(&dir);
    fs::create_dir_all(parent).map_err(fail(parent))?;
    let sdk = match repository(parent).map_err(fail(parent))? {
        Some(way) => Sdk::Repository(way),
        None => Sdk::Unpacked,
    };
    // An existing directory is kept: a shell may be in it.
    let there = dir.exists();
    let partial = if there { &dir } else { parent }.join(format!(".{}.partial", names.name));
    let made = write(&files(&names, &sdk), &partial).and_then(|()| match there {
        true => move_entries(&partial, &dir),
        false => fs::rename(&partial, &dir),
    });
    if made.is_err() {
        // What is left of it would only be in the way.
        let _ = fs::remove_dir_all(&partial);
    }
    made.map_err(fail(&dir))?;
    format(&dir);
    Ok(Made { names, dir, sdk })
}

/// Names that a plugin crate cannot have: those of the packages that it depends on.
pub fn taken_names() -> Vec<String> {
    lock::package_names()
}

/// By path in the crate.
fn files(names: &Names, sdk: &Sdk) -> Vec<(String, String)> {
    let mut files = skeleton::files(names, sdk);
    files.push(("Cargo.lock".to_owned(), lock::of_plugin(&names.name)));
    if *sdk == Sdk::Unpacked {
        files.extend(vendor::files().into_iter().map(|(path, text)| (format!("vendor/{path}"), text)));
    }
    files
}

fn write(files: &[(String, String)], dir: &Path) -> io::Result<()> {
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// Into a directory that has nothing else: what is moved already goes again should one of them fail.
fn move_entries(from: &Path, to: &Path) -> io::Result<()> {
    let mut moved = Vec::new();
    let all = fs::read_dir(from)?.try_for_each(|entry| {
        let entry = entry?;
        let place = to.join(entry.file_name());
        fs::rename(entry.path(), &place)?;
        moved.push(place);
        Ok(())
    });
    if all.is_err() {
        for place in moved {
            let _ = fs::remove_dir_all(&place).or_else(|_| fs::remove_file(&place));
        }
        return all;
    }
    fs::remove_dir(from)
}

/// Where lines break depends on the names. Without rustfmt it is only less pretty.
fn format(dir: &Path) {
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.args(["--edition", "2024"]).arg(dir.join("src/lib.rs"));
    let _ = rustfmt.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

fn occupied(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(true),
        Err(error) => Err(error),
    }
}

/// The way to the root of this project's repository, from a crate in `parent`; none: `parent` is elsewhere.
fn repository(parent: &Path) -> io::Result<Option<String>> {
    let parent = parent.canonicalize()?;
    let depth = parent.ancestors().position(|root| {
        [vendor::SDK, vendor::TESTKIT].iter().all(|dir| root.join(dir).join("Cargo.toml").exists())
            && root.join("Cargo.toml").exists()
    });
    // A crate's own `vendor` looks the same from inside.
    let vendored = parent.components().any(|part| part.as_os_str() == "vendor");
    Ok(depth.filter(|_| !vendored).map(|depth| vec![".."; depth + 1].join("/")))
}
