//! What is wrong with a plugin. Invariant: each fault says what, where, and what to do, and a report has all of them.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use sagahost_saga::notation;
use serde::{Deserialize, Serialize, Serializer};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fault {
    /// What is wrong.
    pub what: String,
    /// Which part of the file: `manifest, subscriptions[0].kind`.
    #[serde(rename = "where")]
    pub place: String,
    /// What to do about it.
    pub fix: String,
}

impl Fault {
    pub fn new(what: impl Into<String>, place: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), place: place.into(), fix: fix.into() }
    }
}

/// Why a plugin file is not admitted: every fault that was found in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    #[serde(serialize_with = "lossily")]
    pub file: PathBuf,
    /// The name in its manifest, if that much could be read.
    pub plugin: Option<String>,
    pub faults: Vec<Fault>,
}

/// A path in JSON. One that is not UTF-8 goes out as people see it: what is wrong with its file must still be said.
pub fn lossily<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

impl Report {
    pub fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), plugin: None, faults: Vec::new() }
    }

    pub fn of(file: &Path, fault: Fault) -> Self {
        Self { faults: vec![fault], ..Self::new(file) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.plugin.as_ref().map(|name| format!(" (plugin {name})")).unwrap_or_default();
        let count = self.faults.len();
        let s = if count == 1 { "" } else { "s" };
        let head = format!("{}{named}", self.file.display());
        write!(f, "{} is not admitted: {count} fault{s}", notation::line(&head))?;
        for fault in &self.faults {
            write!(f, "\n  - {}", below(&fault.what))?;
            if !fault.place.is_empty() {
                write!(f, "\n    where: {}", below(&fault.place))?;
            }
            if !fault.fix.is_empty() {
                write!(f, "\n    do:    {}", below(&fault.fix))?;
            }
        }
        Ok(())
    }
}

/// What a file says cannot look like a line of the report: further lines stand below its own.
fn below(text: &str) -> String {
    text.lines().map(notation::line).collect::<Vec<_>>().join("\n      ")
}

/// The known name that `name` was probably meant to be.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 2.max(candidate.len() / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "did you mean …", or the list of what there is.
pub fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(near) = nearest(name, known.clone()) {
        return format!("did you mean `{near}`?");
    }
    let all: Vec<&str> = known.into_iter().collect();
    if all.is_empty() { "remove it: none is known here".to_owned() } else { format!("known: {}", all.join(", ")) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use super::*;

    #[test]
    fn a_file_whose_name_is_no_text_is_reported_in_json() {
        let report = Report::of(Path::new(OsStr::from_bytes(b"plugins/\xff.wasm")), Fault::new("it is junk", "", ""));
        let json = serde_json::to_string(&report).unwrap();
        let read: Report = serde_json::from_str(&json).unwrap();
        assert_eq!((read.file, read.faults), (PathBuf::from("plugins/\u{fffd}.wasm"), report.faults));
    }
}
