//! The pure state machine of a saga. `Saga::on(input, topology, now) -> Transition` has no I/O, no clock, no
//! randomness, no async: every race of `host/SEMANTICS.md` is a test of that one function. Invariant: a terminal state
//! is never left (but to call off what came too late), and a saga that is not terminal has a next action.

// What goes in and comes out.
pub mod drive;
pub mod event;
pub mod history;
pub mod id;
pub mod input;
pub mod outcome;
pub mod topology;

// The record, and what an input does to it, in the order of a saga's life.
mod compensation;
mod deadlines;
mod emission;
mod ending;
mod forward;
mod letters;
mod on;
mod operator;
mod parked;
mod receive;
pub mod saga;
mod sends;
mod step;

// How it is looked at, kept and checked.
mod check;
pub mod format;
mod mutation;
pub mod notation;
pub mod view;

#[cfg(test)]
mod tests;

pub use saga::Saga;
