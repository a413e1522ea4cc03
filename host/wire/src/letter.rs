//! Dead letters: what the host gave up on, with the reason.

use std::sync::Arc;

use sagahost_saga::{
    id::{Participant, SagaId, Time},
    input::Letter,
};
use serde::{Deserialize, Serialize};

use crate::{Outgoing, Partition};

/// A dead letter as it is kept. Also for records that could not be decoded: those have no saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLetter {
    pub key: String,
    pub saga: Option<SagaId>,
    pub participant: Option<Participant>,
    pub kind: Option<Arc<str>>,
    pub code: String,
    pub detail: String,
    pub attempts: u32,
    pub plugin_version: Arc<str>,
    pub at: Time,
    pub origin: Option<(Partition, i64)>,
    /// The record as it came (key, value, headers), or as it would have been published.
    pub record: Outgoing,
    /// For letters of the core.
    pub letter: Option<Letter>,
    /// None: open.
    pub closed: Option<String>,
}
