//! Where records come in: polled, told apart (own, handled before, undecodable, new), put into their saga's mailbox.
//! Invariant: every record that is read is accounted for, by a chain, a dead letter or a reason to skip it.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use sagahost_codec::{Decoded, Undecodable};
use sagahost_journal::{Identity, Journal, JournalError, LetterWrite};
use sagahost_saga::id::Kind;
use sagahost_transport::{Assignment, Polled, Polls, Source, TransportError};
use sagahost_wire::{BatchNo, Generation, Partition, Position, Record};
use tracing::{debug, error, info, warn};

use crate::{
    inbox::Inbox,
    intake::{Intake, close_gate},
    letters,
    mailbox::{Item, Loose},
    planted::{self, Planted},
    positions::Receipt,
    read_ahead::ReadAhead,
    resent::{self, Resent},
    serving::Serving,
    stage::Stage,
    stats::Stats,
    step::{Backoff, Next, Now, Part, Steady, Stop, Wait},
};

/// After trouble with the source.
const PAUSE: Duration = Duration::from_millis(50);
/// Items that one poll brings, at most.
const BITE: usize = 256;
/// At its end the reader waits so long for what it read to be verified.
const VERIFY_WITHIN: Duration = Duration::from_millis(300);

/// Reads.
pub struct Reader {
    pub stage: Arc<Stage>,
    pub inbox: Inbox,
    pub serving: Arc<ArcSwap<Serving>>,
    pub journal: Arc<dyn Journal>,
    pub intake: Arc<Intake>,
    pub stats: Arc<Stats>,
    pub source: Box<dyn Source>,
    pub identity: Identity,
    pub read_ahead: ReadAhead,
    pub stop: Stop,
    pub state: State,
}

/// Where the reader stands.
pub struct State {
    /// It was assigned once.
    begun: bool,
    /// What is to be read from now on.
    assign: Option<Vec<Assignment>>,
    /// What came and is not taken in yet.
    polled: VecDeque<Polled>,
    /// How far reading may run ahead, beside what the transport queues of the partitions that are assigned.
    read_ahead: ReadAhead,
    /// Partitions that are read no further, until some of what was read is done.
    full: BTreeSet<Partition>,
    not_before: Steady,
    reassign: Backoff,
    lineage: HashMap<BatchNo, Option<Arc<str>>>,
    /// It was told to stop, and waits until then for what it read to be verified.
    ends: Option<Steady>,
}

impl State {
    pub fn new(assignments: Vec<Assignment>, read_ahead: ReadAhead) -> Self {
        Self {
            begun: false,
            read_ahead: read_ahead.beside_queues(assignments.len()),
            assign: Some(assignments),
            polled: VecDeque::new(),
            full: BTreeSet::new(),
            not_before: Steady::default(),
            reassign: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            lineage: HashMap::new(),
            ends: None,
        }
    }
}

impl Part for Reader {
    fn step(&mut self, now: Now) -> Next {
        let signal = self.intake.stirred.clone();
        let seen = signal.seen();
        let wait = |until| Next::Wait(Wait { signal, seen, until });
        if let Some(polled) = self.state.polled.pop_front() {
            self.polled(polled, now);
            return Next::Again;
        }
        let reads = if self.stop.asked() { self.end(now) } else { self.read(now) };
        match reads {
            Reads::On => Next::Again,
            Reads::Nothing(until) => wait(until),
            Reads::Ended => Next::Ended(Ok(())),
        }
    }
}

/// What came of reading.
enum Reads {
    On,
    /// Nothing; it is looked at again when the signal moves, and then at the latest.
    Nothing(Option<Steady>),
    Ended,
}

impl Reader {
    fn read(&mut self, now: Now) -> Reads {
        if now.steady < self.state.not_before {
            return Reads::Nothing(Some(self.state.not_before));
        }
        if let Some(assignments) = self.state.assign.take() {
            self.assign(assignments, now);
            return Reads::On;
        }
        self.rewind(now);
        self.assign_again(now);
        let changed = self.relieve(now);
        if changed || self.state.assign.is_some() || now.steady < self.state.not_before {
            return Reads::On;
        }
        // Never more than there is room for: what came is taken in before anything else is done.
        let room = self.state.read_ahead.room(self.stage.held()).clamp(1, BITE);
        match self.source.poll(room) {
            Ok(polls) => self.brought(polls, now),
            Err(error) => {
                self.trouble(&error, now);
                Reads::On
            }
        }
    }

