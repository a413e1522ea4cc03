//! How a batch becomes durable and public: sealed, journaled in one transaction, published in one transaction whose
//! offsets name the batch, confirmed. Invariant: a batch is published only when it is journaled, and only when the
//! batch before it is known to be published.
//!
//! Two threads: while batch n is on its way out, n+1 is journaled and n+2 executes.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use parking_lot::{Condvar, Mutex};
use sagahost_saga::input::Answer;
use tracing::{debug, error, info, warn};

use crate::{
    crash,
    intake::Intake,
    journal::{BatchNo, Identity, JournalError, OutboxBatch},
    pipeline::Pipeline,
    stage::{Move, Next, Sealed},
    start::{Mark, Marks, read_marks},
    stats::Stats,
    transport::{Isolation, Outgoing, Partition, Publication, PublishError, Sink, TransportError},
};

/// Why the host has to stop by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    #[error("another host owns this app now: {0}")]
    Superseded(String),
    #[error("the journal cannot be used any more: {0}")]
    Journal(String),
    #[error("{0}")]
    Unknown(String),
    #[error("thread {0} panicked; the next start goes on from the journal")]
    Panicked(String),
}

/// Where the publisher stands, for operators; and what it waits for.
#[derive(Default)]
pub struct Outbox {
    state: Mutex<OutboxState>,
    changed: Condvar,
}

#[derive(Default)]
struct OutboxState {
    waiting: Option<String>,
    /// A row that the broker refuses: publication is halted until an operator decides.
    refused: Option<RefusedRow>,
    decision: Option<Decision>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    pub batch: BatchNo,
    pub index: usize,
    pub topic: Arc<str>,
    pub why: String,
}

enum Decision {
    Retry,
    Skip { batch: BatchNo, index: usize, reason: String },
}

impl Outbox {
    pub fn waiting(&self) -> Option<String> {
        let state = self.state.lock();
        match &state.refused {
            Some(row) => Some(format!(
                "row {} of batch {} for topic {} was refused ({}); sagahost outbox retry | skip {} {} --reason TEXT",
                row.index, row.batch.0, row.topic, row.why, row.batch.0, row.index
            )),
            None => state.waiting.clone(),
        }
    }

    pub fn refused(&self) -> Option<RefusedRow> {
        self.state.lock().refused.clone()
    }

    /// Try the refused row again. False: nothing is refused.
    pub fn retry(&self) -> bool {
        self.decide(Decision::Retry)
    }

    /// Leave out the refused row. The caller has journaled it.
    pub fn skip(&self, batch: BatchNo, index: usize, reason: &str) -> bool {
        self.decide(Decision::Skip { batch, index, reason: reason.to_owned() })
    }

    fn decide(&self, decision: Decision) -> bool {
        let mut state = self.state.lock();
        if state.refused.is_none() {
            return false;
        }
        state.decision = Some(decision);
        self.changed.notify_all();
        true
    }

    fn wait_for(&self, why: Option<String>) {
        self.state.lock().waiting = why;
    }
}

/// Journals batch after batch.
pub struct Committer {
    pub pipeline: Arc<Pipeline>,
    pub intake: Arc<Intake>,
    pub publisher: Sender<OutboxBatch>,
    pub identity: Identity,
    pub anchor: Option<Partition>,
    pub stop: Arc<AtomicBool>,
    pub fatal: Sender<Fatal>,
    pub confirmed: BatchNo,
    /// How long the next new beginning waits: longer each time, until the journal takes something again.
    pub again_after: Duration,
}

impl Committer {
    pub const AGAIN_AFTER: Duration = Duration::from_millis(200);

    /// Until told to stop, or until another host owns the journal.
    pub fn run(mut self) {
        /// Offsets of a group without members expire, after seven days by default.
        const TOUCH: Duration = Duration::from_secs(24 * 3600);
        let mut next_removal = Instant::now();
        let mut next_touch = Instant::now() + TOUCH;
        while !self.stop.load(Ordering::Relaxed) {
            let ended = match self.pipeline.stage.next(Duration::from_millis(500)) {
                Next::Commit(sealed) => self.commit(*sealed),
                Next::Restart(why) => self.restart(&why),
                Next::Move(to_move) => self.move_position(to_move),
                Next::Wait => self.confirm(),
            };
            if let Err(fatal) = ended {
                error!(%fatal, "the host stops");
                let _ = self.fatal.send(fatal);
                return;
            }
            if Instant::now() >= next_removal {
                next_removal = Instant::now() + self.remove_finished();
            }
            if Instant::now() >= next_touch {
                next_touch = Instant::now() + TOUCH;
                self.pipeline.stage.touch();
            }
        }
    }

