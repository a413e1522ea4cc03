//! Events as the core sees them: decoded, with an identity. Invariant: an `Event` never changes after it is made.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{EventKey, Kind, SagaId, Time, first16, sha256};

/// Lower-case names, unique.
pub type Attributes = Vec<(String, String)>;

/// Where a record stood in Kafka (or in an embedded topic).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    /// None: encoding the event gives the record.
    #[serde(default)]
    pub record: Option<Arc<AsItCame>>,
}

/// What of a record its event does not say, so that a dead letter can keep the record as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsItCame {
    pub key: Option<Vec<u8>>,
    /// None: the event's data.
    pub value: Option<Vec<u8>>,
    /// A value of None is Kafka's null, which is not the same as empty.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub key: EventKey,
    pub saga: SagaId,
    pub kind: Kind,
    /// The producer's time, else the broker's.
    pub time: Time,
    pub content_type: Arc<str>,
    pub data: Arc<[u8]>,
    /// CloudEvents extensions and the headers that the operator lets through; `traceparent` and `tracestate` too.
    pub attributes: Attributes,
    /// How many events of this app and others led to this one (guard against explosion).
    pub hops: u32,
    /// None for an event that was emitted in the same chain.
    pub origin: Option<Origin>,
    /// The record's key as it came, where the saga id is not its text.
    #[serde(default)]
    pub record_key: Option<Arc<[u8]>>,
}

impl Event {
    /// The source of what a request brings: `sagahost/APP/requests/PATH` where it begins a saga, `sagahost/APP/asked/PATH`
    /// where it asks a participant for a step. No participant has a `/` in its name.
    pub fn source_of_request(app: &str, asks: bool, path: &str) -> String {
        format!("{}{}", if asks { asked(app) } else { format!("sagahost/{app}/requests") }, path)
    }

    /// Did a request ask a participant of this app for it? (A record may say so of itself, and has an origin.)
    pub fn is_asked(&self, app: &str) -> bool {
        self.origin.is_none() && self.key.source.strip_prefix(&asked(app)).is_some_and(|path| path.starts_with('/'))
    }

    /// Tells two events with one id apart (SEMANTICS.md, race 14).
    pub fn data_hash(&self) -> [u8; 16] {
        first16(&sha256(&[self.kind.as_str().as_bytes(), &self.data]))
    }
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

fn asked(app: &str) -> String {
    format!("sagahost/{app}/asked")
}
