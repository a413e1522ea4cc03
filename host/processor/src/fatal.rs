//! Why a host has to stop by itself.

use std::any::Any;

use sagahost_journal::JournalError;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    #[error("another host owns this app now: {0}")]
    Superseded(String),
    #[error("{0}")]
    Unknown(String),
    #[error("thread {0} panicked; the next start goes on from the journal")]
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
