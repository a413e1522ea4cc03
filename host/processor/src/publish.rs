//! How a journaled batch becomes public: in one transaction whose offsets name it; and what to do when the broker does
//! not answer, refuses a row, or says that somebody else came. Invariant: a batch is published only when the batch
//! before it is known to be published, and whether one is published is known or asked, never guessed.
//!
//! Known: an attempt that failed before its commit is not out. Asked: the committed offsets, which name the newest
//! batch; where they expired or were reset, the topics themselves; and an operator where even those say nothing.

use std::{borrow::Cow, sync::Arc, time::Duration};

use sagahost_codec::{copied_letter, without_value};
use sagahost_journal::{Identity, Journal, LeftOut, OutboxBatch};
use sagahost_transport::{CommitState, Found, Isolation, Publication, PublishError, Sink, TransportError};
use sagahost_wire::{BatchNo, Mark, Outgoing, Partition};
use tracing::{debug, error, info, warn};

use crate::{
    facts::Facts,
    fatal::{Fatal, unless_superseded},
    intake::Intake,
    marks::{Marks, read_marks},
    outbox::{Decision, Outbox, RefusedRow},
    planted::{self, Planted},
    stage::Stage,
    stats::Stats,
    step::{Backoff, Next, Now, Part, Steady, Stop, Wait},
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
    pub stage: Arc<Stage>,
    pub intake: Arc<Intake>,
    pub journal: Arc<dyn Journal>,
    pub sink: Box<dyn Sink>,
    pub outbox: Arc<Outbox>,
    pub stats: Arc<Stats>,
    pub facts: Arc<Facts>,
    pub identity: Identity,
    pub anchor: Partition,
    /// What was handed over by then is tried once more.
    pub stop: Stop,
    /// The last batch that is out.
    pub last: BatchNo,
    /// When it was fenced, within the window.
    pub fenced: Vec<Steady>,
    /// The journal says of a batch that it is not out, which no longer holds once it is tried again.
    pub not_out_noted: bool,
    pub state: State,
}

/// Where the publisher stands.
#[derive(Default)]
pub enum State {
    #[default]
    Idle,
    /// To be sent.
    Try(Box<Attempt>),
    /// Sent, and answered.
    Tried(Box<Attempt>, Result<(), PublishError>),
    /// A row is refused: an operator decides.
    Refused(Box<Attempt>),
    /// A new producer is wanted, and an answer to whether the batch went through.
    Recover(Box<Attempt>, CommitState),
}

/// A batch on its way out.
pub struct Attempt {
    batch: OutboxBatch,
    /// It was sent, and did not go through.
    failed: bool,
    /// How often in a row it was aborted.
    aborted: u32,
    /// Before it is sent again.
    resend: Backoff,
    /// Before the broker is asked again.
    ask: Backoff,
    /// Nothing is done with it before.
    not_before: Steady,
}

impl Attempt {
    const RESEND: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
    const ASK: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

    fn new(batch: OutboxBatch) -> Box<Self> {
        let (resend, ask, not_before) = (Self::RESEND, Self::ASK, Steady::default());
        Box::new(Self { batch, failed: false, aborted: 0, resend, ask, not_before })
    }
}

impl State {
    /// The batch that is not out, with what was done about it.
    fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Idle | Self::Tried(_, Ok(())) => None,
            Self::Try(attempt) | Self::Tried(attempt, Err(_)) | Self::Refused(attempt) | Self::Recover(attempt, _) => {
                Some(attempt)
            }
        }
    }
}

impl Part for Publisher {
    fn step(&mut self, now: Now) -> Next {
        let signal = self.outbox.stirred.clone();
        let seen = signal.seen();
        let wait = |until| Next::Wait(Wait { signal, seen, until });
        if let Some(attempt) = self.state.attempt() {
            // The host stops. What comes behind this batch would name offsets that cover it.
            if self.stop.asked() && attempt.failed {
                return Next::Ended(Ok(()));
            }
            if now.steady < attempt.not_before {
                return wait(Some(attempt.not_before));
            }
        }
        let then = match std::mem::take(&mut self.state) {
            State::Idle => match self.outbox.next(now) {
                Some(batch) => self.follows(batch.number).map(|()| State::Try(Attempt::new(batch))),
                None if self.stop.asked() => return Next::Ended(Ok(())),
                None => return wait(None),
            },
            State::Try(attempt) => self.send(attempt, now),
            State::Tried(attempt, Ok(())) => Ok(self.published(attempt.batch.number, now)),
            State::Tried(attempt, Err(error)) => self.failed(attempt, error, now),
            State::Refused(attempt) => match self.outbox.decision() {
                Some(decision) => Ok(self.decided(attempt, decision, now)),
                None => {
                    self.state = State::Refused(attempt);
                    return wait(None);
                }
            },
            State::Recover(attempt, commit) => self.recover(attempt, commit, now),
        };
        match then {
            Ok(state) => self.state = state,
            Err(fatal) => return Next::Ended(Err(fatal)),
        }
        Next::Again
    }
}

