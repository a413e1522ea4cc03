//! What an operator says of the way in. Invariant: the values are true already; nothing here is read from a file.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use sagahost_net::{Subject, TlsSettings};
use sagahost_saga::id::{Kind, Participant};

/// Table `[http]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    pub tls: Option<TlsSettings>,
    /// Further values of `Host` that are answered where nobody has to say who they are.
    pub hosts: Vec<String>,
    pub routes: Vec<Route>,
    /// Who may ask. None: everybody who can connect, which only this machine can.
    pub principals: Vec<Principal>,
    /// Of one request.
    pub body_bytes_max: usize,
    /// Of all requests that are being read, or whose batch is not journaled.
    pub bodies_bytes_max: usize,
    /// Open at once.
    pub connections_max: usize,
    /// To the end of the head of a request; an idle connection ends after it, too.
    pub header_timeout: Duration,
    /// To the end of a request's body.
    pub body_timeout: Duration,
    /// How long a request waits for its saga, where it does not say so itself (`Prefer: wait=N`).
    pub wait: Duration,
}

#[cfg(test)]
impl HttpSettings {
    pub fn for_tests(principals: Vec<Principal>) -> Self {
        Self {
            listen: ([127, 0, 0, 1], 8080).into(),
            tls: None,
            hosts: vec!["Shop.internal".to_owned()],
            routes: Vec::new(),
            principals,
            body_bytes_max: 1,
            bodies_bytes_max: 1,
            connections_max: 1,
            header_timeout: Duration::ZERO,
            body_timeout: Duration::ZERO,
            wait: Duration::ZERO,
        }
    }
}

/// A method and a path, and what a request for them does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `/orders`
    pub path: String,
    pub does: Does,
}

impl Route {
    /// As the configuration writes it.
    pub fn name(&self) -> String {
        format!("POST {}", self.path)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Does {
    /// The body is an event that begins a saga.
    Begin {
        kind: Kind,
        /// JSON pointer (RFC 6901).
        saga_id: String,
        /// A request without `Idempotency-Key` is refused.
        key_required: bool,
        /// A request whose key came before, and whose saga runs, is refused and does not wait with it.
        conflict: bool,
    },
    /// The body is an event for one participant.
    Step {
        participant: Participant,
        /// JSON pointer to the saga id, where the request has no `ce-sagaid`.
        saga_id: Option<String>,
    },
    /// The saga is cancelled; the answer speaks of one participant.
    Undo { participant: Participant },
}

/// One who may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub name: Arc<str>,
    pub proofs: Vec<Proof>,
    /// Names of routes. None: all.
    pub routes: Option<Vec<String>>,
    pub sees: Sees,
}

/// How a principal shows who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// `Authorization: Bearer TOKEN`, and this is the token's SHA-256.
    Token([u8; 32]),
    /// The subject of a client's certificate.
    Subject(Subject),
}

/// Which sagas a principal may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// Those that a request of theirs was about; any other is as if it did not exist.
    Own,
    All,
}
