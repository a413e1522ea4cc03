//! How batches and their owners are named. Invariant: a mark is displayed as it is parsed.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Grows with each owner: a commit with an older one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// Number of a batch; without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BatchNo(pub u64);

/// What one host journals and publishes: an epoch, batches without gaps, a transactional id. An app has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamNo(pub u32);

/// Of what serves: it grows with each set of plugins that takes events which those before did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// The metadata of a committed offset: which batch it belongs to, and who journaled that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub journal: Arc<str>,
    pub incarnation: Arc<str>,
    pub batch: BatchNo,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.journal, self.incarnation, self.batch.0)
    }
}

impl Mark {
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let mark = Self {
            journal: parts.next().filter(|part| !part.is_empty())?.into(),
            incarnation: parts.next()?.into(),
            batch: BatchNo(parts.next()?.parse().ok()?),
        };
        parts.next().is_none().then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_they_are_written() {
        let mark = Mark { journal: "j".into(), incarnation: "i".into(), batch: BatchNo(7) };
        assert_eq!(mark.to_string(), "j/i/7");
        assert_eq!(Mark::parse("j/i/7"), Some(mark));
        for other in ["", "j", "j/i", "j/i/x", "j/i/7/8", "/i/7"] {
            assert_eq!(Mark::parse(other), None, "{other:?}");
        }
    }
}
