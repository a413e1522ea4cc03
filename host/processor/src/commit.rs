//! How a batch becomes durable: sealed, journaled in one transaction, handed to the publisher, and confirmed when it
//! is out. Invariant: nothing is answered or published before it is journaled.
//!
//! The publisher (`publish.rs`) is a part of its own: while batch n is on its way out, n+1 is journaled and n+2 executes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use sagahost_journal::{BatchWrite, CommitAnswer, Contended, Identity, Journal, JournalError, OutboxBatch, SagaKey};
use sagahost_saga::{id::SagaId, input::Answer};
use sagahost_wire::{BatchNo, Partition, Position};
use tracing::{debug, info, warn};

use crate::{
    facts::Facts,
    fatal::{Fatal, unless_superseded},
    inbox::Inbox,
    intake::Intake,
    letters_kept::{BITE, LettersKept},
    mailbox::Item,
    outbox::Outbox,
    planted::{self, Planted},
    reply::{Declined, Promise},
    serving::Serving,
    stage::{Due, Move, Sealed, Stage},
    stats::Stats,
    step::{Backoff, Next, Now, Part, Steady, Stop, Wait},
    touch::Touch,
};

/// An idle committer looks after what is due by the clock so often.
const TICK: Duration = Duration::from_millis(500);

/// As the outbox has it.
fn handed(identity: &Identity, write: BatchWrite) -> OutboxBatch {
    OutboxBatch {
        number: write.number,
        incarnation: identity.incarnation.clone(),
        records: write.outbox,
        positions: write.positions,
        skipped: BTreeMap::default(),
        valueless: BTreeMap::default(),
        at: write.at,
    }
}

/// Journals batch after batch.
pub struct Committer {
    pub stage: Arc<Stage>,
    pub inbox: Inbox,
    pub serving: Arc<ArcSwap<Serving>>,
    pub journal: Arc<dyn Journal>,
    pub intake: Arc<Intake>,
    pub outbox: Arc<Outbox>,
    pub stats: Arc<Stats>,
    pub facts: Arc<Facts>,
    pub identity: Identity,
    pub anchor: Option<Partition>,
    pub stop: Stop,
    /// Named moments, for tests that end the process there.
    pub reached: fn(&'static str),
    pub confirmed: BatchNo,
    /// The last batch that the publisher was given.
    pub handed: BatchNo,
    pub touch: Touch,
    pub letters: LettersKept,
    pub state: State,
}

/// Where the committer stands.
pub struct State {
    /// Begin anew from the journal, not before this time.
    again: Option<(Steady, String)>,
    /// Longer each time, until the journal takes something again.
    backoff: Backoff,
    next_look: Steady,
    next_removal: Steady,
    /// A partition that an operator moved, and that is not yet read from there.
    moved: Option<Partition>,
}

impl Default for State {
    fn default() -> Self {
        let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        Self { again: None, backoff, next_look: Steady::default(), next_removal: Steady::default(), moved: None }
    }
}

impl Part for Committer {
    /// Until told to stop, or until another host owns the journal.
    fn step(&mut self, now: Now) -> Next {
        if self.stop.asked() {
            return Next::Ended(Ok(()));
        }
        match self.go_on(now) {
            Ok(next) => next,
            Err(fatal) => Next::Ended(Err(fatal)),
        }
    }
}

impl Committer {
    fn go_on(&mut self, now: Now) -> Result<Next, Fatal> {
        self.touch.look(&self.stage, now);
        let signal = self.stage.stirred.clone();
        let seen = signal.seen();
        let wait = |until| Next::Wait(Wait { signal, seen, until: Some(until) });
        if let Some((at, why)) = self.state.again.take() {
            if now.steady < at {
                self.state.again = Some((at, why));
                return Ok(wait(at));
            }
            match self.begin_anew()? {
                false => self.fail(why, now),
                true => self.state.moved.take().iter().for_each(|partition| self.read_from_there(partition, now)),
            }
            return Ok(Next::Again);
        }
        if now.steady >= self.state.next_removal {
            let rest = self.remove_finished(now);
            self.state.next_removal = now.steady.after(rest);
            return Ok(Next::Again);
        }
        if self.letters.more_came() {
            if let Err(error) = self.remove_letters(now) {
                warn!(%error, "failed to remove dead letters");
            }
            return Ok(Next::Again);
        }
        match self.stage.due(now) {
            Due::Commit(sealed) => self.commit(*sealed, now)?,
            Due::Restart(why) => self.fail(why, now),
            Due::Move(to_move) => self.move_position(to_move, now)?,
            Due::Nothing(due) if now.steady < self.state.next_look => {
                let until = self.state.next_look.min(self.state.next_removal);
                return Ok(wait(due.map_or(until, |due| due.min(until))));
            }
            Due::Nothing(_) => self.confirm(now)?,
        }
        self.state.next_look = now.steady.after(TICK);
        Ok(Next::Again)
    }

