//! The host of choreographed sagas: what drives the processor, and what surrounds it. Read in this order: `threads`,
//! `preflight`, `host`, `code`, `plugins`, `keeper`; then `config`, `admin`, `cli`, and `kit` (what `sagahost new` writes).

pub mod code;
pub mod host;
pub mod keeper;
pub mod plugins;
pub mod preflight;
pub mod threads;

pub mod admin;
pub mod cli;
pub mod component;
pub mod config;
pub mod crash;
pub mod kit;
