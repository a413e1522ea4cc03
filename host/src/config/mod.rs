//! The configuration: one TOML file, parsed at the edge, once. Invariant: inside of the host a `Config` is right; who
//! holds one need not check anything again.

mod settings;

mod alerts;
mod faults;
mod grants;
mod http;
mod ingress;
mod java_clients;
mod kafka;
mod limits;
mod narrow;
mod participants;
mod properties;
mod reader;
mod records;
mod reload;
mod schema;
mod secrets;
mod servers;
mod show;

use std::{fs, path::Path};

pub use faults::{Fault, Faults};
pub use http::{is_own, parse_url};
pub use reader::{format_duration, parse_duration};
pub use reload::ReloadedFile;
pub use sagahost_sandbox::limits::Limits;
pub use schema::field_names;
pub use settings::*;

/// Found in the current directory by every command.
pub const FILE_NAME: &str = "sagahost.toml";

/// A configuration is written by hand: a larger file is something else.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file as it was read. What is wrong is listed, and has its default in `config`.
#[derive(Debug)]
pub struct ConfigFile {
    pub config: Config,
    pub faults: Vec<Fault>,
    text: String,
}

impl ConfigFile {
    /// # Errors
    /// The file cannot be read.
    pub fn read(file: &Path) -> Result<Self, Faults> {
        let failed = |error| Faults::of(file, format!("failed to read the configuration: {error}"));
        let size = fs::metadata(file).map_err(failed)?.len();
        if size > FILE_BYTES_MAX {
            return Err(Faults::of(file, format!("has {size} bytes; a configuration has at most {FILE_BYTES_MAX}")));
        }
        let text = fs::read_to_string(file).map_err(failed)?;
        let (config, faults) = schema::read(&text, file);
        Ok(Self { config, faults, text })
    }

    /// Where a table or a field begins: `plugin.payment`, `kafka.properties.linger.ms`.
    pub fn line_of(&self, path: &str) -> Option<usize> {
        reader::line_of(&self.text, path)
    }
}

impl Config {
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn load(file: &Path) -> Result<Self, Faults> {
        let ConfigFile { config, faults, .. } = ConfigFile::read(file)?;
        if faults.is_empty() { Ok(config) } else { Err(Faults { file: file.to_owned(), faults }) }
    }

    /// `file` is for messages, and relative paths start at its directory.
    ///
    /// # Errors
    /// Everything that is wrong with the text.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Faults> {
        let (config, faults) = schema::read(text, file);
        if faults.is_empty() { Ok(config) } else { Err(Faults { file: file.to_owned(), faults }) }
    }

    /// The effective configuration as TOML, every field with its value, without secrets.
    pub fn shown(&self) -> toml::Table {
        show::table(self)
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
