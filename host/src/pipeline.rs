//! The journey of an event, in this order: a record is read and decoded (`intake`), waits in its saga's mailbox, runs
//! here as a chain, is staged into the open batch (`stage`), and becomes durable and public (`commit`).
//! Invariant: a chain changes nothing until it is staged; it can be thrown away and run again at any point before.
//!
//! Retries and deadlines re-enter through the mailbox from durable times (`timers`), operators' commands too.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use sagahost_codec::{Codec, Decoded, Formerly, TopicSettings};
use sagahost_journal::{Journal, JournalError, LetterFilter, LetterWrite, SagaKey};
use sagahost_saga::{
    Saga,
    history::Entry,
    id::{Kind, SagaId},
    input::{Answer, Broken, Disposition, Effect, Input, Publish, Transition},
    notation,
    outcome::{Behaviour, Call, End, Outcome, UndoOutcome},
    topology::Topology,
};
use sagahost_sandbox::registry::{Pick, Registry};
use sagahost_wire::{BatchNo, clock::Clock};
use tracing::{debug, error, info, trace, warn};

use crate::{
    admin::protocol::{Refusal, Why},
    attempt::AttemptCalls,
    config::PipelineSettings,
    letters, lookalike,
    mailbox::{Item, Mailboxes},
    overlay::Overlay,
    positions::Receipt,
    resent,
    stage::{Departure, NotStaged, Reply, SagaChange, SagaError, Stage, Staging},
    stats::Stats,
    unhandled::{Sighting, Sort},
};

/// Said of an unhandled kind that is like no known one.
const NOT_FOR_US: &str = "if it is for other apps, name it in `[topics] ignored-kinds`";

/// Who handles what, and with which code. Replaced as a whole; a chain keeps what it began with.
pub struct Surroundings {
    pub topology: Topology,
    pub registry: Registry,
    pub codec: Codec,
    /// Batch from which on all subscribers of a kind take its events.
    pub since: HashMap<Kind, BatchNo>,
}

impl Surroundings {
    /// The handled kind that was probably meant.
    pub fn meant(&self, kind: &Kind) -> Option<String> {
        let members = &self.topology.members;
        let handled = members.iter().flat_map(|member| &member.subscriptions).map(|subscription| &subscription.kind);
        let others = members.iter().flat_map(|member| member.compensate_on.iter().chain(&member.finish_on));
        lookalike::meant(kind.as_str(), handled.chain(others).map(Kind::as_str)).map(str::to_owned)
    }
}

pub struct Pipeline {
    pub stage: Arc<Stage>,
    pub mailboxes: Mailboxes,
    pub surroundings: ArcSwap<Surroundings>,
    pub topics: TopicSettings,
    pub settings: PipelineSettings,
    pub clock: Arc<dyn Clock>,
    pub journal: Arc<dyn Journal>,
    pub stats: Stats,
    pub stopping: AtomicBool,
    chains: AtomicU64,
}

/// Why a chain ended without something to stage.
#[derive(Debug, thiserror::Error)]
enum ChainError {
    /// An assertion of the core failed, or the record cannot be read: this saga and this input go into quarantine.
    #[error("{0}")]
    Quarantine(String),
    /// Whether an earlier version took this event in cannot be read: the event is kept aside, no saga is touched.
    #[error("{0}")]
    Undecided(String),
    /// The host could not do its job: nothing happened, the input comes again.
    #[error("{0}")]
    Host(String),
}

impl From<Broken> for ChainError {
    fn from(broken: Broken) -> Self {
        Self::Quarantine(broken.to_string())
    }
}

impl From<JournalError> for ChainError {
    fn from(error: JournalError) -> Self {
        Self::Host(error.to_string())
    }
}

