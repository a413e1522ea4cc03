//! What authors of plugins use: new crates, the mock in other languages, the law checker. Invariant: each builds
//! its plugins with the commands that an author types.

mod dev;
mod first_plugin;
mod gateway;
mod laws;
mod mock_modes;
mod mock_protocol;
mod other_languages;
mod services;
