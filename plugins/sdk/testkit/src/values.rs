//! Store and counters of one participant, in memory. Invariant: what an attempt wrote is seen by itself alone until it
//! is kept as a whole; the answers, and the words in which a call is refused, are the host's.

use std::{any::Any, collections::BTreeMap, sync::Arc};

use sagahost_manifest::{
    counter::{self, CounterFault},
    host_calls::{self, HostCalls, HostFault, Level, PageBounds},
};
/// How serious a line is.
pub use sagahost_sdk::Level as LogLevel;

/// What is kept: the store and the counters of one participant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// The store.
    pub store: BTreeMap<String, Arc<[u8]>>,
    /// The counters.
    pub counters: BTreeMap<String, i64>,
}

/// A line that an attempt logged. Lines stay, whatever becomes of the attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How serious it is.
    pub level: LogLevel,
    /// The text.
    pub message: String,
    /// Names and values.
    pub fields: Vec<(String, String)>,
}

/// Keys and values.
pub type Entries = Vec<(String, Arc<[u8]>)>;

/// One attempt's private layer over the values.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    below: Arc<Values>,
    store: BTreeMap<String, Option<Arc<[u8]>>>,
    counters: BTreeMap<String, i64>,
    log: Vec<Line>,
    /// A counter that does not exist is empty.
    lenient: bool,
}

impl Attempt {
    /// Begins over these values.
    pub fn new(below: Arc<Values>) -> Self {
        Self { below, ..Self::default() }
    }

    /// For a call that is only tried out: a counter that another event's handler would have made is simply empty.
    pub fn scratch() -> Self {
        Self { lenient: true, ..Self::default() }
    }

    /// The values with everything that was written; what the attempt began over is dropped.
    #[must_use]
    pub fn keep(self) -> Arc<Values> {
        let Self { mut below, store, counters, log: _, lenient: _ } = self;
        if store.is_empty() && counters.is_empty() {
            return below;
        }
        let values = Arc::make_mut(&mut below);
        for (key, value) in store {
            match value {
                Some(value) => values.store.insert(key, value),
                None => values.store.remove(&key),
            };
        }
        values.counters.extend(counters);
        below
    }

    /// Did it write anything?
    pub fn wrote(&self) -> bool {
        !self.store.is_empty() || !self.counters.is_empty()
    }

    /// The lines that it logged so far.
    pub fn take_log(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.log)
    }

    /// `log.write`
    pub fn log(&mut self, line: Line) {
        self.log.push(line);
    }

    /// `store.get`
    pub fn get(&self, key: &str) -> Option<Arc<[u8]>> {
        match self.store.get(key) {
            Some(own) => own.clone(),
            None => self.below.store.get(key).cloned(),
        }
    }

    /// `store.put`
    pub fn put(&mut self, key: &str, value: impl Into<Arc<[u8]>>) {
        self.store.insert(key.to_owned(), Some(value.into()));
    }

    /// `store.delete`
    pub fn delete(&mut self, key: &str) {
        self.store.insert(key.to_owned(), None);
    }

    /// `store.scan`: in byte order of the keys, those above `after` only.
    pub fn scan(&self, prefix: &str, after: Option<&str>, bounds: PageBounds) -> Entries {
        let asked = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
        let mut page: BTreeMap<&String, Option<&Arc<[u8]>>> =
            self.below.store.iter().filter(|(key, _)| asked(key)).map(|(key, value)| (key, Some(value))).collect();
        page.extend(self.store.iter().filter(|(key, _)| asked(key)).map(|(key, value)| (key, value.as_ref())));
        bounds.fill(page.into_iter().filter_map(|(key, value)| Some((key.as_str(), value?)))).into_entries()
    }

    /// `counters.ensure`
    pub fn ensure(&mut self, name: &str, initial: i64) {
        if self.read(name).is_none() {
            self.counters.insert(name.to_owned(), initial);
        }
    }

    /// `counters.take`
    pub fn take(&mut self, name: &str, amount: u64) -> Result<bool, CounterFault> {
        let there = self.existing(name);
        let (amount, enough) = counter::take(there, name, amount)?;
        if let Some(there) = there.filter(|_| enough) {
            self.counters.insert(name.to_owned(), there - amount);
        }
        Ok(enough)
    }

    /// `counters.give`
    pub fn give(&mut self, name: &str, amount: u64) -> Result<(), CounterFault> {
        let (_, value) = counter::give(self.existing(name), name, amount)?;
        self.counters.insert(name.to_owned(), value);
        Ok(())
    }

    fn existing(&self, name: &str) -> Option<i64> {
        self.read(name).or(if self.lenient { Some(0) } else { None })
    }

    /// `counters.read`
    pub fn read(&self, name: &str) -> Option<i64> {
        self.counters.get(name).or_else(|| self.below.counters.get(name)).copied()
    }
}

