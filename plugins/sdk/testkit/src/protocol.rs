//! What is asked of a mock host and what it answers, as JSON: one request a line, one reply a line. Invariant: a Rust
//! test and a test in another language see the same host, for both speak this.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::timeline::Line;

/// Version of this protocol. A field may be added within one version; nothing else changes.
pub const PROTOCOL: u32 = 1;
/// The longest line that either side writes.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What is asked. In JSON the field `do` names it; fields that are optional may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Must be the first: which protocol is spoken.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
    },
    /// Sets a configuration key, as the operator would.
    Config {
        /// May be left out where there is one plugin.
        plugin: Option<String>,
        /// As in `[plugin.NAME.config]`.
        key: String,
        /// As in `[plugin.NAME.config]`.
        value: Value,
    },
    /// Sets a counter.
    Counter {
        /// May be left out where there is one plugin.
        plugin: Option<String>,
        /// Its name.
        name: String,
        /// What it is from now on.
        value: i64,
    },
    /// Puts a value into a plugin's store.
    Store {
        /// May be left out where there is one plugin.
        plugin: Option<String>,
        /// Its key.
        key: String,
        /// As JSON.
        value: Value,
    },
    /// Where an event's data names its saga, a JSON pointer; for events that are sent without a saga.
    SagaIdAt {
        /// Such as `/orderId`.
        pointer: String,
    },
    /// The saga's deadline, in an app where some plugin finishes sagas.
    SagaDeadline {
        /// From the first event on.
        ms: u64,
    },
    /// Delivers an event.
    Send(Sent),
    /// Delivers the event that was sent last once more: same id, same content.
    SendAgain,
    /// Delivers everything that this saga took in once more, as a broker does that lost its offsets.
    Redeliver {
        /// Whose events.
        saga: String,
    },
    /// Lets simulated time pass; whatever becomes due happens at its time.
    Advance {
        /// How much of it.
        ms: u64,
    },
    /// Events of this kind that plugins emit are kept back from now on, as if their topic were slow.
    Hold {
        /// Which.
        kind: String,
    },
    /// Delivers what was kept back of this kind, and keeps back no more.
    Release {
        /// Which.
        kind: String,
    },
    /// What is answered to requests of plugins that begin so.
    Answer {
        /// GET, POST, …
        method: String,
        /// What the URL begins with, as a grant does.
        url: String,
        /// What is answered.
        answer: Scripted,
        /// To the next so many requests; left out: to all that nothing else is said of.
        times: Option<u32>,
    },
    /// A plugin is killed in the middle of its attempts from `first` to `last`, of each step.
    Kill {
        /// May be left out where there is one plugin.
        plugin: Option<String>,
        /// While it handles or while it compensates.
        during: Direction,
        /// Number of the first attempt that dies.
        first: u32,
        /// Number of the last one.
        last: u32,
    },
    /// What an operator does: the saga is cancelled, and so compensated.
    Cancel {
        /// Which saga.
        saga: String,
        /// Why.
        reason: String,
    },
    /// What an operator does: what is stuck or waits is tried again, now.
    Retry {
        /// Which saga.
        saga: String,
    },
    /// What an operator does: steps that are stuck are declared undone by hand, or accepted as they are.
    Resolve {
        /// Which saga.
        saga: String,
        /// Accepted as they are; else undone by hand.
        accept: bool,
        /// Of one plugin only.
        plugin: Option<String>,
        /// Why.
        reason: String,
    },
    /// What is known of a saga.
    Saga {
        /// Which saga.
        saga: String,
    },
    /// The value of a counter.
    CounterValue {
        /// May be left out where there is one plugin.
        plugin: Option<String>,
        /// Its name.
        name: String,
    },
    /// The value under a key of a plugin's store.
    Stored {
        /// May be left out where there is one plugin.
        plugin: Option<String>,
        /// Its key.
        key: String,
    },
    /// Everything that plugins logged.
    Log,
    /// The dead letters that are open.
    DeadLetters,
    /// The requests that plugins sent.
    Requests,
}

/// What becomes of a request. One whose key came before is answered as it was then, unless that was 429 or 5xx, as
/// draft-ietf-httpapi-idempotency-key-header has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Scripted {
    /// It is answered.
    Response {
        /// 200, 402, …
        status: u16,
        /// JSON; text as it is.
        #[serde(default)]
        body: Value,
    },
    /// It arrives and is acted upon, and what is answered then is lost. (What that is, the next answer says.)
    Lost,
    /// It never leaves.
    Unreachable,
}

/// A request that a plugin sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Requested {
    /// In which saga.
    pub saga: String,
    /// By whom.
    pub plugin: String,
    /// While it handles or while it compensates.
    pub direction: Direction,
    /// 1, 2, …
    pub attempt: u32,
    /// GET, POST, …
    pub method: String,
    /// The whole URL.
    pub url: String,
    /// Its `Idempotency-Key`.
    pub key: String,
    /// JSON; text where it is none.
    pub body: Value,
    /// `201`, `lost` or `unreachable`.
    pub answered: String,
}

