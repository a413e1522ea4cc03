//! Records as they are read and published. Invariant: a null is kept apart from what is empty.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Partition;

/// Names are as on the wire; a name may come twice. A value of None is Kafka's null, which is not the same as empty.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// Of names and values.
pub fn header_bytes(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum()
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: Partition,
    pub offset: i64,
    /// The broker's or the producer's time, milliseconds since 1970.
    pub timestamp_ms: Option<u64>,
    pub key: Option<Vec<u8>>,
    /// None: a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
}

impl Record {
    /// As [`Outgoing::size_bytes`] counts.
    pub fn size_bytes(&self) -> usize {
        size_bytes(self.key.as_deref(), self.value.as_deref(), &self.headers)
    }
}

/// A record to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    pub topic: Arc<str>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
}

impl Outgoing {
    /// What a broker would count, with room for the framing of a record.
    pub fn size_bytes(&self) -> usize {
        size_bytes(self.key.as_deref(), self.value.as_deref(), &self.headers)
    }
}

fn size_bytes(key: Option<&[u8]>, value: Option<&[u8]>, headers: &Headers) -> usize {
    let headers = header_bytes(headers) + 10 * headers.len();
    key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers + 70
}