    fn commit(&mut self, mut sealed: Sealed) -> Result<(), Fatal> {
        self.pipeline.stage.fill_keys(&mut sealed.write);
        let number = sealed.write.number;
        crash::point("before-journal-commit");
        let committed = self.pipeline.journal.commit(self.identity.epoch, &sealed.write);
        crash::point("after-journal-commit");
        match committed {
            Ok(keys) => {
                Stats::add(&self.pipeline.stats.journal_commits, 1);
                self.pipeline.stage.journaled(number, &keys);
                self.settled();
                self.confirmed = self.confirmed.max(sealed.write.confirmed);
                for (reply, answer) in sealed.replies {
                    let _ = reply.send(Ok(answer));
                }
                debug!(batch = number.0, chains = sealed.chains, records = sealed.write.outbox.len(), "journaled");
                let batch = OutboxBatch {
                    number,
                    incarnation: self.identity.incarnation.clone(),
                    records: sealed.write.outbox,
                    positions: sealed.write.positions,
                    skipped: Default::default(),
                };
                // The publisher lives as long as the host; a send that fails means that the host stops.
                let _ = self.publisher.send(batch);
                Ok(())
            }
            Err(JournalError::StaleEpoch { newest, ours }) => {
                Err(Fatal::Superseded(JournalError::StaleEpoch { newest, ours }.to_string()))
            }
            Err(error) => {
                for (reply, _) in sealed.replies {
                    let _ = reply.send(Err(format!("the journal could not be written: {error}")));
                }
                self.restart(&error.to_string())
            }
        }
    }

    fn settled(&mut self) {
        self.again_after = Self::AGAIN_AFTER;
        self.intake.journal_trouble(None);
    }

    /// What a failed commit was to hold, and all that was built on it, is void: caches too. Its deliveries are read
    /// again from the journaled positions. Operators are told why until the journal takes something, or nothing is to
    /// do.
    fn restart(&mut self, why: &str) -> Result<(), Fatal> {
        const WAIT_MAX: Duration = Duration::from_secs(5);
        loop {
            let wait = self.again_after;
            warn!(why, "the host begins anew from the journal in {} ms; nothing is lost", wait.as_millis());
            self.intake.journal_trouble(Some(why.to_owned()));
            std::thread::sleep(wait);
            self.again_after = (wait * 2).min(WAIT_MAX);
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.begin_anew()? {
                return Ok(());
            }
        }
    }

    /// From what the journal holds. False: it cannot be read at the moment.
    fn begin_anew(&mut self) -> Result<bool, Fatal> {
        let journal = &self.pipeline.journal;
        let identity = journal.identity();
        if identity.epoch != self.identity.epoch {
            return Err(Fatal::Superseded(format!("the journal's epoch is {}", identity.epoch.0)));
        }
        let begun = journal.positions().and_then(|positions| {
            let published = self.pipeline.stage.published_batch().min(identity.last_batch);
            for (saga, _) in self.pipeline.mailboxes.empty() {
                debug!(%saga, "void");
                self.pipeline.stage.busy(-1);
            }
            self.pipeline.stage.restart(identity.last_batch, published, &positions, self.anchor.clone());
            self.intake.rewind(positions.into_iter().map(|(p, at)| (p, at.next)).collect());
            self.pipeline.resume()
        });
        if let Err(error) = &begun {
            warn!(%error, "failed to read the journal");
        }
        Ok(begun.is_ok())
    }

    /// An operator has a partition read from elsewhere: journaled, then everything begins anew from the journal.
    fn move_position(&mut self, Move { partition, next, reply }: Move) -> Result<(), Fatal> {
        if let Err(error) = self.pipeline.journal.set_position(self.identity.epoch, &partition, next) {
            let _ = reply.send(Err(format!("the journal could not be written: {error}")));
            return Ok(());
        }
        info!(%partition, next, "an operator has it read from there; the host begins anew from the journal");
        if !self.begin_anew()? {
            self.restart("the position of a partition was moved")?;
        }
        self.intake.assign_again(&partition);
        self.pipeline.stage.touch();
        let _ = reply.send(Ok(Answer { done: true, text: format!("{partition} is read from {next}") }));
        Ok(())
    }

