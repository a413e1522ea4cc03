//! The lock that makes one process the owner of a data directory. Invariant: the lock dies with its holder, however
//! that ends; nothing has to be cleaned up after a crash.

use std::{
    fs::{File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use sagahost_journal::JournalError;
use sagahost_private as private;

use crate::holder::Holder;

const FILE: &str = "journal.lock";

const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Held while it lives.
#[derive(Debug)]
pub(super) struct OwnerLock {
    _file: File,
}

impl OwnerLock {
    /// Waits a moment: a host that was killed holds the lock until the system has taken it apart, and a child that
    /// another thread is starting holds it until it runs its own program.
    pub(super) fn take(dir: &Path, wait: Duration) -> Result<Self, JournalError> {
        let path = dir.join(FILE);
        let told = |error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                JournalError::DiskFull(format!("{} cannot be written ({error}): free some space", path.display()))
            }
            _ => JournalError::Unusable(format!(
                "{} cannot be opened ({error}): the host needs read and write permission on {}",
                path.display(),
                dir.display()
            )),
        };
        let mut file = private::open_or_create(&path).map_err(told)?;
        let until = Instant::now() + wait;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(AGAIN_AFTER),
                Err(TryLockError::WouldBlock) => return Err(held(dir, &mut file)),
                Err(TryLockError::Error(error)) => return Err(told(error)),
            }
        }
        write_pid(&mut file).map_err(told)?;
        Ok(Self { _file: file })
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn held(dir: &Path, file: &mut File) -> JournalError {
    let mut text = String::new();
    let noted = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
    let holder = Holder::of(file, noted);
    JournalError::InUse(format!("the journal in {} {}", dir.display(), holder.told(&dir.join(FILE))))
}
