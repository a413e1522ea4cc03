//! What this process leaves to other users. Invariant: only `sagahost run` asks for it; what a command makes for others to
//! use (plugins, crates) has the permissions of the shell that it was typed in.

use rustix::{
    fs::Mode,
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask},
};
use tracing::warn;

/// Whatever is made from here on, by any library, is for this user alone.
pub fn make_files_private() {
    umask(Mode::RWXG | Mode::RWXO);
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