    /// While nothing else is written: tells the journal what is published, outside of the numbering.
    fn confirm(&mut self) -> Result<(), Fatal> {
        let published = self.pipeline.stage.published_batch();
        if published > self.confirmed {
            crash::point("before-confirm");
            let confirmed = self.pipeline.journal.confirm(self.identity.epoch, published);
            crash::point("after-confirm");
            match confirmed {
                Ok(()) => self.confirmed = published,
                Err(JournalError::StaleEpoch { newest, ours }) => {
                    return Err(Fatal::Superseded(JournalError::StaleEpoch { newest, ours }.to_string()));
                }
                Err(error) => {
                    warn!(%error, "failed to confirm batch {}", published.0);
                    self.intake.journal_trouble(Some(error.to_string()));
                    return Ok(());
                }
            }
        }
        self.settled();
        Ok(())
    }

    /// Sagas, and closed dead letters, whose retention is over; in small bites. Returns how long to wait for the next
    /// one.
    fn remove_finished(&self) -> Duration {
        const BITE: usize = 200;
        const REST: Duration = Duration::from_secs(10);
        let Pipeline { journal, clock, surroundings, stage, .. } = &*self.pipeline;
        let (epoch, now) = (self.identity.epoch, clock.now());
        let expired = now.before(surroundings.load().topology.bounds.retention);
        let removed = journal
            .remove_finished(epoch, now, BITE)
            .and_then(|sagas| Ok((sagas, journal.remove_closed_letters(epoch, expired, BITE)?)));
        match removed {
            Ok((0, 0)) => REST,
            Ok((sagas, letters)) => {
                debug!(sagas, letters, "removed after their retention");
                stage.forget_removed();
                if sagas.max(letters) < BITE { REST } else { Duration::from_millis(200) }
            }
            Err(error) => {
                warn!(%error, "failed to remove what is past its retention");
                REST
            }
        }
    }
}

/// Publishes batch after batch.
pub struct Publisher {
    pub pipeline: Arc<Pipeline>,
    pub intake: Arc<Intake>,
    pub sink: Box<dyn Sink>,
    pub batches: Receiver<OutboxBatch>,
    pub identity: Identity,
    pub anchor: Partition,
    pub outbox: Arc<Outbox>,
    pub stop: Arc<AtomicBool>,
    pub fatal: Sender<Fatal>,
}

/// What to do after a publication that did not go through.
enum Then {
    Again,
    Published,
    Stop,
}

