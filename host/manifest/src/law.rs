//! The laws of plugins by name: what the law checker shows, and what a manifest may waive. Invariant: a name means the
//! same law in a report, in a command and in a manifest.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! laws {
    ($($(#[doc = $meaning:literal])+ $law:ident = $name:literal,)*) => {
        /// What a plugin must keep to, so that the host's promises hold.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Law {
            $($(#[doc = $meaning])+ $law,)*
        }

        impl Law {
            /// In the order of reports.
            pub const ALL: &[Self] = &[$(Self::$law),*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$law => $name,)*
                }
            }

            /// One sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$law => concat!($($meaning),+).trim_ascii(),)*
                }
            }
        }
    };
}

laws! {
    /// A host takes the file.
    Admission = "admission",
    /// No call goes beyond the limits of memory, time, stack and sizes.
    Bounds = "bounds",
    /// The same input gives the same outcome, byte for byte, in a fresh instance and in a used one.
    Determinism = "determinism",
    /// Whatever an event holds, no call traps.
    Malformed = "malformed",
    /// The hundredth call costs and keeps no more than the tenth.
    Growth = "growth",
    /// A step that was done can be undone.
    Undoes = "undoes",
    /// Undoing gives the saga's state back as it was.
    RestoresState = "restores-state",
    /// Undoing gives the store back as it was.
    RestoresStore = "restores-store",
    /// Undoing gives every counter back as it was.
    RestoresCounters = "restores-counters",
    /// Undoing a step a second time changes nothing more.
    UndoTwice = "undo-twice",
    /// Undoing a step that never ran succeeds, and leaves store and counters alone.
    NeverRan = "never-ran",
    /// Undoing a step that may have run pays nothing that was not taken.
    Uncertain = "uncertain",
    /// Two independent sagas give the same in any order.
    Order = "order",
    /// A request whose answer is lost is made again by the next attempt, the same under the same key, and can be undone.
    Calls = "calls",
}

impl Law {
    /// The law of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|law| law.name() == name)
    }

    /// May a manifest say, with a reason, that something is left behind on purpose? Never where the host itself would
    /// be harmed.
    pub fn waivable(self) -> bool {
        match self {
            Self::Growth
            | Self::RestoresState
            | Self::RestoresStore
            | Self::RestoresCounters
            | Self::UndoTwice
            | Self::Uncertain
            | Self::Order
            | Self::Calls => true,
            Self::Admission | Self::Determinism | Self::Malformed | Self::Bounds | Self::Undoes | Self::NeverRan => {
                false
            }
        }
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
