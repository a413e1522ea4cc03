//! The plugin directory, read as often as it changes. Invariant: every `*.wasm` in it is either admitted or in a report,
//! and no two files serve under one name. Nothing is ever written into it.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use sagahost_manifest::{Fault, Report, settings::Settings};
use sagahost_saga::id::Participant;

use crate::{
    admission::{Admitted, admit, digest},
    engine::Engine,
};

const EXTENSION: &str = "wasm";

/// What a file is from outside. Two looks that agree: nobody has written it in between. Symbolic links are followed, so
/// that one which is turned to another file looks different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    File {
        device: u64,
        inode: u64,
        bytes: u64,
        modified_ns: i128,
        changed_ns: i128,
    },
    Directory,
    /// A socket, a pipe, a device: reading it might never end.
    Special,
    Unreadable(String),
}

/// By path.
pub type DirectorySnapshot = BTreeMap<PathBuf, Look>;

/// What the directory holds.
#[derive(Debug, Default)]
pub struct Reading {
    /// In the order of file names.
    pub admitted: Vec<Admitted>,
    /// Files that are not admitted, and the directory itself when it is missing or has no plugin.
    pub refused: Vec<Report>,
}

/// Remembers what it has read: a file that has not changed is not admitted again.
#[derive(Debug)]
pub struct Directory {
    dir: PathBuf,
    verdicts: BTreeMap<PathBuf, (Look, Result<Admitted, Report>)>,
}

impl Directory {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), verdicts: BTreeMap::new() }
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// What stands there now; no file is opened.
    pub fn look(&self) -> Result<DirectorySnapshot, Report> {
        let files = files(&self.dir).map_err(|fault| Report::of(&self.dir, fault))?;
        Ok(files.into_iter().map(|file| (file.clone(), look(&file))).collect())
    }

    /// Are these the bytes of that version? Then what is wrong with it is not in the file.
    pub fn is_of(&self, file: &Path, wanted: &str, bytes_max: usize) -> bool {
        let small = |bytes: u64| usize::try_from(bytes).is_ok_and(|bytes| bytes <= bytes_max);
        matches!(look(file), Look::File { bytes, .. } if small(bytes))
            && fs::read(file).is_ok_and(|bytes| *digest(&bytes) == *wanted)
    }

    /// Files that are admitted by themselves, as of the last reading.
    pub fn admitted(&self) -> impl Iterator<Item = &Admitted> {
        self.verdicts.values().filter_map(|(_, verdict)| verdict.as_ref().ok())
    }

    /// The operator's settings have changed: everything is to be admitted anew.
    pub fn forget(&mut self) {
        self.verdicts.clear();
    }

    /// Admits every plugin file by itself, in the order of names; one that has changed since `looks` is refused.
    pub fn read(
        &mut self,
        looks: Result<DirectorySnapshot, Report>,
        engine: &Arc<Engine>,
        settings: &BTreeMap<String, Settings>,
    ) -> Reading {
        let looks = match looks {
            Ok(looks) => looks,
            Err(report) => return Reading { admitted: Vec::new(), refused: vec![report] },
        };
        let mut reading = Reading::default();
        if looks.is_empty() {
            let fix = "copy plugins (*.wasm) there, or name the right directory under `plugins` in the configuration";
            let fault = Fault::new("it has no plugin in it", "the plugin directory", fix);
            reading.refused.push(Report::of(&self.dir, fault));
        }
        self.verdicts.retain(|file, _| looks.contains_key(file));
        for (file, look) in looks {
            if self.verdicts.get(&file).is_none_or(|(before, _)| *before != look) {
                let verdict = admit_file(&file, &look, engine, settings);
                self.verdicts.insert(file, (look, verdict));
            }
        }
        for (_, verdict) in self.verdicts.values() {
            match verdict {
                Ok(admitted) => reading.admitted.push(admitted.clone()),
                Err(report) => reading.refused.push(report.clone()),
            }
        }
        reading
    }
}

fn look(file: &Path) -> Look {
    let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
    match fs::metadata(file) {
        Ok(metadata) if metadata.is_dir() => Look::Directory,
        Ok(metadata) if !metadata.is_file() => Look::Special,
        Ok(metadata) => Look::File {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        },
        Err(error) => Look::Unreadable(error.to_string()),
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Fault> {
    let entries = fs::read_dir(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Fault::new("it does not exist", "the plugin directory", "make it and copy plugins (*.wasm) there")
        }
        io::ErrorKind::NotADirectory => {
            Fault::new("it is a file, not a directory", "the plugin directory", "name the directory of the plugins")
        }
        _ => Fault::new(format!("it cannot be read: {error}"), "the plugin directory", "check its permissions"),
    })?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION))
        .filter(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')))
        .collect();
    files.sort();
    Ok(files)
}

fn admit_file(
    file: &Path,
    before: &Look,
    engine: &Arc<Engine>,
    settings: &BTreeMap<String, Settings>,
) -> Result<Admitted, Report> {
    let refuse = |what: String, fix: &str| Report::of(file, Fault::new(what, "the file", fix));
    let unreadable = |error: &dyn std::fmt::Display| {
        refuse(format!("it cannot be read: {error}"), "check its permissions, or remove it")
    };
    let bytes = match before {
        Look::Unreadable(error) => return Err(unreadable(error)),
        Look::Directory => return Err(refuse("it is a directory".to_owned(), "put the plugin file itself there")),
        Look::Special => return Err(refuse("it is no regular file".to_owned(), "put the plugin file itself there")),
        Look::File { bytes, .. } => *bytes,
    };
    let max = engine.limits().component_bytes_max as u64;
    if bytes > max {
        let what = format!("it has {bytes} bytes, {max} are allowed");
        return Err(refuse(what, "raise `component-bytes-max` in `[limits]`"));
    }
    let bytes = fs::read(file).map_err(|error| unreadable(&error))?;
    if look(file) != *before {
        let fix = "it is read again when it stands still; write it under another name and rename it";
        return Err(refuse("it changed while it was read".to_owned(), fix));
    }
    admit(bytes.into(), file, engine, settings)
}

impl Reading {
    /// What is admitted by itself may have faults beside the others, or against the host's own settings. The reports stay
    /// in the order of files.
    pub fn refuse(&mut self, faults: impl Fn(&Admitted) -> Vec<Fault>) {
        for admitted in std::mem::take(&mut self.admitted) {
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
