//! How a journaled batch becomes public: in one transaction whose offsets name it; and what to do when the broker does
//! not answer, refuses a row, or says that somebody else came. Invariant: a batch is published only when the batch
//! before it is known to be published, and whether one is published is known or asked, never guessed.
//!
//! Known: an attempt that failed before its commit is not out. Asked: the committed offsets, which name the newest
//! batch; where they expired or were reset, the topics themselves; and an operator where even those say nothing.

use std::{sync::Arc, time::Duration};

use sagahost_codec::{copied_letter, without_value};
use sagahost_journal::{Identity, Journal, LeftOut, OutboxBatch};
use sagahost_transport::{Found, Isolation, Sink, TransportError};
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
    transaction::{CommitState, Publication, PublishError, Transaction, Turn},
};

/// A producer on which the same batch is aborted so often in a row is replaced, whatever its errors say.
const ABORTED_MAX: u32 = 5;
/// Who is fenced more often than this within the window is not wanted. One claim of a rival may fence several times: it
/// is repeated while the coordinator ends the transaction that it met, ours.
const FENCED_MAX: usize = 5;
const FENCED_WINDOW: Duration = Duration::from_secs(60);
/// Before the next claim, times the fencings so far: a rival that is superseded finds it out meanwhile, and ends.
const FENCED_PAUSE: Duration = Duration::from_millis(100);
/// A broker that does not answer a claim or a look for less than this is asked again without a word.
const ASK_PATIENCE: Duration = Duration::from_secs(5);
/// Before a search that goes on is looked after again.
const SEARCH_PAUSE: Duration = Duration::from_millis(20);

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
    /// A transaction is open, or about to be: it comes to an end before anything else is done.
    Sending(Box<Attempt>, Box<Sending>),
    /// Sent, and answered.
    Tried(Box<Attempt>, Result<(), PublishError>),
    /// A row is refused: an operator decides.
    Refused(Box<Attempt>),
    /// A new producer is wanted, and an answer to whether the batch went through.
    Recover(Box<Attempt>, CommitState, Ask),
}

/// What a publisher that lost its producer asks next. Whatever fails, it begins again with the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ask {
    /// Is the newest batch ours? Before the claim, so that a wrong host disturbs nobody.
    #[default]
    Newest,
    Claim,
    /// Behind the claim, for another host may have published in between: is the batch out?
    Committed,
    /// The committed offsets say nothing any more.
    Topics,
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
    /// Since when the broker does not answer.
    asked: Option<Steady>,
    /// Nothing is done with it before.
    not_before: Steady,
}

/// What is sent of a batch, and how far that is.
pub struct Sending {
    transaction: Transaction,
    /// Places in the batch of what is sent; none: all of it is.
    rows: Option<(Vec<usize>, Vec<Outgoing>)>,
    offsets: Vec<(Partition, i64)>,
    metadata: String,
}

impl Sending {
    fn new(batch: &OutboxBatch, journal: &str) -> Self {
        let mark = Mark { journal: journal.into(), incarnation: batch.incarnation.clone(), batch: batch.number };
        let offset = |(partition, position): (&Partition, &sagahost_wire::Position)| (partition.clone(), position.next);
        let offsets = batch.positions.iter().map(offset).collect();
        Self { transaction: Transaction::default(), rows: sendable(batch), offsets, metadata: mark.to_string() }
    }
}

impl Attempt {
    const RESEND: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
    const ASK: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

    fn new(batch: OutboxBatch) -> Box<Self> {
        let (resend, ask, not_before) = (Self::RESEND, Self::ASK, Steady::default());
        Box::new(Self { batch, failed: false, aborted: 0, resend, ask, asked: None, not_before })
    }
}

