//! A participant that is compiled into the test, called as the sandbox calls a component. Invariant: what it asks for
//! and answers passes the same allowance and the same measure; a panic is the end of its attempt, not of the test.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    sync::{Arc, Once},
    time::Instant,
};

use sagahost_manifest::{
    Fault, Limits, Manifest,
    allowance::{Allowance, Refused},
    answer::{Measure, panicked, uncaught},
    cut,
    host_calls::{self, BoxError, HostCalls, HostFault},
    http::{self, Grants, WAITS},
    settings::{Fit, Settings, config_hash, grants, resolve},
    smoke,
};
use sagahost_saga::{
    id::{self, Direction},
    outcome::{Behaviour, Call, Crash, End, Outcome, UndoOutcome},
};
use sagahost_sdk::{Context, Host, Level, Participant, contract, http as sdk};

use crate::{
    code::{Code, Ran},
    convert,
    values::Attempt,
};

type Handle = fn(&Context) -> Result<contract::Outcome, String>;
type Compensate = fn(contract::Step, &Context) -> Result<contract::UndoOutcome, String>;

/// A participant of the test's own program: it can be stepped through with a debugger.
pub struct Native {
    manifest: Arc<Manifest>,
    config: Arc<BTreeMap<String, String>>,
    grants: Arc<Grants>,
    limits: Arc<Limits>,
    handle: Handle,
    compensate: Compensate,
}

impl Native {
    /// The participant `P` with these settings, after it has handled its own examples. `Err`: what is wrong with its
    /// manifest, with the settings, or with the examples.
    pub fn new<P: Participant>(settings: &Settings, limits: Arc<Limits>) -> Result<Self, Vec<Fault>> {
        let manifest = Manifest::parse(P::MANIFEST.as_bytes())?;
        let faults = manifest.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let config = resolve(&manifest, settings, Fit::Exact)?;
        let native = Self {
            grants: Arc::new(grants(&manifest, settings)),
            manifest: Arc::new(manifest),
            config: Arc::new(config),
            limits,
            handle: P::handle_event,
            compensate: P::compensate,
        };
        let faults =
            smoke::faults(&native.manifest, |call| native.run(call, Box::new(Attempt::scratch())).map(|ran| ran.end));
        if faults.is_empty() { Ok(native) } else { Err(faults) }
    }

    /// Runs one attempt on these host calls, which are given back. `Err`: they failed, so there was no attempt.
    pub fn call(&self, call: &Call, host: Box<dyn HostCalls>) -> (Result<End, BoxError>, Box<dyn HostCalls>) {
        if !self.manifest.reads(&call.formats()) {
            return (Ok(End::unreadable(call)), host);
        }
        let allowance = Allowance::new(self.limits.clone());
        let shared = Rc::new(RefCell::new(Calls { host, allowance, failed: None }));
        let imports = Imports { calls: shared.clone(), config: self.config.clone(), grants: self.grants.clone() };
        let ctx = Context::new(Box::new(imports), convert::event(&call.event), convert::context(call, &self.limits));
        let end = self.attempt(call, &ctx);
        drop(ctx);
        let calls = Rc::into_inner(shared).expect("the context is gone").into_inner();
        let Calls { host, mut allowance, failed } = calls;
        let measured = Measure { manifest: &self.manifest, limits: &self.limits, call }.end(end, &mut allowance);
        (failed.map_or(Ok(measured), Err), host)
    }