impl Pipeline {
    pub fn new(
        stage: Arc<Stage>,
        surroundings: Surroundings,
        topics: TopicSettings,
        settings: PipelineSettings,
        clock: Arc<dyn Clock>,
        journal: Arc<dyn Journal>,
    ) -> Self {
        Self {
            stage,
            mailboxes: Mailboxes::default(),
            surroundings: ArcSwap::from_pointee(surroundings),
            topics,
            settings,
            clock,
            journal,
            stats: Stats::default(),
            stopping: AtomicBool::new(false),
            chains: AtomicU64::new(0),
        }
    }

    /// Puts something into a saga's mailbox.
    pub fn post(&self, saga: &SagaId, item: Item) {
        self.stage.busy(1);
        if !self.mailboxes.put(saga, item) {
            self.stage.busy(-1);
        }
    }

    /// What waits in the journal for a host to run: commands given while none did, events kept aside, events parked for
    /// a plugin that is back.
    pub fn resume(&self) -> Result<(), JournalError> {
        for queued in self.journal.queued_commands()? {
            let item = Item::Operator { command: queued.command, queued: Some(queued.id), reply: None, receipt: None };
            self.post(&queued.saga, item);
        }
        self.take_in_again(None)?;
        self.wake_parked()
    }

    /// Everything that was kept aside for a saga in quarantine (None: for all that were released) is taken in again, in
    /// its order.
    pub fn take_in_again(&self, saga: Option<&SagaId>) -> Result<usize, JournalError> {
        let filter = LetterFilter {
            saga: saga.cloned(),
            code: Some(letters::QUARANTINED.to_owned()),
            open_only: true,
            limit: usize::MAX,
            ..LetterFilter::default()
        };
        let mut kept = self.journal.letters(&filter)?;
        kept.retain(|letter| letter.saga.as_ref().is_some_and(|saga| !self.stage.is_quarantined(saga)));
        let count = kept.len();
        for letter in kept {
            match self.surroundings.load().codec.decode_letter(&letter) {
                Ok(Decoded { event, formerly }) => {
                    let saga = event.saga.clone();
                    let letter = Box::new(letter);
                    self.post(&saga, Item::Redelivery { event, formerly, letter, receipt: None, reply: None });
                }
                Err(why) => {
                    error!(letter = letter.key, code = %why.code, "a letter of a quarantined saga is unreadable")
                }
            }
        }
        Ok(count)
    }

