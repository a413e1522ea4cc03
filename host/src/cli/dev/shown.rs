//! What of sagas and plugins was shown already. Invariant: each line of a timeline is shown once, in its order.

use std::{collections::BTreeMap, time::Duration};

use sagahost_operator::{
    plugin_view::PluginsView,
    stamp::Stamp,
    view::{SagaPage, SagaView},
};
use sagahost_saga::notation;
use sagahost_sandbox::Report;

use crate::cli::timeline;

/// Of how many sagas the news are followed, newest first.
pub const SAGAS_MAX: usize = 100;
/// A saga that changed so short a while ago may have changed again within the same millisecond.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Shown {
    sagas: BTreeMap<String, Saga>,
    /// Digest by plugin.
    plugins: BTreeMap<String, String>,
    refused: Vec<Report>,
}

#[derive(Default)]
struct Saga {
    changed: Stamp,
    lines: usize,
}

impl Shown {
    /// Timelines as they have grown since the last look, oldest saga first.
    pub fn sagas<E>(
        &mut self,
        page: &SagaPage,
        now: Stamp,
        colour: bool,
        look_up: impl Fn(&str) -> Result<SagaView, E>,
    ) -> Result<Vec<String>, E> {
        self.sagas.retain(|id, _| page.sagas.iter().any(|saga| saga.id == *id));
        let mut news = Vec::new();
        for line in page.sagas.iter().rev() {
            let seen = self.sagas.entry(line.id.clone()).or_default();
            if seen.changed == line.updated && now.0.since(line.updated.0) > FRESH {
                continue;
            }
            seen.changed = line.updated;
            let saga = look_up(&line.id)?;
            if saga.timeline.len() > seen.lines {
                news.push(timeline::news(&saga, seen.lines, colour));
                seen.lines = saga.timeline.len();
            }
        }
        Ok(news)
    }

    /// Plugins that serve since the last look, and files that are refused since then.
    pub fn plugins(&mut self, view: &PluginsView) -> Vec<String> {
        let mut news = Vec::new();
        for line in view.plugins.iter().filter(|line| matches!(&*line.state, "serving" | "probation")) {
            let before = self.plugins.insert(line.name.clone(), line.digest.clone());
            if before.as_ref() == Some(&line.digest) {
                continue;
            }
            let digest = line.digest.get(..12).unwrap_or(&line.digest);
            let what = if before.is_some() { "serves from the next event on" } else { "serves" };
            let said = format!("{} {} {what} (digest {digest}): {}", line.name, line.version, takes(&line.handles));
            news.push(notation::line(&said).into_owned());
        }
        for report in view.refused.iter().filter(|report| !self.refused.contains(report)) {
            news.push(report.to_string());
        }
        self.refused.clone_from(&view.refused);
        news
    }
}

fn takes(kinds: &[String]) -> String {
    let examples: Vec<String> = kinds.iter().map(|kind| format!("`example {kind}`")).collect();
    format!("try {}", examples.join(", "))
}
