//! A host in memory, for tests of participants. Invariant: sagas are decided by the host's own core, and what a plugin
//! may not do is refused in the host's own words.

mod answer;
mod golden;
mod mock_host;
mod plugin;
mod saga;

pub mod code;
mod convert;
pub mod engine;
pub mod native;
mod pipe;
pub mod protocol;
pub mod timeline;
pub mod values;

pub use answer::Answer;
pub use code::{Code, Ran};
pub use mock_host::MockHost;
pub use native::Native;
pub use plugin::PluginOf;
pub use protocol::Sent;
pub use saga::SagaOf;
pub use sagahost_saga::input::Status;
pub use serde_json::json;

/// What is wrong, one below the other, each with its place and what to do about it.
pub(crate) fn faults(faults: &[sagahost_manifest::Fault]) -> String {
    let told = faults.iter().map(|fault| {
        let sagahost_manifest::Fault { what, place, fix } = fault;
        format!("\n  - {what}\n    where: {place}\n    do:    {fix}")
    });
    told.collect()
}
