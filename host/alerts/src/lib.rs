//! What needs a person, told to one. Invariant: it is sent as long as it is so (level, not edge): what was missed, by a crash
//! or by a receiver that was away, is sent at the next look; and that it is settled is sent, too.
//!
//! In reading order: `settings`, `look` (what the journal says), `told` (what each receiver knows), `receivers`, `watch`
//! (the loop).

mod look;
mod receivers;
mod settings;
#[cfg(test)]
mod tests;
mod told;
mod watch;

pub use self::{
    look::{Alert, firing},
    settings::AlertSettings,
    watch::watch,
};