fn fault(fault: CounterFault) -> HostFault {
    HostFault::Guest(fault.to_string())
}

/// As a host answers, in the same words.
impl HostCalls for Attempt {
    fn log(&mut self, level: Level, message: &str, fields: &[(String, String)]) {
        let level = match level {
            Level::Trace => LogLevel::Trace,
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        self.log.push(Line { level, message: message.to_owned(), fields: fields.to_vec() });
    }
    fn store_get(&mut self, key: &str) -> Result<Option<Arc<[u8]>>, HostFault> {
        Ok(Self::get(self, key))
    }
    fn store_put(&mut self, key: &str, value: Vec<u8>) -> Result<(), HostFault> {
        self.put(key, value);
        Ok(())
    }
    fn store_delete(&mut self, key: &str) -> Result<(), HostFault> {
        self.delete(key);
        Ok(())
    }
    fn store_scan(
        &mut self,
        prefix: &str,
        after: Option<&str>,
        bounds: PageBounds,
    ) -> Result<host_calls::Entries, HostFault> {
        Ok(self.scan(prefix, after, bounds))
    }
    fn counter_ensure(&mut self, name: &str, initial: i64) -> Result<(), HostFault> {
        Self::ensure(self, name, initial);
        Ok(())
    }
    fn counter_take(&mut self, name: &str, amount: u64) -> Result<bool, HostFault> {
        self.take(name, amount).map_err(fault)
    }
    fn counter_give(&mut self, name: &str, amount: u64) -> Result<(), HostFault> {
        self.give(name, amount).map_err(fault)
    }
    fn counter_read(&mut self, name: &str) -> Result<Option<i64>, HostFault> {
        Ok(self.read(name))
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stocked() -> Arc<Values> {
        let mut begun = Attempt::default();
        begun.ensure("stock", 5);
        begun.put("a/1", *b"one");
        begun.put("a/2", *b"two");
        begun.keep()
    }

    #[test]
    fn what_an_attempt_writes_is_its_own_until_it_is_kept() {
        let values = stocked();
        let mut attempt = Attempt::new(values.clone());
        assert_eq!(attempt.take("stock", 3), Ok(true));
        attempt.delete("a/1");
        attempt.put("a/3", *b"three");
        let ten = PageBounds { entries: 10, bytes: 1_000 };
        let keys = |entries: Entries| entries.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(attempt.scan("a/", None, ten)), ["a/2", "a/3"]);
        assert_eq!(keys(attempt.scan("a/", Some("a/2"), ten)), ["a/3"]);
        assert_eq!(values, stocked(), "a dropped attempt leaves nothing");
        let kept = attempt.keep();
        assert_eq!(kept.counters["stock"], 2);
        assert_eq!(kept.store.len(), 2);
    }

    #[test]
    fn calls_that_make_no_sense_are_refused() {
        let mut attempt = Attempt::new(stocked());
        let words = |fault: Result<bool, CounterFault>| fault.map_err(|fault| fault.to_string());
        assert_eq!(
            words(attempt.take("seats", 1)),
            Err("counters.take: counter \"seats\" does not exist; call ensure first".to_owned())
        );
        assert_eq!(
            words(attempt.take("stock", u64::MAX)),
            Err("counters.take: amount 18446744073709551615 is above 2^63-1".to_owned())
        );
        assert_eq!(
            words(attempt.give("stock", i64::MAX as u64).map(|()| true)),
            Err("counters.give: counter \"stock\" would overflow by 9223372036854775807".to_owned())
        );
        assert_eq!(attempt.take("stock", 6), Ok(false));
        assert_eq!(attempt.read("stock"), Some(5));
    }
}
