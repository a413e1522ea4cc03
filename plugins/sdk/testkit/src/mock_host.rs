//! The host that a test holds in its hand. Invariant: it reads like a sentence, and whatever is not as expected panics
//! at the test's own line, with the timeline of the sagas that took part.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sagahost_manifest::{Limits, Manifest};
use sagahost_sdk::{Event, Participant};
use serde_json::Value;

use crate::{
    answer::Answer,
    code::Code,
    engine::Engine,
    http::HttpOf,
    native::Native,
    pipe::{self, Pipe},
    plugin::PluginOf,
    protocol::{DeadLetter, Done, Happened, LogLine, Reply, Request, Requested, SagaReport, Sent},
    saga::SagaOf,
};

/// A host in memory. See the [front page](crate) for what it looks like.
pub struct MockHost {
    behind: Behind,
}

enum Behind {
    Engine(Box<Engine>),
    Binary(Pipe),
}

impl MockHost {
    /// A host with one participant, called natively: nothing to build, and a debugger works.
    #[track_caller]
    #[must_use]
    pub fn native<P: Participant>() -> Self {
        Self { behind: Behind::Engine(Box::default()) }.with::<P>()
    }

    /// One more participant, so that a whole saga can run.
    #[track_caller]
    #[must_use]
    pub fn with<P: Participant>(mut self) -> Self {
        let Behind::Engine(engine) = &mut self.behind else {
            panic!("a host of components has no native participants: begin with MockHost::native")
        };
        let limits = Arc::new(Limits::default());
        let added =
            Manifest::parse(P::MANIFEST.as_bytes()).map_err(|faults| crate::faults(&faults)).and_then(|manifest| {
                let load = move |settings: &_| {
                    let native = Native::new::<P>(settings, limits.clone())?;
                    Ok(Box::new(native) as Box<dyn Code>)
                };
                engine.add(manifest, Box::new(load))
            });
        if let Err(why) = added {
            panic!("{why}");
        }
        self
    }

    /// A host with one compiled plugin, in the real sandbox with the real limits: `target/plugins/payment.wasm`, or
    /// wherever `sagahost build` put it. It starts the installed host, `sagahost` in `PATH` or what the environment
    /// variable `SAGAHOST` names.
    #[track_caller]
    #[must_use]
    pub fn component(file: impl AsRef<Path>) -> Self {
        Self::components([file])
    }

    /// The same with several plugins.
    #[track_caller]
    #[must_use]
    pub fn components(files: impl IntoIterator<Item = impl AsRef<Path>>) -> Self {
        Self::components_in(pipe::installed(), files)
    }

    /// The same in this host: a path, or a name in `PATH`.
    #[track_caller]
    #[must_use]
    pub fn components_in(host: impl AsRef<OsStr>, files: impl IntoIterator<Item = impl AsRef<Path>>) -> Self {
        let files: Vec<PathBuf> = files.into_iter().map(|file| file.as_ref().to_owned()).collect();
        match Pipe::start(host.as_ref(), &files) {
            Ok(pipe) => Self { behind: Behind::Binary(pipe) },
            Err(why) => panic!("{why}"),
        }
    }

    /// Where the data of an event says which saga it belongs to, as a JSON pointer: `/orderId`. Without it an event
    /// belongs to the saga that was spoken of last, at first `saga-1`.
    #[track_caller]
    pub fn saga_id_at(&mut self, pointer: &str) -> &mut Self {
        self.set(Request::SagaIdAt { pointer: pointer.to_owned() })
    }

    /// After this long a saga that has not ended fails, where some plugin finishes sagas. By default 15 minutes.
    #[track_caller]
    pub fn saga_deadline(&mut self, after: Duration) -> &mut Self {
        self.set(Request::SagaDeadline { ms: millis(after) })
    }

    /// Sets a configuration key of the plugin that has it. With several such plugins, name one:
    /// [`plugin`](Self::plugin).
    #[track_caller]
    pub fn config(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.set(Request::Config { plugin: None, key: key.to_owned(), value: value.into() })
    }

    /// Sets a counter of the only plugin.
    #[track_caller]
    pub fn counter(&mut self, name: &str, value: i64) -> &mut Self {
        self.set(Request::Counter { plugin: None, name: name.to_owned(), value })
    }

    /// Puts a value into the store of the only plugin, as JSON.
    #[track_caller]
    pub fn store(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.set(Request::Store { plugin: None, key: key.to_owned(), value: value.into() })
    }

