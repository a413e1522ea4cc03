//! Wakes up when the plugin directory changes, as far as its file system says so. Invariant: without such word the
//! keeper rescans anyway, only later.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, bounded};
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use sagahost_processor::step::Stop;
use tracing::debug;

use super::board::Waiting;

pub(super) struct Watch {
    dir: PathBuf,
    /// Device and inode of the directory that is watched.
    at: Option<(u64, u64)>,
    _watcher: Option<RecommendedWatcher>,
    bell: Receiver<()>,
}

impl Watch {
    pub(super) fn new(dir: &Path) -> Self {
        let (ring, bell) = bounded(1);
        // Reading the directory is an event too: reacting to it would never end.
        let changes = |event: &notify::Event| {
            !event.kind.is_access() || event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
        };
        let notified = move |event: notify::Result<notify::Event>| {
            if event.as_ref().is_ok_and(changes) || event.is_err() {
                let _ = ring.try_send(());
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
        Self { dir: dir.to_owned(), at, _watcher: watcher.ok(), bell }
    }

    /// The directory was made again, or a link was turned to another one.
    pub(super) fn is_elsewhere(&self) -> bool {
        place(&self.dir) != self.at
    }

    pub(super) fn wait(&self, timeout: Duration, orders: &Receiver<Waiting>, stop: &Stop) {
        const SLICE: Duration = Duration::from_millis(50);
        let until = Instant::now() + timeout;
        while !stop.asked() && orders.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            match self.bell.recv_timeout(left.min(SLICE)) {
                Ok(()) => return,
                Err(_) if left.is_zero() => return,
                // Without a watcher the channel is closed, and says so at once.
                Err(error) if error.is_disconnected() => std::thread::sleep(left.min(SLICE)),
                Err(_) => {}
            }
        }
    }
}

fn place(dir: &Path) -> Option<(u64, u64)> {
    fs::metadata(dir).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
