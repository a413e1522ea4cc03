//! Requests of plugins on their way out. Invariant: a request is sent only where the operator lets it, to an address that was
//! checked when it was found and is the one that is dialled; and no secret of the operator's comes back to a guest, or is said to
//! anybody else.
//!
//! In reading order: `address` (which are nobody's but the operator's to grant), `settings`, `exchange` (one request, and its
//! answer), `owed` (what is owed while one is out), `turns` (what waits to leave), `senders` (those that are out).

mod address;
mod exchange;
mod owed;
mod senders;
mod settings;
#[cfg(test)]
mod tests;
mod turns;

pub use self::{
    exchange::identify,
    owed::Owed,
    senders::Senders,
    settings::{GrantSettings, Plugins},
    turns::Turns,
};
pub use ipnet::IpNet;
