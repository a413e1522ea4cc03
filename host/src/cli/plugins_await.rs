//! `sagahost plugins await`: for scripts that ship plugins. Invariant: a file is known by its bytes, so what served before
//! under its name does not count.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use sagahost_operator::{
    plugin_view::{PluginLine, PluginsView},
    protocol::Request,
};
use sagahost_saga::notation;
use sagahost_sandbox::admission::digest;
use sagahost_serving::short;

use super::{
    exit::{Exit, Failure},
    output::Output,
    reach,
};
use crate::config::{Config, format_duration};

const EVERY: Duration = Duration::from_millis(100);

pub fn carry_out(config: &Config, files: &[PathBuf], patience: Duration, out: &mut Output) -> Result<(), Failure> {
    let mut wanted = files.iter().map(|file| Wanted::read(file)).collect::<Result<Vec<_>, _>>()?;
    let mut serve = Vec::new();
    let end = Instant::now() + patience;
    loop {
        let Some(mut host) = reach::host(config)? else {
            let text = format!("no host is running with the data directory {}", config.data_dir.display());
            return Err(Failure::new(Exit::HostNotReached, text));
        };
        let value = host.ask(&Request::Plugins)?;
        let view: PluginsView = serde_json::from_value(value)?;
        let mut open = Vec::new();
        for file in wanted {
            match file.line(&view).map(|line| (line, &*line.state)) {
                Some((line, "serving" | "probation")) => serve.push(line.clone()),
                Some((line, "quarantined" | "paused")) => return Err(file.kept_out(line)),
                _ => open.push(file),
            }
        }
        if open.is_empty() {
            return out.show(&serve, |lines, _| lines.iter().map(served).collect());
        }
        if Instant::now() >= end {
            return Err(timed_out(&open, &view, patience));
        }
        wanted = open;
        thread::sleep(EVERY);
    }
}

struct Wanted<'f> {
    file: &'f Path,
    digest: String,
}

impl<'f> Wanted<'f> {
    fn read(file: &'f Path) -> Result<Self, Failure> {
        let bytes =
            fs::read(file).map_err(|error| Failure::usage(format!("failed to read {}: {error}", file.display())))?;
        Ok(Self { file, digest: digest(&bytes).to_string() })
    }

    fn line<'v>(&self, view: &'v PluginsView) -> Option<&'v PluginLine> {
        view.plugins.iter().find(|line| line.digest == self.digest)
    }

    fn kept_out(&self, line: &PluginLine) -> Failure {
        let note = line.note.as_deref().map_or_else(String::new, |note| format!(": {note}"));
        let text = format!("{} {} ({}) is {}{note}", line.name, line.version, self.file.display(), line.state);
        Failure::new(Exit::Failed, text)
    }
}

pub fn served(line: &PluginLine) -> String {
    let said = format!("{} {} serves ({})", line.name, line.version, short(&line.digest));
    format!("{}\n", notation::line(&said))
}

fn timed_out(open: &[Wanted<'_>], view: &PluginsView, patience: Duration) -> Failure {
    let names: Vec<String> = open.iter().map(|wanted| wanted.file.display().to_string()).collect();
    let mut text =
        format!("timed out after {} waiting for the host to serve {}", format_duration(patience), names.join(", "));
    for report in &view.refused {
        text += &format!("\n{report}");
    }
    Failure::new(Exit::Failed, text)
}
