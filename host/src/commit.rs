//! How a batch becomes durable: sealed, journaled in one transaction, handed to the publisher, and confirmed when it
//! is out. Invariant: nothing is answered or published before it is journaled.
//!
//! The publisher (`publish.rs`) is another thread: while batch n is on its way out, n+1 is journaled and n+2 executes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use sagahost_journal::{Identity, JournalError, OutboxBatch};
use sagahost_saga::input::Answer;
use sagahost_wire::{BatchNo, Partition, Position};
use tracing::{debug, error, info, warn};

use crate::{
    admin::protocol::{Refusal, Why},
    crash,
    intake::Intake,
    pipeline::Pipeline,
    stage::{Move, Next, Reply, Sealed},
    stats::Stats,
    touch::Touch,
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

/// The journal has a newer owner: the host ends. Any other error is handed back, for whoever met it to decide.
pub fn unless_superseded(error: JournalError) -> Result<JournalError, Fatal> {
    match error {
        JournalError::StaleEpoch { .. } => Err(Fatal::Superseded(error.to_string())),
        other => Ok(other),
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
    /// The last batch that the publisher was given.
    pub handed: BatchNo,
    /// How long the next new beginning waits: longer each time, until the journal takes something again.
    pub again_after: Duration,
    pub touch: Touch,
}

impl Committer {
    pub const AGAIN_AFTER: Duration = Duration::from_millis(200);

    /// Until told to stop, or until another host owns the journal.
    pub fn run(mut self) {
        let mut next_removal = Instant::now();
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
            self.touch.look(&self.pipeline);
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
                self.hand_over(OutboxBatch {
                    number,
                    incarnation: self.identity.incarnation.clone(),
                    records: sealed.write.outbox,
                    positions: sealed.write.positions,
                    skipped: Default::default(),
                    valueless: Default::default(),
                    at: sealed.write.at,
                });
                let touched = self.touch.journaled(&self.pipeline, self.identity.epoch);
                touched.map_err(|error| Fatal::Superseded(error.to_string()))
            }
            Err(error) => {
                let error = unless_superseded(error)?;
                self.answer_after(&error, number, sealed.replies);
                self.restart(&error.to_string())
            }
        }
    }

    /// A commit that reported a failure may have gone through.
    fn answer_after(&self, error: &JournalError, number: BatchNo, replies: Vec<(Reply, Answer)>) {
        if replies.is_empty() {
            return;
        }
        let refusal = match self.pipeline.journal.reread() {
            Ok(identity) if identity.last_batch >= number => None,
            Ok(_) => Some(format!("failed to write the journal: {error}")),
            Err(_) => Some(format!("failed to write the journal, and whether it was written is not known: {error}")),
        };
        for (reply, answer) in replies {
            let _ = reply.send(match &refusal {
                None => Ok(answer),
                Some(text) => Err(Refusal::new(Why::Journal, text.clone())),
            });
        }
    }

    fn hand_over(&mut self, batch: OutboxBatch) {
        self.handed = batch.number;
        // The publisher lives as long as the host; a send that fails means that the host stops.
        let _ = self.publisher.send(batch);
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
        let journal = self.pipeline.journal.clone();
        let identity = journal.reread()?;
        let positions = journal.positions()?;
        for batch in journal.outbox(self.handed, usize::MAX)? {
            info!(batch = batch.number.0, "journaled after all");
            self.hand_over(batch);
        }
        let published = self.pipeline.stage.published_batch().min(identity.last_batch);
        for (saga, _) in self.pipeline.mailboxes.empty() {
            debug!(%saga, "void");
            self.pipeline.stage.busy(-1);
        }
        self.pipeline.stage.restart(identity.last_batch, published, &positions, self.anchor.clone());
        self.intake.rewind(positions.into_iter().map(|(p, at)| (p, at.next)).collect());
        self.pipeline.resume()
    }

    /// An operator has a partition read from elsewhere: journaled, then everything begins anew from the journal.
    fn move_position(&mut self, Move { partition, next, topic_id, reply }: Move) -> Result<(), Fatal> {
        let position = Position::new(next, topic_id);
        if let Err(error) = self.pipeline.journal.set_position(self.identity.epoch, &partition, &position) {
            let _ = reply.send(Err(Refusal::new(Why::Journal, format!("failed to write the journal: {error}"))));
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
                Err(error) => {
                    let error = unless_superseded(error)?;
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
