//! The bench: runs the events of a case against a plugin, and keeps what the host would keep. Invariant: a world changes
//! only by what a finished attempt leaves, as in the host; a fault of the bench's own is never a verdict.

use std::{any::Any, cell::RefCell, collections::BTreeMap, sync::Arc, time::Duration};

use sagahost_manifest::{
    host_calls::{Entries, HostCalls, HostFault, Level, PageBounds},
    http::{Answer, Failure, Grant, Request, Response, Target},
    manifest::Subscription,
    sends::{Config, Row, Run, Sending, is_shown, made},
};
use sagahost_saga::{
    event::Event,
    id::{Direction, EventKey, SagaId, Time, idempotency_key, step_id},
    outcome::{
        Call, Cause, Completion, End, Evidence, Outcome, Saved, StateChange, Undo, UndoCall, UndoOutcome, Undone,
    },
};
use sagahost_sandbox::{HostError, Instance, Plugin, Ran};
use sagahost_testkit::values::{Attempt, Values};

use crate::case::Input;

/// When everything happens; the clock moves by a second with each event.
const BEGAN: Time = Time(1_700_000_000_000);
/// Attempts of one step, as by the host's default.
const ATTEMPTS_MAX: u32 = 5;

/// What a participant keeps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    pub values: Arc<Values>,
    pub states: BTreeMap<SagaId, Saved>,
    /// What each counter was at its creation: one that does not exist yet is as good as one that was just made.
    pub opening: BTreeMap<String, i64>,
    /// The requests of each step, by its idempotency key.
    pub sent: BTreeMap<String, Vec<Row>>,
}

/// What is answered to requests that begin so.
#[derive(Clone, Debug)]
pub struct Canned {
    pub method: String,
    pub url: Grant,
    pub answer: Response,
}

/// The largest that was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peak {
    pub memory_bytes: usize,
    pub took: Duration,
    pub calls: u64,
}

pub struct Bench<'p> {
    pub plugin: &'p Plugin,
    answers: &'p [Canned],
    peak: RefCell<Peak>,
}

/// A call that is over.
#[derive(Debug)]
pub struct Called<T> {
    pub answer: T,
    pub fuel: u64,
    pub memory_bytes: usize,
}

impl<'p> Bench<'p> {
    pub fn new(plugin: &'p Plugin, answers: &'p [Canned]) -> Self {
        Self { plugin, answers, peak: RefCell::default() }
    }

    pub fn peak(&self) -> Peak {
        *self.peak.borrow()
    }

    pub fn subscription(&self, kind: &str) -> Option<&Subscription> {
        self.plugin.manifest().subscription(kind)
    }

    /// The event of an input; `index` is its place in the case, and gives it its id.
    pub fn event(&self, input: &Input, index: usize) -> Event {
        Event {
            key: EventKey::new("sagahost-check", format!("event-{index}")),
            saga: SagaId::new(&input.saga),
            kind: input.kind.as_str().into(),
            time: clock(index),
            content_type: "application/json".into(),
            data: input.body.bytes().into(),
            attributes: Vec::new(),
            hops: 0,
            origin: None,
            record_key: None,
        }
    }

    /// One attempt of `handle-event`; the world keeps what a completed one leaves.
    pub fn attempt(&self, world: &mut World, event: &Event, attempt: u32) -> Result<Called<Outcome>, HostError> {
        self.attempt_losing(world, event, attempt, 0)
    }

    /// The same; the answer to request number `lost` does not come. (0: they all do.)
    pub fn attempt_losing(
        &self,
        world: &mut World,
        event: &Event,
        attempt: u32,
        lost: usize,
    ) -> Result<Called<Outcome>, HostError> {
        let call = self.forward(world, event, attempt);
        let called = self.call(world, &call, None, lost)?;
        Ok(match called.answer {
            End::Outcome(answer) => Called { answer, fuel: called.fuel, memory_bytes: called.memory_bytes },
            End::Undo(_) => unreachable!("a forward call has an outcome"),
        })
    }

    /// The first attempt in an instance that was used before.
    pub fn attempt_in(&self, world: &mut World, event: &Event, instance: &mut Instance) -> Result<Outcome, HostError> {
        let call = self.forward(world, event, 1);
        match self.call(world, &call, Some(instance), 0)?.answer {
            End::Outcome(answer) => Ok(answer),
            End::Undo(_) => unreachable!("a forward call has an outcome"),
        }
    }

    /// As many attempts as the host makes.
    pub fn handle(&self, world: &mut World, event: &Event) -> Result<Outcome, HostError> {
        let mut number = 1;
        loop {
            let outcome = self.attempt(world, event, number)?.answer;
            let again = matches!(outcome, Outcome::Retry(_) | Outcome::Unknown { .. });
            if !again || number == ATTEMPTS_MAX || is_limit(&outcome) {
                return Ok(outcome);
            }
            number += 1;
        }
    }

