//! Why a host has to stop by itself.

use std::any::Any;

use sagahost_journal::JournalError;
use sagahost_wire::BatchNo;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    #[error("another host owns this app now: {0}")]
    Superseded(String),
    #[error(
        "batch {} was to be published behind batch {}, which would hide those between; nothing is lost, the next start \
         publishes them in order",
        batch.0, last.0
    )]
    Gap { batch: BatchNo, last: BatchNo },
    #[error(
        "the group's offsets were reset or expired while batch {} was on its way, and the topics do not say whether it \
         is published: {why}. Start the host again; it says what to look at and what to do",
        batch.0
    )]
    Unclear { batch: BatchNo, why: String },
    #[error("thread {0} panicked; the next start continues from the journal")]
    Panicked(String),
}

/// The journal has a newer owner: the host ends. Any other error is handed back, for whoever met it to decide.
pub fn unless_superseded(error: JournalError) -> Result<JournalError, Fatal> {
    match error {
        JournalError::StaleEpoch { .. } => Err(Fatal::Superseded(error.to_string())),
        other => Ok(other),
    }
}

/// What was said with a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied())
}