    fn commit(&mut self, mut sealed: Sealed, now: Now) -> Result<(), Fatal> {
        self.stage.fill_keys(&mut sealed.write);
        let number = sealed.write.number;
        if planted::on(Planted::PublishBeforeJournal) {
            self.hand_over(handed(&self.identity, sealed.write.clone()));
        }
        (self.reached)("before-journal-commit");
        let committed = self.journal.commit(self.identity.epoch, &sealed.write);
        (self.reached)("after-journal-commit");
        match committed {
            Ok(CommitAnswer::Done(keys)) => self.journaled(sealed, &keys, now),
            Ok(CommitAnswer::Conflict(_)) if planted::on(Planted::IgnoreConflict) => self.journaled(sealed, &[], now),
            Ok(CommitAnswer::Conflict(lost)) => {
                self.conflict(&lost, sealed.replies, now);
                Ok(())
            }
            Ok(CommitAnswer::Unknown(error)) => {
                self.answer_after(&error, number, sealed.replies);
                self.fail(error.to_string(), now);
                Ok(())
            }
            Err(error) => {
                let error = unless_superseded(error)?;
                self.fail(error.to_string(), now);
                decline_all(sealed.replies, &Declined::NotWritten { source: error });
                Ok(())
            }
        }
    }

    fn journaled(&mut self, sealed: Sealed, keys: &[(SagaId, SagaKey)], now: Now) -> Result<(), Fatal> {
        let number = sealed.write.number;
        Stats::add(&self.stats.journal_commits, 1);
        self.letters.journaled(&sealed.write.letters);
        self.stage.journaled(number, keys);
        self.settled(now);
        self.confirmed = self.confirmed.max(sealed.write.confirmed);
        sealed.replies.into_iter().for_each(Promise::keep);
        self.facts.journaled(number, sealed.facts, now);
        for (saga, call) in sealed.settled {
            self.inbox.calls.settled(saga, call);
        }
        for (saga, call) in sealed.launches {
            self.inbox.calls.queue(&saga, &call);
            self.inbox.post(&saga, Item::Launch { call, interrupted: false });
        }
        debug!(batch = number.0, chains = sealed.chains, records = sealed.write.outbox.len(), "journaled");
        if !planted::on(Planted::PublishBeforeJournal) {
            self.hand_over(handed(&self.identity, sealed.write));
        }
        let touched = self.touch.journaled(&*self.journal, self.identity.epoch, now);
        touched.map_err(|error| Fatal::Superseded(error.to_string()))
    }

    /// Somebody else writes to this journal, too. What was built on the old values is built again at once.
    fn conflict(&mut self, lost: &[Contended], replies: Vec<Promise>, now: Now) {
        let why = Contended::text(lost);
        decline_all(replies, &Declined::Conflict { why: why.clone() });
        info!(why, "the host begins anew from the journal; nothing is lost");
        self.state.again = Some((now.steady, why));
    }

    /// Whether the batch is journaled is not known from the answer: the journal is asked.
    fn answer_after(&self, error: &JournalError, number: BatchNo, replies: Vec<Promise>) {
        if replies.is_empty() {
            return;
        }
        match self.journal.reread() {
            Ok(identity) if identity.last_batch >= number => {
                replies.into_iter().for_each(Promise::keep);
            }
            Ok(_) => decline_all(replies, &Declined::NotWritten { source: error.clone() }),
            Err(_) => decline_all(replies, &Declined::Unknown { source: error.clone() }),
        }
    }

    fn hand_over(&mut self, batch: OutboxBatch) {
        self.handed = batch.number;
        self.outbox.hand_over(batch);
    }

    fn settled(&mut self, now: Now) {
        self.state.backoff.reset();
        self.intake.journal_trouble(None, now);
    }

    /// What a failed commit was to hold, and all that was built on it, is void: caches too. Its deliveries are read
    /// again from the journaled positions. Operators are told why until the journal takes something, or nothing is to
    /// do.
    fn fail(&mut self, why: String, now: Now) {
        let pause = self.state.backoff.pause();
        warn!(why, "the host begins anew from the journal in {} ms; nothing is lost", pause.as_millis());
        self.intake.journal_trouble(Some(why.clone()), now);
        self.state.again = Some((now.steady.after(pause), why));
    }