impl Publisher {
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

    fn send(&mut self, mut attempt: Box<Attempt>, now: Now) -> Result<State, Fatal> {
        let batch = &attempt.batch;
        if let Err(why) = self.forget_not_out()? {
            self.report(batch.number, &why, now);
            attempt.failed = true;
            attempt.not_before = now.steady.after(attempt.ask.pause());
            return Ok(State::Try(attempt));
        }
        let mark = Mark {
            journal: self.identity.journal.clone(),
            incarnation: batch.incarnation.clone(),
            batch: batch.number,
        };
        let offset = |(partition, position): (&Partition, &sagahost_wire::Position)| (partition.clone(), position.next);
        let offsets: Vec<_> = batch.positions.iter().map(offset).collect();
        let (rows, records) = sendable(batch);
        let metadata = mark.to_string();
        let sent = self.sink.publish(&Publication { records: &records, offsets: &offsets, metadata: &metadata });
        let sent = sent.map_err(|error| match error {
            PublishError::Refused { index, topic, why } => {
                PublishError::Refused { index: rows.get(index).copied().unwrap_or(index), topic, why }
            }
            other => other,
        });
        attempt.ask.reset();
        Ok(State::Tried(attempt, sent))
    }

    fn published(&mut self, number: BatchNo, now: Now) -> State {
        self.last = number;
        self.outbox.published();
        self.intake.broker_trouble(None, now);
        Stats::add(&self.stats.publications, 1);
        self.facts.published(number, now);
        self.stage.published(number);
        debug!(batch = number.0, "published");
        State::Idle
    }

    fn failed(&mut self, mut attempt: Box<Attempt>, error: PublishError, now: Now) -> Result<State, Fatal> {
        let number = attempt.batch.number;
        attempt.failed = true;
        match error {
            PublishError::Refused { index, topic, why } => {
                self.refused(attempt, RefusedRow { batch: number, index, topic, why }, now)
            }
            PublishError::Aborted(why) => {
                self.report(number, &why, now);
                attempt.aborted += 1;
                Ok(match attempt.aborted.is_multiple_of(ABORTED_MAX) {
                    true => self.lost(attempt, CommitState::NotAsked)?,
                    false => Self::again(attempt, now),
                })
            }
            PublishError::Lost { .. } if planted::on(Planted::GuessOut) => Ok(State::Tried(attempt, Ok(()))),
            PublishError::Lost { .. } if planted::on(Planted::GuessNotOut) => Ok(Self::again(attempt, now)),
            PublishError::Lost { commit, why } => {
                self.report(number, &why, now);
                self.lost(attempt, commit)
            }
            PublishError::Fenced { commit, why } => {
                self.fenced.retain(|at| now.steady.since(*at) < FENCED_WINDOW);
                if self.fenced.len() == FENCED_MAX {
                    return Err(Fatal::Superseded(why));
                }
                warn!(why, "fenced; reading what was published last");
                attempt.not_before = now.steady.after(FENCED_PAUSE * self.fenced.len() as u32);
                self.fenced.push(now.steady);
                self.lost(attempt, commit)
            }
        }
    }

    fn again(mut attempt: Box<Attempt>, now: Now) -> State {
        attempt.not_before = now.steady.after(attempt.resend.pause());
        State::Try(attempt)
    }

    /// Where the attempt failed before its commit, a start that finds no mark any more knows it from the journal.
    fn lost(&mut self, attempt: Box<Attempt>, commit: CommitState) -> Result<State, Fatal> {
        let batch = attempt.batch.number;
        if commit == CommitState::NotAsked {
            match self.journal.set_not_out(self.identity.epoch, Some(batch)) {
                Ok(()) => self.not_out_noted = true,
                Err(error) => {
                    let error = unless_superseded(error)?;
                    warn!(batch = batch.0, %error, "failed to journal that the batch is not out");
                }
            }
        }
        Ok(State::Recover(attempt, commit))
    }

    fn report(&self, number: BatchNo, why: &str, now: Now) {
        let text = format!("batch {} waits for publication: {why}", number.0);
        warn!("{text}");
        self.intake.broker_trouble(Some(text.clone()), now);
        self.outbox.waits(text);
    }