    /// Participants have come or gone: what is parked for them may go on.
    pub fn wake_parked(&self) -> Result<(), JournalError> {
        const PAGE: usize = 1_000;
        let mut after = SagaKey(0);
        loop {
            let parked = self.journal.parked_sagas(after, PAGE)?;
            for (key, saga) in &parked {
                after = *key;
                self.post(saga, Item::TopologyChanged);
            }
            if parked.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// A worker's loop: one saga at a time, until the host stops.
    pub fn work(&self) {
        while !self.stopping.load(Ordering::Relaxed) {
            let Some((saga, item)) = self.mailboxes.take(Duration::from_millis(200)) else { continue };
            self.handle_or_quarantine(&saga, item);
            self.mailboxes.done(&saga);
            self.stage.busy(-1);
        }
    }

    /// A panic is a broken assertion: it costs this saga and this input, and what was built beside it is built again.
    fn handle_or_quarantine(&self, id: &SagaId, item: Item) {
        let life = self.stage.life();
        let handled = std::panic::catch_unwind(AssertUnwindSafe(|| self.handle(id, item)));
        let Err(panic) = handled else { return };
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let why = format!("the host panicked: {}", text.unwrap_or("without a text"));
        error!(saga = %id, why, "saga quarantined: its events are kept aside until `sagahost sagas retry` releases it");
        if let Err(error) = self.journal.quarantine(self.journal.identity().epoch, id, &why) {
            error!(%error, "failed to journal the quarantine");
        }
        self.stage.quarantine(id, why.clone());
        self.stage.fail(life, why);
    }

    /// Runs a chain until it is staged. A chain that read something stale is thrown away and run again, which is no
    /// attempt; after two such it holds what it conflicted on.
    fn handle(&self, id: &SagaId, item: Item) {
        let life = self.stage.life();
        let number = self.chains.fetch_add(1, Ordering::Relaxed);
        for run in 0_u32.. {
            let chain = match self.run(id, &item) {
                Ok(chain) => chain,
                Err(ChainError::Quarantine(why)) => return self.quarantine(id, item, &why),
                Err(ChainError::Undecided(why)) => return self.undecided(item, &why),
                Err(ChainError::Host(why)) => return self.stage.fail(life, why),
            };
            let surroundings = chain.surroundings.clone();
            let unhandled = chain.unhandled;
            let Some(staging) = chain.into_staging(&item, life, number) else {
                if unhandled {
                    self.note_unhandled(&item, &surroundings);
                }
                return self.nothing(id, item);
            };
            let waits = staging.change.as_ref().is_some_and(|change| change.wake.waits_for_plugin);
            match self.stage.stage(staging, &self.surroundings.load().codec) {
                // It parked for a plugin that has come back meanwhile: whoever woke the parked did not see it.
                Ok(()) if waits && !Arc::ptr_eq(&surroundings, &self.surroundings.load()) => {
                    return self.post(id, Item::TopologyChanged);
                }
                Ok(()) if unhandled => return self.note_unhandled(&item, &surroundings),
                Ok(()) => return,
                Err(NotStaged::Stale(conflicts)) => {
                    Stats::add(&self.stats.chains_rerun, 1);
                    if run >= 1 {
                        self.stage.reserve(number, &conflicts, self.settings.reservation_max);
                    }
                }
                Err(NotStaged::Void) => return,
                Err(NotStaged::Journal(error)) => return self.stage.fail(life, error.to_string()),
            }
        }
    }

    /// The input changed nothing: its delivery is acknowledged, whoever asked is answered.
    fn nothing(&self, id: &SagaId, item: Item) {
        match item {
            Item::Delivery { receipt, .. } => {
                trace!(saga = %id, "nothing to do");
                if let Some(receipt) = receipt {
                    self.stage.skipped(&receipt);
                }
            }
            Item::Operator { receipt: Some(receipt), .. } | Item::Redelivery { receipt: Some(receipt), .. } => {
                info!(saga = %id, partition = %receipt.partition, offset = receipt.offset, "the record of a dead letter came again and changes nothing; the letter stays as it is");
                self.stage.skipped(&receipt);
            }
            Item::Operator { .. } | Item::Due { .. } | Item::TopologyChanged | Item::Redelivery { .. } => {}
        }
    }

    /// An event of a kind that no plugin here acts on: a topic may carry kinds for others. It is counted, and where that is
    /// not known to be so, its kind is named once.
    fn note_unhandled(&self, item: &Item, surroundings: &Surroundings) {
        let (Item::Delivery { event, .. } | Item::Redelivery { event, .. }) = item else { return };
        let kind = &event.kind;
        let topic = event.origin.as_ref().map_or_else(|| surroundings.codec.topic_of(kind), |at| at.topic.clone());
        let expected = self.topics.ignores(kind.as_str()) || surroundings.codec.is_own(&event.key);
        let sort = if expected { Sort::Ignored } else { Sort::Unhandled };
        let meant = surroundings.meant(kind);
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

    fn run(&self, id: &SagaId, item: &Item) -> Result<Chain<'_>, ChainError> {
        let mut chain = Chain::begin(self, id)?;
        if let Some(input) = chain.input(item)? {
            chain.drive(input)?;
        }
        chain.saga.check(&chain.surroundings.topology)?;
        Ok(chain)
    }

    /// The saga and the input stand still, everybody else goes on. The event is kept as a dead letter.
    fn quarantine(&self, id: &SagaId, item: Item, why: &str) {
        if matches!(self.journal.quarantined(id), Ok(None)) {
            error!(saga = %id, why, "saga quarantined: its events are kept aside as dead letters until `sagahost sagas retry` releases it");
            if let Err(error) = self.journal.quarantine(self.journal.identity().epoch, id, why) {
                return self.stage.fail(self.stage.life(), error.to_string());
            }
        }
        self.stage.quarantine(id, why.to_owned());
        match item {
            Item::Delivery { event, receipt, .. } | Item::Redelivery { event, receipt: receipt @ Some(_), .. } => {
                let letter = letters::quarantined(&event, why, &self.surroundings.load().codec, self.clock.now());
                self.stage_letter(Some(id.clone()), letter, receipt);
            }
            Item::Operator { reply: Some(reply), .. } | Item::Redelivery { reply: Some(reply), .. } => {
                let text = format!("saga {} is quarantined: {why}", notation::id(id.as_str()));
                let _ = reply.send(Err(Refusal::new(Why::Failed, text)));
            }
            // The letter is open still, and is redriven when the saga is released.
            Item::Operator { receipt: Some(receipt), .. } => self.stage.skipped(&receipt),
            Item::Operator { .. } | Item::Redelivery { .. } | Item::Due { .. } | Item::TopologyChanged => {}
        }
    }

    /// A person decides: a redrive asks again.
    fn undecided(&self, item: Item, why: &str) {
        match item {
            Item::Delivery { event, receipt, .. } => {
                warn!(saga = %event.saga, event = %event.key, why, "event kept as a dead letter");
                let letter = letters::undecided(&event, why, &self.surroundings.load().codec, self.clock.now());
                self.stage_letter(None, letter, receipt);
            }
            Item::Redelivery { reply, receipt, .. } => {
                if let Some(reply) = reply {
                    let _ = reply.send(Err(Refusal::new(Why::Failed, why)));
                }
                // The letter is open still.
                if let Some(receipt) = receipt {
                    self.stage.skipped(&receipt);
                }
            }
            Item::Operator { .. } | Item::Due { .. } | Item::TopologyChanged => {}
        }
    }

    /// Did an earlier version take the record in as this event? Asked only where it would have read the record
    /// differently.
    fn taken_in_as(&self, former: &Formerly) -> Result<bool, ChainError> {
        let cell = self.stage.saga(&former.saga).map_err(|error| match error {
            SagaError::Unreadable(why) | SagaError::Quarantined(why) => ChainError::Undecided(format!(
                "an earlier version read this record as event {} of saga {}; whether it took it in is unknown, because that \
                 saga's record cannot be read: {why}",
                former.key, former.saga
            )),
            SagaError::Journal(error) => error.into(),
        })?;
        let Some(saga) = cell.saga else { return Ok(false) };
        if saga.knows(&former.key) || !saga.has_spilled() {
            return Ok(saga.knows(&former.key));
        }
        Ok(self.spilled(cell.key, &cell.spilling, former.key.hash128())?.is_some())
    }

    /// A dead letter that no saga knows of.
    pub fn stage_letter(&self, id: Option<SagaId>, letter: sagahost_wire::StoredLetter, receipt: Option<Receipt>) {
        let departures = self.announce(&letter);
        self.stage_without_saga(id, LetterWrite::Open(letter), departures, receipt, None);
    }

    /// Closes a dead letter that belongs to no saga.
    pub fn close_letter(&self, key: &str, how: String, reply: Reply) {
        let write = LetterWrite::Close { key: key.to_owned(), how: how.clone(), at: self.clock.now() };
        self.stage_without_saga(None, write, Vec::new(), None, Some((reply, Answer { done: true, text: how })));
    }

    fn stage_without_saga(
        &self,
        id: Option<SagaId>,
        letter: LetterWrite,
        departures: Vec<Departure>,
        receipt: Option<Receipt>,
        reply: Option<(Reply, Answer)>,
    ) {
        let life = self.stage.life();
        let staging = Staging {
            life,
            chain: self.chains.fetch_add(1, Ordering::Relaxed),
            id,
            change: None,
            overlay: Overlay::new(self.stage.clone()),
            departures,
            letters: vec![letter],
            receipt,
            command_done: None,
            reply,
            now: self.clock.now(),
        };
        if let Err(NotStaged::Journal(error)) = self.stage.stage(staging, &self.surroundings.load().codec) {
            self.stage.fail(life, error.to_string());
        }
    }

    fn announce(&self, letter: &sagahost_wire::StoredLetter) -> Vec<Departure> {
        let published = self.topics.dead_letters.is_some();
        published
            .then(|| Departure { outgoing: self.surroundings.load().codec.dead_letter(letter), handled: None })
            .into_iter()
            .collect()
    }

    /// Takes in an event that has a mailbox already: what does it come with?
    fn spilled(
        &self,
        cell_key: Option<SagaKey>,
        spilling: &[([u8; 16], [u8; 16])],
        hash: [u8; 16],
    ) -> Result<Option<[u8; 16]>, ChainError> {
        if let Some((_, data)) = spilling.iter().find(|(event, _)| *event == hash) {
            return Ok(Some(*data));
        }
        match cell_key {
            Some(key) => Ok(self.journal.spilled_event(key, hash)?),
            None => Ok(None),
        }
    }
}

/// An event taken in and all steps fused behind it, on private copies.
struct Chain<'p> {
    pipeline: &'p Pipeline,
    surroundings: Arc<Surroundings>,
    id: SagaId,
    saga: Saga,
    key: Option<SagaKey>,
    spilling: Vec<([u8; 16], [u8; 16])>,
    overlay: Overlay,
    letters: Vec<LetterWrite>,
    departures: Vec<Departure>,
    spilled_events: Vec<([u8; 16], [u8; 16])>,
    spilled_history: Vec<Entry>,
    answer: Option<Answer>,
    changed: bool,
    /// The event that came in is of a kind that no plugin here acts on.
    unhandled: bool,
    steps: usize,
}

/// What is still to do in a chain.
enum Work {
    Input(Input),
    Call(Call),
}

impl<'p> Chain<'p> {
    fn begin(pipeline: &'p Pipeline, id: &SagaId) -> Result<Self, ChainError> {
        let cell = pipeline.stage.saga(id).map_err(|error| match error {
            SagaError::Unreadable(why) => ChainError::Quarantine(why),
            SagaError::Quarantined(why) => ChainError::Quarantine(why),
            SagaError::Journal(error) => error.into(),
        })?;
        let saga = match cell.saga {
            Some(saga) => (*saga).clone(),
            None => Saga::new(id.clone(), pipeline.clock.now()),
        };
        Ok(Self {
            pipeline,
            surroundings: pipeline.surroundings.load_full(),
            id: id.clone(),
            saga,
            key: cell.key,
            spilling: cell.spilling,
            overlay: Overlay::new(pipeline.stage.clone()),
            letters: Vec::new(),
            departures: Vec::new(),
            spilled_events: Vec::new(),
            spilled_history: Vec::new(),
            answer: None,
            changed: false,
            unhandled: false,
            steps: 0,
        })
    }

