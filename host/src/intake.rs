//! Where records come in: polled, told apart (own, handled before, undecodable, new), put into their saga's mailbox.
//! Invariant: every record that is read is accounted for, by a chain, a dead letter or a reason to skip it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sagahost_codec::{Decoded, Undecodable};
use sagahost_journal::{Identity, JournalError};
use sagahost_transport::{Assignment, Polled, Source, Transport, TransportError};
use sagahost_wire::{BatchNo, Partition, Position, Record};
use tracing::{debug, error, info, warn};

use crate::{
    letters,
    mailbox::Item,
    pipeline::{Pipeline, Surroundings},
    positions::Receipt,
    resent::{self, Resent},
    stats::Stats,
};

/// What is known of the way in, for the other threads and for operators.
#[derive(Default)]
pub struct Intake {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rewind: Option<Vec<(Partition, i64)>>,
    /// Partitions are to be assigned anew: one that was held may go on.
    assign_again: bool,
    /// Topics that nobody handles at the moment.
    idle: BTreeSet<Arc<str>>,
    idle_changed: bool,
    /// Partitions to be read from now on.
    more: Vec<Assignment>,
    held: BTreeMap<Partition, String>,
    broker: Option<String>,
    reading: Option<String>,
    /// The source said that the broker is away, and not yet that it is back.
    reading_away: bool,
    journal: Option<String>,
    /// Partitions that another producer's open transaction holds up.
    held_up: Vec<String>,
    gate: Gate,
    assigned: Vec<Partition>,
}

/// After a stall deadlines wait until what was queued meanwhile is handled (SEMANTICS.md, rule 9).
#[derive(Default)]
enum Gate {
    Open,
    #[default]
    /// The host has just begun.
    New,
    Closed {
        since: Instant,
        /// Ends of the partitions when the stall was over.
        targets: Option<BTreeMap<Partition, i64>>,
    },
}

impl Intake {
    pub fn rewind(&self, positions: Vec<(Partition, i64)>) {
        self.state.lock().rewind = Some(positions);
    }

    /// A partition that is held goes on, if it can.
    pub fn assign_again(&self, partition: &Partition) {
        let mut state = self.state.lock();
        state.held.remove(partition);
        state.assign_again = true;
    }

    /// Plugins have changed: these partitions are read too, and of these topics nothing until somebody handles it.
    pub fn read_also(&self, more: Vec<Assignment>, idle: BTreeSet<Arc<str>>) {
        let mut state = self.state.lock();
        state.assign_again |= !more.is_empty();
        state.idle_changed |= state.idle != idle;
        state.more.extend(more);
        state.idle = idle;
    }

    /// What is read, and what will be with the reader's next round.
    pub fn assigned(&self) -> Vec<Partition> {
        let state = self.state.lock();
        let more = state.more.iter().map(|assignment| &assignment.partition);
        state.assigned.iter().chain(more).cloned().collect()
    }

    pub fn is_held(&self, partition: &Partition) -> bool {
        self.state.lock().held.contains_key(partition)
    }

    /// The publisher cannot reach the broker, or can again.
    pub fn broker_trouble(&self, why: Option<String>) {
        let mut state = self.state.lock();
        if why.is_none() && state.broker.is_some() {
            info!("the broker is back; going on");
        }
        if why.is_some() || state.broker.is_some() {
            close_gate(&mut state);
        }
        state.broker = why;
    }

    /// The journal takes nothing, or again something. What is due meanwhile counts as stalled from the first on.
    pub fn journal_trouble(&self, why: Option<String>) {
        let mut state = self.state.lock();
        if why.is_some() || state.journal.is_some() {
            close_gate(&mut state);
        }
        state.journal = why;
    }

    /// The clock jumped, or the host slept.
    pub fn stalled(&self) {
        close_gate(&mut self.state.lock());
    }

    pub fn set_held_up(&self, lines: Vec<String>) {
        self.state.lock().held_up = lines;
    }

    pub fn held_up(&self) -> Vec<String> {
        self.state.lock().held_up.clone()
    }

    pub fn held(&self) -> Vec<String> {
        self.state.lock().held.iter().map(|(partition, why)| format!("{partition}: {why}")).collect()
    }

    pub fn waiting(&self) -> Vec<String> {
        let state = self.state.lock();
        [&state.broker, &state.reading, &state.journal].into_iter().flatten().cloned().collect()
    }

