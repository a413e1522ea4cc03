//! What the demonstration and the tests share: a workload and a real broker.

pub mod broker;
pub mod feeder;
pub mod requests;
pub mod watch;
pub mod workload;
