//! A worker: takes a saga from its mailbox, runs a chain, and stages it. Invariant: what a chain read is still so when it
//! joins the open batch, or it is thrown away and run again.
//!
//! Running and staging are steps of their own: between them others run and stage, and there the races are.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use sagahost_codec::TopicSettings;
use sagahost_journal::{Journal, LetterWrite};
use sagahost_saga::{
    id::{Participant, SagaId},
    input::Letter,
    notation::{self, with_causes},
};
use sagahost_wire::StoredLetter;
use tracing::{error, info, trace, warn};

use crate::{
    chain::{Chain, ChainError},
    code::Pick,
    facts::Facts,
    fatal::panic_text,
    inbox::Inbox,
    letters, lookalike,
    mailbox::{Item, Loose, Task},
    outside::{Came, Launch, Outside},
    overlay::Overlay,
    planted::{self, Planted},
    positions::Receipt,
    reply::{Declined, Promise},
    schedule::{Turn, WorkerNo},
    serving::Serving,
    stage::{Conflict, Departure, Stage, Staged, Staging},
    stats::Stats,
    step::{Next, Now, Part, Steady, Stop, Wait},
    unhandled::{Sighting, Sort},
};

/// Said of an unhandled kind that is like no known one.
const NOT_FOR_US: &str = "if it is for other apps, name it in `[topics] ignored-kinds`";

/// Bounds of a chain.
#[derive(Clone, Copy, Debug)]
pub struct ChainBounds {
    /// Steps fused into it; what goes beyond is published and comes back.
    pub steps_max: usize,
    /// A chain that keeps so much of what its calls read, wrote and returned fuses no more, and its next call waits for
    /// another chain.
    pub bytes_max: usize,
    /// What one call may bring. So a chain never keeps more than both.
    pub call_bytes_max: usize,
}

pub struct Worker {
    pub number: WorkerNo,
    pub stage: Arc<Stage>,
    pub inbox: Inbox,
    /// None: nothing outside is granted.
    pub outside: Option<Arc<dyn Outside>>,
    pub serving: Arc<ArcSwap<Serving>>,
    pub topics: Arc<TopicSettings>,
    pub journal: Arc<dyn Journal>,
    pub stats: Arc<Stats>,
    pub facts: Arc<Facts>,
    pub chain_bounds: ChainBounds,
    /// How long a chain that was thrown away twice may hold what it conflicted on.
    pub reservation_max: Duration,
    pub stop: Stop,
    /// Numbers chains, of all workers.
    pub chains: Arc<AtomicU64>,
    pub state: State,
}

/// Where a worker stands.
#[derive(Default)]
pub enum State {
    #[default]
    Idle,
    Run(Run),
    Stage(Run, Box<Staging>),
    /// A chain waits until what it lost its conflicts over is free, at most until then.
    Reserve(Run, Vec<Conflict>, Steady),
}

/// A task under way.
pub struct Run {
    /// None: a dead letter that no saga knows of.
    saga: Option<(SagaId, Item)>,
    life: u64,
    chain: u64,
    /// How often it was thrown away.
    rerun: u32,
    /// The event that came in is of a kind that no plugin here acts on.
    unhandled: bool,
}

impl Part for Worker {
    fn step(&mut self, now: Now) -> Next {
        match std::mem::take(&mut self.state) {
            State::Idle => self.take(now),
            State::Run(run) => self.run_or_quarantine(run, now),
            State::Stage(run, staging) => self.stage(run, staging, now),
            State::Reserve(run, conflicts, until) => self.reserve(run, conflicts, until, now),
        }
    }
}