    /// May deadlines fire? Opens the gate when everything that was queued at the end of the stall is handled, or
    /// after `wait_max`.
    pub fn deadlines_may_fire(&self, pipeline: &Pipeline, transport: &dyn Transport, wait_max: Duration) -> bool {
        let (since, targets, assigned) = {
            let mut state = self.state.lock();
            // While nothing can come in, nothing that has not come is late.
            if state.broker.is_some() || state.reading_away || state.journal.is_some() {
                close_gate(&mut state);
                return false;
            }
            match &state.gate {
                Gate::Open => return true,
                Gate::New => {
                    close_gate(&mut state);
                    return false;
                }
                Gate::Closed { since, targets } => {
                    let readable = |partition: &&Partition| !state.held.contains_key(*partition);
                    (*since, targets.clone(), state.assigned.iter().filter(readable).cloned().collect::<Vec<_>>())
                }
            }
        };
        let targets = targets.or_else(|| {
            let bounds = transport.bounds(&assigned).ok()?;
            Some(bounds.into_iter().map(|(partition, (_, end))| (partition, end)).collect())
        });
        let waited = since.elapsed() >= wait_max;
        let mut state = self.state.lock();
        let handled = targets.as_ref().is_some_and(|targets| {
            let at = pipeline.stage.positions();
            targets.iter().all(|(partition, end)| {
                let waits = state.held.contains_key(partition) || state.idle.contains(&partition.topic);
                waits || at.get(partition).is_some_and(|at| at.next >= *end)
            })
        });
        match &mut state.gate {
            // Another stall began meanwhile.
            Gate::Closed { since: now, .. } if *now != since => false,
            Gate::Closed { targets: known, .. } => {
                *known = targets;
                if waited && !handled {
                    warn!(
                        "queued records are not all handled after {} s; deadlines fire all the same",
                        wait_max.as_secs()
                    );
                }
                if waited || handled {
                    state.gate = Gate::Open;
                }
                waited || handled
            }
            Gate::Open | Gate::New => false,
        }
    }
}

fn close_gate(state: &mut State) {
    state.gate = Gate::Closed { since: Instant::now(), targets: None };
}

/// The poll thread.
pub struct Reader {
    pub pipeline: Arc<Pipeline>,
    pub intake: Arc<Intake>,
    pub source: Box<dyn Source>,
    pub identity: Identity,
    pub stop: Arc<AtomicBool>,
    pub lineage: HashMap<BatchNo, Option<Arc<str>>>,
    pub paused: bool,
}

impl Reader {
    pub fn new(
        pipeline: Arc<Pipeline>,
        intake: Arc<Intake>,
        source: Box<dyn Source>,
        identity: Identity,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self { pipeline, intake, source, identity, stop, lineage: HashMap::new(), paused: false }
    }

    pub fn run(mut self, assignments: Vec<Assignment>) {
        self.assign(&assignments);
        self.pipeline.stage.source_follows();
        while !self.stop.load(Ordering::Relaxed) {
            self.rewind();
            self.assign_again();
            self.relieve();
            let timeout = if self.paused { Duration::from_millis(2) } else { Duration::from_millis(100) };
            match self.source.poll(timeout) {
                Ok(polled) => self.polled(polled),
                Err(error) => self.trouble(&error),
            }
        }
        self.verify_rest();
    }

    /// What was read last would be read again if nobody knew which topic it came from.
    fn verify_rest(&mut self) {
        const WITHIN: Duration = Duration::from_millis(300);
        let end = Instant::now() + WITHIN;
        let paused = self.source.pause(&self.intake.assigned());
        while paused.is_ok() && self.pipeline.stage.unverified() && Instant::now() < end {
            match self.source.poll(Duration::from_millis(20)) {
                Ok(polled) => self.polled(polled),
                Err(error) => return debug!(%error, "the rest is read again"),
            }
        }
    }

    fn assign(&mut self, assignments: &[Assignment]) {
        let assigned: Vec<Partition> = assignments.iter().map(|a| a.partition.clone()).collect();
        {
            let mut state = self.intake.state.lock();
            state.more.retain(|more| !assigned.contains(&more.partition));
            state.assigned = assigned;
        }
        let mut wait = Duration::from_millis(100);
        while let Err(error) = self.source.assign(assignments) {
            self.trouble(&error);
            std::thread::sleep(wait);
            wait = (wait * 2).min(Duration::from_secs(5));
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
        }
        if self.intake.state.lock().reading.take().is_some() {
            info!("reading goes on");
        }
    }

    fn trouble(&self, error: &TransportError) {
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
        std::thread::sleep(Duration::from_millis(50));
    }

