//! What serves and what does not, for operators, and what is worth knowing about it. Invariant: it follows from what
//! serves and from the journal, so log, commands and the file in the data directory agree.

use std::{io, path::Path};

use sagahost_journal::AdmittedRow;
use sagahost_manifest::{Report, graph::Graph};

use super::{Participating, Plugins};
use crate::{
    admission::Admitted,
    view::{GONE, PluginLine, PluginsView},
};

impl Plugins {
    /// `waits`: files whose new version waits for another file (`PluginsView::list_waiting` lists these versions).
    pub fn view(&self, refused: Vec<Report>, waits: &dyn Fn(&Path) -> bool) -> PluginsView {
        let lines = self.rows.iter().map(|row| self.line(row, &refused, waits));
        let lines = lines.filter(|line| line.is_listed(|digest| self.archive.has(digest))).collect();
        PluginsView::sorted(lines, refused, self.settings.values.configured())
    }

    fn line(&self, row: &AdmittedRow, refused: &[Report], waits: &dyn Fn(&Path) -> bool) -> PluginLine {
        if let Some(why) = &row.quarantined {
            return PluginLine { note: Some(why.clone()), ..PluginLine::of_row(row, "quarantined") };
        }
        let serving = self.serving.values().find(|admitted| {
            row.serving && admitted.plugin.name() == row.participant && *admitted.plugin.digest() == row.digest
        });
        let paused = self.paused.get(&row.participant).filter(|_| row.serving);
        let unreachable = self.unreachable.get(&row.participant).filter(|_| row.serving && serving.is_some());
        let retired = !self.rows.iter().any(|other| other.participant == row.participant && other.serving);
        let state = match (row.serving, paused, serving) {
            (true, None, Some(_)) if unreachable.is_some() => "unreachable",
            (true, None, Some(_)) => "serving",
            (true, _, _) => "paused",
            (false, _, _) if retired => "retired",
            (false, _, _) => "stored",
        };
        let mut line = PluginLine::of_row(row, state);
        line.note = paused.or(unreachable).cloned();
        let Some(admitted) = serving else {
            if row.serving {
                line.note.get_or_insert_with(|| GONE.to_owned());
            }
            return line;
        };
        line.file = Some(admitted.file.display().to_string());
        line.notes = self.notes(admitted);
        if refused.iter().any(|report| report.file == admitted.file) {
            line.note = Some("the file is another one now, and refused: see below".to_owned());
        } else if waits(&admitted.file) {
            line.note = Some("the file is another one now, and waits for one that changed with it".to_owned());
        }
        line
    }

    /// What admission found that is no fault.
    pub fn notes(&self, admitted: &Admitted) -> Vec<String> {
        let mut notes: Vec<String> = Vec::new();
        for (format, by) in self.foreign_formats(admitted) {
            let Some(stored) = by else { continue };
            let version = &stored.manifest.version;
            notes.push(format!(
                "unfinished sagas hold data of format {format}, which it does not read: they continue with {version}"
            ));
        }
        let participants = self.participants(&self.serving);
        let graph = Graph::of(participants.iter().map(|Participating { manifest, .. }| manifest));
        let manifest = admitted.plugin.manifest();
        for kind in manifest.emits.iter().filter(|kind| graph.unread.contains(*kind)) {
            notes.push(format!("nobody here reads {kind}"));
        }
        let name = &manifest.name;
        for cycle in graph.cycles.iter().filter(|cycle| cycle.contains(name)) {
            notes.push(format!("it may feed itself: {}", cycle.join(" → ")));
        }
        notes
    }

    /// Leaves the listing in the data directory, where it can be read without a host.
    pub fn write_down(&self, view: &PluginsView) -> io::Result<()> {
        self.archive.write_listing(view)
    }
}
