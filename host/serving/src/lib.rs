//! Which code with which configuration handles what. Invariant: what serves was admitted as a whole, and is in the journal
//! before it serves.
//!
//! In reading order: `settings`; `plugins` (those of this app, and the topology that follows), `code` (the sandbox as code
//! that the processor calls), `keeper` (changes while the host runs), `view` (all of it, as operators see it).

pub mod code;
pub mod keeper;
pub mod plugins;
pub mod settings;
pub mod view;

pub use keeper::{Board, ChangeError, Keeper, Order};
pub use plugins::{Plugins, PluginsError, short};
pub use settings::{Settings, WatchSettings};
