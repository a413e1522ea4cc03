//! Raises a signal when the plugin directory changes, as far as its file system says so. Invariant: without such word the
//! keeper rescans anyway, only later.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use sagahost_processor::step::Signal;
use sagahost_serving::admission::Watch;
use tracing::debug;

pub(super) struct FileWatch {
    dir: PathBuf,
    /// Device and inode of the directory that is watched.
    at: Option<(u64, u64)>,
    _watcher: Option<RecommendedWatcher>,
}

impl FileWatch {
    pub(super) fn new(dir: &Path, changed: Arc<Signal>) -> Self {
        // Reading the directory is an event too: reacting to it would never end.
        let changes = |event: &notify::Event| {
            !event.kind.is_access() || event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
        };
        let notified = move |event: notify::Result<notify::Event>| {
            if event.as_ref().is_ok_and(changes) || event.is_err() {
                changed.raise();
            }
        };
        let at = place(dir);
        let watcher = notify::recommended_watcher(notified).and_then(|mut watcher| {
            watcher.watch(dir, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            debug!(%error, "no file system notifications: the plugin directory is rescanned from time to time");
        }
        Self { dir: dir.to_owned(), at, _watcher: watcher.ok() }
    }
}

impl Watch for FileWatch {
    fn is_elsewhere(&self) -> bool {
        place(&self.dir) != self.at
    }
}

fn place(dir: &Path) -> Option<(u64, u64)> {
    fs::metadata(dir).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