    /// One attempt of `compensate`.
    pub fn undo_attempt(
        &self,
        world: &mut World,
        event: &Event,
        evidence: Evidence,
        ordinal: u32,
        attempt: u32,
    ) -> Result<Called<UndoOutcome>, HostError> {
        let call = self.backward(world, event, evidence, ordinal, attempt);
        let called = self.call(world, &call, None, 0)?;
        Ok(match called.answer {
            End::Undo(answer) => Called { answer, fuel: called.fuel, memory_bytes: called.memory_bytes },
            End::Outcome(_) => unreachable!("a compensation has an undo outcome"),
        })
    }

    /// As many attempts as the host makes.
    pub fn undo(
        &self,
        world: &mut World,
        event: &Event,
        evidence: &Evidence,
        ordinal: u32,
    ) -> Result<UndoOutcome, HostError> {
        let mut number = 1;
        loop {
            let outcome = self.undo_attempt(world, event, evidence.clone(), ordinal, number)?.answer;
            let again = matches!(outcome, UndoOutcome::Retry(_) | UndoOutcome::Unknown { .. });
            if !again || number == ATTEMPTS_MAX {
                return Ok(outcome);
            }
            number += 1;
        }
    }

    /// How many requests the step has made in this world.
    pub fn asked(&self, world: &World, event: &Event) -> usize {
        let call = self.forward(world, event, 1);
        world.sent.get(&call.idempotency_key).map_or(0, Vec::len)
    }

    fn forward(&self, world: &World, event: &Event, attempt: u32) -> Call {
        let participant = self.plugin.name();
        let step_id = step_id(&participant, &event.key);
        Call {
            direction: Direction::Forward,
            ordinal: 0,
            attempt,
            idempotency_key: idempotency_key(&event.saga, &step_id, Direction::Forward, 0),
            state: world.states.get(&event.saga).cloned(),
            undo: None,
            // A later attempt is later.
            now: event.time.after(Duration::from_secs(u64::from(attempt.saturating_sub(1)))),
            runs: sagahost_saga::outcome::Runs::Here,
            send: 0,
            event: event.clone(),
            participant,
            step_id,
        }
    }

    fn backward(&self, world: &World, event: &Event, evidence: Evidence, ordinal: u32, attempt: u32) -> Call {
        let forward = self.forward(world, event, attempt);
        let version = match evidence {
            Evidence::NeverRan => "",
            Evidence::Done(_) | Evidence::Uncertain => self.plugin.manifest().version.as_str(),
        };
        let cause = Cause {
            code: "rejected".to_owned(),
            detail: "sagahost check".to_owned(),
            participant: None,
            event_kind: None,
        };
        Call {
            direction: Direction::Undo,
            ordinal,
            idempotency_key: idempotency_key(&event.saga, &forward.step_id, Direction::Undo, ordinal),
            undo: Some(UndoCall { evidence, cause, plugin_version: version.into() }),
            ..forward
        }
    }

    /// Run by run, as long as one ends at a request.
    fn call(
        &self,
        world: &mut World,
        call: &Call,
        mut used: Option<&mut Instance>,
        lost: usize,
    ) -> Result<Called<End>, HostError> {
        let (mut call, mut answer, mut all) = (call.clone(), None, 0);
        let forward = idempotency_key(&call.event.saga, &call.step_id, Direction::Forward, 0);
        let shown = if is_shown(&call) { world.sent.get(&forward).cloned().unwrap_or_default() } else { Vec::new() };
        let shown = made(shown, &call.event.saga, &call.step_id);
        loop {
            let seen = Seen { attempt: Attempt::new(world.values.clone()), opening: BTreeMap::new() };
            let rows = world.sent.get(&call.idempotency_key).cloned().unwrap_or_default();
            let mut run = Run::new(rows, &call, self.plugin.behaviour(), Config::default());
            answer.take().into_iter().for_each(|answer| run.hear(answer));
            let host = Box::new(Sending::new(Box::new(seen), run, shown.clone()));
            let ran = match &mut used {
                Some(instance) => instance.run(self.plugin, &call, host).ok_or_else(|| HostError {
                    plugin: self.plugin.name().to_string(),
                    source: "the instance had trapped before".into(),
                })?,
                None => self.plugin.run(&call, host),
            };
            let Ran { end, host, took, memory_bytes_peak, fuel } = ran;
            self.seen(took, memory_bytes_peak);
            all += fuel.unwrap_or_default();
            let end = end?;
            let (host, mut run) = Sending::into_parts(host);
            if run.waits() && used.is_none() {
                run.keep_request();
                call.send += 1;
                let request = run.leaving().expect("it ended at one").request;
                let is_lost = call.send as usize == lost;
                answer = Some(if is_lost { nothing_came() } else { self.answer(&request) });
                world.sent.insert(call.idempotency_key.clone(), run.rows().to_vec());
                continue;
            }
            if run.heard().is_some() {
                world.sent.insert(call.idempotency_key.clone(), run.rows().to_vec());
            }
            let end = run.end_of(end, &call);
            let seen = *host.into_any().downcast::<Seen>().expect("the call gives back what it got");
            world.keep(&call.event.saga, &end, seen);
            return Ok(Called { answer: end, fuel: all, memory_bytes: memory_bytes_peak });
        }
    }

