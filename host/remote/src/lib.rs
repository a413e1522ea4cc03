//! Participants that are services at a URL. Invariant: the same call is sent with the same bytes and under the same key on
//! every attempt, and what is not known to have stayed here counts as arrived.
//!
//! In reading order: `settings`, `manifests` (what a service says of itself), `request` (a call as bytes), `answer` (what
//! an answer means), `breaker` (whether it is asked at all), `callers` (the calls that are out).

pub mod answer;
mod breaker;
mod callers;
mod cloud_events;
pub mod laws;
mod manifests;
pub mod request;
mod settings;
#[cfg(test)]
mod tests;

pub use self::{
    callers::{Callers, not_configured},
    manifests::{Manifests, faults},
    settings::RemoteSettings,
};
