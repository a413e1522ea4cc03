//! How a host begins: what the broker and the journal say of each other is compared before anybody is fenced.
//! Invariant: nothing is published, read or run before it is certain that this journal is the newest one of this app.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use sagahost_journal::{BatchWrite, CommitAnswer, Identity, Journal, JournalError, OutboxBatch};
use sagahost_transport::{Assignment, Found, Isolation, Sink, StartAt, Transport, TransportError};
use sagahost_wire::{BatchNo, Partition, Position};
use tracing::{debug, info, warn};

use crate::{
    marks::{Marks, read_marks},
    planted::{self, Planted},
    publish,
    reader::assignment,
    step::{Backoff, Now, Steady},
    touch::TOUCH_EVERY,
};

/// Before an answer that is on its way is looked after again.
const SOON: Duration = Duration::from_millis(20);
/// A sink that does not answer for less than this is asked again without a word.
const SINK_PATIENCE: Duration = Duration::from_secs(5);

/// What an operator may decide where the host refuses to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    /// Go on with this journal although the broker speaks of another one, or of batches that it does not hold.
    pub new_lineage: bool,
    /// Batches up to this one were published: the broker no longer says it.
    pub published: Option<BatchNo>,
}

/// Why a host did not start. Waiting mends none of these.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "{why}. Nothing was changed. Stop the other host, or put the right data directory back. To use this journal \
         anyway, start once with `--new-lineage`: it continues at the offsets that the other one committed; sagas, \
         counters and known ids that only the other one holds are lost, and what this one has not published may be \
         published twice"
    )]
    NotNewest { why: String },
    #[error("no admitted plugin subscribes to anything: there is nothing to read. `sagahost plugins list` says why")]
    NothingToRead,
    #[error(
        "the broker no longer says which batch of this journal was published last (the group's offsets were reset or \
         have expired), nor do the topics ({why}), and batches from {} on may or may not be published. Look at the \
         topics; then start once with `--published {}` (none of them is) up to `--published {}` (all of them are)",
        first.0, published.0, last.0
    )]
    Unclear { why: String, first: BatchNo, published: BatchNo, last: BatchNo },
    #[error("topics are missing: {}", missing_text(missing))]
    MissingTopics { missing: Vec<(Arc<str>, String)> },
    #[error("failed to read or write the journal")]
    Journal {
        #[from]
        source: JournalError,
    },
    #[error("the transport failed during the start")]
    Transport {
        #[from]
        source: TransportError,
    },
    #[error("stopped before the host had begun")]
    Stopped,
}

fn missing_text(missing: &[(Arc<str>, String)]) -> String {
    let lines: Vec<String> =
        missing.iter().map(|(topic, command)| format!("\n  {topic}: make it with  {command}")).collect();
    format!("{}\n  or set `create-topics = true` in `[kafka]`", lines.concat())
}

/// What this app reads and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `from_start`: a topic that was not read before is read from its beginning.
    pub inputs: BTreeMap<Arc<str>, bool>,
    pub outputs: BTreeSet<Arc<str>>,
    pub create: bool,
    pub partitions: i32,
    /// First start only.
    pub start: StartAt,
}

impl Wanted {
    /// All partitions of all topics that are read. Missing topics are made, or reported with the command that makes
    /// them.
    pub fn partitions(&self, transport: &dyn Transport) -> Result<Vec<Partition>, StartError> {
        let mut all: Vec<Arc<str>> = self.inputs.keys().cloned().collect();
        all.extend(self.outputs.iter().filter(|topic| !self.inputs.contains_key(*topic)).cloned());
        let mut there = transport.topics(&all)?;
        let missing: Vec<Arc<str>> = all.iter().filter(|topic| !there.contains_key(*topic)).cloned().collect();
        if !missing.is_empty() {
            if !self.create {
                let commands = missing.into_iter().map(|topic| {
                    let command = transport.create_command(&topic);
                    (topic, command)
                });
                return Err(StartError::MissingTopics { missing: commands.collect() });
            }
            info!(?missing, partitions = self.partitions, "making topics");
            transport.create_topics(&missing, self.partitions)?;
            there = transport.topics(&all)?;
        }
        let inputs: BTreeMap<_, _> = there.iter().filter(|(topic, _)| self.inputs.contains_key(*topic)).collect();
        if inputs.values().copied().collect::<BTreeSet<_>>().len() > 1 {
            warn!(
                ?inputs,
                "topics have unequal partition counts: later, hosts that share the load could not split them"
            );
        }
        Ok(inputs
            .into_iter()
            .flat_map(|(topic, count)| (0..*count).map(move |number| Partition { topic: topic.clone(), number }))
            .collect())
    }
}

