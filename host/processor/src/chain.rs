//! A chain: an event taken in and all steps fused behind it, on private copies. Invariant: a chain changes nothing until it
//! is staged; it can be thrown away and run again at any point before.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use sagahost_codec::Formerly;
use sagahost_journal::{JournalError, LetterWrite};
use sagahost_manifest::{
    answer, http,
    sends::{self as replay, Sending},
};
use sagahost_saga::{
    Saga,
    drive::{Drive, drive},
    event::Event,
    history::Entry,
    id::{EventKey, Kind, Participant, SagaId},
    input::{Answer, Broken, CallRef, Command, Disposition, Input, Letter, Publish, Transition},
    notation::with_causes,
    outcome::{Behaviour, Call, End, Outcome, Problem, Runs, UndoOutcome},
};
use tracing::{debug, trace, warn};

use crate::{
    attempt::AttemptCalls,
    code::{Callable, Pick, Ran},
    coverage::Asked,
    facts::{Gathered, HostCall},
    letters,
    mailbox::Item,
    outside::{Came, Launch},
    overlay::Overlay,
    planted::{self, Planted},
    reply::Reply,
    request::{self, Admission, Asks, Request},
    resent,
    sends::{self, Sends},
    serving::Serving,
    stage::{Departure, SagaChange, SagaError, Staging},
    stats::Stats,
    step::Now,
    values::Kept,
    worker::Worker,
};

/// Why a chain ended without something to stage.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChainError {
    /// An assertion of the core failed, or the record cannot be read: this saga and this input go into quarantine.
    #[error("{0}")]
    Quarantine(String),
    /// Whether an earlier version took this event in cannot be read: the event is kept aside, no saga is touched.
    #[error("{0}")]
    Undecided(String),
    /// That participant has other things to do first.
    #[error("waits for its turn with {0}")]
    Aside(Participant),
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

/// By whom a call was run, how it ended, how long it took, and what it asked of the host.
type Ended = (Behaviour, End, Duration, Vec<HostCall>);

/// An event taken in and all steps fused behind it, on private copies.
pub(crate) struct Chain<'w> {
    worker: &'w Worker,
    pub serving: Arc<Serving>,
    /// When the last call ended; what follows it belongs to that moment.
    pub now: Now,
    id: SagaId,
    saga: Saga,
    found: Kept,
    overlay: Overlay,
    letters: Vec<LetterWrite>,
    departures: Vec<Departure>,
    spilled_events: Vec<([u8; 16], [u8; 16])>,
    spilled_history: Vec<Entry>,
    /// Calls outside that begin with this chain …
    launches: Vec<CallRef>,
    /// … and those that leave behind it.
    pub leaving: Vec<Launch>,
    /// What became of the request at which an attempt ended its last run.
    came: Option<http::Answer>,
    /// Requests of the call that ran last, until what it led to is decided.
    sends: Option<Sends>,
    /// None: nobody reads what happened.
    facts: Option<Gathered>,
    answer: Option<Answer>,
    /// What steps emitted that requests asked for.
    answered: BTreeMap<(Arc<str>, bool), Vec<Event>>,
    /// It begins with a request, …
    of_request: bool,
    /// … and this becomes of it.
    admission: Option<Admission>,
    changed: bool,
    /// The event that came in is of a kind that no plugin here acts on.
    pub unhandled: bool,
    /// Kinds of the events that it took in.
    taken: BTreeSet<Kind>,
    steps: usize,
    /// What its calls returned.
    returned_bytes: usize,
}

impl<'w> Chain<'w> {
    /// Runs it, as far as there is something to do.
    pub fn run(worker: &'w Worker, id: &SagaId, item: &Item, now: Now) -> Result<Self, ChainError> {
        let mut chain = Self::begin(worker, id, now)?;
        if let Some(input) = chain.input(item)? {
            drive(&mut chain, input)?;
        }
        for ((request, undoing), events) in std::mem::take(&mut chain.answered) {
            request::answer(&mut chain.overlay, &request, undoing, events)?;
        }
        if let (Item::Requested { request, .. }, Some(Admission::TakenIn)) = (item, &chain.admission) {
            request::remember(&mut chain.overlay, request);
        }
        chain.saga.check(&chain.serving.topology)?;
        Ok(chain)
    }

