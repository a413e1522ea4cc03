//! Plugins as operators see them. Invariant: as in `view`, plain data that commands print and `--json` prints as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use sagahost_journal::{AdmittedRow, PluginHistoryEntry};
use sagahost_manifest::Report;
use sagahost_wire::Stamp;
use serde::{Deserialize, Serialize};

use crate::admission::{Admitted, Compiling};

/// Why a plugin is paused that no operator paused.
pub const GONE: &str = "its file is gone";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct PluginLine {
    pub name: String,
    pub version: String,
    pub digest: String,
    /// serving, probation, paused (its file is gone, or an operator said so: its events park), waiting (its file is
    /// admitted, but one that changed with it is not), compiling (nothing is known of its file yet), quarantined, stored
    /// (an older version), unreachable (a service that does not answer: its events park), retired; without a host admitted or new.
    pub state: String,
    /// Hash of the configuration that it served with last.
    pub config: String,
    /// None: no host has seen it yet.
    pub admitted: Option<Stamp>,
    pub handles: Vec<String>,
    pub emits: Vec<String>,
    pub file: Option<String>,
    /// What should not be so for long: the file is another one, it is paused, why it is in quarantine.
    pub note: Option<String>,
    /// What admission found that is no fault.
    pub notes: Vec<String>,
    /// Of this host since its start.
    pub calls: u64,
    /// Of these: traps, deadlines, memory stops, invalid outcomes.
    pub failures: u64,
    /// Running time of a call, microseconds.
    pub p50_us: u64,
    pub p99_us: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PluginsView {
    pub plugins: Vec<PluginLine>,
    /// Files that are not admitted, each with all that is wrong.
    pub refused: Vec<Report>,
    /// Configuration keys that the operator has set, of each plugin: those in force.
    #[serde(default)]
    pub configured: BTreeMap<String, Vec<String>>,
}

/// All about one plugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct PluginView {
    pub name: String,
    /// The version that serves first.
    pub versions: Vec<PluginLine>,
    pub refused: Vec<Report>,
    /// Of the version that serves, or served last.
    pub manifest: serde_json::Value,
    /// Configuration keys that the operator has set.
    pub configured: Vec<String>,
    /// Digest → unfinished sagas that refer to it.
    pub unfinished: BTreeMap<String, u64>,
    /// The newest first.
    pub history: Vec<HistoryLine>,
}

/// What was done to a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct HistoryLine {
    pub at: Stamp,
    pub digest: String,
    pub config: String,
    pub what: String,
}

impl From<&PluginHistoryEntry> for HistoryLine {
    fn from(deed: &PluginHistoryEntry) -> Self {
        Self {
            at: deed.at.into(),
            digest: deed.digest.to_string(),
            config: deed.config.to_string(),
            what: deed.what.clone(),
        }
    }
}

impl PluginLine {
    pub fn of_row(row: &AdmittedRow, state: &str) -> Self {
        let manifest = row.manifest();
        Self {
            name: row.participant.to_string(),
            version: manifest.as_ref().map(|manifest| manifest.version.clone()).unwrap_or_default(),
            digest: row.digest.to_string(),
            state: state.to_owned(),
            config: row.config.to_string(),
            admitted: Some(Stamp(row.admitted)),
            handles: manifest.iter().flat_map(|m| &m.subscriptions).map(|s| s.kind.clone()).collect(),
            emits: manifest.iter().flat_map(|manifest| manifest.emits.clone()).collect(),
            ..Self::default()
        }
    }

    /// Of a file that has not served.
    pub fn of_file(admitted: &Admitted, state: &str) -> Self {
        let manifest = admitted.plugin.manifest();
        Self {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            digest: admitted.plugin.digest().to_string(),
            state: state.to_owned(),
            handles: manifest.subscriptions.iter().map(|subscription| subscription.kind.clone()).collect(),
            emits: manifest.emits.clone(),
            file: Some(admitted.file.display().to_string()),
            ..Self::default()
        }
    }

    /// An older version is listed as long as its bytes are there. `stored`: are those of this digest?
    pub fn is_listed(&self, stored: impl FnOnce(&str) -> bool) -> bool {
        self.state != "stored" || stored(&self.digest)
    }
}

