//! The boundary to the configuration that the host runs with. Invariant: what is in force changes only when `applied` is
//! called, so that a change that is refused is found again.

use std::error::Error;

use sagahost_journal::AdmittedRow;

use crate::settings::Values;

/// A configuration that can be read again.
pub trait Configuration: Send {
    /// `rows`: the plugins that the journal knows.
    ///
    /// # Errors
    /// It is wrong; the text has all faults.
    fn read(&mut self, rows: &[AdmittedRow]) -> Result<NewValues, Box<dyn Error + Send + Sync>>;
    /// The values that were read last are in force.
    fn applied(&mut self);
}

/// Values for plugins as they are now, against those in force.
pub struct NewValues {
    pub values: Values,
    /// Plugins whose values are others.
    pub changed: Vec<String>,
    /// Of these, names that no plugin has.
    pub unknown: Vec<String>,
    /// Where it was read from.
    pub place: String,
    /// What else is worth saying: what changed and waits for the next start, what has no effect.
    pub notes: Vec<String>,
}
