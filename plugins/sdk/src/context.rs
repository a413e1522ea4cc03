//! Everything that a handler may know and ask. Invariant: it sees the world only through the host of this one call.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    contract::{Attempt, Event, Saved},
    event,
    host::{Host, Level},
    http::Http,
};

/// The host, as a handler sees it during one attempt: what the event is, which attempt this is, and the calls it may
/// make. The same in WebAssembly and in a native test.
///
/// Writes to [`store`](Self::store) and [`counter`](Self::counter)s are visible at once to this attempt and to later
/// steps, and vanish unless the handler returns [`Done`](crate::Done). So there is nothing to clean up before a
/// rejection, a retry or a panic.
pub struct Context {
    host: Box<dyn Host>,
    event: Event,
    attempt: Attempt,
}

impl Context {
    /// For hosts; a handler is handed one.
    pub fn new(host: Box<dyn Host>, event: Event, attempt: Attempt) -> Self {
        Self { host, event, attempt }
    }

    /// The event as it was delivered, with its id, source, time and attributes. In a compensation: the event whose
    /// step is undone.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The saga that the event belongs to.
    pub fn saga_id(&self) -> &str {
        &self.event.saga_id
    }

    /// Same on every attempt, and in both directions.
    pub fn step_id(&self) -> &str {
        &self.attempt.step_id
    }

    /// 1, 2, …
    pub fn attempt(&self) -> u32 {
        self.attempt.attempt
    }

    /// To hand to whatever must act only once: same on every attempt, another one for the compensation.
    pub fn idempotency_key(&self) -> &str {
        &self.attempt.idempotency_key
    }

    /// When this attempt began, in milliseconds since 1970. There is no other clock.
    pub fn now_ms(&self) -> u64 {
        self.attempt.now_ms
    }

    /// After this much running time the attempt is stopped.
    pub fn budget_ms(&self) -> u32 {
        self.attempt.budget_ms
    }

    /// 32 bytes, same on every attempt. For an id, [`make_id`](Self::make_id) is simpler.
    pub fn seed(&self) -> &[u8] {
        &self.attempt.seed
    }

    /// A new id such as `payment-9f86d081884c7d659a2feaa0c55ad015`: the same on every attempt, and for every prefix
    /// another one in every step.
    pub fn make_id(&self, prefix: &str) -> String {
        let mut word = fnv(0xcbf2_9ce4_8422_2325, prefix.as_bytes());
        let mut halves = [0; 2];
        for (index, half) in halves.iter_mut().enumerate() {
            for chunk in self.seed().chunks(8) {
                word = mix(fnv(word, chunk).wrapping_add(index as u64));
            }
            *half = word;
        }
        format!("{prefix}-{:016x}{:016x}", halves[0], halves[1])
    }

    /// What this participant keeps in this saga; see [`Done::state`](crate::Done::state). Panics where the bytes are
    /// no `T`: list the formats that you can read under `reads`, and give new fields a `#[serde(default)]`.
    pub fn state<T: DeserializeOwned>(&self) -> Option<T> {
        let saved = self.saved_state()?;
        match event::decode(&saved.data) {
            Ok(state) => Some(state),
            Err(error) => panic!("failed to read the state (data format {}): {error}", saved.format),
        }
    }

    /// The state as it was saved, with its data format.
    pub fn saved_state(&self) -> Option<&Saved> {
        self.attempt.state.as_ref()
    }

    /// This participant's own keys, shared by all its sagas.
    pub fn store(&self) -> Store<'_> {
        Store { host: &*self.host }
    }

    /// A number that many sagas touch without getting into one another's way: stock, a balance, seats.
    pub fn counter(&self, name: impl Into<String>) -> Counter<'_> {
        Counter { host: &*self.host, name: name.into() }
    }

    /// A configuration key as text. The fields of the participant's own struct are there already, typed.
    pub fn config(&self, key: &str) -> Option<String> {
        self.host.config(key)
    }

    /// A log line with fields; without fields the macros [`info!`](crate::info) and its like are shorter.
    pub fn log(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        self.host.log(level, message, fields);
    }

    /// Requests to others, of a participant that says `http = […]`.
    pub fn http(&self) -> Http<'_> {
        Http::new(&*self.host)
    }

    pub(crate) fn host(&self) -> &dyn Host {
        &*self.host
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("event", &self.event).field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

fn fnv(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The participant's own keys, shared by all its sagas. Values are JSON of any serde type, or bytes. A step whose reads
/// another saga changed meanwhile is run again by the host.
pub struct Store<'a> {
    host: &'a dyn Host,
}

impl Store<'_> {
    /// The value under this key. Panics where it is not a `T`; values carry no format, so version them yourself.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.get_bytes(key).map(|bytes| decode_value(key, &bytes))
    }

    /// Puts a value under this key.
    pub fn put<T: Serialize>(&self, key: &str, value: &T) {
        self.put_bytes(key, &event::encode(value));
    }

    /// The bytes under this key.
    pub fn get_bytes(&self, key: &str) -> Option<Vec<u8>> {
        self.host.store_get(key)
    }

    /// Puts bytes under this key.
    pub fn put_bytes(&self, key: &str, value: &[u8]) {
        self.host.store_put(key, value);
    }

    /// Removes a key; an absent one is not an error.
    pub fn delete(&self, key: &str) {
        self.host.store_delete(key);
    }

    /// One page of the keys with this prefix, in byte order; `after` is the last key of the page before. A page may be
    /// shorter than `limit` although more follow: an empty one is the end.
    pub fn scan<T: DeserializeOwned>(&self, prefix: &str, after: Option<&str>, limit: u32) -> Vec<(String, T)> {
        let decode = |(key, bytes): (String, Vec<u8>)| {
            let value = decode_value(&key, &bytes);
            (key, value)
        };
        self.host.store_scan(prefix, after, limit).into_iter().map(decode).collect()
    }
}

fn decode_value<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> T {
    match event::decode(bytes) {
        Ok(value) => value,
        Err(error) => panic!("failed to read `{key}` in the store: {error}"),
    }
}

/// A number that many sagas touch at once.
///
/// ```
/// # fn reserve(ctx: &sagahost_sdk::Context) {
/// let stock = ctx.counter("stock/apple").ensure(1_000);
/// if stock.take(3) { /* they are ours */ } else { /* sold out */ }
/// # }
/// ```
pub struct Counter<'a> {
    host: &'a dyn Host,
    name: String,
}

impl Counter<'_> {
    /// Creates it with this value; no change where it exists.
    pub fn ensure(self, initial: i64) -> Self {
        self.host.counter_ensure(&self.name, initial);
        self
    }

    /// Takes `amount` if at least that much is there, and says whether. Traps where the counter does not exist.
    #[must_use = "false means that nothing was taken"]
    pub fn take(&self, amount: u64) -> bool {
        // More than a counter can hold is never there.
        i64::try_from(amount).is_ok() && self.host.counter_take(&self.name, amount)
    }

    /// Adds `amount`. Traps where the counter does not exist, and on overflow.
    pub fn give(&self, amount: u64) {
        self.host.counter_give(&self.name, amount);
    }

    /// The exact value; conflicts with every concurrent change, so prefer [`take`](Self::take).
    pub fn read(&self) -> Option<i64> {
        self.host.counter_read(&self.name)
    }
}