    fn brought(&mut self, polls: Polls, now: Now) -> Reads {
        if polls.items.is_empty() {
            return Reads::Nothing(polls.within.map(|within| now.steady.after(within)));
        }
        self.state.polled.extend(polls.items);
        Reads::On
    }

    /// What was read last would be read again if nobody knew which topic it came from.
    fn end(&mut self, now: Now) -> Reads {
        let ends = match self.state.ends {
            Some(ends) => ends,
            None => {
                if self.state.assign.is_some() || self.source.pause(&self.intake.assigned()).is_err() {
                    return Reads::Ended;
                }
                *self.state.ends.insert(now.steady.after(VERIFY_WITHIN))
            }
        };
        if !self.stage.unverified() || now.steady >= ends {
            return Reads::Ended;
        }
        match self.source.poll(BITE) {
            Ok(polls) => match self.brought(polls, now) {
                Reads::Nothing(until) => Reads::Nothing(Some(until.map_or(ends, |until| until.min(ends)))),
                on => on,
            },
            Err(error) => {
                debug!(%error, "the rest is read again");
                Reads::Ended
            }
        }
    }

    fn assign(&mut self, assignments: Vec<Assignment>, now: Now) {
        let assigned: Vec<Partition> = assignments.iter().map(|a| a.partition.clone()).collect();
        self.share_with_queues(assigned.len());
        {
            let mut state = self.intake.state.lock();
            state.more.retain(|more| !assigned.contains(&more.partition));
            state.assigned = assigned;
        }
        if let Err(error) = self.source.assign(&assignments) {
            self.trouble(&error, now);
            self.state.not_before = now.steady.after(self.state.reassign.pause());
            self.state.assign = Some(assignments);
            return;
        }
        self.state.reassign.reset();
        self.state.full.clear();
        if !std::mem::replace(&mut self.state.begun, true) {
            self.stage.source_follows();
        }
        if self.intake.state.lock().reading.take().is_some() {
            info!("reading goes on");
        }
        self.rest(now);
    }

    /// What the transport holds of each partition before it is read counts as read.
    fn share_with_queues(&mut self, partitions: usize) {
        let before = std::mem::replace(&mut self.state.read_ahead, self.read_ahead.beside_queues(partitions));
        if self.read_ahead.is_exceeded(partitions) && (before != self.state.read_ahead || !self.state.begun) {
            warn!(
                partitions,
                queued_bytes_max = self.read_ahead.queued_bytes_max,
                bytes_max = self.read_ahead.bytes_max,
                "the queues of so many partitions may hold more than half of pipeline.in-flight-bytes-max: what is beyond \
                 that is not bounded by it; raise it, or lower queued.max.messages.kbytes in [kafka.properties]"
            );
        }
    }

    fn trouble(&mut self, error: &TransportError, now: Now) {
        let mut state = self.intake.state.lock();
        let text = format!("reading waits: {error}");
        if state.reading.as_ref() != Some(&text) {
            match error {
                TransportError::Away(_) => warn!("{text}"),
                TransportError::Refused(_) | TransportError::Fenced(_) | TransportError::Broken(_) => error!("{text}"),
            }
        }
        state.reading = Some(text);
        drop(state);
        self.state.not_before = now.steady.after(PAUSE);
    }

    /// After a failed commit: everything from the journaled positions on is read again.
    fn rewind(&mut self, now: Now) {
        let Some(positions) = self.intake.state.lock().rewind.take() else { return };
        let assigned = self.intake.state.lock().assigned.clone();
        let positions: Vec<_> = positions.into_iter().filter(|(partition, _)| assigned.contains(partition)).collect();
        let back = if planted::on(Planted::NoRewind) { Ok(()) } else { self.source.seek(&positions) };
        match back {
            Ok(()) => self.stage.source_follows(),
            Err(error) => {
                self.trouble(&error, now);
                self.intake.rewind(positions);
            }
        }
    }

    /// Backpressure: a partition that is full is read no further until part of it is done. True: something has changed.
    fn relieve(&mut self, now: Now) -> bool {
        let all = self.stage.held();
        // Mostly so: none holds more than all together.
        if self.state.full.is_empty() && !self.state.read_ahead.is_full(all, all) {
            return false;
        }
        let (_, busy) = self.by_use();
        let full = self.stage.full(&busy, &self.state.full, &self.state.read_ahead, &self.intake.stirred);
        if full == self.state.full {
            return false;
        }
        let pause: Vec<Partition> = full.difference(&self.state.full).cloned().collect();
        let resume: Vec<Partition> =
            busy.into_iter().filter(|at| self.state.full.contains(at) && !full.contains(at)).collect();
        let paused = if pause.is_empty() { Ok(()) } else { self.source.pause(&pause) };
        let resumed = if resume.is_empty() { Ok(()) } else { self.source.resume(&resume) };
        match paused.and(resumed) {
            Ok(()) => self.state.full = full,
            Err(error) => self.trouble(&error, now),
        }
        true
    }

