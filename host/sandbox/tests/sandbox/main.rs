//! The sandbox with real WebAssembly: a guest that misbehaves, files that are wrong. Invariant: every fault ends in a
//! cause that people can read, and none in an error of the host's.

#![expect(clippy::unwrap_used, reason = "tests")]

mod kit;

mod building;
mod compiled_code;
mod files;
mod hostile;
mod outcomes;
mod reuse;
mod versions;