/// An event to deliver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sent {
    /// Its kind.
    pub kind: String,
    /// Its data.
    #[serde(default)]
    pub data: Value,
    /// Instead of `data`: bytes as they come, which may be no JSON at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its saga. Left out: what `saga-id-at` finds, else the saga that was spoken of last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<String>,
    /// Its id. Left out: a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its source. Left out: `test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Left out: `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// CloudEvents extensions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<(String, String)>,
}

/// One of the two functions of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// It handles an event.
    Handle,
    /// It takes that back.
    Compensate,
}

/// What the host says to a request: `{"ok": …}` or `{"error": …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// It was done.
    Ok(Box<Done>),
    /// It was not done, and nothing has changed: a sentence for people.
    Error(String),
}

/// What was done or found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, rename_all_fields = "kebab-case")]
pub enum Done {
    /// To `hello`.
    Hello(Hello),
    /// To what lets something happen.
    Happened(Happened),
    /// To `saga`.
    Saga(SagaReport),
    /// To `log`.
    Log {
        /// In order.
        log: Vec<LogLine>,
    },
    /// To `dead-letters`.
    DeadLetters {
        /// In order.
        dead_letters: Vec<DeadLetter>,
    },
    /// To `requests`.
    Requests {
        /// In order.
        requests: Vec<Requested>,
    },
    /// To `counter-value` and `stored`; null where there is nothing.
    Value {
        /// A number, or any JSON.
        value: Value,
    },
    /// To what only sets something.
    Set {},
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hello {
    /// The version that is spoken.
    pub protocol: u32,
    /// The host's version.
    pub host: String,
    /// Names of the plugins.
    pub plugins: Vec<String>,
}

/// What one request caused, over all sagas, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Happened {
    /// The saga that was spoken of; empty where time passed.
    pub saga: String,
    /// Its status afterwards.
    pub status: String,
    /// Did any saga change? A duplicate changes nothing.
    pub changed: bool,
    /// Attempts that ended.
    pub attempts: Vec<Attempted>,
    /// Events that went out: those of plugins, and the host's own `SagaFailed`.
    pub emitted: Vec<Emitted>,
    /// Records that the host gave up on.
    pub dead_letters: Vec<DeadLetter>,
    /// The answer to an operator.
    pub answer: Option<Answered>,
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Attempted {
    /// In which saga.
    pub saga: String,
    /// Whose attempt.
    pub plugin: String,
    /// Kind of the event that is handled or taken back.
    pub kind: String,
    /// Which function.
    pub direction: Direction,
    /// 1, 2, …
    pub attempt: u32,
    /// `completed`, `rejected`, `retry`, `not-yet`, `invalid`, `trapped`, `undone`, `nothing-to-undo`, `stuck`,
    /// `unreadable`.
    pub outcome: String,
    /// Why, for machines.
    pub code: String,
    /// Why, for people.
    pub detail: String,
    /// Notes that it wants on the saga.
    pub notes: Vec<(String, String)>,
}

/// An event that went out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Emitted {
    /// Its saga.
    pub saga: String,
    /// Its kind.
    pub kind: String,
    /// Who emitted it; none: the host.
    pub plugin: Option<String>,
    /// Its id.
    pub id: String,
    /// Its data; text where it is not JSON.
    pub data: Value,
    /// What its data is.
    pub content_type: String,
    /// CloudEvents extensions.
    pub attributes: Vec<(String, String)>,
}

/// A record that the host gave up on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DeadLetter {
    /// Its saga.
    pub saga: String,
    /// Who could not handle it.
    pub plugin: Option<String>,
    /// Kind of the event.
    pub kind: String,
    /// Why, for machines.
    pub code: String,
    /// Why, for people.
    pub detail: String,
}

/// The answer to an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Answered {
    /// Was it done?
    pub done: bool,
    /// What was done, or why not.
    pub text: String,
}

/// What is known of a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SagaReport {
    /// Its id.
    pub saga: String,
    /// `waiting`, `running`, `finishing`, `completed`, `compensating`, `compensated`, `needs-operator`; `unknown` where
    /// the host has never heard of it.
    pub status: String,
    /// Why it compensates: `rejected by payment: …`.
    pub cause: Option<String>,
    /// What it ended with.
    pub result: Value,
    /// Searchable notes.
    pub notes: Vec<(String, String)>,
    /// What plugins keep in it, by name; text where it is not JSON.
    pub state: serde_json::Map<String, Value>,
    /// What an operator may type, each with the reason behind a `#`.
    pub next: Vec<String>,
    /// What happened, in order.
    pub timeline: Vec<Line>,
}

/// A line that a plugin logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LogLine {
    /// Who.
    pub plugin: String,
    /// In which saga.
    pub saga: String,
    /// `trace`, `debug`, `info`, `warn`, `error`
    pub level: String,
    /// The text.
    pub message: String,
    /// Names and values.
    pub fields: Vec<(String, String)>,
}
