//! The law checker: does a plugin keep what the host's promises hang on? It needs the component alone, in whatever
//! language it was written. Invariant: "pass" means that the law was tried on every kind of event that it is about; a
//! counterexample is the shortest that was found, and its text repeats it.

// In reading order: what is tried, how it is played, what is judged, what comes out.
pub mod case;
pub mod material;
pub mod mutation;
mod random;

pub mod bench;
mod difference;
pub mod laws;
mod shrink;

pub mod budget;
pub mod cost;
pub mod report;

pub mod checker;

pub use bench::Canned;
pub use case::{Case, Input};
pub use checker::{CheckError, Progress, Request, check};
pub use report::{Finding, Report, Status};
