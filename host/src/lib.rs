//! The host of choreographed sagas. Read in this order: `pipeline` (the journey of an event), `mailbox`, `attempt`,
//! `stage`, `overlay`, `values`, `commit`, `publish`, `intake`, `timers`, `start`, `preflight`, `host`,
//! `plugins`, `keeper`; then `config`, `admin`, `cli`, and `kit` (what `sagahost new` writes).

pub mod pipeline;

pub mod attempt;
pub mod mailbox;
pub mod stage;

pub mod overlay;
pub mod positions;
pub mod values;

pub mod commit;
pub mod letters;
pub mod outbox;
pub mod publish;
pub mod resent;

pub mod intake;
pub mod open_transactions;

pub mod timers;
pub mod touch;

pub mod host;
pub mod keeper;
pub mod plugins;
pub mod preflight;
pub mod start;

pub mod admin;
pub mod cli;
pub mod component;
pub mod config;
pub mod crash;
pub mod kit;
pub mod lookalike;
pub mod stats;
pub mod unhandled;
