//! `sagahost config`. Invariant: it starts nothing, and shows no secret.

use clap::Subcommand;
use sagahost_operator::{plugin_view::PluginsView, protocol::Request};
use sagahost_saga::notation;

use super::{Site, exit::Failure, output::Output, reach, sagas::told};
use crate::{
    config::{self, FILE_NAME, Faults},
    preflight::{self, Known},
};

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

/// What a start refuses, and what has no effect, all at once.
fn check(site: &Site, out: &mut Output) -> Result<(), Failure> {
    let file = match site.file()? {
        Some(file) => file,
        None => return out.show(&serde_json::json!({ "faults": [] }), |_, _| "there is no file to check".to_owned()),
    };
    let path = file.config.file.clone().unwrap_or_else(|| FILE_NAME.into());
    let known = known_plugins(&file.config);
    let mut faults = preflight::refused(&file);
    let strays = preflight::strays(&file.config, &known).into_iter().chain(preflight::plugin_faults(&file.config));
    faults.extend(strays.map(|stray| stray.fault(&file)));
    faults.sort();
    let report = Faults { file: path, faults };
    let count = report.faults.len();
    match (count, out.json) {
        (0, _) => out.show(&report, |report, _| valid_text(&file.config, &known, report)),
        (_, true) => {
            out.show(&report, |report, _| report.to_string())?;
            Err(Failure::usage(format!("{count} faults")))
        }
        (_, false) => Err(report.into()),
    }
}

fn valid_text(config: &config::Config, known: &Known, report: &Faults) -> String {
    let text = format!("{} is valid", notation::line(&report.file.display().to_string()));
    let compared = config.plugins.is_empty() || !known.is_empty();
    if compared {
        return text;
    }
    let dir = notation::line(&config.plugins_dir.display().to_string()).into_owned();
    format!("{text}\nthere is no plugin in {dir}: [plugin.*] was compared with none")
}

/// Those of the directory; a running host also knows plugins whose files are gone.
fn known_plugins(config: &config::Config) -> Known {
    let mut known = Known::of(config, &[]);
    if let Ok(Some(mut host)) = reach::host(config)
        && let Ok(value) = host.ask(&Request::Plugins)
        && let Ok(view) = serde_json::from_value::<PluginsView>(value)
    {
        known.names.extend(view.plugins.into_iter().map(|line| line.name));
    }
    known
}
