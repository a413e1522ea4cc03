//! Topics, and the kinds in them that nobody handles. Invariant: a figure that is not known is none, never 0.

use sagahost_processor::unhandled::{Sort, UnhandledKind};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct TopicLine {
    pub name: String,
    /// Kinds that it carries for this app.
    pub kinds: Vec<String>,
    pub read: bool,
    pub written: bool,
    /// None: it does not exist.
    pub partitions: Option<i32>,
    /// Records kept now.
    pub records: Option<i64>,
    /// Records that this app has yet to handle; none where it never read it.
    pub lag: Option<i64>,
    /// What makes it, where it is missing.
    pub create: Option<String>,
    /// Partitions that another producer's open transaction holds up, and where.
    pub held_up: Vec<String>,
    /// Kinds in it that no plugin here handles, since the host's start.
    pub unhandled: Vec<UnhandledLine>,
}

/// Events of one kind in one topic that no plugin here handles, since the host's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct UnhandledLine {
    pub topic: String,
    pub kind: String,
    pub events: u64,
    /// Where the last one is: `order-created[2]@17`.
    pub last: Option<String>,
    /// It is known to be for others: the configuration says so, or this app emitted it.
    pub ignored: bool,
    /// The kind that is handled here and was probably meant.
    pub meant: Option<String>,
}

impl From<UnhandledKind> for UnhandledLine {
    fn from(kind: UnhandledKind) -> Self {
        let UnhandledKind { topic, kind, events, last, sort, meant } = kind;
        Self { topic, kind, events, last, ignored: sort == Sort::Ignored, meant }
    }
}
