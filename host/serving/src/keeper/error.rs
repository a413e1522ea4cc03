//! Why a change of plugins does not take effect. Invariant: what was asked for and is refused changed nothing.

use std::{error::Error, path::PathBuf};

use sagahost_journal::JournalError;
use sagahost_manifest::Report;
use sagahost_processor::start::StartError;
use sagahost_saga::id::Participant;
use sagahost_transport::TransportError;

use crate::plugins::PluginsError;

#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("no plugin {plugin} was ever admitted here; `sagahost plugins list` names those that were")]
    NeverAdmitted { plugin: Participant },
    #[error("plugin {plugin} does not serve")]
    NotServing { plugin: Participant },
    #[error("plugin {plugin} is not paused by an operator")]
    NotPaused { plugin: Participant },
    #[error("no version of plugin {plugin} is in quarantine")]
    NoneQuarantined { plugin: Participant },
    #[error("no other version of plugin {plugin} is stored")]
    NoOtherVersion { plugin: Participant },
    #[error("plugin {plugin} is retired")]
    Retired { plugin: Participant },
    #[error("plugin {plugin} is retired already")]
    RetiredAlready { plugin: Participant },
    #[error("the version of plugin {plugin} that is in quarantine is not in the plugin directory")]
    QuarantinedFileGone { plugin: Participant },
    #[error("{} is in the plugin directory: remove it first, then plugin {plugin} can be retired", file.display())]
    FileThere { plugin: Participant, file: PathBuf },
    /// `count` of them, and `some` of their ids, for people.
    #[error("{count} unfinished sagas need it ({some}): let them end or cancel them, or --force")]
    Needed { count: String, some: String },
    #[error("this host runs without a configuration file: there is nothing to read again")]
    NoConfiguration,
    #[error("nothing is changed")]
    Configuration { source: Box<dyn Error + Send + Sync> },
    #[error("nothing is changed:{}", reports(refused))]
    NotAdmitted { refused: Vec<Report> },
    #[error("the plugin directory is changing just now; it is read again when it stands still")]
    DirectoryChanging,
    #[error("failed to read the plugin directory")]
    Directory { source: Report },
    /// The change itself was undone.
    #[error("nothing is changed")]
    Unchanged { source: Box<ChangeError> },
    #[error(transparent)]
    Plugins(#[from] PluginsError),
    #[error("failed to look after the topics of the new plugins")]
    Topics { source: StartError },
    #[error("failed to ask for the ends of topics that were not read before")]
    Positions { source: TransportError },
    #[error("failed to read or write the journal")]
    Journal {
        #[from]
        source: JournalError,
    },
}

fn reports(refused: &[Report]) -> String {
    refused.iter().map(|report| format!("\n{report}")).collect()
}
