//! The processor: what turns records into sagas, batches and records again. Invariant: nothing here waits, starts a
//! thread, reads a clock, or touches a file; it is driven step by step (`step`), by threads or by a simulation.
//!
//! The journey of an event: a record is read and decoded (`reader`), waits in its saga's mailbox (`mailbox`), runs as a
//! chain (`worker`, `chain`), is staged into the open batch (`stage`), becomes durable (`commit`) and public (`publish`,
//! `transaction`).
//! Retries and deadlines come back through the mailbox from durable times (`timers`), operators' commands too.

pub mod coverage;
pub mod planted;
pub mod step;

mod chain;
pub mod commit;
pub mod drain;
pub mod mailbox;
pub mod publish;
pub mod read_ahead;
pub mod reader;
pub mod stage;
pub mod timers;
pub mod transaction;
pub mod worker;

pub mod attempt;
pub mod code;
pub mod outside;
mod sends;
pub mod serving;

pub mod counter;
pub mod overlay;
pub mod positions;
pub mod values;

pub mod inbox;
pub mod intake;
pub mod marks;
pub mod outbox;
pub mod processor;
pub mod release;
pub mod schedule;
pub mod start;

pub mod letters;
pub mod letters_kept;
pub mod lookalike;
pub mod open_transactions;
pub mod parked;
pub mod resent;
pub mod touch;
pub mod unhandled;

pub mod facts;
pub mod fatal;
pub mod reply;
pub mod request;
pub mod stats;

#[cfg(test)]
mod tests;

pub use fatal::Fatal;
pub use processor::{Processor, Settings};
pub use serving::Serving;