    /// After a failed commit: everything from the journaled positions on is read again.
    fn rewind(&mut self) {
        let Some(positions) = self.intake.state.lock().rewind.take() else { return };
        let assigned = self.intake.state.lock().assigned.clone();
        let positions: Vec<_> = positions.into_iter().filter(|(partition, _)| assigned.contains(partition)).collect();
        match self.source.seek(&positions) {
            Ok(()) => self.pipeline.stage.source_follows(),
            Err(error) => {
                self.trouble(&error);
                self.intake.rewind(positions);
            }
        }
    }

    /// Backpressure: above the bound nothing more is read until half of it is done.
    fn relieve(&mut self) {
        let outstanding = self.pipeline.stage.outstanding();
        let max = self.pipeline.settings.queue_events_max;
        let wanted = if self.paused { outstanding > max / 2 } else { outstanding >= max };
        if wanted == self.paused {
            return;
        }
        let (idle, busy) = self.by_use();
        let changed = if wanted { self.source.pause(&[idle, busy].concat()) } else { self.source.resume(&busy) };
        match changed {
            Ok(()) => self.paused = wanted,
            Err(error) => self.trouble(&error),
        }
    }

    /// Partitions that wait for a plugin to come back, and the others.
    fn by_use(&self) -> (Vec<Partition>, Vec<Partition>) {
        let state = self.intake.state.lock();
        state.assigned.iter().cloned().partition(|partition| state.idle.contains(&partition.topic))
    }

    fn polled(&mut self, polled: Polled) {
        match polled {
            Polled::Record(record) => self.record(record),
            Polled::End(partition, offset) => {
                self.read_on();
                self.pipeline.stage.passed(&partition, offset);
            }
            Polled::Verified(all) => self.pipeline.stage.verified(&all),
            Polled::Held { partition, why } => {
                let text =
                    format!("{why}. To go on: sagahost topics resume '{partition}' [--from earliest|latest|OFFSET]");
                let told = self.intake.state.lock().held.insert(partition.clone(), text.clone());
                if told.as_ref() != Some(&text) {
                    error!(%partition, why, "partition held; the others are served");
                }
            }
            Polled::Appeared(partitions) => self.appeared(partitions),
            Polled::Away(why) => {
                let text = format!("reading waits for the broker: {why}");
                warn!("{text}");
                let mut state = self.intake.state.lock();
                (state.reading, state.reading_away) = (Some(text), true);
                close_gate(&mut state);
            }
            Polled::Back => {
                info!("the broker is back; reading goes on");
                let mut state = self.intake.state.lock();
                (state.reading, state.reading_away) = (None, false);
                close_gate(&mut state);
            }
            Polled::Nothing => {}
        }
    }

    /// New partitions of topics that are read: from their beginning.
    fn appeared(&mut self, mut partitions: Vec<Partition>) {
        let assigned = self.intake.assigned();
        partitions.retain(|partition| !assigned.contains(partition));
        info!(?partitions, "new partitions; read from their beginning");
        self.assign_with(partitions.into_iter().map(|partition| Assignment::new(partition, 0)).collect());
    }

    fn assign_again(&mut self) {
        let more = {
            let mut state = self.intake.state.lock();
            std::mem::take(&mut state.assign_again).then(|| state.more.clone())
        };
        if let Some(more) = more {
            self.assign_with(more);
        }
        if std::mem::take(&mut self.intake.state.lock().idle_changed) {
            self.rest();
        }
    }

    /// Partitions that nobody handles at the moment are not read.
    fn rest(&mut self) {
        let (idle, busy) = self.by_use();
        let resumed = if self.paused { Ok(()) } else { self.source.resume(&busy) };
        if let Err(error) = self.source.pause(&idle).and(resumed) {
            self.trouble(&error);
        }
    }

    /// All that is assigned, each from where it is handled up to, and `more`. Where these begin is journaled first:
    /// should the host begin anew, it goes back to there.
    fn assign_with(&mut self, mut more: Vec<Assignment>) {
        let assigned = self.intake.state.lock().assigned.clone();
        more.retain(|more| !assigned.contains(&more.partition));
        let begin = |at: &Assignment| {
            let position = Position { next: at.position, last: at.last, topic_id: at.topic_id.clone() };
            self.pipeline.journal.set_position(self.identity.epoch, &at.partition, &position)?;
            self.pipeline.stage.begin(&at.partition, position);
            Ok::<_, JournalError>(())
        };
        if let Err(error) = more.iter().try_for_each(begin) {
            warn!(%error, "failed to journal where new partitions begin; trying again");
            let mut state = self.intake.state.lock();
            more.retain(|more| !state.more.iter().any(|known| known.partition == more.partition));
            state.more.extend(more);
            state.assign_again = true;
            drop(state);
            std::thread::sleep(Duration::from_millis(200));
            return;
        }
        let positions = self.pipeline.stage.positions();
        let mut assignments: Vec<Assignment> = assigned
            .into_iter()
            .map(|partition| match positions.get(&partition) {
                Some(position) => assignment(partition, position),
                None => Assignment::new(partition, 0),
            })
            .collect();
        assignments.extend(more);
        self.assign(&assignments);
        self.paused = false;
        self.rest();
    }

