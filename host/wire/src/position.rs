//! How far a partition is handled.

use serde::{Deserialize, Serialize};

use crate::TopicId;

/// How far a partition is handled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Next record to read.
    pub next: i64,
    /// Offset and timestamp of a record handled, the highest with a timestamp.
    pub last: Option<(i64, u64)>,
    /// The topic that both belong to; none: it has no id, or an older host wrote the position.
    pub topic_id: Option<TopicId>,
}

impl Position {
    /// Nothing is known of the record before it.
    pub fn new(next: i64, topic_id: Option<TopicId>) -> Self {
        Self { next, last: None, topic_id }
    }
}