    /// None: an earlier version took the event in, so there is nothing to do.
    fn input(&mut self, item: &Item) -> Result<Option<Input>, ChainError> {
        let input = match item {
            Item::Delivery { formerly: Some(former), .. } | Item::Redelivery { formerly: Some(former), .. }
                if self.pipeline.taken_in_as(former)? =>
            {
                Stats::add(&self.pipeline.stats.duplicates, 1);
                let text =
                    format!("an earlier version took this record in as event {} of saga {}", former.key, former.saga);
                debug!(saga = %self.id, text, "known already");
                self.answer = Some(Answer { done: false, text });
                return Ok(None);
            }
            Item::Delivery { event, .. } => self.received(event.clone())?,
            Item::Redelivery { event, letter, receipt, .. } => {
                let at = self.pipeline.clock.now();
                let how = receipt.as_ref().map_or_else(|| "redriven".to_owned(), resent::how);
                self.letters.push(LetterWrite::Close { key: letter.key.clone(), how, at });
                self.answer = Some(Answer { done: true, text: format!("taken in as event {}", event.key) });
                self.changed = true;
                self.received(event.clone())?
            }
            Item::Due { deadlines } => Input::Due { deadlines: *deadlines },
            Item::TopologyChanged => Input::TopologyChanged,
            Item::Operator { command, .. } => Input::Operator(command.clone()),
        };
        Ok(Some(input))
    }