    fn read_on(&self) {
        let mut state = self.intake.state.lock();
        state.reading = None;
        state.reading_away = false;
    }

    fn record(&mut self, record: Record) {
        self.read_on();
        Stats::add(&self.pipeline.stats.records, 1);
        let receipt =
            Receipt { partition: record.partition.clone(), offset: record.offset, timestamp_ms: record.timestamp_ms };
        if !self.pipeline.stage.delivered(&receipt) {
            Stats::add(&self.pipeline.stats.records_skipped, 1);
            return;
        }
        if self.handled(&record) {
            Stats::add(&self.pipeline.stats.records_skipped, 1);
            return self.pipeline.stage.skipped(&receipt);
        }
        let surroundings = self.pipeline.surroundings.load_full();
        let decoded = surroundings.codec.decode(&record);
        if self.resent(&record, &decoded, &receipt, &surroundings) {
            return;
        }
        match decoded {
            Ok(Decoded { event, formerly }) => {
                let saga = event.saga.clone();
                self.pipeline.post(&saga, Item::Delivery { event, formerly, receipt: Some(receipt) });
            }
            Err(why) => {
                warn!(partition = %record.partition, offset = record.offset, code = %why.code, detail = why.detail, "undecodable record; kept as a dead letter");
                let letter = letters::undecodable(&record, &why, self.pipeline.clock.now());
                self.pipeline.stage_letter(None, letter, Some(receipt));
            }
        }
    }

    /// Is it the record of an open dead letter, sent again? Then it is done with here.
    fn resent(
        &self,
        record: &Record,
        decoded: &Result<Decoded, Undecodable>,
        receipt: &Receipt,
        surroundings: &Surroundings,
    ) -> bool {
        let letter = match resent::letter_of(record, &*self.pipeline.journal) {
            Ok(letter) => letter,
            Err(error) => {
                warn!(%error, "failed to look up the dead letter that a record names; taken as an ordinary record");
                None
            }
        };
        let Some(letter) = letter else { return false };
        let key = letter.key.clone();
        let Some(resent) = resent::resent(letter, record, decoded, receipt, surroundings) else { return false };
        info!(letter = key, partition = %receipt.partition, offset = receipt.offset, "the record of a dead letter was sent again");
        match resent {
            Resent::Item(saga, item) => self.pipeline.post(&saga, *item),
            Resent::Letter(letter) => self.pipeline.stage_letter(None, *letter, Some(receipt.clone())),
        }
        true
    }

    /// Was this event taken in by this app when it was emitted? The header only saves work: where anything about it
    /// does not fit, the record is an ordinary delivery, and the known ids decide.
    fn handled(&mut self, record: &Record) -> bool {
        let Some(handled) = self.pipeline.surroundings.load().codec.handled(record) else { return false };
        if handled.journal != &*self.identity.journal {
            return false;
        }
        let batch = BatchNo(handled.batch);
        let kind = record.headers.iter().find(|(name, _)| name == "ce_type").and_then(|(_, value)| value.as_deref());
        let Some(kind) = kind.and_then(|kind| std::str::from_utf8(kind).ok()) else { return false };
        let admitted = self.pipeline.surroundings.load().since.get(kind).is_none_or(|since| *since <= batch);
        admitted && self.in_lineage(batch, handled.incarnation)
    }

    fn in_lineage(&mut self, batch: BatchNo, incarnation: &str) -> bool {
        const KNOWN_MAX: usize = 10_000;
        if incarnation == &*self.identity.incarnation && batch > self.identity.last_batch {
            return true;
        }
        if self.lineage.len() > KNOWN_MAX {
            self.lineage.clear();
        }
        let journal = &self.pipeline.journal;
        let known = self.lineage.entry(batch).or_insert_with(|| journal.batch_incarnation(batch).ok().flatten());
        known.as_deref() == Some(incarnation)
    }
}

/// What a partition is read from.
pub fn assignment(partition: Partition, position: &Position) -> Assignment {
    Assignment { partition, position: position.next, last: position.last, topic_id: position.topic_id.clone() }
}