impl PluginsView {
    /// By name; what is merely stored last, the newest of it first. `configured`: keys that the operator has set, of each plugin.
    pub fn sorted(plugins: Vec<PluginLine>, refused: Vec<Report>, configured: BTreeMap<String, Vec<String>>) -> Self {
        let mut view = Self { plugins, refused, configured };
        view.sort();
        view
    }

    fn sort(&mut self) {
        self.plugins.sort_by(|a, b| {
            (&a.name, a.state == "stored", b.admitted).cmp(&(&b.name, b.state == "stored", a.admitted))
        });
    }

    /// `admitted`: files that are all right by themselves. Those that stand in one of the `groups` wait for a file of it
    /// that is refused, and are listed with what that is.
    pub fn list_waiting<'a>(&mut self, admitted: impl IntoIterator<Item = &'a Admitted>, groups: &[BTreeSet<PathBuf>]) {
        for admitted in admitted {
            let refused = self.refused.iter().any(|report| report.file == admitted.file);
            if let Some(group) = groups.iter().find(|group| group.contains(&admitted.file)).filter(|_| !refused) {
                self.wait(PluginLine::of_file(admitted, "waiting"), group);
            }
        }
        self.sort();
    }

    /// Files of which it is not known yet whether they are admitted.
    pub fn list_compiling(&mut self, compiling: &BTreeMap<PathBuf, Compiling>) {
        for (file, Compiling { digest, manifest, since }) in compiling {
            let manifest = manifest.as_deref();
            let nameless = || file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            self.plugins.push(PluginLine {
                name: manifest.map_or_else(nameless, |manifest| manifest.name.clone()),
                version: manifest.map(|manifest| manifest.version.clone()).unwrap_or_default(),
                digest: digest.to_string(),
                state: "compiling".to_owned(),
                file: Some(file.display().to_string()),
                note: Some(format!("its code is being compiled, since {}", Stamp(*since))),
                ..PluginLine::default()
            });
        }
        self.sort();
    }

    /// What serves already waits for nothing, and what is stored is listed once.
    fn wait(&mut self, line: PluginLine, group: &BTreeSet<PathBuf>) {
        let bad = self.refused.iter().filter(|report| group.contains(&report.file));
        let bad: Vec<String> = bad.map(|report| report.file.display().to_string()).collect();
        let note = Some(match bad.as_slice() {
            [] => "a file that changed with it is not admitted".to_owned(),
            bad => format!("waits for {}, which changed with it and is refused", bad.join(" and ")),
        });
        let known = self.plugins.iter_mut().find(|known| known.name == line.name && known.digest == line.digest);
        match known {
            None => self.plugins.push(PluginLine { note, ..line }),
            Some(known) if matches!(&*known.state, "stored" | "retired") || known.note.as_deref() == Some(GONE) => {
                (known.state, known.file, known.note) = (line.state, line.file, note);
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use expect_test::expect;

    use super::*;

    #[test]
    fn a_file_that_waits_has_one_line_and_says_for_what() {
        let line = |name: &str, digest: &str, state: &str| PluginLine {
            name: name.to_owned(),
            digest: digest.to_owned(),
            state: state.to_owned(),
            ..PluginLine::default()
        };
        let mut view = PluginsView {
            plugins: vec![
                line("order", "o1", "serving"),
                line("order", "o0", "stored"),
                PluginLine { note: Some(GONE.to_owned()), ..line("stock", "s1", "paused") },
            ],
            refused: vec![Report::new(Path::new("payment.wasm")), Report::new(Path::new("else.wasm"))],
            ..PluginsView::default()
        };
        let group = ["order.wasm", "payment.wasm", "new.wasm"].map(PathBuf::from).into();
        for (name, digest) in [("order", "o1"), ("order", "o0"), ("stock", "s1"), ("new", "n1")] {
            view.wait(line(name, digest, "waiting"), &group);
        }
        let told: Vec<String> = view
            .plugins
            .iter()
            .map(|line| {
                format!("{} {} {}: {}", line.name, line.digest, line.state, line.note.as_deref().unwrap_or("-"))
            })
            .collect();
        expect![[r#"
            order o1 serving: -
            order o0 waiting: waits for payment.wasm, which changed with it and is refused
            stock s1 waiting: waits for payment.wasm, which changed with it and is refused
            new n1 waiting: waits for payment.wasm, which changed with it and is refused
        "#]]
        .assert_eq(&(told.join("\n") + "\n"));
    }
}
