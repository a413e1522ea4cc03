//! Why plugins cannot be kept or served. Invariant: what is wrong with a file is a report, and no error.

use std::{io, path::PathBuf};

use sagahost_journal::JournalError;
use sagahost_manifest::Report;

use crate::admission::ArchiveError;

#[derive(Debug, thiserror::Error)]
pub enum PluginsError {
    #[error("failed to use the stored versions of plugins")]
    Stored {
        #[from]
        source: ArchiveError,
    },
    #[error("failed to remove compiled code")]
    Compiled { source: io::Error },
    #[error("failed to read or write what the journal knows of plugins")]
    Journal {
        #[from]
        source: JournalError,
    },
    #[error("failed to write the manifest of plugin {plugin} as JSON")]
    Manifest { plugin: String, source: serde_json::Error },
    #[error("not started, as `strict` asks: not every file of the plugin directory is admitted{}", lines(refused))]
    Strict { refused: Vec<Report> },
    #[error("nothing to run: no plugin in {} is admitted{}", dir.display(), lines(refused))]
    NothingToRun { dir: PathBuf, refused: Vec<Report> },
}

fn lines(reports: &[Report]) -> String {
    reports.iter().map(|report| format!("\n{report}")).collect()
}
