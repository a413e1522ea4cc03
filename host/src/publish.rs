//! How a journaled batch becomes public: in one transaction whose offsets name it; and what to do when the broker does
//! not answer, refuses a row, or says that somebody else came. Invariant: a batch is published only when the batch
//! before it is known to be published, and whether one is published is asked, never guessed.

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
use tracing::{debug, error, info, warn};

use crate::{
    commit::Fatal,
    intake::Intake,
    journal::{BatchNo, Identity, OutboxBatch},
    pipeline::Pipeline,
    start::{Mark, Marks, read_marks},
    stats::Stats,
    transport::{Isolation, Outgoing, Partition, Publication, PublishError, Sink, TransportError},
};

/// A publication that takes longer is said to wait: the transport may be in the middle of its own patience.
const SLOW: Duration = Duration::from_secs(2);

/// Who is fenced more often than this within the window is not wanted. One claim of a rival may fence several times: it
/// is repeated while the coordinator ends the transaction that it met, ours.
const FENCED_MAX: usize = 5;
const FENCED_WINDOW: Duration = Duration::from_secs(60);
/// Before the next claim, times the fencings so far: a rival that is superseded finds it out meanwhile, and ends.
const FENCED_PAUSE: Duration = Duration::from_millis(100);

/// Where the publisher stands, for operators; and what it waits for.
#[derive(Default)]
pub struct Outbox {
    state: Mutex<OutboxState>,
    changed: Condvar,
}

#[derive(Default)]
struct OutboxState {
    waiting: Option<String>,
    /// The batch that is being published, and since when.
    under_way: Option<(BatchNo, Instant)>,
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
            None => state.waiting.clone().or_else(|| {
                let (batch, since) = state.under_way?;
                let waited = since.elapsed();
                (waited >= SLOW)
                    .then(|| format!("batch {} waits for publication: no answer for {} s", batch.0, waited.as_secs()))
            }),
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

    fn begins(&self, batch: BatchNo) {
        self.state.lock().under_way = Some((batch, Instant::now()));
    }

    fn published(&self) {
        let mut state = self.state.lock();
        state.under_way = None;
        state.waiting = None;
    }

    fn waits(&self, why: String) {
        self.state.lock().waiting = Some(why);
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
    /// When it was fenced, within the window.
    pub fenced: Vec<Instant>,
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
        let metadata = Mark {
            journal: self.identity.journal.clone(),
            incarnation: batch.incarnation.clone(),
            batch: batch.number,
        }
        .to_string();
        let offsets: Vec<(Partition, i64)> =
            batch.positions.iter().map(|(partition, position)| (partition.clone(), position.next)).collect();
        let mut wait = Duration::from_millis(20);
        self.outbox.begins(batch.number);
        loop {
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
                PublishError::Fenced(why) => {
                    self.fenced.retain(|at| at.elapsed() < FENCED_WINDOW);
                    if self.fenced.len() == FENCED_MAX {
                        return Err(Fatal::Superseded(why));
                    }
                    warn!(why, "fenced; reading what was published last");
                    std::thread::sleep(FENCED_PAUSE * self.fenced.len() as u32);
                    self.fenced.push(Instant::now());
                    self.learn(&batch)?
                }
            };
            match then {
                Then::Published => break,
                Then::Stop => return Ok(false),
                Then::Again => {
                    std::thread::sleep(wait);
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

    fn published(&self, number: BatchNo) {
        self.outbox.published();
        self.intake.broker_trouble(None);
        Stats::add(&self.pipeline.stats.publications, 1);
        self.pipeline.stage.published(number);
        debug!(batch = number.0, "published");
    }

    fn say(&self, number: BatchNo, why: &str) {
        let text = format!("batch {} waits for publication: {why}", number.0);
        warn!("{text}");
        self.intake.broker_trouble(Some(text.clone()));
        self.outbox.waits(text);
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
