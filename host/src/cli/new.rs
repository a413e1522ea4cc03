//! `sagahost new`. Invariant: it asks nothing, changes nothing that is there, and what it makes builds and passes its
//! tests.

use std::path::PathBuf;

use clap::Args;
use sagahost_saga::notation;
use sagahost_sandbox::report::lossily;
use serde::Serialize;

use super::{exit::Failure, output::Output};
use crate::kit::{self, KitError, Made, Names, Sdk};

#[derive(Debug, Args)]
pub struct New {
    /// The plugin's name, and the crate's: lower-case letters, digits and hyphens.
    name: String,
    /// The kind of event that it takes; OrderCreated unless given.
    #[arg(long, value_name = "KIND")]
    on: Option<String>,
    /// The kind of event that it emits; made from the name unless given.
    #[arg(long, value_name = "KIND")]
    emits: Option<String>,
    /// Where the crate goes, absent or empty; else ./NAME.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct MadeView {
    plugin: String,
    #[serde(serialize_with = "lossily")]
    dir: PathBuf,
    on: String,
    emits: String,
    /// Where the SDK is, seen from the crate.
    sdk: String,
}

impl New {
    pub fn carry_out(self, out: &mut Output) -> Result<(), Failure> {
        let names = Names::check(&self.name, self.on.as_deref(), self.emits.as_deref(), &kit::taken_names())
            .map_err(|error| Failure::usage(error.to_string()))?;
        let dir = self.dir.unwrap_or_else(|| PathBuf::from(&self.name));
        let made = kit::make(names, &dir).map_err(failure)?;
        let typed = notation::word(&dir.display().to_string());
        out.show(&MadeView::from(&made), |view, _| {
            format!(
                "made plugin {} in {typed}: it takes {} and emits {}\n\
                 next:\n  \
                 cd {typed}\n  \
                 cargo test\n  \
                 sagahost dev",
                view.plugin, view.on, view.emits
            )
        })
    }
}

impl From<&Made> for MadeView {
    fn from(made: &Made) -> Self {
        Self {
            plugin: made.names.name.clone(),
            dir: made.dir.clone(),
            on: made.names.on.kind.clone(),
            emits: made.names.emits.kind.clone(),
            sdk: match &made.sdk {
                Sdk::Unpacked => "vendor".to_owned(),
                Sdk::Repository(way) => way.clone(),
            },
        }
    }
}

fn failure(error: KitError) -> Failure {
    match error {
        occupied @ KitError::Occupied { .. } => Failure::usage(occupied.to_string()),
        write @ KitError::Write { .. } => write.into(),
    }
}