impl Publisher {
    pub fn run(mut self) {
        loop {
            match self.batches.recv_timeout(Duration::from_millis(200)) {
                Ok(batch) => {
                    if let Err(fatal) = self.publish(batch) {
                        error!(%fatal, "publication stops");
                        let _ = self.fatal.send(fatal);
                        return;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.stop.load(Ordering::Relaxed) && self.batches.is_empty() {
                return;
            }
        }
    }

    /// Until the batch is published, or the host stops.
    pub fn publish(&mut self, mut batch: OutboxBatch) -> Result<(), Fatal> {
        let metadata = Mark {
            journal: self.identity.journal.clone(),
            incarnation: batch.incarnation.clone(),
            batch: batch.number,
        }
        .to_string();
        let offsets: Vec<(Partition, i64)> =
            batch.positions.iter().map(|(partition, position)| (partition.clone(), position.next)).collect();
        let mut fenced_once = false;
        let mut wait = Duration::from_millis(20);
        loop {
            let (rows, records) = sendable(&batch);
            let publication = Publication { records: &records, offsets: &offsets, metadata: &metadata };
            let error = match self.sink.publish(&publication) {
                Ok(()) => return self.published(batch.number),
                Err(error) => error,
            };
            let then = match error {
                PublishError::Refused { index, topic, why } => {
                    let index = rows.get(index).copied().unwrap_or(index);
                    let row = RefusedRow { batch: batch.number, index, topic, why };
                    self.refused(&mut batch, row)
                }
                PublishError::Aborted(why) => {
                    self.say(batch.number, &why);
                    Then::Again
                }
                PublishError::Away(why) | PublishError::Fatal(why) => {
                    self.say(batch.number, &why);
                    self.learn(&batch)?
                }
                PublishError::Fenced(why) if fenced_once => return Err(Fatal::Superseded(why)),
                PublishError::Fenced(why) => {
                    fenced_once = true;
                    warn!(why, "fenced; reading what was published last");
                    self.learn(&batch)?
                }
            };
            match then {
                Then::Published => return self.published(batch.number),
                Then::Stop => return Ok(()),
                Then::Again => {
                    std::thread::sleep(wait);
                    wait = (wait * 2).min(Duration::from_secs(1));
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    fn published(&self, number: BatchNo) -> Result<(), Fatal> {
        self.outbox.wait_for(None);
        self.intake.broker_trouble(None);
        Stats::add(&self.pipeline.stats.publications, 1);
        self.pipeline.stage.published(number);
        debug!(batch = number.0, "published");
        Ok(())
    }

    fn say(&self, number: BatchNo, why: &str) {
        let text = format!("batch {} waits for publication: {why}", number.0);
        warn!("{text}");
        self.intake.broker_trouble(Some(text.clone()));
        self.outbox.wait_for(Some(text));
    }

    /// Whether the batch went through is not known. The committed offsets know.
    fn learn(&mut self, batch: &OutboxBatch) -> Result<Then, Fatal> {
        let anchor = [self.anchor.clone()];
        let mut wait = Duration::from_millis(100);
        loop {
            match self.look_and_claim(&anchor, batch) {
                Ok(Ok(newest)) => {
                    let through = newest.is_some_and(|newest| newest.batch == batch.number);
                    return Ok(if through { Then::Published } else { Then::Again });
                }
                Ok(Err(fatal)) => return Err(fatal),
                Err(error) => {
                    self.say(batch.number, &error.to_string());
                    std::thread::sleep(wait);
                    wait = (wait * 2).min(Duration::from_secs(2));
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Then::Stop);
            }
        }
    }

    /// The newest batch that is published, which is ours. It is looked at before the claim, so that a wrong host
    /// disturbs nobody, and behind it, for another host may have published in between.
    fn look_and_claim(
        &mut self,
        anchor: &[Partition],
        batch: &OutboxBatch,
    ) -> Result<Result<Option<Mark>, Fatal>, TransportError> {
        let marks = read_marks(&mut *self.sink, anchor, Isolation::Uncommitted)?;
        if let Err(fatal) = self.ours(marks, batch)? {
            return Ok(Err(fatal));
        }
        self.sink.claim()?;
        let marks = read_marks(&mut *self.sink, anchor, Isolation::Stable)?;
        self.ours(marks, batch)
    }

    fn ours(&self, marks: Marks, batch: &OutboxBatch) -> Result<Result<Option<Mark>, Fatal>, TransportError> {
        let Some(newest) = marks.newest().cloned() else {
            if self.pipeline.stage.published_batch() == BatchNo(0) {
                return Ok(Ok(None));
            }
            return Ok(Err(Fatal::Unknown(format!(
                "the group's offsets were reset while batch {} was on its way: nobody can know whether it is out. Start \
                 the host again; it says what to look at and how to go on",
                batch.number.0
            ))));
        };
        let journaled = self.pipeline.journal.batch_incarnation(newest.batch);
        let journaled =
            journaled.map_err(|error| TransportError::Broken(format!("failed to read the journal: {error}")))?;
        let ours = newest.journal == self.identity.journal
            && newest.batch <= batch.number
            && journaled.is_none_or(|journaled| journaled == newest.incarnation);
        if ours {
            return Ok(Ok(Some(newest)));
        }
        Ok(Err(Fatal::Superseded(format!("the newest batch at the broker is {newest}"))))
    }

    /// The broker will never take this row: publication halts until an operator decides.
    fn refused(&self, batch: &mut OutboxBatch, row: RefusedRow) -> Then {
        error!(
            batch = row.batch.0, row = row.index, topic = %row.topic, why = row.why,
            "an outbox row was refused; publication halts. `sagahost outbox retry` or `sagahost outbox skip {} {} --reason TEXT`",
            row.batch.0, row.index
        );
        let mut state = self.outbox.state.lock();
        state.refused = Some(row);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Then::Stop;
            }
            match state.decision.take() {
                Some(Decision::Retry) => break,
                Some(Decision::Skip { batch: number, index, reason }) => {
                    if number == batch.number {
                        info!(batch = number.0, row = index, reason, "outbox row skipped");
                        batch.skipped.insert(index, reason);
                    }
                    break;
                }
                None => {
                    self.outbox.changed.wait_for(&mut state, Duration::from_millis(200));
                }
            }
        }
        state.refused = None;
        Then::Again
    }
}

/// The rows that are not skipped, with their indexes in the batch.
fn sendable(batch: &OutboxBatch) -> (Vec<usize>, Cow<'_, [Outgoing]>) {
    if batch.skipped.is_empty() {
        return ((0..batch.records.len()).collect(), Cow::Borrowed(&batch.records));
    }
    let kept = |(index, _): &(usize, &Outgoing)| !batch.skipped.contains_key(index);
    let (rows, records) =
        batch.records.iter().enumerate().filter(kept).map(|(row, record)| (row, record.clone())).unzip();
    (rows, Cow::Owned(records))
}
