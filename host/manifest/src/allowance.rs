//! What one attempt may ask of its host: calls, names, values and log lines are counted against the limits. Invariant:
//! nothing that is refused here has reached store, counters or log.

use std::sync::Arc;

use thiserror::Error;

use crate::limits::Limits;

/// Why an attempt is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("it logged more than {max} {what} (log-{what}-max)")]
    Log { what: &'static str, max: usize },
    #[error("{what} has {bytes} bytes, {max} are allowed ({limit})")]
    Payload { what: &'static str, bytes: usize, max: usize, limit: &'static str },
    #[error("it made more than {max} calls of store and counters (store-ops-max)")]
    StoreOps { max: usize },
}

impl Refused {
    /// The code under which the attempt's end is known.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Log { .. } => "log-limit",
            Self::Payload { .. } => "payload-limit",
            Self::StoreOps { .. } => "store-limit",
        }
    }
}

/// What is left to one attempt.
#[derive(Clone, Debug)]
pub struct Allowance {
    limits: Arc<Limits>,
    log_lines: usize,
    log_bytes: usize,
    store_ops: usize,
}

impl Allowance {
    pub fn new(limits: Arc<Limits>) -> Self {
        Self { limits, log_lines: 0, log_bytes: 0, store_ops: 0 }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// One call of store or counters on `key`.
    pub fn operation(&mut self, key: &str) -> Result<(), Refused> {
        let max = self.limits.store_ops_max;
        self.store_ops += 1;
        if self.store_ops > max {
            return Err(Refused::StoreOps { max });
        }
        within("the key", key.len(), self.limits.store_key_bytes_max, "store-key-bytes-max")
    }

    /// A value that is put into the store.
    pub fn value(&self, bytes: usize) -> Result<(), Refused> {
        within("the value", bytes, self.limits.store_value_bytes_max, "store-value-bytes-max")
    }

    /// How many entries one scan may bring.
    pub fn scan(&self, limit: u32) -> u32 {
        limit.min(self.limits.store_scan_max)
    }

    /// One line for the log; `bytes`: message, names and values of fields.
    pub fn line(&mut self, bytes: usize) -> Result<(), Refused> {
        self.log_lines += 1;
        self.log_bytes += bytes;
        if self.log_lines > self.limits.log_lines_max {
            return Err(Refused::Log { what: "lines", max: self.limits.log_lines_max });
        }
        if self.log_bytes > self.limits.log_bytes_max {
            return Err(Refused::Log { what: "bytes", max: self.limits.log_bytes_max });
        }
        Ok(())
    }
}

fn within(what: &'static str, bytes: usize, max: usize, limit: &'static str) -> Result<(), Refused> {
    if bytes > max { Err(Refused::Payload { what, bytes, max, limit }) } else { Ok(()) }
}
