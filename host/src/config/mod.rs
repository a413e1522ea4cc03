//! The configuration: one TOML file, parsed at the edge, once. Invariant: inside of the host a `Config` is right; who
//! holds one need not check anything again.

mod settings;

mod faults;
mod kafka;
mod limits;
mod reader;
mod schema;
mod show;

use std::{fs, path::Path};

pub use faults::{Fault, Faults};
pub use kafka::{KafkaSettings, Property, Start, is_secret};
pub use reader::{format_duration, parse_duration};
pub use sagahost_sandbox::limits::Limits;
pub use schema::field_names;
pub use settings::*;

/// Found in the current directory by every command.
pub const FILE_NAME: &str = "sagahost.toml";

/// A configuration is written by hand: a larger file is something else.
const FILE_BYTES_MAX: u64 = 4 << 20;

impl Config {
    pub fn load(file: &Path) -> Result<Self, Faults> {
        let failed = |error| Faults::of(file, format!("failed to read the configuration: {error}"));
        let size = fs::metadata(file).map_err(failed)?.len();
        if size > FILE_BYTES_MAX {
            return Err(Faults::of(file, format!("has {size} bytes, which is no configuration")));
        }
        let text = fs::read_to_string(file).map_err(failed)?;
        Self::parse(&text, file)
    }

    /// `file` is for messages, and relative paths start at its directory.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Faults> {
        schema::check(text, file)
    }

    /// The effective configuration as TOML, every field with its value, without secrets.
    pub fn shown(&self) -> toml::Table {
        show::table(self)
    }
}

#[cfg(test)]
mod tests;