    /// Partitions that wait for a plugin to come back, and the others.
    fn by_use(&self) -> (Vec<Partition>, Vec<Partition>) {
        let state = self.intake.state.lock();
        state.assigned.iter().cloned().partition(|partition| state.idle.contains(&partition.topic))
    }

    fn polled(&mut self, polled: Polled, now: Now) {
        match polled {
            Polled::Record(record) => self.record(record, now),
            Polled::End(partition, offset) => {
                self.read_on();
                self.stage.passed(&partition, offset, now);
            }
            Polled::Verified(all) => self.stage.verified(&all, now),
            Polled::Held { partition, why } => {
                let text =
                    format!("{why}. To go on: sagahost topics resume '{partition}' [--from earliest|latest|OFFSET]");
                let told = self.intake.state.lock().held.insert(partition.clone(), text.clone());
                if told.as_ref() != Some(&text) {
                    error!(%partition, why, "partition held; the others are served");
                }
            }
            Polled::Appeared(partitions) => self.appeared(partitions, now),
            Polled::Away(why) => {
                let text = format!("reading waits for the broker: {why}");
                warn!("{text}");
                let mut state = self.intake.state.lock();
                (state.reading, state.reading_away) = (Some(text), true);
                close_gate(&mut state, now);
            }
            Polled::Back => {
                info!("the broker is back; reading goes on");
                let mut state = self.intake.state.lock();
                (state.reading, state.reading_away) = (None, false);
                close_gate(&mut state, now);
            }
        }
    }

    /// New partitions of topics that are read: from their beginning.
    fn appeared(&mut self, mut partitions: Vec<Partition>, now: Now) {
        let assigned = self.intake.assigned();
        partitions.retain(|partition| !assigned.contains(partition));
        info!(?partitions, "new partitions; read from their beginning");
        self.assign_with(partitions.into_iter().map(|partition| Assignment::new(partition, 0)).collect(), now);
    }

    fn assign_again(&mut self, now: Now) {
        let more = {
            let mut state = self.intake.state.lock();
            std::mem::take(&mut state.assign_again).then(|| state.more.clone())
        };
        if let Some(more) = more {
            self.assign_with(more, now);
        }
        if std::mem::take(&mut self.intake.state.lock().idle_changed) {
            self.rest(now);
        }
    }

    /// Partitions that nobody handles at the moment are not read.
    fn rest(&mut self, now: Now) {
        let (idle, mut busy) = self.by_use();
        busy.retain(|partition| !self.state.full.contains(partition));
        let resumed = self.source.resume(&busy);
        if let Err(error) = self.source.pause(&idle).and(resumed) {
            self.trouble(&error, now);
        }
    }

    /// All that is assigned, each from where it is handled up to, and `more`. Where these begin is journaled first:
    /// should the host begin anew, it goes back to there.
    fn assign_with(&mut self, mut more: Vec<Assignment>, now: Now) {
        let assigned = self.intake.state.lock().assigned.clone();
        more.retain(|more| !assigned.contains(&more.partition));
        let begin = |at: &Assignment| {
            let position = Position { next: at.position, last: at.last, topic_id: at.topic_id.clone() };
            self.journal.set_position(self.identity.epoch, &at.partition, &position)?;
            self.stage.begin(&at.partition, position);
            Ok::<_, JournalError>(())
        };
        if let Err(error) = more.iter().try_for_each(begin) {
            warn!(%error, "failed to journal where new partitions begin; trying again");
            let mut state = self.intake.state.lock();
            more.retain(|more| !state.more.iter().any(|known| known.partition == more.partition));
            state.more.extend(more);
            state.assign_again = true;
            drop(state);
            self.state.not_before = now.steady.after(Duration::from_millis(200));
            return;
        }
        let positions = self.stage.positions();
        let mut assignments: Vec<Assignment> = assigned
            .into_iter()
            .map(|partition| match positions.get(&partition) {
                Some(position) => assignment(partition, position),
                None => Assignment::new(partition, 0),
            })
            .collect();
        assignments.extend(more);
        self.state.assign = Some(assignments);
    }

