//! The way in over HTTP: requests that begin a saga, ask a participant for a step, and ask how a saga stands. Invariant: an
//! answer that speaks of a saga is given behind the commit of what it says, and a connection owns nothing: who goes away
//! cancels nothing.
//!
//! In reading order: `settings`, `ingress` (what all requests share, and how one is taken in), `routes` (which request is for
//! whom), `callers` (who may), `begin`, `steps` and `sagas` (the requests themselves), `standing` (what a saga's state is as an
//! answer), `problem`, `waiters` (those who wait for a saga).

mod begin;
mod body;
mod callers;
mod document;
mod ids;
mod ingress;
mod key;
mod openapi;
mod prefer;
mod problem;
mod routes;
mod sagas;
mod settings;
mod standing;
mod steps;
mod waiters;

pub use self::{
    ids::path_of_saga,
    ingress::{Ingress, Reach},
    routes::service,
    settings::{Does, HttpSettings, Principal, Proof, Route, Sees},
};
