//! The scheduler: which part takes its next step, what time it is, and what goes wrong. Invariant: everything that
//! happens is decided here, from the plan; one seed is one run.
//!
//! What surrounds the processor (journal, transport, plugins) asks the world at each call: whether it fails, whether the
//! process dies of it, and whether another part takes a step inside it, as if a thread had been switched there.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    time::Duration,
};

use sagahost_processor::{
    Fatal,
    fatal::panic_text,
    step::{Next, Now, Part, Steady, Wait},
};
use sagahost_saga::id::{Participant, SagaId, Time};
use sagahost_wire::clock::Clock;

use crate::plan::{Fault, Plan, draw};

/// One process, with a number that no other has in this run.
pub type HostNo = usize;

/// The first process runs on another machine: the service that is called outside.
const ELSEWHERE: HostNo = 0;

/// Steps inside steps.
const DEPTH_MAX: usize = 3;
/// Streams of choices, beside those of the faults.
const WHO: u64 = 100;
const INSIDE: u64 = 101;
const TOOK: u64 = 102;
const RANDOM: u64 = 103;

/// The process of this host is dead: unwinds to the step that it happened in.
struct Death;

struct Slot {
    name: Arc<str>,
    host: HostNo,
    /// None: it is in a step.
    part: Option<Box<dyn Part>>,
    waits: Option<Wait>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Process {
    alive: bool,
    /// It stands still until then.
    frozen: Option<Steady>,
}

/// What happened to a host by itself.
pub enum Ended {
    /// It was told to.
    Stopped(HostNo),
    Fatal(HostNo, Fatal),
    Panicked(HostNo, String),
}

pub struct World {
    pub plan: Plan,
    now: Now,
    slots: Vec<Slot>,
    /// Of the slots, those that could take a step when that was looked at last.
    ready: Vec<usize>,
    processes: Vec<Process>,
    occasions: BTreeMap<Fault, u64>,
    /// What went wrong, and at which of its occasions.
    pub went_wrong: Vec<(Fault, u64)>,
    pub calm: bool,
    depth: usize,
    draws: [u64; 4],
    pub steps: u64,
    pub ended: Vec<Ended>,
    /// Whose step is under way.
    stepping: HostNo,
    /// Calls of versions that always trap: of which, in which process, and when.
    pub broke: BTreeMap<(HostNo, Arc<str>), Vec<Steady>>,
    failures: BTreeMap<(SagaId, Participant), u32>,
    /// Sagas of which a participant may have failed too often.
    pub given_up: BTreeSet<String>,
    /// Which of the journal's directories that there have been is in use, and the batch that it must hold, as somebody
    /// was told.
    pub directory: u64,
    pub journaled: Option<u64>,
    /// A host said that this is not the newest journal.
    pub refused: bool,
    /// What happens is printed.
    timeline: bool,
    /// Of everything that happened: two runs of one seed have the same.
    pub digest: u64,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// In one short look; never across a call of anything else.
pub fn world<T>(look: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(|world| look(world.as_mut().expect("a run is on")))
}

pub fn begin(plan: Plan, timeline: bool) {
    let wall = Time(1_700_000_000_000);
    let world = World {
        plan,
        now: Now { wall, steady: Steady(Duration::from_secs(1)) },
        slots: Vec::new(),
        ready: Vec::new(),
        processes: Vec::new(),
        occasions: BTreeMap::new(),
        went_wrong: Vec::new(),
        calm: false,
        depth: 0,
        draws: [0; 4],
        steps: 0,
        ended: Vec::new(),
        stepping: ELSEWHERE,
        broke: BTreeMap::new(),
        failures: BTreeMap::new(),
        given_up: BTreeSet::new(),
        directory: 0,
        journaled: None,
        refused: false,
        timeline,
        digest: 0,
    };
    WORLD.set(Some(world));
}

pub fn end() -> World {
    WORLD.take().expect("a run was on")
}

pub fn now() -> Now {
    world(|world| world.now)
}

/// The world's time of day.
pub struct WorldClock;

impl Clock for WorldClock {
    fn now(&self) -> Time {
        now().wall
    }
}

impl World {
    fn draw(&mut self, stream: u64) -> u64 {
        let at = &mut self.draws[(stream - WHO) as usize];
        *at += 1;
        draw(self.plan.ask.seed, stream, *at)
    }

    /// A version that always traps is called.
    pub fn broke(&mut self, host: HostNo, digest: &Arc<str>) {
        let now = self.now.steady;
        self.broke.entry((host, digest.clone())).or_default().push(now);
    }

