//! Which code with which configuration handles what. Invariant: what serves was admitted as a whole, and is in the journal
//! before it serves.
//!
//! In reading order: `settings`, `admission` (the boundary to plugin files); `plugins` (those of this app, and the topology
//! that follows), `code` (the version that takes a call), `keeper` (changes while the host runs), `view` (all of it, as operators see it).

pub mod admission;
mod code;
pub mod keeper;
#[cfg(test)]
mod memory;
pub mod plugins;
pub mod settings;
pub mod view;

pub use keeper::{Board, ChangeError, Keeper, Order};
pub use plugins::{Plugins, PluginsError, short};
pub use settings::{Settings, WatchSettings};