    fn read_on(&self) {
        let mut state = self.intake.state.lock();
        state.reading = None;
        state.reading_away = false;
    }

    fn record(&mut self, record: Record, now: Now) {
        self.read_on();
        Stats::add(&self.stats.records, 1);
        let receipt =
            Receipt { partition: record.partition.clone(), offset: record.offset, timestamp_ms: record.timestamp_ms };
        if !self.stage.delivered(&receipt, record.size_bytes()) {
            Stats::add(&self.stats.records_skipped, 1);
            return;
        }
        if planted::on(Planted::AccountWhenRead) {
            self.stage.skipped(&receipt, now);
        }
        if self.handled(&record) {
            Stats::add(&self.stats.records_skipped, 1);
            return self.stage.skipped(&receipt, now);
        }
        let serving = self.serving.load_full();
        let decoded = serving.codec.decode(&record);
        if self.resent(&record, &decoded, &receipt, &serving) {
            return;
        }
        match decoded {
            Ok(Decoded { event, formerly }) => {
                let saga = event.saga.clone();
                self.inbox.post(&saga, Item::Delivery { event, formerly, receipt: Some(receipt) });
            }
            Err(why) => {
                warn!(partition = %record.partition, offset = record.offset, code = %why.code, detail = why.detail, "undecodable record; kept as a dead letter");
                if planted::on(Planted::DropLetters) {
                    return self.stage.skipped(&receipt, now);
                }
                let letter = LetterWrite::Open(letters::undecodable(&record, &why, now.wall));
                self.inbox.post_loose(Loose { letter, receipt: Some(receipt), reply: None });
            }
        }
    }

    /// Is it the record of an open dead letter, sent again? Then it is done with here.
    fn resent(
        &self,
        record: &Record,
        decoded: &Result<Decoded, Undecodable>,
        receipt: &Receipt,
        serving: &Serving,
    ) -> bool {
        let letter = match resent::letter_of(record, &*self.journal) {
            Ok(letter) => letter,
            Err(error) => {
                warn!(%error, "failed to look up the dead letter that a record names; taken as an ordinary record");
                None
            }
        };
        let Some(letter) = letter else { return false };
        let key = letter.key.clone();
        let Some(resent) = resent::resent(letter, record, decoded, receipt, serving) else { return false };
        info!(letter = key, partition = %receipt.partition, offset = receipt.offset, "the record of a dead letter was sent again");
        match resent {
            Resent::Item(saga, item) => self.inbox.post(&saga, *item),
            Resent::Letter(letter) => {
                let letter = LetterWrite::Open(*letter);
                self.inbox.post_loose(Loose { letter, receipt: Some(receipt.clone()), reply: None });
            }
        }
        true
    }

    /// Was this event taken in by this app when it was emitted? The header only saves work: where anything about it
    /// does not fit, the record is an ordinary delivery, and the known ids decide.
    fn handled(&mut self, record: &Record) -> bool {
        let Some(handled) = self.serving.load().codec.handled(record) else { return false };
        if handled.journal != &*self.identity.journal {
            return false;
        }
        let batch = BatchNo(handled.batch);
        let kind = record.headers.iter().find(|(name, _)| name == "ce_type").and_then(|(_, value)| value.as_deref());
        let Some(kind) = kind.and_then(|kind| std::str::from_utf8(kind).ok()) else { return false };
        // What a host before generations wrote is older than any.
        let Some(generation) = handled.generation.map(Generation) else { return false };
        self.serving.load().took(&Kind::new(kind), generation) && self.in_lineage(batch, handled.incarnation)
    }

    fn in_lineage(&mut self, batch: BatchNo, incarnation: &str) -> bool {
        const KNOWN_MAX: usize = 10_000;
        if incarnation == &*self.identity.incarnation && batch > self.identity.last_batch {
            return true;
        }
        if self.state.lineage.len() > KNOWN_MAX {
            self.state.lineage.clear();
        }
        let journal = &self.journal;
        let known = self.state.lineage.entry(batch).or_insert_with(|| journal.batch_incarnation(batch).ok().flatten());
        known.as_deref() == Some(incarnation)
    }
}

/// What a partition is read from.
pub fn assignment(partition: Partition, position: &Position) -> Assignment {
    Assignment { partition, position: position.next, last: position.last, topic_id: position.topic_id.clone() }
}