    /// One plugin among several: its configuration, counters and store, and its death.
    pub fn plugin(&mut self, name: &str) -> PluginOf<'_> {
        PluginOf::new(self, name)
    }

    /// One saga: to send into it, to compensate it, to look at it.
    pub fn saga(&mut self, id: &str) -> SagaOf<'_> {
        SagaOf::new(self, id)
    }

    /// Delivers an event, and waits for all that it causes. What is written counts where the host would have it count.
    #[track_caller]
    pub fn send(&mut self, event: impl Into<Sent>) -> Answer<'_> {
        self.act(Request::Send(event.into()))
    }

    /// Delivers the last event once more, same id and same content, as a broker may.
    #[track_caller]
    pub fn send_again(&mut self) -> Answer<'_> {
        self.act(Request::SendAgain)
    }

    /// Lets simulated time pass: retries, delayed events and deadlines happen at their time.
    #[track_caller]
    pub fn advance(&mut self, by: Duration) -> Answer<'_> {
        self.act(Request::Advance { ms: millis(by) })
    }

    /// An operator cancels the saga, so that everything it did is undone. A saga that has not begun is cancelled before
    /// its first event.
    #[track_caller]
    pub fn compensate(&mut self, saga: &str) -> Answer<'_> {
        self.act(Request::Cancel { saga: saga.to_owned(), reason: "the test says so".to_owned() })
    }

    /// Keeps events of this kind back that plugins emit, as if their topic were slow.
    #[track_caller]
    pub fn hold(&mut self, kind: &str) -> &mut Self {
        self.set(Request::Hold { kind: kind.to_owned() })
    }

    /// Whom plugins ask: what is answered to requests with this method whose URL begins so.
    pub fn http(&mut self, method: &str, url: &str) -> HttpOf<'_> {
        HttpOf::new(self, method, url)
    }

    /// The requests that plugins sent so far.
    #[track_caller]
    pub fn requests(&mut self) -> Vec<Requested> {
        match self.ask(Request::Requests) {
            Done::Requests { requests } => requests,
            other => unexpected(&other),
        }
    }

    /// Delivers what was [held](Self::hold).
    #[track_caller]
    pub fn release(&mut self, kind: &str) -> Answer<'_> {
        self.act(Request::Release { kind: kind.to_owned() })
    }

    /// The value of a counter of the only plugin. Panics where there is none of this name.
    #[track_caller]
    pub fn counter_value(&mut self, name: &str) -> i64 {
        self.counter_of(None, name)
    }

    /// The value under a key of the only plugin's store; null where there is none.
    #[track_caller]
    pub fn stored(&mut self, key: &str) -> Value {
        self.value(Request::Stored { plugin: None, key: key.to_owned() })
    }

    /// Every line that was logged so far, also by attempts that came to nothing.
    #[track_caller]
    pub fn log(&mut self) -> Vec<LogLine> {
        match self.ask(Request::Log) {
            Done::Log { log } => log,
            other => unexpected(&other),
        }
    }

    /// What the host has given up on and nobody has settled.
    #[track_caller]
    pub fn dead_letters(&mut self) -> Vec<DeadLetter> {
        match self.ask(Request::DeadLetters) {
            Done::DeadLetters { dead_letters } => dead_letters,
            other => unexpected(&other),
        }
    }

    /// What happened in a saga, as text.
    #[track_caller]
    pub fn timeline(&mut self, saga: &str) -> String {
        self.saga(saga).timeline()
    }

    #[track_caller]
    pub(crate) fn counter_of(&mut self, plugin: Option<&str>, name: &str) -> i64 {
        let request = Request::CounterValue { plugin: plugin.map(str::to_owned), name: name.to_owned() };
        match self.value(request).as_i64() {
            Some(value) => value,
            None => panic!("there is no counter `{name}`: nothing has called `ensure`"),
        }
    }

    #[track_caller]
    pub(crate) fn value(&mut self, request: Request) -> Value {
        match self.ask(request) {
            Done::Value { value } => value,
            other => unexpected(&other),
        }
    }

    #[track_caller]
    pub(crate) fn set(&mut self, request: Request) -> &mut Self {
        self.ask(request);
        self
    }

    #[track_caller]
    pub(crate) fn act(&mut self, request: Request) -> Answer<'_> {
        let happened = self.happen(request);
        Answer::new(self, happened)
    }

    #[track_caller]
    fn happen(&mut self, request: Request) -> Happened {
        match self.ask(request) {
            Done::Happened(happened) => happened,
            other => unexpected(&other),
        }
    }

    #[track_caller]
    pub(crate) fn report(&mut self, saga: &str) -> SagaReport {
        match self.ask(Request::Saga { saga: saga.to_owned() }) {
            Done::Saga(report) => report,
            other => unexpected(&other),
        }
    }

    #[track_caller]
    fn ask(&mut self, request: Request) -> Done {
        let reply = match &mut self.behind {
            Behind::Engine(engine) => engine.answer(request),
            Behind::Binary(pipe) => pipe.ask(&request),
        };
        match reply {
            Reply::Ok(done) => *done,
            Reply::Error(why) => panic!("{why}"),
        }
    }
}

#[track_caller]
fn unexpected(done: &Done) -> ! {
    panic!("the host gave an answer to another question: {done:?}")
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl<E: Event> From<E> for Sent {
    fn from(event: E) -> Self {
        match serde_json::to_value(&event) {
            Ok(data) => Self::json(E::KIND, data),
            Err(error) => panic!("failed to encode {} as JSON: {error}", E::KIND),
        }
    }
}

impl Sent {
    /// An event of any kind.
    pub fn json(kind: impl Into<String>, data: Value) -> Self {
        Self { kind: kind.into(), data, ..Self::default() }
    }

    /// An event whose data is this text, which may be no JSON at all.
    pub fn text(kind: impl Into<String>, text: impl Into<String>) -> Self {
        Self { kind: kind.into(), text: Some(text.into()), ..Self::default() }
    }

    /// Its saga.
    #[must_use]
    pub fn in_saga(mut self, saga: impl Into<String>) -> Self {
        self.saga = Some(saga.into());
        self
    }

    /// Its id: two events of one id are one event.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// A CloudEvents extension.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }
}