impl Worker {
    fn take(&mut self, now: Now) -> Next {
        if self.stop.asked() {
            return Next::Ended(Ok(()));
        }
        let ready = &self.inbox.mailboxes.ready;
        let seen = ready.seen();
        let task = match self.inbox.mailboxes.take(self.number, now) {
            Turn::Run(task) => task,
            Turn::Wait { until } => return Next::Wait(Wait { signal: ready.clone(), seen, until }),
        };
        let (life, chain) = (self.stage.life(), self.chains.fetch_add(1, Ordering::Relaxed));
        let run = Run { saga: None, life, chain, rerun: 0, unhandled: false };
        match task {
            Task::Saga(id, item) => self.then(State::Run(Run { saga: Some((id, item)), ..run })),
            Task::Loose(loose) => {
                let Loose { letter, receipt, reply } = *loose;
                let reply = reply.map(|(reply, answer)| reply.promise(answer));
                let staging = self.letter(&run, None, letter, receipt, reply, now);
                self.then(State::Stage(run, staging))
            }
        }
    }

    fn then(&mut self, state: State) -> Next {
        self.state = state;
        Next::Again
    }

    fn finish(&self, run: &Run) -> Next {
        self.leave(run.saga.as_ref().map(|(id, _)| id))
    }

    fn leave(&self, saga: Option<&SagaId>) -> Next {
        if let Some(id) = saga {
            self.inbox.mailboxes.done(id);
        }
        self.stage.busy(-1);
        Next::Again
    }

    /// A panic is a broken assertion: it costs this saga and this input, and what was built beside it is built again.
    fn run_or_quarantine(&mut self, run: Run, now: Now) -> Next {
        let id = run.saga.as_ref().map(|(id, _)| id.clone());
        let (life, ran) = (run.life, catch_unwind(AssertUnwindSafe(|| self.run(run, now))));
        let (panic, id) = match (ran, id) {
            (Ok(next), _) => return next,
            (Err(panic), Some(id)) => (panic, id),
            (Err(panic), None) => std::panic::resume_unwind(panic),
        };
        let why = format!("the host panicked: {}", panic_text(&*panic).unwrap_or("without a text"));
        error!(saga = %id, why, "saga quarantined: its events are kept aside until `sagahost sagas retry` releases it");
        if let Err(error) = self.journal.quarantine(self.journal.identity().epoch, &id, &why) {
            error!(%error, "failed to journal the quarantine");
        }
        self.stage.quarantine(&id, why.clone());
        self.facts.quarantined(&id);
        self.stage.fail(life, why);
        self.leave(Some(&id))
    }

    fn run(&mut self, mut run: Run, now: Now) -> Next {
        let Some((id, item)) = &run.saga else { return self.finish(&run) };
        if let Some(staging) = self.no_room(&run, id, item, now) {
            return self.then(State::Stage(run, staging));
        }
        if let Item::Launch { call, interrupted: false } = item
            && !self.inbox.calls.is_queued(id, call)
        {
            return self.finish(&run);
        }
        let mut chain = match Chain::run(self, id, item, now) {
            Ok(chain) => chain,
            Err(ChainError::Quarantine(why)) => return self.quarantine(run, &why, now),
            Err(ChainError::Undecided(why)) => return self.undecided(run, &why, now),
            Err(ChainError::Aside(participant)) => return self.put_aside(run, &participant, now),
            Err(ChainError::Host(why)) => {
                self.stage.fail(run.life, why);
                return self.finish(&run);
            }
        };
        run.unhandled = chain.unhandled;
        let (serving, now) = (chain.serving.clone(), chain.now);
        let leaving = std::mem::take(&mut chain.leaving);
        match chain.into_staging(item, run.life, run.chain) {
            Some(mut staging) => {
                if let Some(facts) = &mut staging.facts {
                    facts.reruns = run.rerun;
                }
                self.then(State::Stage(run, staging))
            }
            None => {
                if run.unhandled {
                    self.note_unhandled(item, &serving);
                }
                if leaving.is_empty() {
                    self.nothing(id, item, now);
                }
                if let Err(why) = self.launch(id, leaving, &serving) {
                    self.stage.fail(run.life, why);
                }
                self.finish(&run)
            }
        }
    }