    /// Where nothing is said of a request, it is answered 200, with an empty object.
    fn answer(&self, request: &Request) -> Answer {
        let target = Target::parse(&request.url);
        let fits = |canned: &&Canned| {
            canned.method == request.method && target.as_ref().is_ok_and(|target| canned.url.covers(target))
        };
        let canned = self.answers.iter().filter(fits).max_by_key(|canned| canned.url.path_len());
        let empty = || Response {
            status: 200,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: b"{}".to_vec(),
        };
        Ok(canned.map_or_else(empty, |canned| canned.answer.clone()))
    }

    fn seen(&self, took: Duration, memory_bytes: usize) {
        let mut peak = self.peak.borrow_mut();
        peak.memory_bytes = peak.memory_bytes.max(memory_bytes);
        peak.took = peak.took.max(took);
        peak.calls += 1;
    }
}

impl World {
    /// What a finished call leaves.
    fn keep(&mut self, saga: &SagaId, end: &End, seen: Seen) {
        let state = match end {
            End::Outcome(Outcome::Completed(Completion { state, .. }))
            | End::Undo(UndoOutcome::Undone(Undone { state, .. })) => state,
            End::Outcome(_) | End::Undo(_) => return,
        };
        for (name, initial) in seen.opening {
            self.opening.entry(name).or_insert(initial);
        }
        self.values = seen.attempt.keep();
        match state {
            StateChange::Keep => {}
            StateChange::Put(saved) => drop(self.states.insert(saga.clone(), saved.clone())),
            StateChange::Delete => drop(self.states.remove(saga)),
        }
    }
}

/// It arrived, and nobody hears of it.
fn nothing_came() -> Answer {
    let (code, detail) = ("timeout".to_owned(), "sagahost check".to_owned());
    Err(Failure { sent: true, code, detail })
}

/// When the event at this place of a case happens.
fn clock(index: usize) -> Time {
    BEGAN.after(Duration::from_secs(index as u64))
}

/// A limit is met again by the next attempt.
fn is_limit(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unknown { crash, .. } if crate::laws::is_limit(crash))
}

/// The undo data of a completed step, as evidence; none: it left nothing to undo.
pub fn evidence(completion: &Completion) -> Option<Evidence> {
    match &completion.undo {
        Undo::NothingToUndo => None,
        Undo::Data(saved) => Some(Evidence::Done(saved.clone())),
    }
}

/// An attempt, and which counters it made.
struct Seen {
    attempt: Attempt,
    opening: BTreeMap<String, i64>,
}

impl HostCalls for Seen {
    fn log(&mut self, _: Level, _: &str, _: &[(String, String)]) {}
    fn store_get(&mut self, key: &str) -> Result<Option<Arc<[u8]>>, HostFault> {
        Ok(self.attempt.get(key))
    }
    fn store_put(&mut self, key: &str, value: Vec<u8>) -> Result<(), HostFault> {
        self.attempt.put(key, value);
        Ok(())
    }
    fn store_delete(&mut self, key: &str) -> Result<(), HostFault> {
        self.attempt.delete(key);
        Ok(())
    }
    fn store_scan(&mut self, prefix: &str, after: Option<&str>, bounds: PageBounds) -> Result<Entries, HostFault> {
        Ok(self.attempt.scan(prefix, after, bounds))
    }
    fn counter_ensure(&mut self, name: &str, initial: i64) -> Result<(), HostFault> {
        if self.attempt.read(name).is_none() {
            self.opening.insert(name.to_owned(), initial);
        }
        self.attempt.ensure(name, initial);
        Ok(())
    }
    fn counter_take(&mut self, name: &str, amount: u64) -> Result<bool, HostFault> {
        self.attempt.take(name, amount).map_err(|fault| HostFault::Guest(fault.to_string()))
    }
    fn counter_give(&mut self, name: &str, amount: u64) -> Result<(), HostFault> {
        self.attempt.give(name, amount).map_err(|fault| HostFault::Guest(fault.to_string()))
    }
    fn counter_read(&mut self, name: &str) -> Result<Option<i64>, HostFault> {
        Ok(self.attempt.read(name))
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