    /// An attempt failed. Where that happens too often, the saga is compensated.
    pub fn failed(&mut self, saga: &SagaId, participant: &Participant) {
        const OFTEN: u32 = 4;
        let failures = self.failures.entry((saga.clone(), participant.clone())).or_default();
        *failures += 1;
        if *failures >= OFTEN {
            self.given_up.insert(saga.to_string());
        }
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if self.timeline {
            println!("{:>10.3} s  {}{}", self.now.steady.0.as_secs_f64(), "  ".repeat(self.depth), what());
        }
    }

    /// A commit was answered.
    pub fn answered(&mut self, directory: u64, batch: u64) {
        if self.directory == directory {
            self.journaled = self.journaled.max(Some(batch));
        }
    }

    /// What was answered is there, and of what was not at most one batch.
    pub fn begins_at(&mut self, last: u64) -> Result<(), String> {
        match self.journaled.replace(last) {
            Some(answered) if !(answered..=answered + 1).contains(&last) => {
                Err(format!("batch {answered} was journaled last, and the journal ends at {last}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Another directory is in use.
    pub fn directory_changed(&mut self) {
        self.directory += 1;
        self.journaled = None;
    }

    fn stir(&mut self, with: u64) {
        self.digest = draw(self.digest, with, self.steps);
    }

    pub fn now(&self) -> Now {
        self.now
    }

    pub fn pass(&mut self, time: Duration) {
        self.now.steady = self.now.steady.after(time);
        self.now.wall = self.now.wall.after(time);
    }

    pub fn set_wall(&mut self, wall: Time) {
        self.now.wall = wall;
    }

    pub fn process(&mut self) -> HostNo {
        self.processes.push(Process { alive: true, frozen: None });
        self.processes.len() - 1
    }

    pub fn add(&mut self, host: HostNo, name: &str, part: Box<dyn Part>) {
        self.slots.push(Slot { name: format!("{name} of host {host}").into(), host, part: Some(part), waits: None });
    }

    pub fn is_alive(&self, host: HostNo) -> bool {
        self.processes[host].alive
    }

    pub fn freeze(&mut self, host: HostNo, until: Steady) {
        self.processes[host].frozen = Some(until);
    }

    pub fn thaw(&mut self) {
        self.processes.iter_mut().for_each(|process| process.frozen = None);
    }

    fn runs(&self, host: HostNo) -> bool {
        let process = self.processes[host];
        process.alive && process.frozen.is_none_or(|until| until <= self.now.steady)
    }

    fn is_ready(&self, slot: &Slot) -> bool {
        let waits =
            |wait: &Wait| wait.signal.seen() == wait.seen && wait.until.is_none_or(|until| until > self.now.steady);
        slot.part.is_some() && self.runs(slot.host) && !slot.waits.as_ref().is_some_and(waits)
    }

    /// How many are ready; `ready` has them.
    fn count_ready(&mut self) -> usize {
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        ready.extend((0..self.slots.len()).filter(|slot| self.is_ready(&self.slots[*slot])));
        self.ready = ready;
        self.ready.len()
    }

    /// When something is to be done next although nothing stirs.
    pub fn next_time(&self) -> Option<Steady> {
        let frozen = self.processes.iter().filter(|process| process.alive).filter_map(|process| process.frozen);
        let frozen = frozen.filter(|until| *until > self.now.steady);
        let waits = self.slots.iter().filter(|slot| self.runs(slot.host)).filter_map(|slot| slot.waits.as_ref()?.until);
        frozen.chain(waits).min()
    }

    pub fn waiting(&self) -> Vec<String> {
        let line = |slot: &Slot| match &slot.waits {
            Some(wait) => format!("{} waits, at most until {:?}", slot.name, wait.until.map(|until| until.0)),
            None => format!("{} is ready", slot.name),
        };
        self.slots.iter().map(line).collect()
    }
}

/// Does this go wrong now?
pub fn happens(fault: Fault) -> bool {
    world(|world| {
        if world.calm {
            return false;
        }
        let occasion = world.occasions.entry(fault).or_default();
        *occasion += 1;
        let occasion = *occasion;
        let happens = world.plan.happens(fault, occasion);
        if happens {
            world.went_wrong.push((fault, occasion));
            world.stir(10_000 + fault as u64);
            world.note(|| format!("!! {fault:?} #{occasion}"));
        }
        happens
    })
}

/// For names of journals and of those who own them.
pub fn random(bytes: &mut [u8]) -> Result<(), String> {
    world(|world| {
        for chunk in bytes.chunks_mut(8) {
            let drawn = world.draw(RANDOM).to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    });
    Ok(())
}

/// One of so many, of a choice of its own.
pub fn choose(among: usize, stream: u64) -> usize {
    world(|world| {
        let steps = world.steps;
        (draw(world.plan.ask.seed, 200 + stream, steps) % among.max(1) as u64) as usize
    })
}

/// The process dies here.
pub fn die(host: HostNo) -> ! {
    kill(host);
    resume_unwind(Box::new(Death))
}

/// A named moment of whoever takes a step.
pub fn reached(moment: &'static str) {
    let host = world(|world| world.stepping);
    inside(host);
    if happens(Fault::CrashInSwitch) {
        world(|world| world.note(|| format!("host {host} dies at {moment}")));
        die(host);
    }
}

/// Its parts, but those that are in a step, are gone at once.
pub fn kill(host: HostNo) {
    let gone: Vec<Box<dyn Part>> = world(|world| {
        world.processes[host].alive = false;
        world.note(|| format!("host {host} is dead"));
        let mut gone = Vec::new();
        for slot in world.slots.iter_mut().filter(|slot| slot.host == host) {
            gone.extend(slot.part.take());
        }
        gone
    });
    drop(gone);
}

/// All processes of the machine are gone.
pub fn power_is_lost() {
    let all = world(|world| world.processes.len());
    (ELSEWHERE + 1..all).filter(|host| world(|world| world.is_alive(*host))).for_each(kill);
}

/// Called by what surrounds the processor, in front of each call: here a thread may be switched.
pub fn inside(host: HostNo) {
    alive(host);
    let steps = world(|world| {
        let calls = world.depth > 0 && world.depth < DEPTH_MAX;
        // Mostly a few, now and then so many that the others come a long way.
        match calls && world.draw(INSIDE) % 1_000 < world.plan.inside {
            true => 1 << (world.draw(INSIDE) % 7),
            false => 0,
        }
    });
    for _ in 0..steps {
        let other = world(|world| {
            let ready = world.count_ready();
            (ready > 0).then(|| (world.draw(WHO) % ready as u64) as usize).map(|at| world.ready[at])
        });
        let Some(other) = other else { return };
        take_step(other);
        alive(host);
    }
}

/// A process that is dead calls nothing any more.
pub fn alive(host: HostNo) {
    if !world(|world| world.is_alive(host)) {
        resume_unwind(Box::new(Death));
    }
}

/// Some part takes its next step. False: all wait.
pub fn step() -> bool {
    let next = world(|world| {
        world.slots.retain(|slot| slot.part.is_some());
        let ready = world.count_ready();
        let at = match world.plan.ask.in_turn {
            true => world.steps,
            false => world.draw(WHO),
        };
        (ready > 0).then(|| world.ready[(at % ready as u64) as usize])
    });
    next.inspect(|slot| take_step(*slot)).is_some()
}

fn take_step(at: usize) {
    let (mut part, host, now, before) = world(|world| {
        world.steps += 1;
        let took = Duration::from_micros(10 + world.draw(TOOK) % 200);
        world.pass(took);
        let slot = &mut world.slots[at];
        let part = slot.part.take().expect("it is ready");
        slot.waits = None;
        let (name, host) = (slot.name.clone(), slot.host);
        world.stir(at as u64);
        world.note(|| name.to_string());
        world.depth += 1;
        let before = std::mem::replace(&mut world.stepping, host);
        (part, host, world.now, before)
    });
    let stepped = catch_unwind(AssertUnwindSafe(|| part.step(now)));
    let kept = world(|world| {
        world.depth -= 1;
        world.stepping = before;
        if !world.is_alive(host) {
            return Some(part);
        }
        match stepped {
            Ok(Next::Again) => {}
            Ok(Next::Wait(wait)) => world.slots[at].waits = Some(wait),
            Ok(Next::Ended(how)) => {
                if let Err(fatal) = how {
                    world.note(|| format!("host {host} ends: {fatal}"));
                    world.ended.push(Ended::Fatal(host, fatal));
                }
                return Some(part);
            }
            Err(panic) => {
                let text = panic_text(&*panic).unwrap_or("without a text").to_owned();
                world.ended.push(Ended::Panicked(host, text));
                return Some(part);
            }
        }
        world.slots[at].part = Some(part);
        None
    });
    drop(kept);
}
