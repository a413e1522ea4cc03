//! Plugins: building them, reading what they say of themselves, admitting them, and running them in wasmtime.
//! Invariant: a guest reaches nothing but what `guest` offers, and nothing it does is an error of the host's.

// In reading order: from the file to the call.
pub mod limits;
pub mod manifest;
mod manifest_check;
pub mod report;

mod anatomy;
pub mod crate_build;
pub mod pack;
mod toolchain;

pub mod admission;
pub mod digests;
pub mod directory;
pub mod graph;
pub mod members;
pub mod registry;
pub mod settings;

mod answer;
mod bindings;
pub mod call;
mod crash;
pub mod engine;
pub mod guest;
pub mod instance;

pub use call::{End, HostError, Plugin, Ran};
pub use engine::{CompileError, Engine, EngineError};
pub use guest::{BoxError, HostCalls, HostFault, Level};
pub use instance::Instance;
pub use limits::Limits;
pub use manifest::Manifest;
pub use report::{Fault, Report};
