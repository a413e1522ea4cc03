//! Who hears of it, and how often the journal is looked at.

use std::time::Duration;

use http::Uri;
use sagahost_net::SentHeader;

/// `[alerts]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertSettings {
    /// Alertmanager's address, without its path.
    pub alertmanager: Option<Uri>,
    pub webhook: Option<Uri>,
    /// A program and its arguments; empty: none.
    pub command: Vec<String>,
    /// Sent to both addresses.
    pub headers: Vec<SentHeader>,
    pub interval: Duration,
}

impl Default for AlertSettings {
    fn default() -> Self {
        Self {
            alertmanager: None,
            webhook: None,
            command: Vec::new(),
            headers: Vec::new(),
            interval: Duration::from_secs(15),
        }
    }
}

impl AlertSettings {
    pub fn is_off(&self) -> bool {
        self.alertmanager.is_none() && self.webhook.is_none() && self.command.is_empty()
    }
}
