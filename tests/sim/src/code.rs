//! The reference plugins, compiled natively, that trap, are slow, ask to come back, and die with their process.

use std::{
    any::Any,
    collections::{BTreeMap, btree_map},
    sync::Arc,
    time::Duration,
};

use sagahost_manifest::{
    Limits,
    host_calls::{Entries, HostCalls, HostFault, Level, PageBounds},
    http::{ALL, Answer, Made, Request},
    sends::Config,
    settings::Settings,
};
use sagahost_processor::code::{Callable, Ran};
use sagahost_saga::{
    id::{Direction, Participant},
    outcome::{Behaviour, Call, Crash, Delay, End, Outcome, Problem, UndoOutcome},
};
use sagahost_testkit::{Code as _, Native};

use crate::{
    agent::{self, Agent},
    courier::Courier,
    ledger::Ledger,
    plan::{Fault, Plan},
    till::Till,
    world::{self, HostNo, happens, inside},
};

/// The three, as they come, one that reads what it writes, one whose calls run outside, and one that only requests reach.
#[derive(Clone)]
pub struct Natives(pub BTreeMap<Participant, Arc<Native>>);

impl Natives {
    /// As the plan has them take part.
    pub fn new(plan: &Plan) -> Self {
        let settings = Settings { http: vec![ALL.to_owned()], ..Settings::default() };
        let limits = Arc::new(Limits::default());
        let mut all = vec![
            Native::new::<order::Orders>(&settings, limits.clone()),
            Native::new::<payment::Payment>(&settings, limits.clone()),
            Native::new::<inventory::Inventory>(&settings, limits.clone()),
            Native::new::<Ledger>(&settings, limits.clone()),
        ];
        if plan.agent {
            all.push(Native::new::<Agent>(&settings, limits.clone()));
        }
        if plan.courier {
            all.push(Native::new::<Courier>(&settings, limits.clone()));
        }
        if plan.till {
            all.push(Native::new::<Till>(&settings, limits));
        }
        let named = all.into_iter().map(|plugin| {
            let plugin = plugin.expect("the reference plugins are in order");
            (Participant::new(&plugin.manifest().name), Arc::new(plugin))
        });
        Self(named.collect())
    }

    pub fn names(&self) -> btree_map::Keys<'_, Participant, Arc<Native>> {
        self.0.keys()
    }
}

/// A version of one of them, in one process.
pub struct Version {
    native: Arc<Native>,
    digest: Arc<str>,
    behaviour: Behaviour,
    broken: bool,
    host: HostNo,
}

impl Version {
    /// `broken`: it traps, whatever it is asked.
    pub fn new(native: Arc<Native>, digest: Arc<str>, broken: bool, host: HostNo) -> Self {
        let behaviour = Behaviour { digest: digest.clone(), ..native.behaviour() };
        Self { native, digest, behaviour, broken, host }
    }
}

impl Callable for Version {
    fn digest(&self) -> &Arc<str> {
        &self.digest
    }

    fn behaviour(&self) -> Behaviour {
        self.behaviour.clone()
    }

    fn is_outside(&self) -> bool {
        self.digest.starts_with("courier")
    }

    fn sends(&self) -> Option<Config> {
        self.digest.starts_with(agent::NAME).then(Config::default)
    }

    fn run(&self, call: &Call, host: Box<dyn HostCalls>) -> Ran {
        inside(self.host);
        if self.broken {
            world::world(|world| world.broke(self.host, &self.digest));
        }
        if happens(Fault::Slow) {
            world::world(|world| world.pass(Duration::from_secs(7)));
        }
        let calls = Box::new(Calls { inner: host, host: self.host });
        let (end, calls) = self.native.call(call, calls);
        world::alive(self.host);
        if happens(Fault::CrashInGuest) {
            world::die(self.host);
        }
        let calls = calls.into_any().downcast::<Calls>().expect("what was given is given back");
        let end = end.map(|end| spoilt(call, end, self.broken));
        Ran { end, host: calls.inner, took: Duration::from_millis(1), now: world::now() }
    }
}

/// A call that went well may still end badly: then all that it did is thrown away.
fn spoilt(call: &Call, end: End, broken: bool) -> End {
    if broken || happens(Fault::Trap) {
        world::world(|world| world.failed(&call.event.saga, &call.participant));
        let crash = Crash { code: "trap".to_owned(), detail: "simulated".to_owned() };
        return match call.direction {
            Direction::Forward => End::Outcome(Outcome::Unknown { crash, uncertain: false }),
            Direction::Undo => End::Undo(UndoOutcome::Unknown { crash }),
        };
    }
    if happens(Fault::Retry) {
        world::world(|world| world.failed(&call.event.saga, &call.participant));
        let problem = Problem { code: "LATER".to_owned(), detail: "simulated".to_owned() };
        let delay = Delay { problem, after: Some(Duration::from_millis(300)) };
        return match call.direction {
            Direction::Forward => End::Outcome(Outcome::Retry(delay)),
            Direction::Undo => End::Undo(UndoOutcome::Retry(delay)),
        };
    }
    end
}

struct Calls {
    inner: Box<dyn HostCalls>,
    host: HostNo,
}

impl Calls {
    fn inner(&mut self) -> &mut dyn HostCalls {
        inside(self.host);
        &mut *self.inner
    }
}

impl HostCalls for Calls {
    fn log(&mut self, _: Level, _: &str, _: &[(String, String)]) {}
    fn store_get(&mut self, key: &str) -> Result<Option<Arc<[u8]>>, HostFault> {
        self.inner().store_get(key)
    }
    fn store_put(&mut self, key: &str, value: Vec<u8>) -> Result<(), HostFault> {
        self.inner().store_put(key, value)
    }
    fn store_delete(&mut self, key: &str) -> Result<(), HostFault> {
        self.inner().store_delete(key)
    }
    fn store_scan(&mut self, prefix: &str, after: Option<&str>, bounds: PageBounds) -> Result<Entries, HostFault> {
        self.inner().store_scan(prefix, after, bounds)
    }
    fn counter_ensure(&mut self, name: &str, initial: i64) -> Result<(), HostFault> {
        self.inner().counter_ensure(name, initial)
    }
    fn counter_take(&mut self, name: &str, amount: u64) -> Result<bool, HostFault> {
        self.inner().counter_take(name, amount)
    }
    fn counter_give(&mut self, name: &str, amount: u64) -> Result<(), HostFault> {
        self.inner().counter_give(name, amount)
    }
    fn counter_read(&mut self, name: &str) -> Result<Option<i64>, HostFault> {
        self.inner().counter_read(name)
    }
    fn http_replays(&self) -> bool {
        self.inner.http_replays()
    }
    fn http_send(&mut self, request: Request) -> Result<Answer, HostFault> {
        self.inner().http_send(request)
    }
    fn http_calls(&mut self) -> Result<Vec<Made>, HostFault> {
        self.inner().http_calls()
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