    /// By the versions that serve.
    fn launch(&self, id: &SagaId, leaving: Vec<Launch>, serving: &Serving) -> Result<(), String> {
        let Some(outside) = &self.outside else { return Ok(()) };
        for launch in leaving {
            if launch.send.is_some() {
                self.inbox.calls.launch(id, launch, &**outside);
                continue;
            }
            let by = match serving.code.pick(&launch.call) {
                Pick::Plugin(code) => Some(code.behaviour()),
                Pick::Nothing { .. } => None,
                Pick::Failed { error } => return Err(with_causes(&*error)),
            };
            self.inbox.calls.launch(id, Launch { by, ..launch }, &**outside);
        }
        Ok(())
    }

    /// What a chain would answer for an event for which its saga has no room, without one: nothing of the saga is copied
    /// or written. None: a chain decides.
    fn no_room(&self, run: &Run, id: &SagaId, item: &Item, now: Now) -> Option<Box<Staging>> {
        let Item::Delivery { event, formerly: None, receipt } = item else { return None };
        let cell = self.stage.saga(id).ok()?;
        let saga = cell.saga.as_ref()?;
        let serving = self.serving.load();
        let problem = saga.no_room(event, &serving.topology)?;
        let key = event.key.hash128();
        let spilled = || match cell.kept.key.filter(|_| saga.has_spilled()) {
            Some(at) => self.journal.spilled_event(at, key).map(|data| data.is_some()),
            None => Ok(false),
        };
        let known = saga.knows(&event.key) || cell.kept.spilling.iter().any(|(known, _)| *known == key);
        if known || spilled().unwrap_or(true) {
            return None;
        }
        let letter = letters::kept_aside(Letter::kept_aside(event.clone(), problem, now.wall), &serving.codec);
        Some(self.letter(run, Some(id.clone()), LetterWrite::Open(letter), receipt.clone(), None, now))
    }

    /// It has its turn when that participant has.
    fn put_aside(&mut self, mut run: Run, participant: &Participant, now: Now) -> Next {
        if let Some((id, item)) = run.saga.take() {
            if self.inbox.mailboxes.put_aside(self.number, &id, item, participant, now) {
                return Next::Again;
            }
            return self.leave(Some(&id));
        }
        self.finish(&run)
    }

    /// A chain that read something stale is thrown away and run again, which is no attempt; after two such it holds what
    /// it conflicted on.
    fn stage(&mut self, mut run: Run, staging: Box<Staging>, now: Now) -> Next {
        let waits = staging.change.as_ref().is_some_and(|change| change.wake.waits_for_plugin);
        let serving = staging.serving.clone();
        if self.is_outdated(&staging) {
            Stats::add(&self.stats.chains_rerun, 1);
            return self.then(State::Run(run));
        }
        match self.stage.stage(staging, now) {
            Staged::Joined => {
                if let Some((id, item)) = &run.saga {
                    // It parked for a plugin that has come back meanwhile: whoever woke the parked did not see it.
                    if waits && !Arc::ptr_eq(&serving, &self.serving.load()) {
                        self.inbox.post(id, Item::TopologyChanged);
                    }
                    if run.unhandled {
                        self.note_unhandled(item, &serving);
                    }
                    if let Item::Answered { answer, .. } = item
                        && matches!(answer.came, Came::End(_))
                    {
                        self.stats.called(&answer.by.digest, answer.is_at_fault(), answer.took);
                    }
                }
                self.finish(&run)
            }
            Staged::Void => self.finish(&run),
            Staged::Full(staging, wait) => {
                self.inbox.mailboxes.waits(self.number, now);
                self.state = State::Stage(run, staging);
                Next::Wait(wait)
            }
            Staged::Reread(mut staging, forgotten) => match self.stage.read_again(&mut staging.overlay, &forgotten) {
                Ok(()) => self.then(State::Stage(run, staging)),
                Err(error) => {
                    self.stage.fail(run.life, error.to_string());
                    self.finish(&run)
                }
            },
            Staged::Stale(conflicts) => {
                Stats::add(&self.stats.chains_rerun, 1);
                run.rerun += 1;
                self.then(match run.rerun {
                    1 => State::Run(run),
                    _ => State::Reserve(run, conflicts, now.steady.after(self.reservation_max)),
                })
            }
        }
    }