/// Everything that the running host needs to know of its start.
pub struct Begun {
    pub identity: Identity,
    pub sink: Box<dyn Sink>,
    pub anchor: Partition,
    pub assignments: Vec<Assignment>,
    /// Journaled and not known published, in order; publish these before anything else.
    pub backlog: Vec<OutboxBatch>,
    pub published: BatchNo,
}

/// What follows a step of a start.
pub enum Starting {
    /// The broker is away: not before this time.
    Wait(Steady),
    Begun(Box<Begun>),
}

/// A host that begins. What the broker has answered is kept: while it is away, the start goes on from there.
pub struct Start {
    app: Arc<str>,
    journal: Arc<dyn Journal>,
    transport: Arc<dyn Transport>,
    wanted: Wanted,
    decisions: Decisions,
    backoff: Backoff,
    /// What the broker is being asked for.
    asks: &'static str,
    partitions: Option<Vec<Partition>>,
    sink: Option<Box<dyn Sink>>,
    identity: Option<Identity>,
    claimed: bool,
    marks: Option<Marks>,
    /// What the topics say of batches.
    found: BTreeMap<BatchNo, Found>,
    /// Since when the sink does not answer.
    unanswered: Option<Steady>,
}

/// Why a start does not go on with this step.
enum Halt {
    Error(StartError),
    /// The answer is not there yet.
    NotYet,
}

