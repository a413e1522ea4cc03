//! The host of choreographed sagas: what drives the processor, what serves plugins and what answers operators, put
//! together. Read in this order: `threads`, `data_directory`, `process`, `admission`, `host`, `live`, `preflight`; then `config`, `cli`, and `kit` (what `sagahost new`
//! writes).

pub mod admission;
pub mod data_directory;
pub mod host;
mod live;
mod outside;
pub mod preflight;
mod process;
pub mod threads;

/// What operators may ask.
pub mod cli;
pub mod component;
pub mod config;
pub mod crash;
pub mod kit;
