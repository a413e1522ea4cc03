//! Which topic, and which part of it. Invariant: a partition is displayed as it is parsed.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// One partition of a topic, by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition {
    pub topic: Arc<str>,
    pub number: i32,
}

impl Partition {
    pub fn new(topic: impl AsRef<str>, number: i32) -> Self {
        Self { topic: topic.as_ref().into(), number }
    }
}

/// As it is displayed: `order-created[2]`.
impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.strip_suffix(']').and_then(|text| text.rsplit_once('['));
        let parsed = parts.and_then(|(topic, number)| Some(Self::new(topic, number.parse().ok()?)));
        parsed
            .filter(|partition| !partition.topic.is_empty() && partition.number >= 0)
            .ok_or_else(|| "not a partition; write it as TOPIC[NUMBER]".to_owned())
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.number)
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Tells a topic from a later one of the same name. Opaque: only equality means something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicId(pub Arc<str>);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