impl<E: Into<StartError>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl Start {
    pub fn new(
        app: &str,
        journal: Arc<dyn Journal>,
        transport: Arc<dyn Transport>,
        wanted: Wanted,
        decisions: Decisions,
    ) -> Self {
        Self {
            app: app.into(),
            journal,
            transport,
            wanted,
            decisions,
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(5)),
            asks: "",
            partitions: None,
            sink: None,
            identity: None,
            claimed: false,
            marks: None,
            found: BTreeMap::new(),
            unanswered: None,
        }
    }

    /// # Errors
    /// Whatever waiting does not mend.
    pub fn step(&mut self, now: Now) -> Result<Starting, StartError> {
        match self.begin(now) {
            Ok(begun) => Ok(Starting::Begun(Box::new(begun))),
            Err(Halt::NotYet) => Ok(Starting::Wait(now.steady.after(SOON))),
            Err(Halt::Error(StartError::Transport { source: TransportError::Away(why) })) => {
                // A sink says so after a moment; other questions have been patient already.
                if self.sink.is_some() && now.steady.since(*self.unanswered.get_or_insert(now.steady)) < SINK_PATIENCE {
                    debug!(why, "waiting for {}", self.asks);
                    return Ok(Starting::Wait(now.steady.after(SOON)));
                }
                warn!("waiting for {} at {}: {why}", self.asks, self.transport.describe());
                Ok(Starting::Wait(now.steady.after(self.backoff.pause())))
            }
            Err(Halt::Error(error)) => Err(error),
        }
    }

    fn begin(&mut self, now: Now) -> Result<Begun, Halt> {
        let partitions = self.partitions()?;
        let mut identity = self.look(&partitions)?;
        let marks = self.claim_and_look(&partitions)?;
        let published = self.published(&identity, &marks)?;
        if published > identity.confirmed {
            self.journal.confirm(identity.epoch, published)?;
        }
        let anchor = self.anchor(&identity, &partitions)?;
        let positions = self.positions(&identity, &partitions, &marks)?;
        let claim_needed = identity.last_batch == BatchNo(0)
            || self.decisions.new_lineage
            || marks.of(&anchor).is_none()
            || positions.iter().any(|(_, resolved)| resolved.new);
        if claim_needed {
            self.claim(&mut identity, &positions, published, now)?;
        }
        let backlog = self.journal.outbox(published, usize::MAX)?;
        if !backlog.is_empty() {
            info!(batches = backlog.len(), "batches that were journaled and not yet published go out first");
        }
        let assignments = positions.into_iter().map(|(partition, at)| assignment(partition, &at.position)).collect();
        let sink = self.sink.take().expect("it claimed");
        Ok(Begun { identity, sink, anchor, assignments, backlog, published })
    }

    fn partitions(&mut self) -> Result<Vec<Partition>, StartError> {
        if let Some(known) = &self.partitions {
            return Ok(known.clone());
        }
        self.asks = "the topics";
        Ok(self.partitions.insert(self.wanted.partitions(&*self.transport)?).clone())
    }

    fn sink(&mut self) -> Result<&mut dyn Sink, TransportError> {
        if self.sink.is_none() {
            self.asks = "a producer";
            self.sink = Some(self.transport.sink()?);
        }
        Ok(&mut **self.sink.as_mut().expect("it is made"))
    }

    /// Nobody is fenced before this.
    fn look(&mut self, partitions: &[Partition]) -> Result<Identity, StartError> {
        if let Some(known) = &self.identity {
            return Ok(known.clone());
        }
        let sink = self.sink()?;
        let marks = read_marks(sink, partitions, Isolation::Uncommitted);
        self.asks = "committed offsets";
        let identity = self.check_identity(&marks?)?;
        Ok(self.identity.insert(identity).clone())
    }

    /// From here on nobody else moves the offsets.
    fn claim_and_look(&mut self, partitions: &[Partition]) -> Result<Marks, StartError> {
        if let Some(known) = &self.marks {
            return Ok(known.clone());
        }
        if !self.claimed {
            self.asks = "the producer's claim";
            self.sink()?.claim()?;
            self.claimed = true;
        }
        self.asks = "committed offsets";
        let marks = read_marks(self.sink()?, partitions, Isolation::Stable)?;
        // Another host may have published between the first look and the claim.
        if !self.decisions.new_lineage {
            self.check_identity(&marks)?;
        }
        Ok(self.marks.insert(marks).clone())
    }

    /// Is this journal the newest one of this app? Refused before anybody is fenced.
    fn check_identity(&self, marks: &Marks) -> Result<Identity, StartError> {
        let identity = self.journal.reread()?;
        let Some(newest) = marks.newest().filter(|_| !planted::on(Planted::TrustJournal)) else { return Ok(identity) };
        let fault = if newest.journal != identity.journal {
            let lost = if identity.last_batch == BatchNo(0) { "it is new and empty" } else { "it is another one" };
            Some(format!(
                "the broker knows app {:?} by journal {}, this data directory holds journal {}: {lost}. Another host of \
                 this app may be running, or the data directory was lost or replaced",
                self.app, newest.journal, identity.journal
            ))
        } else if newest.batch > identity.last_batch {
            Some(format!(
                "the broker holds batch {} of this journal, the journal itself ends at {}: it was restored from an \
                 older copy, or another host runs on a copy of it",
                newest.batch.0, identity.last_batch.0
            ))
        } else {
            match self.journal.batch_incarnation(newest.batch)? {
                Some(journaled) if journaled != newest.incarnation => Some(format!(
                    "batch {} was published by incarnation {}, this journal holds one of incarnation {}: the data \
                     directory was copied and both copies were started",
                    newest.batch.0, newest.incarnation, journaled
                )),
                Some(_) | None => None,
            }
        };
        match fault {
            None => Ok(identity),
            Some(why) if self.decisions.new_lineage => {
                warn!("{why}; going on with a new lineage, as told");
                Ok(self.journal.new_lineage(identity.epoch)?)
            }
            Some(why) => Err(StartError::NotNewest { why }),
        }
    }

    fn published(&mut self, identity: &Identity, marks: &Marks) -> Result<BatchNo, Halt> {
        if let Some(told) = self.decisions.published {
            return Ok(told.max(identity.confirmed).min(identity.last_batch));
        }
        let mark =
            identity.anchor.as_ref().and_then(|anchor| marks.of(anchor)).filter(|m| m.journal == identity.journal);
        match mark {
            Some(_) if planted::on(Planted::StartWithoutLooking) => Ok(identity.confirmed),
            Some(mark) => Ok(mark.batch.max(identity.confirmed)),
            None if self.decisions.new_lineage => Ok(identity.confirmed),
            None => self.published_by_topics(identity),
        }
    }

    /// The group's offsets were reset, have expired, or were never committed. What is not out is known from the journal
    /// where the attempt failed before its commit; else the topics tell; else an operator has to.
    fn published_by_topics(&mut self, identity: &Identity) -> Result<BatchNo, Halt> {
        let not_out = self.journal.publication_notes()?.not_out;
        let mut published = identity.confirmed;
        for batch in self.journal.outbox(identity.confirmed, usize::MAX)? {
            if batch.records.is_empty() {
                continue;
            }
            if not_out.is_some_and(|not_out| not_out <= batch.number) {
                break;
            }
            if !self.found.contains_key(&batch.number) {
                self.asks = "the topics";
                let found = publish::search(self.sink()?, &batch)?.ok_or(Halt::NotYet)?;
                self.found.insert(batch.number, found);
            }
            match &self.found[&batch.number] {
                Found::Committed => published = batch.number,
                Found::Absent => break,
                Found::Unclear(why) => {
                    let (why, first, last) = (why.clone(), batch.number, identity.last_batch);
                    return Err(StartError::Unclear { why, first, published, last }.into());
                }
            }
        }
        info!(batch = published.0, "the committed offsets say nothing; this batch is the last one known as published");
        Ok(published)
    }

    /// One partition whose offset always carries the newest batch.
    fn anchor(&self, identity: &Identity, partitions: &[Partition]) -> Result<Partition, StartError> {
        if let Some(anchor) = identity.anchor.clone().filter(|anchor| partitions.contains(anchor)) {
            return Ok(anchor);
        }
        let Some(first) = partitions.first() else {
            return Err(StartError::NothingToRead);
        };
        self.journal.set_anchor(identity.epoch, first)?;
        Ok(first.clone())
    }

    fn positions(
        &mut self,
        identity: &Identity,
        partitions: &[Partition],
        marks: &Marks,
    ) -> Result<Vec<(Partition, Resolved)>, StartError> {
        let journaled = self.journal.positions()?;
        let known_topics: BTreeSet<&Arc<str>> = journaled.keys().map(|partition| &partition.topic).collect();
        let fresh: Vec<Partition> =
            partitions.iter().filter(|partition| !journaled.contains_key(*partition)).cloned().collect();
        let (ids, bounds) = if fresh.is_empty() {
            Default::default()
        } else {
            let topics: BTreeSet<Arc<str>> = fresh.iter().map(|partition| partition.topic.clone()).collect();
            let topics: Vec<_> = topics.into_iter().collect();
            // The ids first: then a topic made anew in between is noticed.
            self.asks = "the ids and ends of topics";
            (self.transport.topic_ids(&topics)?, self.transport.bounds(&fresh)?)
        };
        let first_start = identity.last_batch == BatchNo(0);
        let resolve = |partition: &Partition| {
            let committed = marks.offset(partition);
            if let Some(position) = journaled.get(partition) {
                // An offset with our own mark is no operator's: the position was moved back after it was committed.
                let ours = marks.of(partition).is_some_and(|mark| mark.journal == identity.journal);
                let told = committed.filter(|_| !ours);
                return Resolved { position: skip_ahead(partition, position, told), new: false };
            }
            let (low, end) = bounds.get(partition).copied().unwrap_or((0, 0));
            let from_start = match first_start {
                true => self.wanted.start == StartAt::Earliest,
                // New partitions of a known topic are read whole, new topics as their subscription says.
                false => {
                    known_topics.contains(&partition.topic)
                        || self.wanted.inputs.get(&partition.topic).copied().unwrap_or(true)
                }
            };
            let next = committed.unwrap_or(if from_start { low } else { end });
            Resolved { position: Position::new(next, ids.get(&partition.topic).cloned()), new: true }
        };
        Ok(partitions.iter().map(|partition| (partition.clone(), resolve(partition))).collect())
    }

    /// A batch without events that says where this host begins, before anything runs.
    fn claim(
        &self,
        identity: &mut Identity,
        positions: &[(Partition, Resolved)],
        published: BatchNo,
        now: Now,
    ) -> Result<(), StartError> {
        let number = BatchNo(identity.last_batch.0 + 1);
        let write = BatchWrite {
            number,
            at: now.wall,
            positions: positions.iter().map(|(partition, at)| (partition.clone(), at.position.clone())).collect(),
            confirmed: published,
            ..BatchWrite::default()
        };
        match self.journal.commit(identity.epoch, &write)? {
            CommitAnswer::Done(_) => {}
            // Positions alone have no answers that could have changed.
            CommitAnswer::Conflict(_) => {
                return Err(JournalError::Failed("a batch of positions met a conflict".to_owned()).into());
            }
            CommitAnswer::Unknown(error) => return Err(error.into()),
        }
        self.journal.set_touch_due(identity.epoch, write.at.after(TOUCH_EVERY))?;
        identity.last_batch = number;
        info!(batch = number.0, partitions = positions.len(), "start positions are journaled");
        Ok(())
    }
}

struct Resolved {
    position: Position,
    new: bool,
}

/// Records below the journaled position are handled already; an offset ahead of it is an operator's skip.
fn skip_ahead(partition: &Partition, journaled: &Position, committed: Option<i64>) -> Position {
    match committed {
        Some(offset) if offset > journaled.next => {
            warn!(%partition, from = journaled.next, to = offset, "records are skipped: the committed offset is ahead of the journal");
            Position::new(offset, journaled.topic_id.clone())
        }
        Some(offset) if offset < journaled.next => {
            info!(%partition, from = offset, to = journaled.next, "records below the journaled position are handled already; skipped unread");
            journaled.clone()
        }
        Some(_) | None => journaled.clone(),
    }
}