    fn received(&self, event: sagahost_saga::event::Event) -> Result<Input, ChainError> {
        let known = !self.saga.has_spilled() || self.saga.knows(&event.key);
        let spilled = match known {
            true => None,
            false => self.pipeline.spilled(self.key, &self.spilling, event.key.hash128())?,
        };
        Ok(Input::Received { event, spilled })
    }

    /// Input by input, call by call, until nothing is left to do.
    fn drive(&mut self, input: Input) -> Result<(), ChainError> {
        let mut work = VecDeque::from([Work::Input(input)]);
        while let Some(next) = work.pop_front() {
            let transition = match next {
                Work::Input(input) => self.decide(input)?,
                Work::Call(call) => self.attempt(&call)?,
            };
            for effect in transition.effects {
                self.effect(effect, &mut work)?;
            }
        }
        Ok(())
    }

    fn decide(&mut self, input: Input) -> Result<Transition, ChainError> {
        let now = self.pipeline.clock.now();
        let transition = self.saga.on(input, &self.surroundings.topology, now)?;
        match transition.disposition {
            Disposition::Changed => self.changed = true,
            Disposition::Known => Stats::add(&self.pipeline.stats.duplicates, 1),
            Disposition::Unhandled => self.unhandled = true,
            Disposition::Nothing(why) => trace!(saga = %self.id, why, "no change"),
        }
        if let Some(answer) = &transition.answer {
            self.answer = Some(answer.clone());
        }
        Ok(transition)
    }

