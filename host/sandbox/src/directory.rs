//! The plugin directory, read at start. Invariant: every `*.wasm` in it is either admitted or in a report, and no two
//! files serve under one name.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    admission::{Admitted, admit},
    engine::Engine,
    report::{Fault, Report},
    settings::Settings,
};

const EXTENSION: &str = "wasm";

/// What the directory holds.
#[derive(Debug, Default)]
pub struct Reading {
    /// In the order of file names.
    pub admitted: Vec<Admitted>,
    /// Files that are not admitted, and the directory itself when it is missing or has no plugin.
    pub refused: Vec<Report>,
}

/// Reads and admits every plugin file, in the order of names; files that begin with a dot are on their way in.
pub fn read(dir: &Path, engine: &Arc<Engine>, settings: &BTreeMap<String, Settings>) -> Reading {
    let mut reading = Reading::default();
    let files = match files(dir) {
        Ok(files) => files,
        Err(fault) => {
            reading.refused.push(Report::of(dir, fault));
            return reading;
        }
    };
    if files.is_empty() {
        let fix = "copy plugins (*.wasm) there, or name the right directory under `plugins` in the configuration";
        reading.refused.push(Report::of(dir, Fault::new("it has no plugin in it", "the plugin directory", fix)));
    }
    for file in files {
        match admit_file(&file, engine, settings).and_then(|admitted| alone(admitted, &reading.admitted)) {
            Ok(admitted) => reading.admitted.push(admitted),
            Err(report) => reading.refused.push(report),
        }
    }
    reading
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

fn admit_file(file: &Path, engine: &Arc<Engine>, settings: &BTreeMap<String, Settings>) -> Result<Admitted, Report> {
    let refuse = |what: String, fix: &str| Report::of(file, Fault::new(what, "the file", fix));
    let metadata = fs::metadata(file)
        .map_err(|error| refuse(format!("it cannot be read: {error}"), "check its permissions, or remove it"))?;
    if metadata.is_dir() {
        return Err(refuse("it is a directory".to_owned(), "put the plugin file itself there"));
    }
    let max = engine.limits().component_bytes_max as u64;
    if metadata.len() > max {
        let what = format!("it has {} bytes, {max} are allowed", metadata.len());
        return Err(refuse(what, "raise `component-bytes-max` in `[limits]`"));
    }
    let bytes = fs::read(file)
        .map_err(|error| refuse(format!("it cannot be read: {error}"), "check its permissions, or remove it"))?;
    admit(bytes.into(), file, engine, settings)
}

/// The first file of a name serves; the second must not win by chance.
fn alone(admitted: Admitted, before: &[Admitted]) -> Result<Admitted, Report> {
    let name = admitted.plugin.name();
    let Some(first) = before.iter().find(|other| other.plugin.name() == name) else {
        return Ok(admitted);
    };
    let what = format!("{} is a plugin named {name}, too; that one serves", first.file.display());
    let fix = "remove one of the two files, or rename one of the plugins";
    let fault = Fault::new(what, "manifest, name", fix);
    Err(Report { plugin: Some(name.to_string()), ..Report::of(&admitted.file, fault) })
}
