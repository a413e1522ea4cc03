//! A host in memory, for tests of participants. Invariant: sagas are decided by the host's own core, and what a plugin
//! may not do is refused in the host's own words.

pub mod code;
mod convert;
pub mod native;
pub mod values;

pub use code::{Code, Ran};
pub use native::Native;