    /// A new producer, and an answer to whether the batch went through.
    fn recover(&mut self, mut attempt: Box<Attempt>, commit: CommitState, now: Now) -> Result<State, Fatal> {
        match self.look_and_claim(&attempt.batch, commit) {
            Ok(out) => Ok(if out? { State::Tried(attempt, Ok(())) } else { Self::again(attempt, now) }),
            Err(error) => {
                self.report(attempt.batch.number, &error.to_string(), now);
                attempt.not_before = now.steady.after(attempt.ask.pause());
                Ok(State::Recover(attempt, commit))
            }
        }
    }

    /// Is the batch out? The newest mark is looked at before the claim, so that a wrong host disturbs nobody, and behind
    /// it, for another host may have published in between.
    fn look_and_claim(
        &mut self,
        batch: &OutboxBatch,
        commit: CommitState,
    ) -> Result<Result<bool, Fatal>, TransportError> {
        let anchor = [self.anchor.clone()];
        let marks = read_marks(&mut *self.sink, &anchor, Isolation::Uncommitted)?;
        if let Err(fatal) = self.ours(marks, batch)? {
            return Ok(Err(fatal));
        }
        self.sink.claim()?;
        let marks = read_marks(&mut *self.sink, &anchor, Isolation::Stable)?;
        match self.ours(marks, batch)? {
            _ if planted::on(Planted::ClaimWithoutLooking) => Ok(Ok(false)),
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
        let journaled = self.journal.batch_incarnation(newest.batch);
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

    /// Before the next attempt, for that may go through.
    fn forget_not_out(&mut self) -> Result<Result<(), String>, Fatal> {
        if !self.not_out_noted {
            return Ok(Ok(()));
        }
        match self.journal.set_not_out(self.identity.epoch, None) {
            Ok(()) => {
                self.not_out_noted = false;
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(unless_superseded(error)?.to_string())),
        }
    }

    /// The broker will never take this row. A dead letter's copy gives way, for the journal has the letter; for any
    /// other row publication halts until an operator decides.
    fn refused(&self, attempt: Box<Attempt>, row: RefusedRow, now: Now) -> Result<State, Fatal> {
        let batch = &attempt.batch;
        let copy = batch.records.get(row.index).filter(|record| copied_letter(record).is_some());
        if let Some(copy) = copy {
            let has_value = copy.value.as_ref().is_some_and(|value| !value.is_empty());
            let value_first = has_value && !batch.valueless.contains_key(&row.index);
            return self.leave_out(attempt, row, if value_first { LeftOut::Value } else { LeftOut::Row }, now);
        }
        error!(
            batch = row.batch.0, row = row.index, topic = %row.topic, why = row.why,
            "an outbox row was refused; publication halts. `sagahost outbox retry` or `sagahost outbox skip {} {} --reason TEXT`",
            row.batch.0, row.index
        );
        self.outbox.refuse(row);
        Ok(State::Refused(attempt))
    }

    fn decided(&self, mut attempt: Box<Attempt>, decision: Decision, now: Now) -> State {
        match decision {
            Decision::Skip { batch, index, reason } if batch == attempt.batch.number => {
                info!(batch = batch.0, row = index, reason, "outbox row skipped");
                attempt.batch.skipped.insert(index, reason);
            }
            Decision::Retry if planted::on(Planted::DropRefused) => {
                attempt.batch.skipped.insert(0, String::new());
            }
            Decision::Skip { .. } | Decision::Retry => {}
        }
        Self::again(attempt, now)
    }

    /// Journaled before the rest of the batch is sent.
    fn leave_out(&self, mut attempt: Box<Attempt>, row: RefusedRow, what: LeftOut, now: Now) -> Result<State, Fatal> {
        let (RefusedRow { index, topic, why, .. }, batch) = (row, &mut attempt.batch);
        let letter = batch.records.get(index).and_then(copied_letter).unwrap_or_default();
        match (self.journal.leave_out(self.identity.epoch, batch.number, index, what, &why), what) {
            (Err(error), _) => self.report(batch.number, &unless_superseded(error)?.to_string(), now),
            (Ok(()), LeftOut::Value) => {
                warn!(letter, %topic, why, "a dead letter's copy was refused; it is published without its value");
                batch.valueless.insert(index, why);
            }
            (Ok(()), LeftOut::Row) => {
                warn!(letter, %topic, why, "a dead letter's copy was refused; it is not published, the journal has the letter");
                batch.skipped.insert(index, why);
            }
        }
        Ok(Self::again(attempt, now))
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