    /// Other plugins serve by now, and one of them takes events of this chain that it would not see any more: then it is
    /// thrown away, and run again with them. (Calls end on the code that they began on where nobody is new.)
    fn is_outdated(&self, Staging { serving, taken, .. }: &Staging) -> bool {
        let now = self.serving.load();
        !Arc::ptr_eq(serving, &now)
            && !planted::on(Planted::KeepOutdated)
            && taken.iter().any(|kind| !now.took(kind, serving.generation))
    }

    fn reserve(&mut self, run: Run, conflicts: Vec<Conflict>, until: Steady, now: Now) -> Next {
        match self.stage.reserve(run.chain, &conflicts, until, now) {
            None => self.then(State::Run(run)),
            Some(wait) => {
                self.inbox.mailboxes.waits(self.number, now);
                self.state = State::Reserve(run, conflicts, until);
                Next::Wait(wait)
            }
        }
    }

    /// The input changed nothing: its delivery is acknowledged, whoever asked is answered.
    fn nothing(&self, id: &SagaId, item: &Item, now: Now) {
        match item {
            Item::Delivery { receipt, .. } => {
                trace!(saga = %id, "nothing to do");
                if let Some(receipt) = receipt {
                    self.stage.skipped(receipt, now);
                }
            }
            Item::Operator { receipt: Some(receipt), .. } | Item::Redelivery { receipt: Some(receipt), .. } => {
                info!(saga = %id, partition = %receipt.partition, offset = receipt.offset, "the record of a dead letter came again and changes nothing; the letter stays as it is");
                self.stage.skipped(receipt, now);
            }
            Item::Launch { call, .. } | Item::Answered { call, .. } => self.stage.settle(id.clone(), call.clone()),
            Item::Requested { .. }
            | Item::Operator { .. }
            | Item::Due { .. }
            | Item::TopologyChanged
            | Item::Redelivery { .. } => {}
        }
    }

    /// An event of a kind that no plugin here acts on: a topic may carry kinds for others. It is counted, and where that is
    /// not known to be so, its kind is named once.
    fn note_unhandled(&self, item: &Item, serving: &Serving) {
        let (Item::Delivery { event, .. } | Item::Redelivery { event, .. }) = item else { return };
        let kind = &event.kind;
        let topic = event.origin.as_ref().map_or_else(|| serving.codec.topic_of(kind), |at| at.topic.clone());
        let expected = self.topics.ignores(kind.as_str()) || serving.codec.is_own(&event.key);
        let sort = if expected { Sort::Ignored } else { Sort::Unhandled };
        let meant = serving.meant(kind);
        let sighting = self.stats.unhandled.note(event, &topic, sort, || meant.clone());
        let hint = meant.as_deref().map_or_else(|| NOT_FOR_US.to_owned(), lookalike::hint);
        match (sort, sighting) {
            (Sort::Unhandled, Sighting::First) => {
                warn!(%topic, %kind, saga = %event.saga, event = %event.key, "no plugin here handles events of this kind: {hint}");
            }
            (Sort::Unhandled, Sighting::Overflow) => {
                warn!("events of many kinds that no plugin here handles; further kinds are counted and not named");
            }
            (Sort::Unhandled, Sighting::Again) | (Sort::Ignored, _) => {}
        }
    }

