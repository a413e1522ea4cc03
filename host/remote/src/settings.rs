//! What an operator says of a service.

use std::{path::PathBuf, time::Duration};

use http::Uri;
use sagahost_net::SentHeader;

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
    /// Status codes by which this service says that nothing happened and the saga is to be compensated, beside 402 and 422.
    pub rejected: Vec<u16>,
    pub headers: Vec<SentHeader>,
}