    /// One attempt in the sandbox, and what the saga makes of its end. The attempt's writes count only if the saga
    /// says so.
    fn attempt(&mut self, call: &Call) -> Result<Transition, ChainError> {
        self.steps += 1;
        let pick = self.surroundings.registry.pick(&call.participant, &call.formats(), call.direction);
        let input = match pick {
            Pick::Plugin(plugin) => {
                let overlay = std::mem::replace(&mut self.overlay, Overlay::new(self.pipeline.stage.clone()));
                let ran = plugin.run(call, Box::new(AttemptCalls::new(overlay, self.id.clone(), call)));
                self.overlay = AttemptCalls::into_overlay(ran.host);
                let end = ran.end.map_err(|error| ChainError::Host(error.to_string()))?;
                self.pipeline.stats.called(plugin.digest(), at_fault(&end), ran.took);
                debug!(saga = %self.id, participant = %call.participant, attempt = call.attempt, took = ?ran.took, "called");
                Input::ended(call, plugin.behaviour(), end, ran.took)
            }
            Pick::Nothing { why } => {
                warn!(saga = %self.id, participant = %call.participant, why, "no code can take this call");
                Input::ended(call, Behaviour::default(), End::unreadable(call), Duration::ZERO)
            }
        };
        let transition = self.decide(input)?;
        self.overlay.end_attempt(transition.keep_writes);
        Ok(transition)
    }

