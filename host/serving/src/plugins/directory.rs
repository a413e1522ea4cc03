//! What the plugin directory holds. Invariant: every plugin file in it is admitted, in a report, or being compiled, and no
//! two files serve under one name.

use std::{
    collections::BTreeMap,
    mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use sagahost_manifest::{Fault, Report};
use sagahost_saga::id::Participant;

use crate::admission::{Admission, Admitted, Compiling, DirectorySnapshot, Look, PluginSettings, Verdict};

/// What the directory holds.
#[derive(Debug, Default)]
pub struct Reading {
    /// In the order of file names.
    pub admitted: Vec<Admitted>,
    /// Files that are not admitted, and the directory itself when it is missing or has no plugin.
    pub refused: Vec<Report>,
    /// Files of which it is not known yet.
    pub compiling: BTreeMap<PathBuf, Compiling>,
}

/// Remembers what it has read: a file that has not changed is not admitted again, once there was something to say of it.
#[derive(Debug, Default)]
pub(super) struct Verdicts(BTreeMap<PathBuf, (Look, Result<Admitted, Report>)>);

impl Verdicts {
    /// Files that are admitted by themselves, as of the last reading.
    pub(super) fn admitted(&self) -> impl Iterator<Item = &Admitted> {
        self.0.values().filter_map(|(_, verdict)| verdict.as_ref().ok())
    }

    /// The operator's settings have changed: everything is to be admitted anew.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Admits every plugin file by itself, in the order of names; one that has changed since `looks` is refused.
    pub(super) fn read(
        &mut self,
        dir: &Path,
        looks: Result<DirectorySnapshot, Report>,
        admission: &dyn Admission,
        settings: &PluginSettings,
    ) -> Reading {
        let looks = match looks {
            Ok(looks) => looks,
            Err(report) => return Reading { refused: vec![report], ..Reading::default() },
        };
        let mut reading = Reading::default();
        if looks.is_empty() {
            let fix = "copy plugins (*.wasm) there, or name the right directory under `plugins` in the configuration";
            let fault = Fault::new("it has no plugin in it", "the plugin directory", fix);
            reading.refused.push(Report::of(dir, fault));
        }
        self.0.retain(|file, _| looks.contains_key(file));
        for (file, look) in looks {
            if self.0.get(&file).is_none_or(|(before, _)| *before != look) {
                let verdict = match admission.admit(&file, &look, settings) {
                    Verdict::Admitted(admitted) => Ok(admitted),
                    Verdict::Refused(report) => Err(report),
                    Verdict::Compiling(compiling) => {
                        self.0.remove(&file);
                        reading.compiling.insert(file, compiling);
                        continue;
                    }
                };
                self.0.insert(file, (look, verdict));
            }
        }
        for (_, verdict) in self.0.values() {
            match verdict {
                Ok(admitted) => reading.admitted.push(admitted.clone()),
                Err(report) => reading.refused.push(report.clone()),
            }
        }
        reading
    }
}

impl Reading {
    /// What is admitted by itself may have faults beside the others, or against the host's own settings. The reports stay
    /// in the order of files.
    pub fn refuse(&mut self, faults: impl Fn(&Admitted) -> Vec<Fault>) {
        for admitted in mem::take(&mut self.admitted) {
            let faults = faults(&admitted);
            if faults.is_empty() {
                self.admitted.push(admitted);
            } else {
                let plugin = Some(admitted.plugin.name().to_string());
                self.refused.push(Report { plugin, faults, ..Report::new(&admitted.file) });
            }
        }
        self.refused.sort_by(|a, b| a.file.cmp(&b.file));
    }

    /// Of several files of one name one is admitted: that which serves already, else another of the same bytes, else the
    /// first; none wins by chance. To be asked last, so that a file that is refused for something else stands in nobody's
    /// way.
    pub fn one_of_each_name(&mut self, serving: &BTreeMap<Participant, (PathBuf, Arc<str>)>) {
        let rank = |admitted: &Admitted| match serving.get(&admitted.plugin.name()) {
            Some((file, digest)) if digest == admitted.plugin.digest() => 1 + u8::from(*file == admitted.file),
            _ => 0,
        };
        let mut chosen: BTreeMap<Participant, (u8, PathBuf)> = BTreeMap::new();
        for admitted in &self.admitted {
            let (name, rank) = (admitted.plugin.name(), rank(admitted));
            if chosen.get(&name).is_none_or(|(best, _)| rank > *best) {
                chosen.insert(name, (rank, admitted.file.clone()));
            }
        }
        self.refuse(|admitted| {
            let name = admitted.plugin.name();
            let (_, first) = &chosen[&name];
            if *first == admitted.file {
                return Vec::new();
            }
            let what = format!("{} is a plugin named {name}, too; that one serves", first.display());
            vec![Fault::new(what, "manifest, name", "remove one of the two files, or rename one of the plugins")]
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Memory, manifest};

    fn told(reading: &Reading) -> Vec<String> {
        let admitted = reading.admitted.iter().map(|admitted| admitted.file.display().to_string());
        let refused = reading.refused.iter().map(|report| {
            let faults: Vec<&str> = report.faults.iter().map(|fault| &*fault.what).collect();
            format!("{}: {}", report.file.display(), faults.join(", "))
        });
        admitted.chain(refused).collect()
    }

    #[test]
    fn each_file_is_admitted_or_in_a_report_and_one_of_each_name_serves() {
        let (memory, mut verdicts) = (Memory::default(), Verdicts::default());
        let mut read = |memory: &Memory, serving: &[(&str, &str)]| {
            let mut reading = verdicts.read(Path::new("plugins"), memory.look(), memory, &PluginSettings::new());
            let digest = |file: &str| String::from_utf8_lossy(&memory.files.lock()[Path::new(file)]).into();
            let of_name = |(name, file): &(&str, &str)| (Participant::new(*name), (PathBuf::from(file), digest(file)));
            reading.one_of_each_name(&serving.iter().map(of_name).collect());
            told(&reading)
        };
        assert_eq!(read(&memory, &[]), ["plugins: it has no plugin in it"]);
        let put = |file: &str, text: String| memory.files.lock().insert(file.into(), text.into_bytes().into());
        put("a.wasm", manifest("p", "1", 1));
        put("b.wasm", manifest("p", "2", 1));
        put("c.wasm", "text".to_owned());
        let bad = "c.wasm: it is not a manifest";
        let second = "b.wasm: a.wasm is a plugin named p, too; that one serves";
        assert_eq!(read(&memory, &[]), ["a.wasm", second, bad]);
        let first = "a.wasm: b.wasm is a plugin named p, too; that one serves";
        assert_eq!(read(&memory, &[("p", "b.wasm")]), ["b.wasm", first, bad], "none is replaced by chance");
        put("c.wasm", manifest("q", "1", 1));
        assert_eq!(read(&memory, &[]), ["a.wasm", "c.wasm", second], "what has changed is read again");
    }
}