    fn begin(worker: &'w Worker, id: &SagaId, now: Now) -> Result<Self, ChainError> {
        let cell = worker.stage.saga(id).map_err(|error| match error {
            SagaError::Unreadable(why) => ChainError::Quarantine(why),
            SagaError::Quarantined(why) => ChainError::Quarantine(why),
            SagaError::Journal(error) => error.into(),
        })?;
        let saga = match cell.saga {
            Some(saga) => (*saga).clone(),
            None => Saga::new(id.clone(), now.wall),
        };
        Ok(Self {
            worker,
            serving: worker.serving.load_full(),
            now,
            id: id.clone(),
            saga,
            found: cell.kept,
            overlay: Overlay::new(worker.stage.clone()),
            letters: Vec::new(),
            departures: Vec::new(),
            spilled_events: Vec::new(),
            spilled_history: Vec::new(),
            launches: Vec::new(),
            leaving: Vec::new(),
            came: None,
            sends: None,
            facts: worker.facts.gather(now),
            answer: None,
            answered: BTreeMap::new(),
            of_request: false,
            admission: None,
            changed: false,
            unhandled: false,
            taken: BTreeSet::new(),
            steps: 0,
            returned_bytes: 0,
        })
    }

    /// None: an earlier version took the event in, so there is nothing to do.
    fn input(&mut self, item: &Item) -> Result<Option<Input>, ChainError> {
        let input = match item {
            Item::Delivery { formerly: Some(former), .. } | Item::Redelivery { formerly: Some(former), .. }
                if self.taken_in_as(former)? =>
            {
                Stats::add(&self.worker.stats.duplicates, 1);
                let text =
                    format!("an earlier version took this record in as event {} of saga {}", former.key, former.saga);
                debug!(saga = %self.id, text, "known already");
                self.answer = Some(Answer { done: false, text });
                return Ok(None);
            }
            Item::Delivery { event, .. } => self.received(event.clone())?,
            Item::Redelivery { event, letter, receipt, .. } => {
                let at = self.now.wall;
                let how = receipt.as_ref().map_or_else(|| "redriven".to_owned(), resent::how);
                self.letters.push(LetterWrite::Close { key: letter.key.clone(), how, at });
                self.answer = Some(Answer { done: true, text: format!("taken in as event {}", event.key) });
                self.changed = true;
                self.received(event.clone())?
            }
            Item::Requested { request, .. } => return self.requested(request),
            Item::Due { deadlines } => Input::Due { deadlines: *deadlines },
            Item::TopologyChanged => Input::TopologyChanged,
            Item::Launch { call, interrupted } => {
                self.came = Some(replay::interrupted());
                Input::Started { call: call.clone(), interrupted: *interrupted }
            }
            Item::Answered { call, answer } => {
                if let Came::Answer { answer, .. } = &answer.came {
                    self.came = Some(answer.clone());
                }
                answer.input(call)
            }
            Item::Operator { command, .. } => Input::Operator(command.clone()),
        };
        Ok(Some(input))
    }

    fn received(&self, event: Event) -> Result<Input, ChainError> {
        let spilled = self.spilled_data(&event)?;
        Ok(Input::Received { event, spilled })
    }

    /// None: it is refused.
    fn requested(&mut self, request: &Request) -> Result<Option<Input>, ChainError> {
        self.of_request = true;
        self.admission = request::refused(&mut self.overlay, &self.saga, request)?;
        if self.admission.is_some() {
            return Ok(None);
        }
        let (event, to) = match &request.asks {
            Asks::Begin(event) => (event.clone(), None),
            Asks::Step { event, of } => (event.clone(), Some(of.clone())),
            Asks::Cancel { reason, .. } => {
                let by = if request.by.name.is_empty() { "http" } else { &request.by.name };
                let cancel = Command::Cancel { by: by.to_owned(), reason: reason.clone() };
                return Ok(Some(Input::Operator(cancel)));
            }
        };
        let spilled = self.spilled_data(&event)?;
        Ok(Some(Input::Requested { event, spilled, to }))
    }

    /// What the event's key had for data, where only a row of its own says so.
    fn spilled_data(&self, event: &Event) -> Result<Option<[u8; 16]>, ChainError> {
        match self.saga.has_spilled() && !self.saga.knows(&event.key) {
            true => self.spilled(&self.found, event.key.hash128()),
            false => Ok(None),
        }
    }

