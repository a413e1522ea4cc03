//! What an operator says of a service.

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, Uri};
use sagahost_net::Secret;

/// `[participant.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSettings {
    /// The file with its manifest.
    pub manifest: PathBuf,
    /// Where steps are sent.
    pub url: Uri,
    /// Where their undoing is sent. None: there is nothing to undo.
    pub undo_url: Option<Uri>,
    /// From connecting to the last byte of an answer.
    pub timeout: Duration,
    pub calls_at_once_max: usize,
    pub headers: Vec<SentHeader>,
}

/// Sent with each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentHeader {
    pub name: HeaderName,
    pub value: Secret,
    /// For people: the value, where it comes from (`(env STOCK_TOKEN)`), or `(hidden)`.
    pub shown: String,
}
