//! Parts of the processor by themselves, driven step by step. Invariant: nothing here waits; time is a number.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

mod bench;
mod memory;
mod scripted;
mod sending;

mod committing;
mod deadlines;
mod draining;
mod facts;
mod outside;
mod reading;
mod requests;
mod sagas;
mod scans;
mod staging;