    fn attempt(&self, call: &Call, ctx: &Context) -> End {
        let format = self.manifest.data_format;
        match (call.direction, &call.undo) {
            (Direction::Forward, _) => match caught(|| (self.handle)(ctx)) {
                Ok(Ok(outcome)) => End::Outcome(convert::outcome(outcome, format)),
                Ok(Err(text)) => crashed(call, uncaught(&text, &self.limits)),
                Err(stopped) => crashed(call, stopped.crash(&self.limits)),
            },
            (Direction::Undo, Some(undo)) => {
                let step = convert::step(call, undo);
                match caught(|| (self.compensate)(step, ctx)) {
                    Ok(Ok(outcome)) => End::Undo(convert::undo_outcome(outcome, format)),
                    Ok(Err(text)) => crashed(call, uncaught(&text, &self.limits)),
                    Err(stopped) => crashed(call, stopped.crash(&self.limits)),
                }
            }
            (Direction::Undo, None) => unreachable!("the core asks for no compensation without evidence"),
        }
    }
}

fn crashed(call: &Call, crash: Crash) -> End {
    match call.direction {
        Direction::Forward => End::Outcome(Outcome::Unknown { crash, uncertain: false }),
        Direction::Undo => End::Undo(UndoOutcome::Unknown { crash }),
    }
}

impl Code for Native {
    fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Native code has no file: its name and version stand for the digest.
    fn behaviour(&self) -> Behaviour {
        let Manifest { name, version, .. } = &*self.manifest;
        Behaviour {
            digest: id::hex(&id::sha256(&[name.as_bytes(), version.as_bytes()])).into(),
            config: config_hash(&self.config),
            version: version.as_str().into(),
        }
    }

    fn run(&self, call: &Call, host: Box<dyn HostCalls>) -> Result<Ran, String> {
        let began = Instant::now();
        let (end, host) = self.call(call, host);
        Ok(Ran { end: end.map_err(|error| error.to_string())?, host, took: began.elapsed() })
    }
}

/// What one attempt reaches, and how much of it is left.
struct Calls {
    host: Box<dyn HostCalls>,
    allowance: Allowance,
    /// The host could not do its job.
    failed: Option<BoxError>,
}

struct Imports {
    calls: Rc<RefCell<Calls>>,
    config: Arc<BTreeMap<String, String>>,
    grants: Arc<Grants>,
}

/// Why an attempt does not return.
enum Stopped {
    Refused { code: &'static str, detail: String },
    Panicked(String),
}

impl Stopped {
    fn crash(self, limits: &Limits) -> Crash {
        match self {
            Self::Refused { code, detail } => {
                Crash { code: code.to_owned(), detail: cut(&detail, limits.problem_bytes_max).to_owned() }
            }
            Self::Panicked(text) => panicked(&text, limits),
        }
    }
}

/// Ends the attempt from within a host call. No panic hook runs: this is not a panic.
fn stop(code: &'static str, detail: impl ToString) -> ! {
    resume_unwind(Box::new(Stopped::Refused { code, detail: detail.to_string() }))
}

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs plugin code; a panic in it is kept with its place, and printed by nobody.
fn caught<T>(run: impl FnOnce() -> T) -> Result<T, Stopped> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !CATCHING.get() {
                return before(panic);
            }
            let text = panic_text(panic.payload());
            let text = match panic.location() {
                Some(place) => format!("{text} ({}:{})", place.file(), place.line()),
                None => text,
            };
            PANIC.set(Some(text));
        }));
    });
    CATCHING.set(true);
    let ended = catch_unwind(AssertUnwindSafe(run));
    CATCHING.set(false);
    let panic = PANIC.take();
    ended.map_err(|payload| match payload.downcast::<Stopped>() {
        Ok(stopped) => *stopped,
        Err(payload) => Stopped::Panicked(panic.unwrap_or_else(|| panic_text(&*payload))),
    })
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(|s| &**s));
    text.unwrap_or("a panic without a text").to_owned()
}

impl Imports {
    /// A call of store or counters on `key`, which is counted first.
    fn operation<T>(&self, key: &str, call: impl FnOnce(&mut dyn HostCalls) -> Result<T, HostFault>) -> T {
        self.counted(key);
        self.served(call)
    }

    fn counted(&self, key: &str) {
        self.within(|allowance| allowance.operation(key));
    }

