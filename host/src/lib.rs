//! The host of choreographed sagas. Read in this order: `pipeline` (the journey of an event), `commit`, `overlay`,
//! `journal`, `transport`, `codec`, `timers`, `start`; then `config`, `admin`, `cli`.

pub mod admin;
pub mod clock;
pub mod config;
pub mod journal;
pub mod topic_name;
pub mod transport;
