//! What is wrong with a configuration. Invariant: one report has all faults, in the order of the file, each with its
//! line and what to do.

use std::{
    fmt,
    path::{Path, PathBuf},
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Fault {
    /// From 1. None: it concerns the file as a whole.
    pub line: Option<usize>,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, thiserror::Error)]
pub struct Faults {
    #[serde(serialize_with = "sagahost_sandbox::report::lossily")]
    pub file: PathBuf,
    pub faults: Vec<Fault>,
}

impl Faults {
    pub fn of(file: &Path, text: impl Into<String>) -> Self {
        Self { file: file.to_owned(), faults: vec![Fault { line: None, text: text.into() }] }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.file.display())?;
            if let Some(line) = fault.line {
                write!(f, "{line}:")?;
            }
            write!(f, " {}", fault.text)?;
        }
        Ok(())
    }
}
