//! `sagahost build`. Invariant: what it writes is what a plugin directory takes, and an unchanged plugin is the same
//! bytes.

use std::path::PathBuf;

use clap::Args;
use sagahost_sandbox::{crate_build, report::lossily};
use serde::Serialize;

use super::{
    exit::{Exit, Failure},
    output::{Output, say},
    table::{Cell, Table},
};

#[derive(Debug, Args)]
pub struct Build {
    /// Directories of crates.
    #[arg(required = true, value_name = "PLUGIN_CRATE")]
    crates: Vec<PathBuf>,
    /// Where NAME.wasm goes.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Cargo's target directory; else target/plugins of the crate's workspace.
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// Install with apt-get what is missing (as root only).
    #[arg(long)]
    install: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct BuiltLine {
    plugin: String,
    version: Option<String>,
    #[serde(serialize_with = "lossily")]
    file: PathBuf,
    bytes: usize,
    changed: bool,
    note: Option<&'static str>,
}

impl Build {
    pub fn carry_out(self, out: &mut Output) -> Result<(), Failure> {
        let request = crate_build::Request {
            crates: self.crates,
            out: self.out,
            target_dir: self.target_dir,
            install: self.install,
        };
        let built =
            crate_build::build(&request, &mut say).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        let lines: Vec<BuiltLine> = built
            .into_iter()
            .map(|built| BuiltLine {
                plugin: built.name,
                version: built.manifest.as_ref().map(|manifest| manifest.version.clone()),
                file: built.file,
                bytes: built.bytes,
                changed: built.changed,
                note: built.manifest.is_none().then_some("has no manifest yet: sagahost plugins pack"),
            })
            .collect();
        out.show(&lines, |lines, out| text(lines, out))
    }
}

fn text(lines: &[BuiltLine], out: &Output) -> String {
    let mut table = Table::new(["plugin", "version", "bytes", "file", ""]);
    for line in lines {
        let note = line.note.unwrap_or(if line.changed { "" } else { "unchanged" });
        table.row([
            (&line.plugin).into(),
            line.version.clone().unwrap_or_default().into(),
            Cell::number(line.bytes),
            line.file.display().to_string().into(),
            note.into(),
        ]);
    }
    table.render(out.colour)
}
