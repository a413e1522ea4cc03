//! Tests of the core as a whole. Invariant: no test sleeps, and what a test says is what a person would see: calls,
//! events, dead letters, states.

mod format;
mod observer;
mod property;
mod races;
mod rules;
mod script;
mod sends;
mod world;