    /// A request that begins a saga is an event for everybody: it goes out, and this app has taken it in.
    fn publish_beginning(&mut self, event: &Event) {
        let outgoing = self.serving.codec.encode(event);
        if let Some(facts) = &mut self.facts {
            facts.emitted(event, &outgoing.topic, true);
        }
        let handled = (!planted::on(Planted::ForgetHandled)).then(|| event.key.id.clone());
        self.departures.push(Departure { outgoing, handled });
    }

    /// Did an earlier version take the record in as this event? Asked only where it would have read the record
    /// differently.
    fn taken_in_as(&self, former: &Formerly) -> Result<bool, ChainError> {
        let cell = self.worker.stage.saga(&former.saga).map_err(|error| match error {
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
        Ok(self.spilled(&cell.kept, former.key.hash128())?.is_some())
    }

    /// The data hash of a known event that is no longer in the saga's record.
    fn spilled(&self, kept: &Kept, hash: [u8; 16]) -> Result<Option<[u8; 16]>, ChainError> {
        if planted::on(Planted::ForgetSpilled) {
            return Ok(None);
        }
        let mut spilling = kept.spilling.iter().chain(&self.spilled_events);
        if let Some((_, data)) = spilling.find(|(event, _)| *event == hash) {
            return Ok(Some(*data));
        }
        match kept.key {
            Some(key) => Ok(self.worker.journal.spilled_event(key, hash)?),
            None => Ok(None),
        }
    }

    fn end_of(&mut self, call: &Call) -> Result<Input, ChainError> {
        self.sends = None;
        // The first call of a chain always runs, so that the saga makes progress.
        let full = self.steps > 1 && self.is_full();
        let (by, end, took, calls) = if full { self.left_out(call) } else { self.run_call(call)? };
        if let Some(sends) = self.sends.as_ref().filter(|sends| sends.run.waits()) {
            // Whatever becomes of the request, what came back for the one before it is known.
            sends.keep_heard(&mut self.overlay);
            return Ok(Input::Sends { call: CallRef::from(call), by });
        }
        let open = self.sends.as_ref().is_some_and(|sends| sends.run.is_open());
        self.returned_bytes += answer::bytes(&end);
        if let Some(facts) = &mut self.facts {
            facts.attempt(call, &by, &end, (took, self.now), calls);
        }
        Ok(Input::ended_outside(CallRef::from(call), by, end, open, took))
    }

    fn left_out(&self, call: &Call) -> Ended {
        debug!(saga = %self.id, participant = %call.participant, "the chain is full: the call waits for another one");
        (Behaviour::default(), End::unsent(call, chain_full()), Duration::ZERO, Vec::new())
    }

    fn run_call(&mut self, call: &Call) -> Result<Ended, ChainError> {
        if call.send > 0 {
            return self.run_again(call);
        }
        Ok(match self.serving.code.pick(call) {
            Pick::Plugin(plugin) => {
                let sends = match plugin.sends() {
                    Some(config) => {
                        let by = plugin.behaviour();
                        Some(Sends::load(&mut self.overlay, &self.id, call, by, config)?)
                    }
                    None => None,
                };
                self.run_plugin(&*plugin, call, sends)?
            }
            Pick::Failed { error } => return Err(ChainError::Host(with_causes(&*error))),
            Pick::Nothing { why } => {
                warn!(saga = %self.id, participant = %call.participant, why, "no code can take this call");
                (Behaviour::default(), End::unreadable(call), Duration::ZERO, Vec::new())
            }
        })
    }

    /// The answer to its request is there: from the beginning, by who began it.
    fn run_again(&mut self, call: &Call) -> Result<Ended, ChainError> {
        let mut sends = Sends::known(&mut self.overlay, &self.id, call)?;
        sends.run.hear(self.came.take().unwrap_or_else(replay::interrupted));
        let lost = |by, why: &str| {
            warn!(saga = %self.id, participant = %call.participant, why, "an attempt that sent a request cannot go on");
            (by, replay::lost(call, why), Duration::ZERO, Vec::new())
        };
        let Some(began) = sends.run.began().cloned() else {
            return Ok(lost(Behaviour::default(), "what was kept of its requests cannot be read"));
        };
        match self.serving.code.pick_same(call, &began) {
            Pick::Plugin(plugin) => self.run_plugin(&*plugin, &Call { now: began.now, ..call.clone() }, Some(sends)),
            Pick::Failed { error } => Err(ChainError::Host(with_causes(&*error))),
            Pick::Nothing { why } => {
                let lost = lost(began.by, &why);
                self.sends = Some(sends);
                Ok(lost)
            }
        }
    }

    fn run_plugin(&mut self, plugin: &dyn Callable, call: &Call, sends: Option<Sends>) -> Result<Ended, ChainError> {
        let made = match &sends {
            Some(_) => sends::shown(&mut self.overlay, &self.id, call)?,
            None => Vec::new(),
        };
        let overlay = std::mem::replace(&mut self.overlay, Overlay::new(self.worker.stage.clone()));
        let bytes_max = self.worker.chain_bounds.call_bytes_max;
        let host = AttemptCalls::new(overlay, self.id.clone(), call, bytes_max, self.worker.facts.of_calls());
        let ran = match sends {
            None => plugin.run(call, Box::new(host)),
            Some(Sends { run, call: of, saga }) => {
                let ran = plugin.run(call, Box::new(Sending::new(Box::new(host), run, made)));
                let (host, run) = Sending::into_parts(ran.host);
                self.sends = Some(Sends { run, call: of, saga });
                Ran { host, ..ran }
            }
        };
        let calls;
        (self.overlay, calls) = AttemptCalls::into_parts(ran.host);
        self.now = ran.now;
        let end = ran.end.map_err(|error| ChainError::Host(error.to_string()))?;
        let waits = self.sends.as_ref().is_some_and(|sends| sends.run.waits());
        let end = match &self.sends {
            Some(sends) => sends.run.end_of(end, call),
            None => end,
        };
        self.worker.stats.called(plugin.digest(), !waits && at_fault(&end), ran.took);
        debug!(saga = %self.id, participant = %call.participant, direction = call.direction.name(), attempt = call.attempt, waits, took = ?ran.took, "called");
        Ok((plugin.behaviour(), end, ran.took, calls))
    }

    /// A call that leaves; or its request, as it is kept.
    fn launch(&mut self, call: Call) -> Result<Launch, ChainError> {
        if call.send == 0 {
            return Ok(Launch { call, by: None, send: None });
        }
        let sends = Sends::known(&mut self.overlay, &self.id, &call)?;
        let Some(mut send) = sends.run.leaving() else {
            let why = format!("what was kept of request {} of {} cannot be read", call.send, call.step_id);
            return Err(ChainError::Quarantine(why));
        };
        if planted::on(Planted::NewKeys) {
            send.key = format!("{}-{}", send.key, call.attempt);
        }
        Ok(Launch { by: Some(send.by.clone()), call, send: Some(send) })
    }

    /// Does this chain take in what it publishes itself?
    fn fuses(&self, Publish { event, fuse }: &Publish) -> bool {
        *fuse
            && event.saga == self.id
            && self.steps < self.worker.chain_bounds.steps_max
            && !self.is_full()
            && self.serving.topology.concerns(&event.kind)
            && self.subscribers_have_room(&event.kind)
    }

    /// Another call might bring as much again as one may. What it read and wrote stays in memory until it is staged.
    fn is_full(&self) -> bool {
        self.overlay.bytes() + self.returned_bytes >= self.worker.chain_bounds.bytes_max
    }

    /// Behind a slow one others would wait that this chain could have left behind.
    fn subscribers_have_room(&self, kind: &Kind) -> bool {
        let mailboxes = &self.worker.inbox.mailboxes;
        self.serving.topology.subscribers(kind).all(|(member, _)| mailboxes.has_room(&member.name, self.now))
    }

    /// None: nothing changed, nothing is to be written, and what is answered is in the journal.
    pub fn into_staging(self, item: &Item, life: u64, chain: u64) -> Option<Box<Staging>> {
        let (receipt, command_done, reply) = match item {
            Item::Delivery { receipt, .. } => (receipt.clone(), None, None),
            Item::Operator { queued, reply, receipt, .. } => (receipt.clone(), *queued, reply.clone()),
            Item::Redelivery { reply, receipt, .. } => (receipt.clone(), None, reply.clone()),
            Item::Requested { .. }
            | Item::Due { .. }
            | Item::TopologyChanged
            | Item::Launch { .. }
            | Item::Answered { .. } => (None, None, None),
        };
        let settled = match item {
            Item::Launch { call, .. } | Item::Answered { call, .. } => Some(call.clone()),
            Item::Delivery { .. }
            | Item::Requested { .. }
            | Item::Operator { .. }
            | Item::Redelivery { .. }
            | Item::Due { .. }
            | Item::TopologyChanged => None,
        };
        let answer = self.answer.unwrap_or(Answer { done: true, text: String::new() });
        let nothing = !self.changed && self.letters.is_empty();
        // Whoever asked may act on the answer, so it waits for the batch that it hangs on.
        let admitted = match item {
            Item::Requested { reply, .. }
                if planted::on(Planted::AnswerEarly)
                    || nothing && self.worker.stage.is_journaled(life, &self.id, &self.overlay) =>
            {
                self.admission.into_iter().for_each(|admission| reply.done(admission));
                None
            }
            Item::Requested { reply, .. } => self.admission.map(|admission| reply.clone().promise(admission)),
            _ => None,
        };
        if admitted.is_none() && nothing && command_done.is_none() {
            answer_now(reply, answer);
            // A delivery that changed nothing hangs on nothing that was read.
            return None;
        }
        let (now, status) = (self.now.wall, self.saga.status());
        let facts = self
            .facts
            .filter(|_| !nothing)
            .map(|facts| Box::new(facts.into_chain(self.id.clone(), item, self.now, status)));
        let change = self.changed.then(|| SagaChange {
            bytes: self.saga.encode(),
            status,
            wake: self.saga.wake(&self.serving.topology),
            digests: if status.terminal() { BTreeSet::new() } else { self.saga.referenced_digests() },
            spilled_events: self.spilled_events,
            spilled_history: self.spilled_history,
            found: self.found,
            saga: Arc::new(self.saga),
        });
        if receipt.is_some() {
            Stats::add(&self.worker.stats.events, 1);
        }
        Some(Box::new(Staging {
            life,
            chain,
            serving: self.serving,
            taken: self.taken,
            id: Some(self.id),
            change,
            overlay: self.overlay,
            letters: self.letters,
            departures: self.departures,
            receipt,
            command_done,
            launches: self.launches,
            settled,
            facts,
            reply: admitted.or_else(|| reply.map(|reply| reply.promise(answer))),
            now,
        }))
    }
}

impl Drive for Chain<'_> {
    type Error = ChainError;

    fn decide(&mut self, input: Input) -> Result<Transition, ChainError> {
        let kind = match &input {
            Input::Received { event, .. } | Input::Requested { event, .. } => Some(event.kind.clone()),
            _ => None,
        };
        let beginning = match &input {
            Input::Requested { event, to: None, .. } => Some(event.clone()),
            _ => None,
        };
        let asked = Asked::new(&self.saga, &input);
        let transition = self.saga.on(input, &self.serving.topology, self.now.wall)?;
        asked.answered(&transition.disposition);
        match transition.disposition {
            Disposition::Changed => {
                self.changed = true;
                self.taken.extend(kind);
            }
            Disposition::Known => Stats::add(&self.worker.stats.duplicates, 1),
            Disposition::Unhandled => self.unhandled = true,
            Disposition::Refused(why) => trace!(saga = %self.id, why = why.name(), "request refused"),
            Disposition::Nothing(why) => trace!(saga = %self.id, why, "no change"),
        }
        // What follows from it says nothing of it.
        if self.of_request && self.admission.is_none() {
            self.admission = Some(Admission::of(&transition.disposition, transition.answer.as_ref()));
        }
        if let Some(event) = beginning.filter(|_| transition.disposition == Disposition::Changed) {
            self.publish_beginning(&event);
        }
        if let Some(answer) = &transition.answer {
            self.answer = Some(answer.clone());
        }
        Ok(transition)
    }

    /// In the sandbox; or outside, once it is durable that it began.
    fn call(&mut self, call: Call) -> Result<Option<Input>, ChainError> {
        match call.runs {
            Runs::Here => {
                let Worker { number, inbox, .. } = self.worker;
                if !inbox.mailboxes.calls(*number, &call.participant, self.steps == 0, self.now) {
                    return Err(ChainError::Aside(call.participant));
                }
                self.steps += 1;
                return self.end_of(&call).map(Some);
            }
            Runs::Later if self.worker.outside.is_none() => {
                return Err(ChainError::Quarantine(format!(
                    "participant {} asks for effects outside, which this host does not grant",
                    call.participant
                )));
            }
            Runs::Later if planted::on(Planted::LeaveAtOnce) && call.send == 0 => {
                self.worker.inbox.calls.queue(&self.id, &CallRef::from(&call));
                let launch = Launch { call, by: None, send: None };
                if let Some(outside) = &self.worker.outside {
                    self.worker.inbox.calls.launch(&self.id, launch, &**outside);
                }
            }
            Runs::Later => {
                let of = |sends: &Sends| sends.run.is_of(&call.idempotency_key);
                if let Some(sends) = self.sends.take().filter(|sends| call.send > 0 && of(sends)) {
                    sends.keep_request(&mut self.overlay);
                }
                self.launches.push(CallRef::from(&call));
            }
            Runs::Outside => {
                let launch = self.launch(call)?;
                self.leaving.push(launch);
            }
        }
        Ok(None)
    }

    fn called(&mut self, keep_writes: bool) {
        self.overlay.end_attempt(keep_writes);
        if self.sends.as_ref().is_some_and(|sends| sends.run.waits()) {
            return;
        }
        if let Some(sends) = self.sends.take() {
            sends.end(&mut self.overlay, keep_writes);
        }
        if let Some(attempt) = self.facts.as_mut().and_then(|facts| facts.attempts.last_mut()) {
            attempt.kept = keep_writes;
        }
    }

    /// Where a participant of this app subscribes, the event is taken in at once, in the same batch.
    fn publish(&mut self, publish: Publish) -> Result<Option<Input>, ChainError> {
        let fuse = self.fuses(&publish);
        let event = publish.event;
        let outgoing = self.serving.codec.encode(&event);
        // `SagaFailed` needs no taking in either: the saga that published it has failed already.
        let own_failure = event.saga == self.id && event.kind == self.serving.topology.saga_failed_kind();
        let handled = (fuse || own_failure).then(|| event.key.id.clone());
        if let Some(facts) = &mut self.facts {
            facts.emitted(&event, &outgoing.topic, fuse);
        }
        self.departures.push(Departure { outgoing, handled });
        if fuse { self.received(event).map(Some) } else { Ok(None) }
    }

    fn answer(&mut self, request: &EventKey, undoing: bool, event: Event) {
        self.answered.entry((request.id.clone(), undoing)).or_default().push(event);
    }

    fn open_letter(&mut self, letter: Letter) {
        let letter = letters::of_saga(&self.id, letter, &self.serving.codec);
        self.departures.extend(self.worker.announce(&letter, &self.serving));
        self.letters.push(LetterWrite::Open(letter));
    }

    fn keep_aside(&mut self, letter: Letter) {
        // A redrive that changes nothing.
        if let Some(answer) = &mut self.answer {
            *answer = Answer { done: false, text: format!("kept aside again: {}", letter.problem.detail) };
        }
        let letter = letters::kept_aside(letter, &self.serving.codec);
        self.departures.extend(self.worker.announce(&letter, &self.serving));
        self.letters.push(LetterWrite::Open(letter));
    }

    fn close_letter(&mut self, key: String, how: String) {
        self.letters.push(LetterWrite::Close { key, how, at: self.now.wall });
    }

    fn spill(&mut self, events: Vec<([u8; 16], [u8; 16])>, history: Vec<Entry>) {
        self.spilled_events.extend(events);
        self.spilled_history.extend(history);
    }
}

fn chain_full() -> Problem {
    let detail = "the steps before it in this chain hold as many bytes as one may (chain-bytes-max)";
    Problem::new("chain-full", detail)
}

fn answer_now(reply: Option<Reply>, answer: Answer) {
    if let Some(reply) = reply {
        reply.done(answer);
    }
}

/// Did the plugin itself fail, rather than decide?
fn at_fault(end: &End) -> bool {
    match end {
        End::Outcome(outcome) => matches!(outcome, Outcome::Unknown { .. } | Outcome::Invalid(_)),
        End::Undo(outcome) => matches!(outcome, UndoOutcome::Unknown { .. }),
    }
}
