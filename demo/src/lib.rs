//! What the demonstration and the tests share: a workload, a real broker, and a network that loses things.

pub mod broker;
pub mod feeder;
pub mod figures;
pub mod process;
pub mod proxy;
pub mod requests;
pub mod watch;
pub mod workload;

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, Result};

/// Where nobody listens.
///
/// # Errors
/// The system gives no port.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").context("failed to find a free port")?.local_addr()?)
}
