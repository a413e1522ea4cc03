//! The pure state machine of a saga. `Saga::on(input, topology, now) -> Transition` has no I/O, no clock, no
//! randomness, no async: every race of `host/SEMANTICS.md` is a test of that one function. Invariant: a terminal state
//! is never left, and a saga that is not terminal has a next action.

pub mod event;
pub mod history;
pub mod id;
pub mod input;
pub mod outcome;
pub mod topology;

