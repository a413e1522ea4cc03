//! Plugins as files: building them, admitting them, and running them in wasmtime. Invariant: a guest reaches nothing
//! but what `guest` offers, and nothing it does is an error of the host's.

// In reading order: from the file to the call.
mod anatomy;
pub mod crate_build;
pub mod pack;
mod toolchain;

pub mod admission;
pub mod compiler;
pub mod digests;
mod shape;
mod smoke;

mod answer;
mod bindings;
pub mod cache;
pub mod call;
mod crash;
pub mod engine;
pub mod guest;
pub mod instance;
pub mod key;
mod turns;

pub use call::{HostError, Plugin, Ran};
pub use compiler::{CompileError, Compiler};
pub use engine::{Engine, EngineError};
pub use instance::Instance;
// In these terms the sandbox is talked to.
pub use sagahost_manifest::{
    Fault, Limits, Manifest, Report, graph, http, limits, manifest, members, report, settings,
};
pub use sagahost_saga::outcome::End;
