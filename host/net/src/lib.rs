//! HTTP for the host. Invariant: whoever asks for something gets an answer or the reason why there is none within the time
//! that it allows, knows whether anything of its request can have arrived, and keeps no more of an answer than it said.
//!
//! In reading order: `runtime` (the threads that all of it shares), `client`, `secret` (what is sent and never shown).

mod client;
mod resolver;
mod runtime;
mod secret;

pub use self::{
    client::{Bounds, Client, ClientError, Failed, without_query},
    runtime::Runtime,
    secret::{Secret, SentHeader},
};
pub use http;
