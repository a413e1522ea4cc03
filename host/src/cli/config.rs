//! `sagahost config`. Invariant: it starts nothing, and shows no secret.

use clap::Subcommand;
use sagahost_saga::notation;

use super::{Site, exit::Failure, output::Output, reach, sagas::told};
use crate::{admin::protocol::Request, config::FILE_NAME};

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Report everything that is wrong with the file, with line numbers.
    Check,
    /// Have a running host read the file again: other values in `[plugin.*]` take effect at once.
    Reload,
    /// The configuration in force: every field with its value, without secrets.
    Show,
}

impl Config {
    pub fn carry_out(self, site: &Site, out: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Check => check(site, out),
            Self::Reload => told(&reach::ask(&site.config()?, Request::ReloadConfig)?, out),
            Self::Show => out.show(&site.config()?.shown(), |table, _| table.to_string()),
        }
    }
}

fn check(site: &Site, out: &mut Output) -> Result<(), Failure> {
    let config = match site.load()? {
        Ok(config) => config,
        Err(faults) if out.json => {
            let count = faults.faults.len();
            out.show(&faults, |faults, _| faults.to_string())?;
            return Err(Failure::usage(format!("{count} faults")));
        }
        Err(faults) => return Err(faults.into()),
    };
    let file = config.file.as_ref().map_or_else(|| FILE_NAME.to_owned(), |file| file.display().to_string());
    let right = serde_json::json!({ "file": file, "faults": [] });
    out.show(&right, |_, _| format!("{} is right", notation::line(&file)))
}