    /// The saga and the input stand still, everybody else goes on. The event is kept as a dead letter.
    fn quarantine(&mut self, run: Run, why: &str, now: Now) -> Next {
        let Some((id, item)) = &run.saga else { return self.finish(&run) };
        if matches!(self.journal.quarantined(id), Ok(None)) {
            error!(saga = %id, why, "saga quarantined: its events are kept aside as dead letters until `sagahost sagas retry` releases it");
            if let Err(error) = self.journal.quarantine(self.journal.identity().epoch, id, why) {
                self.stage.fail(run.life, error.to_string());
                return self.finish(&run);
            }
        }
        self.stage.quarantine(id, why.to_owned());
        self.facts.quarantined(id);
        match item {
            Item::Delivery { event, receipt, .. } | Item::Redelivery { event, receipt: receipt @ Some(_), .. } => {
                let letter = letters::quarantined(event, why, &self.serving.load().codec, now.wall);
                let (id, receipt) = (Some(id.clone()), receipt.clone());
                let staging = self.letter(&run, id, LetterWrite::Open(letter), receipt, None, now);
                return self.then(State::Stage(run, staging));
            }
            Item::Operator { reply: Some(reply), .. } | Item::Redelivery { reply: Some(reply), .. } => {
                let saga = notation::id(id.as_str()).into_owned();
                reply.declined(Declined::Quarantined { saga, why: why.to_owned() });
            }
            // The letter is open still, and is redriven when the saga is released.
            Item::Operator { receipt: Some(receipt), .. } => self.stage.skipped(receipt, now),
            Item::Requested { reply, .. } => {
                let saga = notation::id(id.as_str()).into_owned();
                reply.declined(Declined::Quarantined { saga, why: why.to_owned() });
            }
            Item::Operator { .. }
            | Item::Redelivery { .. }
            | Item::Due { .. }
            | Item::TopologyChanged
            | Item::Launch { .. }
            | Item::Answered { .. } => {}
        }
        self.finish(&run)
    }

    /// A person decides: a redrive asks again.
    fn undecided(&mut self, run: Run, why: &str, now: Now) -> Next {
        match run.saga.as_ref().map(|(_, item)| item) {
            Some(Item::Delivery { event, receipt, .. }) => {
                warn!(saga = %event.saga, event = %event.key, why, "event kept as a dead letter");
                let letter = letters::undecided(event, why, &self.serving.load().codec, now.wall);
                let staging = self.letter(&run, None, LetterWrite::Open(letter), receipt.clone(), None, now);
                return self.then(State::Stage(run, staging));
            }
            Some(Item::Redelivery { reply, receipt, .. }) => {
                if let Some(reply) = reply {
                    reply.declined(Declined::Undecided { why: why.to_owned() });
                }
                // The letter is open still.
                if let Some(receipt) = receipt {
                    self.stage.skipped(receipt, now);
                }
            }
            Some(
                Item::Requested { .. }
                | Item::Operator { .. }
                | Item::Due { .. }
                | Item::TopologyChanged
                | Item::Launch { .. }
                | Item::Answered { .. },
            )
            | None => {}
        }
        self.finish(&run)
    }

    /// A dead letter is opened or closed, and no saga changes.
    fn letter(
        &self,
        run: &Run,
        id: Option<SagaId>,
        letter: LetterWrite,
        receipt: Option<Receipt>,
        reply: Option<Promise>,
        now: Now,
    ) -> Box<Staging> {
        let serving = self.serving.load_full();
        let departures = match &letter {
            LetterWrite::Open(letter) => self.announce(letter, &serving).into_iter().collect(),
            LetterWrite::Close { .. } => Vec::new(),
        };
        Box::new(Staging {
            life: run.life,
            chain: run.chain,
            serving,
            taken: BTreeSet::new(),
            id,
            change: None,
            overlay: Overlay::new(self.stage.clone()),
            departures,
            letters: vec![letter],
            receipt,
            command_done: None,
            launches: Vec::new(),
            settled: None,
            facts: None,
            reply,
            now: now.wall,
        })
    }

    /// The copy of a dead letter, where they are published.
    pub(crate) fn announce(&self, letter: &StoredLetter, serving: &Serving) -> Option<Departure> {
        let published = self.topics.dead_letters.is_some();
        published.then(|| Departure { outgoing: serving.codec.dead_letter(letter), handled: None })
    }
}
