//! What a check found. Invariant: "pass" is said only of a law that was judged for every kind of event that it is about.

use sagahost_manifest::{Law, Report as Refusal};
use serde::Serialize;

use crate::{budget::Excess, case::Case, cost::Cost};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The name in the manifest, where it can be read.
    pub plugin: Option<String>,
    pub version: Option<String>,
    /// SHA-256 of the file.
    pub digest: String,
    /// Begins every random choice.
    pub seed: u64,
    pub laws: Vec<Finding>,
    /// Why it is not admitted.
    pub refusal: Option<Refusal>,
    pub cost: Option<Cost>,
    /// Figures above the budget; none: there is no budget.
    pub excesses: Option<Vec<Excess>>,
}

/// About one law.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    pub law: Law,
    pub status: Status,
    /// Cases that were judged.
    pub cases: usize,
    /// What happened, why it is not shown, or the waiver's reason.
    pub why: Option<String>,
    /// The shortest case that breaks it.
    pub counterexample: Option<Case>,
    /// What repeats it exactly.
    pub command: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Pass,
    Broken,
    /// Broken, and the manifest says why it may be.
    Waived,
    /// It could not be judged.
    NotShown,
    /// No subscription that it is about.
    NotApplicable,
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Broken => "BROKEN",
            Self::Waived => "waived",
            Self::NotShown => "not shown",
            Self::NotApplicable => "-",
        }
    }
}

impl Report {
    /// Laws with this status.
    pub fn with(&self, status: Status) -> impl Iterator<Item = &Finding> {
        self.laws.iter().filter(move |finding| finding.status == status)
    }
}

impl Finding {
    pub fn new(law: Law, status: Status, cases: usize, why: Option<String>) -> Self {
        Self { law, status, cases, why, counterexample: None, command: None }
    }
}