    fn effect(&mut self, effect: Effect, work: &mut VecDeque<Work>) -> Result<(), ChainError> {
        match effect {
            Effect::Call(call) if call.journal_first => {
                return Err(ChainError::Quarantine(format!(
                    "participant {} asks for effects outside, which this host does not grant",
                    call.participant
                )));
            }
            Effect::Call(call) => work.push_back(Work::Call(call)),
            Effect::Publish(publish) => self.publish(publish, work)?,
            Effect::OpenLetter(letter) => {
                let letter = letters::of_saga(&self.id, letter, &self.surroundings.codec);
                self.departures.extend(self.pipeline.announce(&letter));
                self.letters.push(LetterWrite::Open(letter));
            }
            Effect::CloseLetter { key, how } => {
                self.letters.push(LetterWrite::Close { key, how, at: self.pipeline.clock.now() });
            }
            Effect::Spill { events, history } => {
                self.spilling.extend_from_slice(&events);
                self.spilled_events.extend(events);
                self.spilled_history.extend(history);
            }
        }
        Ok(())
    }

    /// An event goes out; where a participant of this app subscribes, it is taken in at once, in the same batch.
    fn publish(&mut self, publish: Publish, work: &mut VecDeque<Work>) -> Result<(), ChainError> {
        let event = publish.event;
        let outgoing = self.surroundings.codec.encode(&event);
        let fuse = publish.fuse
            && event.saga == self.id
            && self.steps < self.pipeline.settings.chain_steps_max
            && self.surroundings.topology.concerns(&event.kind);
        // `SagaFailed` needs no taking in either: the saga that published it has failed already.
        let own_failure = event.saga == self.id && event.kind == self.surroundings.topology.saga_failed_kind();
        let handled = (fuse || own_failure).then(|| event.key.id.clone());
        self.departures.push(Departure { outgoing, handled });
        if fuse {
            work.push_back(Work::Input(self.received(event)?));
        }
        Ok(())
    }

    /// None: nothing changed, nothing is to be written.
    fn into_staging(self, item: &Item, life: u64, chain: u64) -> Option<Staging> {
        let (receipt, command_done, reply) = match item {
            Item::Delivery { receipt, .. } => (receipt.clone(), None, None),
            Item::Operator { queued, reply, receipt, .. } => (receipt.clone(), *queued, reply.clone()),
            Item::Redelivery { reply, receipt, .. } => (receipt.clone(), None, reply.clone()),
            Item::Due { .. } | Item::TopologyChanged => (None, None, None),
        };
        let answer = self.answer.unwrap_or(Answer { done: true, text: String::new() });
        if !self.changed && command_done.is_none() {
            answer_now(reply, answer);
            // A delivery that changed nothing hangs on nothing that was read.
            return None;
        }
        let now = self.pipeline.clock.now();
        let change = self.changed.then(|| SagaChange {
            bytes: self.saga.encode(),
            status: self.saga.status(),
            wake: self.saga.wake(&self.surroundings.topology),
            digests: if self.saga.status().terminal() { BTreeSet::new() } else { self.saga.referenced_digests() },
            spilled_events: self.spilled_events,
            spilled_history: self.spilled_history,
            saga: Arc::new(self.saga),
        });
        if receipt.is_some() {
            Stats::add(&self.pipeline.stats.events, 1);
        }
        Some(Staging {
            life,
            chain,
            id: Some(self.id),
            change,
            overlay: self.overlay,
            letters: self.letters,
            departures: self.departures,
            receipt,
            command_done,
            reply: reply.map(|reply| (reply, answer)),
            now,
        })
    }
}

fn answer_now(reply: Option<Reply>, answer: Answer) {
    if let Some(reply) = reply {
        let _ = reply.send(Ok(answer));
    }
}

/// Did the plugin itself fail, rather than decide?
fn at_fault(end: &End) -> bool {
    match end {
        End::Outcome(outcome) => matches!(outcome, Outcome::Unknown { .. } | Outcome::Invalid(_)),
        End::Undo(outcome) => matches!(outcome, UndoOutcome::Unknown { .. }),
    }
}
