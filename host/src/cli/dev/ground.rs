//! Where `sagahost dev` keeps its things: a directory beside the crate. Invariant: only one host works in it, and data of
//! the run before is gone.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use sagahost_private as private;

use crate::cli::exit::{Exit, Failure};

/// Beside the crate; commands that are typed there find the host by it.
const DIR: &str = ".sagahost-dev";
/// The data directory, seen from the crate.
pub const DATA: &str = ".sagahost-dev/data";

pub struct Ground {
    pub data: PathBuf,
    pub plugins: PathBuf,
    /// Held as long as this host works here.
    _lock: File,
}

impl Ground {
    /// `plugins`: another plugin directory than its own.
    pub fn prepare(crate_dir: &Path, plugins: Option<&Path>) -> Result<Self, Failure> {
        if !crate_dir.join("Cargo.toml").is_file() {
            let dir = crate_dir.display();
            let text = format!(
                "there is no crate in {dir}: go to a plugin's directory, name it with --dir DIR, or make one with \
                 `sagahost new NAME`"
            );
            return Err(Failure::usage(text));
        }
        let dir = crate_dir.join(DIR);
        let data = crate_dir.join(DATA);
        let plugins = plugins.map_or_else(|| dir.join("plugins"), Path::to_owned);
        let lock = occupy(&dir)?;
        let fresh = || {
            remove(&data)?;
            private::make_dir(&data)?;
            fs::create_dir_all(&plugins)?;
            // Nobody wants it in a repository.
            fs::write(dir.join(".gitignore"), "*\n")
        };
        fresh().map_err(|error| failed(&dir, &error))?;
        Ok(Self { data, plugins, _lock: lock })
    }
}

fn occupy(dir: &Path) -> Result<File, Failure> {
    let open = || {
        fs::create_dir_all(dir)?;
        File::options().create(true).truncate(false).write(true).open(dir.join("lock"))
    };
    let file = open().map_err(|error| failed(dir, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            let text = format!("another `sagahost dev` is running in {}: stop it first", dir.display());
            Err(Failure::new(Exit::Failed, text))
        }
        Err(fs::TryLockError::Error(error)) => Err(failed(dir, &error)),
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(dir: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("failed to prepare {}: {error}", dir.display()))
}
