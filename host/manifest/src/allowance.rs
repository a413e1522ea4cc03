//! What one attempt may ask of its host: calls, names, values and log lines are counted against the limits, and all bytes
//! of them against one. Invariant: nothing that is refused here has reached store, counters or log, and of what is read
//! no more than one value is in memory that was not counted.

use std::sync::Arc;

use thiserror::Error;

use crate::{
    host_calls::{Entries, PageBounds, entry_bytes},
    limits::{ENTRY_BYTES, Limits},
};

/// Why an attempt is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("it logged more than {max} {what} (log-{what}-max)")]
    Log { what: &'static str, max: usize },
    #[error("{what} has {bytes} bytes, {max} are allowed ({limit})")]
    Payload { what: &'static str, bytes: usize, max: usize, limit: &'static str },
    #[error("it sent more than {max} requests (sends-max)")]
    Sends { max: usize },
    /// A run of an attempt is not like the one before it, or an attempt not like another.
    #[error("{what}")]
    Diverged { what: String },
    #[error("it made more than {max} calls of store and counters (store-ops-max)")]
    StoreOps { max: usize },
    #[error("it read, wrote, logged or returned more than {max} bytes in one call (call-bytes-max)")]
    CallBytes { max: usize },
}

impl Refused {
    /// The code under which the attempt's end is known.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Log { .. } => "log-limit",
            Self::Payload { .. } => "payload-limit",
            Self::Sends { .. } => "sends-limit",
            Self::Diverged { .. } => "diverged",
            Self::StoreOps { .. } => "store-limit",
            Self::CallBytes { .. } => "call-limit",
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
    sends: usize,
    bytes: usize,
}

impl Allowance {
    pub fn new(limits: Arc<Limits>) -> Self {
        Self { limits, log_lines: 0, log_bytes: 0, store_ops: 0, sends: 0, bytes: 0 }
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
        within("the key", key.len(), self.limits.store_key_bytes_max, "store-key-bytes-max")?;
        self.spend(key.len() + ENTRY_BYTES)
    }

    /// A value that is put into the store.
    pub fn value(&mut self, bytes: usize) -> Result<(), Refused> {
        within("the value", bytes, self.limits.store_value_bytes_max, "store-value-bytes-max")?;
        self.spend(bytes)
    }

    /// A value that was found in the store.
    pub fn found(&mut self, value: Option<&[u8]>) -> Result<(), Refused> {
        self.spend(value.map_or(0, <[u8]>::len))
    }

    /// How much one scan may bring.
    pub fn page(&self, limit: u32) -> PageBounds {
        let Limits { store_scan_max, store_scan_bytes_max, call_bytes_max, .. } = *self.limits;
        let left = call_bytes_max.saturating_sub(self.bytes);
        PageBounds { entries: limit.min(store_scan_max) as usize, bytes: left.min(store_scan_bytes_max) }
    }

    /// What it brought: with the first entry, which a page always has, it may be too much.
    pub fn scanned(&mut self, entries: &Entries) -> Result<(), Refused> {
        self.spend(entries.iter().map(|(key, value)| entry_bytes(key, value)).sum())
    }

    /// Keys and values of the configuration that are to be handed to the guest.
    pub fn configuration(&mut self, bytes: usize) -> Result<(), Refused> {
        self.spend(bytes + ENTRY_BYTES)
    }

    /// A request that is to be sent.
    pub fn request(&mut self, bytes: usize) -> Result<(), Refused> {
        let max = self.limits.sends_max;
        self.sends += 1;
        if self.sends > max {
            return Err(Refused::Sends { max });
        }
        self.spend(bytes + ENTRY_BYTES)
    }

    /// What is known of requests, on its way to the guest.
    pub fn response(&mut self, bytes: usize) -> Result<(), Refused> {
        self.spend(bytes + ENTRY_BYTES)
    }

    /// What the call returns.
    pub fn outcome(&mut self, bytes: usize) -> Result<(), Refused> {
        within("what it returned", bytes, self.limits.outcome_bytes_max, "outcome-bytes-max")?;
        self.spend(bytes)
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Refused> {
        let max = self.limits.call_bytes_max;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > max { Err(Refused::CallBytes { max }) } else { Ok(()) }
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
        self.spend(bytes + ENTRY_BYTES)
    }
}

fn within(what: &'static str, bytes: usize, max: usize, limit: &'static str) -> Result<(), Refused> {
    if bytes > max { Err(Refused::Payload { what, bytes, max, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 10_000;

    /// What it is, how often it may be done, and how.
    type Way<'a> = (&'a str, usize, &'a dyn Fn(&mut Allowance) -> Result<(), Refused>);

    fn allowance() -> Allowance {
        Allowance::new(Arc::new(Limits { call_bytes_max: MAX, ..Limits::default() }))
    }

    /// How often it may be done, a thousand times at most; and the refusal.
    fn times(mut again: impl FnMut(&mut Allowance) -> Result<(), Refused>) -> (usize, Option<Refused>) {
        let mut allowance = allowance();
        let refused = (0..1_000).find_map(|time| again(&mut allowance).err().map(|why| (time, why)));
        refused.map_or((1_000, None), |(time, why)| (time, Some(why)))
    }

    #[test]
    fn each_way_to_make_the_host_hold_bytes_counts_against_one_number() {
        let value = [0; 936];
        let entries: Entries = vec![("k".repeat(100), Arc::from([0; 836]))];
        let ways: [Way<'_>; 7] = [
            ("reading", 9, &|all| all.operation(&"k".repeat(100)).and_then(|()| all.found(Some(&value)))),
            ("writing", 9, &|all| all.operation(&"k".repeat(100)).and_then(|()| all.value(936))),
            ("scanning", 9, &|all| all.operation("").and_then(|()| all.scanned(&entries))),
            ("counting", 42, &|all| all.operation(&"k".repeat(170))),
            ("logging", 10, &|all| all.line(936)),
            ("asking for the configuration", 10, &|all| all.configuration(936)),
            ("returning", 10, &|all| all.outcome(1_000)),
        ];
        for (way, often, again) in ways {
            assert_eq!(times(again), (often, Some(Refused::CallBytes { max: MAX })), "{way}");
        }
        assert_eq!(
            Refused::CallBytes { max: MAX }.to_string(),
            "it read, wrote, logged or returned more than 10000 bytes in one call (call-bytes-max)"
        );
    }

    #[test]
    fn a_page_has_what_is_left_and_never_more_than_a_scan_may() {
        let mut allowance = allowance();
        assert_eq!(allowance.page(7), PageBounds { entries: 7, bytes: MAX });
        assert_eq!(allowance.page(u32::MAX).entries, 1_000);
        assert_eq!(allowance.value(MAX - 5), Ok(()));
        assert_eq!(allowance.page(7).bytes, 5);
        assert!(allowance.value(6).is_err());
        assert_eq!(allowance.page(7).bytes, 0);
        let untouched = Allowance::new(Arc::default());
        assert_eq!(untouched.page(7).bytes, Limits::default().store_scan_bytes_max);
    }
}