impl State {
    /// The batch that is being published.
    fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Idle => None,
            Self::Try(attempt)
            | Self::Sending(attempt, _)
            | Self::Tried(attempt, _)
            | Self::Refused(attempt)
            | Self::Recover(attempt, ..) => Some(attempt),
        }
    }

    /// It is not out, and no transaction is open.
    fn at_rest(&self) -> bool {
        match self {
            Self::Idle | Self::Sending(..) | Self::Tried(_, Ok(())) => false,
            Self::Try(_) | Self::Tried(_, Err(_)) | Self::Refused(_) | Self::Recover(..) => true,
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
            if self.stop.asked() && attempt.failed && self.state.at_rest() {
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
            State::Try(attempt) => self.try_it(attempt, now),
            State::Sending(attempt, sending) => Ok(self.send(attempt, sending, now)),
            State::Tried(attempt, Ok(())) => Ok(self.published(attempt.batch.number, now)),
            State::Tried(attempt, Err(error)) => self.failed(attempt, error, now),
            State::Refused(attempt) => match self.outbox.decision() {
                Some(decision) => Ok(self.decided(attempt, decision, now)),
                None => {
                    self.state = State::Refused(attempt);
                    return wait(None);
                }
            },
            State::Recover(attempt, commit, ask) => self.recover(attempt, commit, ask, now),
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
        Err(Fatal::Gap { batch: number, last: self.last })
    }

    fn try_it(&mut self, mut attempt: Box<Attempt>, now: Now) -> Result<State, Fatal> {
        if let Err(why) = self.forget_not_out()? {
            self.report(attempt.batch.number, &why, now);
            attempt.failed = true;
            attempt.not_before = now.steady.after(attempt.ask.pause());
            return Ok(State::Try(attempt));
        }
        let sending = Sending::new(&attempt.batch, &self.identity.journal);
        Ok(State::Sending(attempt, Box::new(sending)))
    }

    fn send(&mut self, mut attempt: Box<Attempt>, mut sending: Box<Sending>, now: Now) -> State {
        let Sending { transaction, rows, offsets, metadata } = &mut *sending;
        let records = rows.as_ref().map_or(&attempt.batch.records, |(_, records)| records);
        let turn = transaction.step(&mut *self.sink, &Publication { records, offsets, metadata }, now);
        let sent = match turn {
            Turn::Again => return State::Sending(attempt, sending),
            Turn::Wait(until) => {
                attempt.not_before = until;
                return State::Sending(attempt, sending);
            }
            Turn::Ended(sent) => sent,
        };
        let row = |index: usize| rows.as_ref().map_or(Some(index), |(rows, _)| rows.get(index).copied());
        let sent = sent.map_err(|error| match error {
            PublishError::Refused { index, topic, why } => {
                PublishError::Refused { index: row(index).unwrap_or(index), topic, why }
            }
            other => other,
        });
        if sent.is_ok() {
            debug!(batch = attempt.batch.number.0, records = records.len(), metadata, took = ?transaction.took(now), "sent");
        }
        attempt.ask.reset();
        attempt.asked = None;
        State::Tried(attempt, sent)
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
                Ok(match attempt.aborted.is_multiple_of(ABORTED_MAX) && !planted::on(Planted::KeepProducer) {
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
        Ok(State::Recover(attempt, commit, Ask::Newest))
    }

    fn report(&self, number: BatchNo, why: &str, now: Now) {
        let text = format!("batch {} waits for publication: {why}", number.0);
        warn!("{text}");
        self.intake.broker_trouble(Some(text.clone()), now);
        self.outbox.waits(text);
    }

    fn recover(&mut self, mut attempt: Box<Attempt>, commit: CommitState, ask: Ask, now: Now) -> Result<State, Fatal> {
        match self.ask(&attempt.batch, commit, ask) {
            Ok(Answer::Next(next)) => Ok(State::Recover(attempt, commit, next)),
            Ok(Answer::NotYet) => {
                attempt.not_before = now.steady.after(SEARCH_PAUSE);
                Ok(State::Recover(attempt, commit, ask))
            }
            Ok(Answer::Out) => Ok(State::Tried(attempt, Ok(()))),
            Ok(Answer::NotOut) => Ok(Self::again(attempt, now)),
            Ok(Answer::Stop(fatal)) => Err(fatal),
            Err(error) => {
                let since = *attempt.asked.get_or_insert(now.steady);
                match error {
                    TransportError::Away(why) if now.steady.since(since) < ASK_PATIENCE => {
                        debug!(why, ?ask, "no answer")
                    }
                    error => self.report(attempt.batch.number, &error.to_string(), now),
                }
                attempt.not_before = now.steady.after(attempt.ask.pause());
                Ok(State::Recover(attempt, commit, Ask::Newest))
            }
        }
    }

    /// One question of those that lead to a new producer.
    fn ask(&mut self, batch: &OutboxBatch, commit: CommitState, ask: Ask) -> Result<Answer, TransportError> {
        let anchor = [self.anchor.clone()];
        match ask {
            Ask::Newest => {
                let marks = read_marks(&mut *self.sink, &anchor, Isolation::Uncommitted)?;
                Ok(self.ours(marks, batch)?.map_or_else(Answer::Stop, |_| Answer::Next(Ask::Claim)))
            }
            Ask::Claim => self.sink.claim().map(|()| Answer::Next(Ask::Committed)),
            Ask::Committed => {
                let marks = read_marks(&mut *self.sink, &anchor, Isolation::Stable)?;
                Ok(match self.ours(marks, batch)? {
                    _ if planted::on(Planted::ClaimWithoutLooking) => Answer::NotOut,
                    Err(fatal) => Answer::Stop(fatal),
                    Ok(Some(newest)) if newest.batch == batch.number => Answer::Out,
                    Ok(None) if commit == CommitState::Asked => Answer::Next(Ask::Topics),
                    Ok(Some(_) | None) => Answer::NotOut,
                })
            }
            Ask::Topics => Ok(match search(&mut *self.sink, batch)? {
                None => Answer::NotYet,
                Some(Found::Committed) => Answer::Out,
                Some(Found::Absent) => Answer::NotOut,
                Some(Found::Unclear(why)) => Answer::Stop(Fatal::Unclear { batch: batch.number, why }),
            }),
        }
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
                let index = index ^ usize::from(planted::on(Planted::SkipAnother));
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

/// What was answered.
enum Answer {
    Next(Ask),
    NotYet,
    Out,
    NotOut,
    Stop(Fatal),
}

/// Whether a batch went through, from the topics; for when the committed offsets no longer say. One without records
/// counts as absent: nothing of it can be out twice. None: not yet known, to be asked again.
pub fn search(sink: &mut dyn Sink, batch: &OutboxBatch) -> Result<Option<Found>, TransportError> {
    let sendable = sendable(batch);
    let records = sendable.as_ref().map_or(&batch.records, |(_, records)| records);
    if records.is_empty() {
        return Ok(Some(Found::Absent));
    }
    sink.search(&records.iter().collect::<Vec<_>>(), batch.at.0)
}

/// What is to be sent, with its rows in the batch. None: all of it, as it is.
fn sendable(batch: &OutboxBatch) -> Option<(Vec<usize>, Vec<Outgoing>)> {
    if batch.skipped.is_empty() && batch.valueless.is_empty() {
        return None;
    }
    let kept = |(index, _): &(usize, &Outgoing)| !batch.skipped.contains_key(index);
    let sent = |(row, record): (usize, &Outgoing)| match batch.valueless.contains_key(&row) {
        true => (row, without_value(record)),
        false => (row, record.clone()),
    };
    Some(batch.records.iter().enumerate().filter(kept).map(sent).unzip())
}
