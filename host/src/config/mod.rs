//! The configuration: one TOML file, parsed at the edge, once. Invariant: inside of the host a `Config` is right; who
//! holds one need not check anything again.

mod settings;

pub use sagahost_sandbox::limits::Limits;
pub use settings::*;

/// Found in the current directory by every command.
pub const FILE_NAME: &str = "sagahost.toml";

/// Placeholder until the Kafka transport has its own.
#[derive(Clone, Debug, Default)]
pub struct KafkaSettings;
