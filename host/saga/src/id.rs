//! Names and ids. Invariant: an id made here depends on nothing but its arguments, so a re-run makes the same ids.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(Arc::from(text.as_ref()))
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }
        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// Which run: the order id, in the reference scenario.
    SagaId
}
name! {
    /// The type of an event, `ce_type` of CloudEvents.
    Kind
}
name! {
    /// The role that a plugin plays; the manifest's `name`.
    Participant
}

/// A point of time, milliseconds since 1970. The core never asks for the time: it is passed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    pub fn after(self, by: std::time::Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
    pub fn before(self, by: std::time::Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// What makes two deliveries one event: (`ce_source`, `ce_id`) of CloudEvents 1.0.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventKey {
    pub source: Arc<str>,
    pub id: Arc<str>,
}

impl EventKey {
    pub fn new(source: impl AsRef<str>, id: impl AsRef<str>) -> Self {
        Self { source: source.as_ref().into(), id: id.as_ref().into() }
    }
    /// 128 bits that stand for the key in a saga's list of known events.
    pub fn hash128(&self) -> [u8; 16] {
        first16(&sha256(&[self.source.as_bytes(), self.id.as_bytes()]))
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.id)
    }
}

impl fmt::Debug for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// SHA-256 over length-prefixed parts: ("ab", "c") and ("a", "bc") differ.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

pub(crate) fn first16(hash: &[u8; 32]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    short
}

/// Participant + event: one participant handling one event of one saga.
pub fn step_id(participant: &Participant, event: &EventKey) -> String {
    format!("{participant}:{event}")
}

/// Which of the two functions of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    Forward,
    Undo,
}

impl Direction {
    /// As timelines and JSON write it: the verb of the function.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "handle",
            Self::Undo => "compensate",
        }
    }
}

/// Same on every attempt. `ordinal` counts the compensations of one step (SEMANTICS.md, race 2).
pub fn idempotency_key(saga: &SagaId, step_id: &str, direction: Direction, ordinal: u32) -> String {
    let tag: &[u8] = match direction {
        Direction::Forward => b"forward",
        Direction::Undo => b"undo",
    };
    let hash = sha256(&[saga.as_str().as_bytes(), step_id.as_bytes(), tag, &ordinal.to_be_bytes()]);
    hex(&hash[..16])
}

/// Id of the `index`-th event that a call emits.
pub fn emitted_id(idempotency_key: &str, index: usize) -> String {
    hex(&sha256(&[b"emit", idempotency_key.as_bytes(), &(index as u64).to_be_bytes()])[..16])
}

/// 32 bytes from which a guest may make ids of its own.
pub fn seed(idempotency_key: &str) -> [u8; 32] {
    sha256(&[b"seed", idempotency_key.as_bytes()])
}
