//! What is known of an app when operators ask about it. Invariant: the values are true already; nothing here is read from
//! a file.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use sagahost_codec::TopicSettings;

#[derive(Clone, Debug)]
pub struct Settings {
    pub app: Arc<str>,
    pub data_dir: PathBuf,
    /// Directory of `*.wasm`.
    pub plugins_dir: PathBuf,
    /// Manifests of services.
    pub service_manifests: Vec<PathBuf>,
    pub topics: TopicSettings,
    /// Key, value and headers of one record, in and out.
    pub record_bytes_max: usize,
    /// Missing topics that the app needs are made.
    pub create_topics: bool,
    /// Of topics that are made.
    pub partitions: i32,
    /// Keys that the operator has set, of each plugin.
    pub configured: BTreeMap<String, Vec<String>>,
    /// What a command needs to reach this app: ` --config shop.toml`.
    pub way: String,
    pub admin: AdminSettings,
}

impl Settings {
    /// A command line that reaches this app: `sagahost sagas list --config shop.toml`.
    pub fn command_line(&self, command: &str) -> String {
        format!("sagahost {command}{}", self.way)
    }
}

/// Table `[admin]`: the socket for operators' commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// None: `DATA/admin.sock`, or in a short temporary directory where that path is too long for a socket.
    pub socket: Option<PathBuf>,
    /// Of connections; the one that has been idle for longest goes when another comes.
    pub connections_max: usize,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
    /// Requests answered at one time.
    pub requests_at_once_max: usize,
    pub request_bytes_max: usize,
    /// Of the requests of all connections.
    pub requests_bytes_max: usize,
    /// How long one request may take, from its first byte to the last one of the answer.
    pub request_timeout: Duration,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            socket: None,
            connections_max: 64,
            idle_timeout: Duration::from_secs(10),
            requests_at_once_max: 16,
            request_bytes_max: 4 << 20,
            requests_bytes_max: 16 << 20,
            request_timeout: Duration::from_secs(30),
        }
    }
}
