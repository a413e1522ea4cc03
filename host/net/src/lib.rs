//! HTTP for the host. Invariant: whoever asks for something gets an answer or the reason why there is none within the time
//! that it allows, knows whether anything of its request can have arrived, and keeps no more of an answer than it said; and
//! nothing that a client of the host sends, or fails to send, keeps another client from being served.
//!
//! In reading order: `runtime` (the threads that all of it shares), `client`, `secret` (what is sent and never shown); then
//! `server` (connections, and when each ends), `tls` (its certificate, and whose it accepts) and `peer` (who a client is).

mod client;
mod peer;
mod resolver;
mod runtime;
mod secret;
mod server;
mod tls;

pub use self::{
    client::{Bounds, Client, ClientError, Failed, without_query},
    peer::{Peer, Subject},
    runtime::Runtime,
    secret::{Secret, SentHeader},
    server::{Occurrences, Server, ServerError, ServerSettings, Serving},
    tls::{TlsError, TlsSettings},
};
pub use http;
