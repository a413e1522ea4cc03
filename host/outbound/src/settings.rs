//! What an operator grants plugins.

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;
use sagahost_manifest::http::Grant;
use sagahost_net::SentHeader;
use sagahost_saga::id::Participant;

/// `[plugin.NAME.http."URL"]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantSettings {
    pub grant: Grant,
    /// Sent with each request that it covers; a value is the operator's secret unless it is shown.
    pub headers: Vec<SentHeader>,
    /// Addresses that are not the whole internet's, and may still be asked.
    pub allow_networks: Vec<IpNet>,
    /// From finding the host to the last byte of the response, at most.
    pub timeout: Duration,
    pub calls_at_once_max: usize,
}

/// The grants of each plugin.
pub type Plugins = BTreeMap<Participant, Vec<GrantSettings>>;
