//! Why a record is not an event. Invariant: a code is a name that operators group by and never changes; the detail says
//! where in the record and what is wrong.

use sagahost_saga::id::SagaId;

/// A record without a value.
pub const TOMBSTONE: &str = "tombstone";
pub const OVERSIZED_RECORD: &str = "oversized-record";
pub const MISSING_SAGA_ID: &str = "missing-saga-id";
pub const INVALID_SAGA_ID: &str = "invalid-saga-id";
/// The record's key is not what the configuration of its topic says.
pub const INVALID_KEY: &str = "invalid-key";
/// The configuration says where a plain record's event id stands, and it is not there.
pub const MISSING_EVENT_ID: &str = "missing-event-id";
/// A plain record in a topic of no known kind.
pub const UNKNOWN_KIND: &str = "unknown-kind";
pub const INVALID_JSON: &str = "invalid-json";
pub const INVALID_HEADER: &str = "invalid-header";
pub const BAD_TIME: &str = "bad-time";
/// A mode of CloudEvents that the host does not read: batches, Avro, Protobuf.
pub const UNSUPPORTED_MODE: &str = "unsupported-mode";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Undecodable {
    pub code: &'static str,
    pub detail: String,
    /// Where the record says it in spite of what is wrong with it.
    pub saga: Option<SagaId>,
}

impl Undecodable {
    pub(super) fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), saga: None }
    }
}
