//! Records as other services write them: CloudEvents, and plain ones. Invariant: what a test does not name is right.

use sagahost_wire::Outgoing;
use serde_json::{Value, json};

/// A CloudEvent, keyed by its saga.
pub fn event(kind: &str, saga: &str, id: &str, data: &Value) -> Outgoing {
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_type", kind),
        ("ce_source", "tests"),
        ("ce_id", id),
        ("ce_sagaid", saga),
        ("content-type", "application/json"),
    ];
    Outgoing {
        topic: topic_of(kind).into(),
        key: Some(saga.as_bytes().to_vec()),
        value: Some(data.to_string().into_bytes()),
        headers: headers.map(|(name, value)| (name.to_owned(), Some(value.as_bytes().to_vec()))).to_vec(),
    }
}

/// Asks the hostile plugin for a fault in its handler and one in its compensation.
pub fn tried(saga: &str, fault: &str, undo_fault: &str) -> Outgoing {
    let data = json!({ "id": saga, "fault": fault, "undoFault": undo_fault });
    event("HostileTried", saga, &format!("{saga}-tried"), &data)
}

/// A record without a word about what it is.
pub fn plain(kind: &str, key: Option<&[u8]>, value: Option<&[u8]>) -> Outgoing {
    Outgoing {
        topic: topic_of(kind).into(),
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers: Vec::new(),
    }
}

/// `OrderCreated` → `order-created`
pub fn topic_of(kind: &str) -> String {
    let mut topic = String::new();
    for letter in kind.chars() {
        if letter.is_uppercase() && !topic.is_empty() {
            topic.push('-');
        }
        topic.extend(letter.to_lowercase());
    }
    topic
}