    fn within(&self, count: impl FnOnce(&mut Allowance) -> Result<(), Refused>) {
        let counted = count(&mut self.calls.borrow_mut().allowance);
        if let Err(refused) = counted {
            stop(refused.code(), refused);
        }
    }

    fn served<T>(&self, call: impl FnOnce(&mut dyn HostCalls) -> Result<T, HostFault>) -> T {
        let answer = call(&mut *self.calls.borrow_mut().host);
        answer.unwrap_or_else(|fault| match fault {
            HostFault::Guest(text) => stop("trap", text),
            HostFault::Refused(refused) => stop(refused.code(), refused),
            HostFault::Waits => stop(WAITS, "it waits for what it asked for"),
            HostFault::Host(error) => {
                self.calls.borrow_mut().failed = Some(error);
                stop("trap", "the host failed")
            }
        })
    }
}

fn level(level: Level) -> host_calls::Level {
    match level {
        Level::Trace => host_calls::Level::Trace,
        Level::Debug => host_calls::Level::Debug,
        Level::Info => host_calls::Level::Info,
        Level::Warn => host_calls::Level::Warn,
        Level::Error => host_calls::Level::Error,
    }
}

impl Host for Imports {
    fn log(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        let bytes = message.len() + fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.within(|allowance| allowance.line(bytes));
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.calls.borrow_mut().host.log(self::level(level), message, &fields);
    }
    fn config(&self, key: &str) -> Option<String> {
        let value = self.config.get(key);
        self.within(|allowance| allowance.configuration(value.map_or(0, String::len)));
        value.cloned()
    }
    fn store_get(&self, key: &str) -> Option<Vec<u8>> {
        let value = self.operation(key, |host| host.store_get(key));
        self.within(|allowance| allowance.found(value.as_deref()));
        value.map(|value| value.to_vec())
    }
    fn store_put(&self, key: &str, value: &[u8]) {
        self.counted(key);
        self.within(|allowance| allowance.value(value.len()));
        self.served(|host| host.store_put(key, value.to_vec()));
    }
    fn store_delete(&self, key: &str) {
        self.operation(key, |host| host.store_delete(key));
    }
    fn store_scan(&self, prefix: &str, after: Option<&str>, limit: u32) -> Vec<(String, Vec<u8>)> {
        self.counted(prefix);
        let bounds = self.calls.borrow().allowance.page(limit);
        let found = self.served(|host| host.store_scan(prefix, after, bounds));
        self.within(|allowance| allowance.scanned(&found));
        found.into_iter().map(|(key, value)| (key, value.to_vec())).collect()
    }
    fn counter_ensure(&self, name: &str, initial: i64) {
        self.operation(name, |host| host.counter_ensure(name, initial));
    }
    fn counter_take(&self, name: &str, amount: u64) -> bool {
        self.operation(name, |host| host.counter_take(name, amount))
    }
    fn counter_give(&self, name: &str, amount: u64) {
        self.operation(name, |host| host.counter_give(name, amount));
    }
    fn counter_read(&self, name: &str) -> Option<i64> {
        self.operation(name, |host| host.counter_read(name))
    }
    fn http_send(&self, request: sdk::Request) -> Result<sdk::Response, sdk::Failure> {
        let request = convert::asked(request);
        self.within(|allowance| allowance.request(request.bytes()));
        let checked = http::check(&request, &self.grants, self.calls.borrow().allowance.limits());
        let known = self.calls.borrow().host.http_replays();
        if let Err(why) = checked
            && !known
        {
            stop("trap", why);
        }
        let answer = self.served(|host| host.http_send(request));
        self.within(|allowance| allowance.response(http::answer_bytes(&answer)));
        answer.map(convert::response).map_err(|http::Failure { sent, code, detail }| sdk::Failure {
            sent,
            code,
            detail,
        })
    }
    fn http_calls(&self) -> Vec<sdk::Made> {
        self.served(|host| host.http_calls()).into_iter().map(convert::made).collect()
    }
}
