//! How a journaled batch becomes public: in one transaction whose offsets name it; and what to do when the broker does
//! not answer, refuses a row, or says that somebody else came. Invariant: a batch is published only when the batch
//! before it is known to be published, and whether one is published is known or asked, never guessed.
//!
//! Known: an attempt that failed before its commit is not out. Asked: the committed offsets, which name the newest
//! batch; where they expired or were reset, the topics themselves; and an operator where even those say nothing.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use sagahost_codec::{copied_letter, without_value};
use sagahost_journal::{Identity, LeftOut, OutboxBatch};
use sagahost_transport::{CommitState, Found, Isolation, Publication, PublishError, Sink, TransportError};
use sagahost_wire::{BatchNo, Mark, Outgoing, Partition};
use tracing::{debug, error, info, warn};

use crate::{
    commit::{Fatal, unless_superseded},
    intake::Intake,
    outbox::{Decision, Outbox, RefusedRow},
    pipeline::Pipeline,
    start::{Marks, read_marks},
    stats::Stats,
};

/// A producer on which the same batch is aborted so often in a row is replaced, whatever its errors say.
const ABORTED_MAX: u32 = 5;
/// Who is fenced more often than this within the window is not wanted. One claim of a rival may fence several times: it
/// is repeated while the coordinator ends the transaction that it met, ours.
const FENCED_MAX: usize = 5;
const FENCED_WINDOW: Duration = Duration::from_secs(60);
/// Before the next claim, times the fencings so far: a rival that is superseded finds it out meanwhile, and ends.
const FENCED_PAUSE: Duration = Duration::from_millis(100);

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
    /// The last batch that is out.
    pub last: BatchNo,
    /// When it was fenced, within the window.
    pub fenced: Vec<Instant>,
    /// The journal says of a batch that it is not out, which no longer holds once it is tried again.
    pub not_out_noted: bool,
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
                Ok(batch) => match self.publish(batch) {
                    Ok(true) => {}
                    // The host stops. What comes behind would name an offset that covers this one.
                    Ok(false) => return,
                    Err(fatal) => {
                        error!(%fatal, "publication stops");
                        let _ = self.fatal.send(fatal);
                        return;
                    }
                },
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.stop.load(Ordering::Relaxed) && self.batches.is_empty() {
                return;
            }
        }
    }

    /// Until the batch is published. False: the host stops, and it is not.
    fn publish(&mut self, mut batch: OutboxBatch) -> Result<bool, Fatal> {
        self.follows(batch.number)?;
        let metadata = Mark {
            journal: self.identity.journal.clone(),
            incarnation: batch.incarnation.clone(),
            batch: batch.number,
        }
        .to_string();
        let offsets: Vec<(Partition, i64)> =
            batch.positions.iter().map(|(partition, position)| (partition.clone(), position.next)).collect();
        let mut wait = Duration::from_millis(20);
        let mut aborted = 0;
        self.outbox.begins(batch.number);
        loop {
            if !self.forget_not_out(batch.number)? {
                return Ok(false);
            }
            let (rows, records) = sendable(&batch);
            let publication = Publication { records: &records, offsets: &offsets, metadata: &metadata };
            let error = match self.sink.publish(&publication) {
                Ok(()) => break,
                Err(error) => error,
            };
            let then = match error {
                PublishError::Refused { index, topic, why } => {
                    let index = rows.get(index).copied().unwrap_or(index);
                    let row = RefusedRow { batch: batch.number, index, topic, why };
                    self.refused(&mut batch, row)?
                }
                PublishError::Aborted(why) => {
                    self.report(batch.number, &why);
                    aborted += 1;
                    if aborted % ABORTED_MAX == 0 { self.recover(&batch, CommitState::NotAsked)? } else { Then::Again }
                }
                PublishError::Lost { commit, why } => {
                    self.report(batch.number, &why);
                    self.recover(&batch, commit)?
                }
                PublishError::Fenced { commit, why } => {
                    self.fenced.retain(|at| at.elapsed() < FENCED_WINDOW);
                    if self.fenced.len() == FENCED_MAX {
                        return Err(Fatal::Superseded(why));
                    }
                    warn!(why, "fenced; reading what was published last");
                    thread::sleep(FENCED_PAUSE * self.fenced.len() as u32);
                    self.fenced.push(Instant::now());
                    self.recover(&batch, commit)?
                }
            };
            match then {
                Then::Published => break,
                Then::Stop => return Ok(false),
                Then::Again => {
                    thread::sleep(wait);
                    wait = (wait * 2).min(Duration::from_secs(1));
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
        }
        self.published(batch.number);
        Ok(true)
    }

    /// A batch's mark says that all before it are out.
    fn follows(&self, number: BatchNo) -> Result<(), Fatal> {
        if number.0 == self.last.0 + 1 {
            return Ok(());
        }
        Err(Fatal::Unknown(format!(
            "batch {} was to be published behind batch {}, which would hide those between; nothing is lost, the next \
             start publishes them in order",
            number.0, self.last.0
        )))
    }

    fn published(&mut self, number: BatchNo) {
        self.last = number;
        self.outbox.published();
        self.intake.broker_trouble(None);
        Stats::add(&self.pipeline.stats.publications, 1);
        self.pipeline.stage.published(number);
        debug!(batch = number.0, "published");
    }

    fn report(&self, number: BatchNo, why: &str) {
        let text = format!("batch {} waits for publication: {why}", number.0);
        warn!("{text}");
        self.intake.broker_trouble(Some(text.clone()));
        self.outbox.waits(text);
    }

    /// A new producer, and an answer to whether the batch went through.
    fn recover(&mut self, batch: &OutboxBatch, commit: CommitState) -> Result<Then, Fatal> {
        if commit == CommitState::NotAsked {
            self.note_not_out(batch.number)?;
        }
        let anchor = [self.anchor.clone()];
        let mut wait = Duration::from_millis(100);
        loop {
            match self.look_and_claim(&anchor, batch, commit) {
                Ok(outcome) => return outcome.map(|out| if out { Then::Published } else { Then::Again }),
                Err(error) => {
                    self.report(batch.number, &error.to_string());
                    thread::sleep(wait);
                    wait = (wait * 2).min(Duration::from_secs(2));
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Then::Stop);
            }
        }
    }

    /// Is the batch out? The newest mark is looked at before the claim, so that a wrong host disturbs nobody, and behind
    /// it, for another host may have published in between.
    fn look_and_claim(
        &mut self,
        anchor: &[Partition],
        batch: &OutboxBatch,
        commit: CommitState,
    ) -> Result<Result<bool, Fatal>, TransportError> {
        let marks = read_marks(&mut *self.sink, anchor, Isolation::Uncommitted)?;
        if let Err(fatal) = self.ours(marks, batch)? {
            return Ok(Err(fatal));
        }
        self.sink.claim()?;
        let marks = read_marks(&mut *self.sink, anchor, Isolation::Stable)?;
        match self.ours(marks, batch)? {
            Err(fatal) => Ok(Err(fatal)),
            Ok(Some(newest)) => Ok(Ok(newest.batch == batch.number)),
            Ok(None) if commit == CommitState::NotAsked => Ok(Ok(false)),
            Ok(None) => self.search(batch),
        }
    }

    /// The committed offsets say nothing any more: the topics are asked.
    fn search(&mut self, batch: &OutboxBatch) -> Result<Result<bool, Fatal>, TransportError> {
        Ok(match search(&mut *self.sink, batch)? {
            Found::Committed => Ok(true),
            Found::Absent => Ok(false),
            Found::Unclear(why) => Err(Fatal::Unknown(format!(
                "the group's offsets were reset or expired while batch {} was on its way, and the topics do not say \
                 whether it is out: {why}. Start the host again; it says what to look at and how to go on",
                batch.number.0
            ))),
        })
    }

    fn ours(&self, marks: Marks, batch: &OutboxBatch) -> Result<Result<Option<Mark>, Fatal>, TransportError> {
        let Some(newest) = marks.newest().cloned() else { return Ok(Ok(None)) };
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

    /// The attempt failed before its commit: a start that finds no mark any more knows it from the journal.
    fn note_not_out(&mut self, batch: BatchNo) -> Result<(), Fatal> {
        match self.pipeline.journal.set_not_out(self.identity.epoch, Some(batch)) {
            Ok(()) => self.not_out_noted = true,
            Err(error) => {
                let error = unless_superseded(error)?;
                warn!(batch = batch.0, %error, "failed to journal that the batch is not out");
            }
        }
        Ok(())
    }

    /// Before the next attempt, for that may go through. False: the host stops.
    fn forget_not_out(&mut self, batch: BatchNo) -> Result<bool, Fatal> {
        let mut wait = Duration::from_millis(100);
        while self.not_out_noted {
            match self.pipeline.journal.set_not_out(self.identity.epoch, None) {
                Ok(()) => self.not_out_noted = false,
                Err(error) => {
                    self.report(batch, &unless_superseded(error)?.to_string());
                    thread::sleep(wait);
                    wait = (wait * 2).min(Duration::from_secs(2));
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The broker will never take this row. A dead letter's copy gives way, for the journal has the letter; for any
    /// other row publication halts until an operator decides.
    fn refused(&self, batch: &mut OutboxBatch, row: RefusedRow) -> Result<Then, Fatal> {
        let copy = batch.records.get(row.index).filter(|record| copied_letter(record).is_some());
        if let Some(copy) = copy {
            let has_value = copy.value.as_ref().is_some_and(|value| !value.is_empty());
            let value_first = has_value && !batch.valueless.contains_key(&row.index);
            return self.leave_out(batch, row, if value_first { LeftOut::Value } else { LeftOut::Row });
        }
        error!(
            batch = row.batch.0, row = row.index, topic = %row.topic, why = row.why,
            "an outbox row was refused; publication halts. `sagahost outbox retry` or `sagahost outbox skip {} {} --reason TEXT`",
            row.batch.0, row.index
        );
        match self.outbox.await_decision(row, &self.stop) {
            None => return Ok(Then::Stop),
            Some(Decision::Skip { batch: number, index, reason }) if number == batch.number => {
                info!(batch = number.0, row = index, reason, "outbox row skipped");
                batch.skipped.insert(index, reason);
            }
            Some(Decision::Skip { .. } | Decision::Retry) => {}
        }
        Ok(Then::Again)
    }

    /// Journaled before the rest of the batch is sent.
    fn leave_out(&self, batch: &mut OutboxBatch, row: RefusedRow, what: LeftOut) -> Result<Then, Fatal> {
        let RefusedRow { index, topic, why, .. } = row;
        let letter = batch.records.get(index).and_then(copied_letter).unwrap_or_default();
        match self.pipeline.journal.leave_out(self.identity.epoch, batch.number, index, what, &why) {
            Ok(()) => {}
            Err(error) => {
                self.report(batch.number, &unless_superseded(error)?.to_string());
                return Ok(Then::Again);
            }
        }
        match what {
            LeftOut::Value => {
                warn!(letter, %topic, why, "a dead letter's copy was refused; it is published without its value");
                batch.valueless.insert(index, why);
            }
            LeftOut::Row => {
                warn!(letter, %topic, why, "a dead letter's copy was refused; it is not published, the journal has the letter");
                batch.skipped.insert(index, why);
            }
        }
        Ok(Then::Again)
    }
}

/// Whether a batch went through, from the topics; for when the committed offsets no longer say. One without records
/// counts as absent: nothing of it can be out twice.
pub fn search(sink: &mut dyn Sink, batch: &OutboxBatch) -> Result<Found, TransportError> {
    let (_, records) = sendable(batch);
    if records.is_empty() {
        return Ok(Found::Absent);
    }
    sink.search(&records.iter().collect::<Vec<_>>(), batch.at.0)
}

/// What is to be sent, with its rows in the batch.
fn sendable(batch: &OutboxBatch) -> (Vec<usize>, Cow<'_, [Outgoing]>) {
    if batch.skipped.is_empty() && batch.valueless.is_empty() {
        return ((0..batch.records.len()).collect(), Cow::Borrowed(&batch.records));
    }
    let kept = |(index, _): &(usize, &Outgoing)| !batch.skipped.contains_key(index);
    let sent = |(row, record): (usize, &Outgoing)| match batch.valueless.contains_key(&row) {
        true => (row, without_value(record)),
        false => (row, record.clone()),
    };
    let (rows, records) = batch.records.iter().enumerate().filter(kept).map(sent).unzip();
    (rows, Cow::Owned(records))
}
