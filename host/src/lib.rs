//! The host of choreographed sagas: what drives the processor, what serves plugins and what answers operators, put
//! together. Read in this order: `threads`, `admission`, `host`, `live`, `preflight`; then `config`, `cli`, and `kit` (what `sagahost new`
//! writes).

pub mod admission;
pub mod host;
mod live;
pub mod preflight;
pub mod threads;

/// What operators may ask.
pub mod cli;
pub mod component;
pub mod config;
pub mod crash;
pub mod kit;
