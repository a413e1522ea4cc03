//! The whole host on a real broker. Invariant: a test that breaks a broker has one of its own.

mod away;
mod crashes;
mod deadlines;
mod faults;
mod owners;
mod saga;
mod topic_anew;
mod transport;
