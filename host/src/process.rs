//! What this process takes from the system, and leaves to other users. Invariant: only `sagahost run` asks for it; what a command makes for others to
//! use (plugins, crates) has the permissions of the shell that it was typed in.

use rustix::{
    fs::Mode,
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask},
};
use tracing::warn;

/// Whatever is made from here on, by any library, is for this user alone.
pub fn make_files_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// The allocator gives each thread its own region. With pages of 2 MiB an idle host takes twice the memory, a host after a burst
/// 1.5 times as much, and neither is faster.
pub fn refuse_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        warn!(%error, "failed to refuse large pages: the host takes more memory than it would without");
    }
}

/// A connection is a file, and a shell allows a process a thousand of them unless it asks for more.
pub fn allow_descriptors(connections_max: usize) {
    /// For the journal, the broker, plugins and services.
    const BESIDE: u64 = 1_024;
    let (wanted, Rlimit { current, maximum }) = (connections_max as u64 + BESIDE, getrlimit(Resource::Nofile));
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let allowed = maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum }) {
        warn!(%error, "failed to ask the system for more open files");
    }
    if allowed < wanted {
        warn!(
            allowed,
            wanted,
            "fewer connections than http.connections-max fit into the files that this process may open: raise the limit (`ulimit -Hn`)"
        );
    }
}

/// Memory holds what the configuration keeps secret, and the data of sagas. A limit of zero is not heard by programs that
/// the system pipes a dump into; a process that is not dumpable is not read by them either, nor by a debugger of its user.
pub fn forbid_core_dumps() {
    // What it opens cannot be opened afterwards, but by root.
    sagahost_sandbox::engine::prepare_process();
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none).and(set_dumpable_behavior(DumpableBehavior::NotDumpable)) {
        warn!(%error, "failed to forbid core dumps: one of this process would hold its secrets");
    }
}