    /// From what the journal holds. False: it cannot be read at the moment.
    fn begin_anew(&mut self) -> Result<bool, Fatal> {
        match self.begin_from_journal() {
            Ok(()) => Ok(true),
            Err(error) => {
                let error = unless_superseded(error)?;
                warn!(%error, "failed to read the journal");
                Ok(false)
            }
        }
    }

    /// A batch that is journaled although its commit reported a failure goes out before any that follows it: the marks
    /// of those would say that it is out.
    fn begin_from_journal(&mut self) -> Result<(), JournalError> {
        let journal = self.journal.clone();
        let identity = journal.reread()?;
        let positions = journal.positions()?;
        let unknown = if planted::on(Planted::IgnoreLies) { identity.last_batch } else { self.handed };
        for batch in journal.outbox(unknown, usize::MAX)? {
            info!(batch = batch.number.0, "journaled after all");
            self.hand_over(batch);
        }
        let void = self.inbox.empty();
        debug!(void, "what waited is void");
        self.stage.restart(identity.last_batch, identity.confirmed, &positions, self.anchor.clone());
        self.intake.rewind(positions.into_iter().map(|(p, at)| (p, at.next)).collect());
        self.facts.began_anew();
        self.inbox.resume(&*journal, false)
    }

    /// An operator has a partition read from elsewhere: journaled, then everything begins anew from the journal.
    fn move_position(&mut self, Move { partition, next, topic_id, reply }: Move, now: Now) -> Result<(), Fatal> {
        let position = Position::new(next, topic_id);
        if let Err(error) = self.journal.set_position(self.identity.epoch, &partition, &position) {
            let error = unless_superseded(error)?;
            reply.declined(Declined::NotWritten { source: error });
            return Ok(());
        }
        info!(%partition, next, "an operator has it read from there; the host begins anew from the journal");
        match self.begin_anew()? {
            true => self.read_from_there(&partition, now),
            false => {
                self.state.moved = Some(partition.clone());
                self.fail("the position of a partition was moved".to_owned(), now);
            }
        }
        reply.done(Answer { done: true, text: format!("{partition} is read from {next}") });
        Ok(())
    }

    fn read_from_there(&self, partition: &Partition, now: Now) {
        self.intake.assign_again(partition);
        self.stage.touch(now);
    }

    /// While nothing else is written: tells the journal what is published, outside of the numbering.
    fn confirm(&mut self, now: Now) -> Result<(), Fatal> {
        let published = self.stage.published_batch();
        if published > self.confirmed {
            (self.reached)("before-confirm");
            let confirmed = self.journal.confirm(self.identity.epoch, published);
            (self.reached)("after-confirm");
            match confirmed {
                Ok(()) => self.confirmed = published,
                Err(error) => {
                    let error = unless_superseded(error)?;
                    warn!(%error, "failed to confirm batch {}", published.0);
                    self.intake.journal_trouble(Some(error.to_string()), now);
                    return Ok(());
                }
            }
        }
        self.settled(now);
        Ok(())
    }

    /// Sagas, and dead letters, whose retention is over; in small bites. Returns how long to wait for the next one.
    fn remove_finished(&mut self, now: Now) -> Duration {
        const REST: Duration = Duration::from_secs(10);
        let sagas = self.journal.remove_finished(self.identity.epoch, now.wall, BITE);
        match sagas.and_then(|sagas| Ok((sagas, self.remove_letters(now)?))) {
            Ok((0, 0)) => REST,
            Ok((sagas, letters)) => {
                debug!(sagas, letters, "removed after their retention");
                self.stage.forget_removed();
                if sagas.max(letters) < BITE { REST } else { Duration::from_millis(200) }
            }
            Err(error) => {
                warn!(%error, "failed to remove what is past its retention");
                REST
            }
        }
    }

    /// Returns how many went.
    fn remove_letters(&mut self, now: Now) -> Result<usize, JournalError> {
        let closed_before = now.wall.before(self.serving.load().topology.bounds.retention);
        let removal = self.letters.remove(&*self.journal, self.identity.epoch, now, closed_before)?;
        let undecodable: u64 = removal.undecodable.iter().map(|removed| removed.letters).sum();
        Ok(removal.closed.max(usize::try_from(undecodable).unwrap_or(usize::MAX)))
    }
}

fn decline_all(replies: Vec<Promise>, why: &Declined) {
    replies.into_iter().for_each(|promise| promise.decline(why.clone()));
}
