//! What a running plugin may ask of its host: log, store and counters, for the length of one attempt. Invariant: nothing of
//! it counts before the attempt's outcome is kept.

use std::{any::Any, sync::Arc};

use thiserror::Error;

use crate::{
    allowance::Refused,
    http::{Answer, Made, Request},
    limits::ENTRY_BYTES,
};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Severity of a line that a guest logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Keys and values.
pub type Entries = Vec<(String, Arc<[u8]>)>;

/// How much one page of a store may hold. It has an entry wherever there is one, however large: to a guest an empty page
/// is the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageBounds {
    pub entries: usize,
    /// Keys and values, with `ENTRY_BYTES` for each.
    pub bytes: usize,
}

/// What an entry counts.
pub fn entry_bytes(key: &str, value: &[u8]) -> usize {
    key.len() + value.len() + ENTRY_BYTES
}

/// A page while it is filled.
#[derive(Debug)]
pub struct PageFill {
    bounds: PageBounds,
    entries: Entries,
    bytes: usize,
    full: bool,
}

impl PageFill {
    pub fn new(bounds: PageBounds) -> Self {
        Self { bounds, entries: Vec::new(), bytes: 0, full: bounds.entries == 0 }
    }

    /// For the next entry. Where there is none, there is none for anything behind it either.
    pub fn has_room(&mut self, bytes: usize) -> bool {
        let fits = self.entries.is_empty() || self.bytes.saturating_add(bytes) <= self.bounds.bytes;
        self.full |= !fits;
        !self.full
    }

    /// One that it has room for.
    pub fn add(&mut self, key: String, value: Arc<[u8]>) {
        self.bytes += entry_bytes(&key, &value);
        self.entries.push((key, value));
        self.full = self.entries.len() >= self.bounds.entries;
    }

    /// It has as many entries as it may, or one did not fit.
    pub fn is_full(&self) -> bool {
        self.full
    }

    pub fn into_entries(self) -> Entries {
        self.entries
    }
}

impl PageBounds {
    /// From all there is, in order.
    pub fn fill<'a>(self, entries: impl IntoIterator<Item = (&'a str, &'a Arc<[u8]>)>) -> PageFill {
        let mut page = PageFill::new(self);
        for (key, value) in entries {
            if !page.has_room(entry_bytes(key, value)) {
                break;
            }
            page.add(key.to_owned(), value.clone());
        }
        page
    }
}

#[derive(Debug, Error)]
pub enum HostFault {
    /// The guest's own fault: its call ends as a trap with this cause.
    #[error("{0}")]
    Guest(String),
    /// It asks for more than one call may.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The attempt ends here, and whoever answers its calls knows why: it is run again with what it asked for.
    #[error("the attempt waits for what it asked for")]
    Waits,
    /// The host could not do its job: the call has no outcome at all.
    #[error(transparent)]
    Host(BoxError),
}

/// The effects of one attempt, kept by the host until the outcome decides over them.
pub trait HostCalls: Send + Any {
    fn log(&mut self, level: Level, message: &str, fields: &[(String, String)]);
    fn store_get(&mut self, key: &str) -> Result<Option<Arc<[u8]>>, HostFault>;
    fn store_put(&mut self, key: &str, value: Vec<u8>) -> Result<(), HostFault>;
    fn store_delete(&mut self, key: &str) -> Result<(), HostFault>;
    /// In byte order of the keys, those above `after` only.
    fn store_scan(&mut self, prefix: &str, after: Option<&str>, bounds: PageBounds) -> Result<Entries, HostFault>;
    fn counter_ensure(&mut self, name: &str, initial: i64) -> Result<(), HostFault>;
    fn counter_take(&mut self, name: &str, amount: u64) -> Result<bool, HostFault>;
    fn counter_give(&mut self, name: &str, amount: u64) -> Result<(), HostFault>;
    fn counter_read(&mut self, name: &str) -> Result<Option<i64>, HostFault>;
    /// Is the next request one that is known already? It was checked when it was new, and what may be sent can have changed.
    fn http_replays(&self) -> bool {
        false
    }
    /// One that was checked ([`crate::http::check`]), unless it is known already.
    ///
    /// # Errors
    /// Beside the others' `Waits`: what became of it is not known yet, or never will be where nobody sends it.
    fn http_send(&mut self, _: Request) -> Result<Answer, HostFault> {
        Err(HostFault::Waits)
    }
    /// What the step that is to be undone asked for.
    fn http_calls(&mut self) -> Result<Vec<Made>, HostFault> {
        Ok(Vec::new())
    }
    /// So that the caller gets its own type back.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(entries: usize, bytes: usize, values: &[usize]) -> (usize, bool) {
        let all: Vec<(String, Arc<[u8]>)> =
            values.iter().enumerate().map(|(at, size)| (format!("{at}"), vec![0; *size].into())).collect();
        let page = PageBounds { entries, bytes }.fill(all.iter().map(|(key, value)| (key.as_str(), value)));
        (page.entries.len(), page.is_full())
    }

    #[test]
    fn a_page_is_cut_by_number_and_by_bytes_and_never_to_nothing() {
        let each = 100 + 1 + ENTRY_BYTES;
        assert_eq!(filled(9, 3 * each, &[100, 100, 100]), (3, false), "exactly");
        assert_eq!(filled(9, 3 * each - 1, &[100, 100, 100]), (2, true));
        assert_eq!(filled(2, usize::MAX, &[100, 100, 100]), (2, true));
        assert_eq!(filled(3, usize::MAX, &[100, 100, 100]), (3, true), "there may be more behind it");
        assert_eq!(filled(9, 1, &[100, 1]), (1, true), "the first one always fits");
        assert_eq!(filled(9, 2 * each, &[100, 200, 1]), (1, true), "nothing is left out in between");
        assert_eq!(filled(0, 2 * each, &[100]), (0, true));
        assert_eq!(filled(9, each, &[]), (0, false));
    }
}
