//! The law checker.

pub mod case;
pub mod mutation;
mod random;
