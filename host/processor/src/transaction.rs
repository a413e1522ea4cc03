//! One publication as one transaction of the sink: offsets, records, their delivery, the end; or what became of it, with
//! everything taken back. Invariant: it is ended only when every record is known to be delivered; it is left open only
//! where the producer is lost.
//!
//! Offsets go first: from then on there is a transaction that can be aborted, even when no record could be added to it;
//! and a coordinator that is still completing the transaction before turns this request down for a shorter time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use sagahost_transport::{Progress, REPORTED_WITHIN, Sink, SinkError};
use sagahost_wire::{Outgoing, Partition};
use tracing::{debug, warn};

use crate::step::{Backoff, Now, Steady};

/// Before the same call again: some are turned down at once while the coordinator is away.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(100));
const ABORT_PATIENCE: Duration = Duration::from_secs(5);
/// What was refused left a gap in the numbers of the producer, which may cost one more attempt.
const SINGLY_MAX: u32 = 3;

/// One batch on its way out.
#[derive(Clone, Debug)]
pub struct Publication<'a> {
    pub records: &'a [Outgoing],
    /// Next offsets to read. Never empty: the anchor at least.
    pub offsets: &'a [(Partition, i64)],
    /// Of every offset of this publication: `journal/incarnation/batch`.
    pub metadata: &'a str,
}

/// How far a publication that failed had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitState {
    /// Nothing of it is visible, and nothing ever will be.
    NotAsked,
    /// It may have been committed: only the committed offsets know.
    Asked,
}

/// How a publication failed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker will never take this record as it is (too large, no permission, topic gone). Aborted.
    #[error("record {index} for topic {topic} was refused: {why}")]
    Refused { index: usize, topic: Arc<str>, why: String },
    /// Aborted; the same publication may be tried again at once.
    #[error("the publication was aborted: {0}")]
    Aborted(String),
    /// The producer is spent, or the broker cannot be reached. A claim makes a new one.
    #[error("{why}")]
    Lost { commit: CommitState, why: String },
    /// Somebody else claimed the app's transactional id, or the client's own transaction timed out: claim nothing,
    /// read the committed offsets first.
    #[error("fenced by another producer with the same transactional id: {why}")]
    Fenced { commit: CommitState, why: String },
}

/// What follows a step.
#[derive(Debug)]
pub enum Turn {
    Again,
    /// Nothing is done before this time.
    Wait(Steady),
    Ended(Result<(), PublishError>),
}

/// How records travel.
#[derive(Clone, Debug)]
enum Way {
    Together,
    /// One after another, so that a refusal is about that one; so many attempts are left.
    Singly(u32),
    /// Only the first one for each topic, and then back: to learn which topic is refused. `why`: what is known so far.
    Rehearsal {
        rows: Vec<usize>,
        why: String,
    },
}

/// The call that comes next.
#[derive(Debug)]
enum At {
    Begin,
    Offsets,
    /// So many are sent.
    Send(usize),
    Poll(usize),
    End,
    Abort(Behind),
}

/// What comes behind an abort.
#[derive(Debug)]
enum Behind {
    Failure(PublishError),
    Attempt(Way),
}

/// A publication under way.
#[derive(Debug)]
pub struct Transaction {
    way: Way,
    at: At,
    commit: CommitState,
    /// Since when the call that comes next is being repeated.
    since: Option<Steady>,
    again: Backoff,
    began: Option<Steady>,
    /// When offsets were in, and when all records were delivered.
    reached: [Option<Steady>; 2],
}

impl Default for Transaction {
    fn default() -> Self {
        Self::new(Way::Together)
    }
}

impl Transaction {
    fn new(way: Way) -> Self {
        Self {
            way,
            at: At::Begin,
            commit: CommitState::NotAsked,
            since: None,
            again: AGAIN,
            began: None,
            reached: [None; 2],
        }
    }

    /// One call of the sink, which is the last that this does: what follows from it is given the time anew.
    pub fn step(&mut self, sink: &mut dyn Sink, publication: &Publication<'_>, now: Now) -> Turn {
        let since = *self.since.get_or_insert(now.steady);
        self.note_time(now);
        match self.call(sink, publication) {
            Ok(Progress::Done) => self.done(publication),
            Ok(Progress::NotYet(why)) if now.steady.since(since) < self.patience(sink) => {
                debug!(why, "the same call again");
                Turn::Wait(now.steady.after(self.again.pause()))
            }
            Ok(Progress::NotYet(why)) => self.failed(SinkError::Spent(why), publication),
            Err(error) => self.failed(error, publication),
        }
    }

    fn call(&mut self, sink: &mut dyn Sink, publication: &Publication<'_>) -> Result<Progress, SinkError> {
        match &mut self.at {
            At::Begin => sink.begin().map(|()| Progress::Done),
            At::Offsets => sink.offsets(publication.offsets, publication.metadata),
            At::Send(sent) => {
                let next = match &self.way {
                    Way::Together => &publication.records[*sent..],
                    Way::Singly(_) => &publication.records[*sent..=*sent],
                    Way::Rehearsal { rows, .. } => &publication.records[rows[*sent]..=rows[*sent]],
                };
                *sent += sink.send(next)?;
                Ok(Progress::Done)
            }
            At::Poll(_) => sink.poll(),
            At::End => {
                self.commit = CommitState::Asked;
                sink.end()
            }
            At::Abort(_) => sink.abort(),
        }
    }

    fn patience(&self, sink: &dyn Sink) -> Duration {
        match self.at {
            At::Begin | At::Offsets => sink.patience().delivery,
            // The client knows by then that a record was not delivered, and says why.
            At::Send(_) | At::Poll(_) => sink.patience().delivery + REPORTED_WITHIN,
            At::End => sink.patience().end,
            At::Abort(_) => ABORT_PATIENCE,
        }
    }

    fn go(&mut self, at: At) -> Turn {
        // The time for records runs from the first one on.
        if !matches!((&self.at, &at), (At::Send(_), At::Poll(_)) | (At::Poll(_), At::Send(_))) {
            self.since = None;
        }
        self.again.reset();
        self.at = at;
        Turn::Again
    }

    /// Records that are to be sent.
    fn wanted(&self, publication: &Publication<'_>) -> usize {
        match &self.way {
            Way::Together | Way::Singly(_) => publication.records.len(),
            Way::Rehearsal { rows, .. } => rows.len(),
        }
    }

    fn done(&mut self, publication: &Publication<'_>) -> Turn {
        match std::mem::replace(&mut self.at, At::Begin) {
            At::Begin => self.go(At::Offsets),
            At::Offsets => self.records(0, publication),
            At::Send(sent) => {
                self.at = At::Send(sent);
                self.go(At::Poll(sent))
            }
            At::Poll(sent) => {
                self.at = At::Poll(sent);
                self.records(sent, publication)
            }
            At::End => Turn::Ended(Ok(())),
            At::Abort(Behind::Failure(error)) => Turn::Ended(Err(error)),
            At::Abort(Behind::Attempt(way)) => {
                *self = Self { began: self.began, ..Self::new(way) };
                Turn::Again
            }
        }
    }

    fn records(&mut self, sent: usize, publication: &Publication<'_>) -> Turn {
        match &self.way {
            _ if sent < self.wanted(publication) => self.go(At::Send(sent)),
            Way::Together | Way::Singly(_) => self.go(At::End),
            // Nothing was refused after all.
            Way::Rehearsal { why, .. } => {
                let why = why.clone();
                self.go(At::Abort(Behind::Failure(PublishError::Aborted(why))))
            }
        }
    }

    fn failed(&mut self, error: SinkError, publication: &Publication<'_>) -> Turn {
        let commit = self.commit;
        let sent = match std::mem::replace(&mut self.at, At::Begin) {
            At::Abort(behind) => return Turn::Ended(Err(self.not_taken_back(behind, error))),
            At::Send(sent) | At::Poll(sent) => sent,
            At::Begin | At::Offsets | At::End => 0,
        };
        match error {
            SinkError::Fenced(why) => Turn::Ended(Err(PublishError::Fenced { commit, why })),
            SinkError::Spent(why) => Turn::Ended(Err(PublishError::Lost { commit, why })),
            SinkError::Spoilt(why) => self.spoilt(why),
            SinkError::Refused { index, why } => self.refused(index, why, publication),
            SinkError::Unclear { size, why } => match self.way {
                Way::Together => self.clarify(size, why, publication),
                Way::Singly(_) | Way::Rehearsal { .. } => self.refused(sent.saturating_sub(1), why, publication),
            },
        }
    }

    fn spoilt(&mut self, why: String) -> Turn {
        let behind = match &self.way {
            Way::Singly(left) if *left > 0 => Behind::Attempt(Way::Singly(left - 1)),
            Way::Together | Way::Singly(_) => Behind::Failure(PublishError::Aborted(why)),
            Way::Rehearsal { why, .. } => Behind::Failure(PublishError::Aborted(why.clone())),
        };
        self.go(At::Abort(behind))
    }

    fn refused(&mut self, index: usize, why: String, publication: &Publication<'_>) -> Turn {
        let index = match &self.way {
            Way::Together | Way::Singly(_) => index,
            Way::Rehearsal { rows, .. } => rows.get(index).copied().unwrap_or(index),
        };
        let topic = publication.records.get(index).map_or_else(|| "".into(), |record| record.topic.clone());
        self.go(At::Abort(Behind::Failure(PublishError::Refused { index, topic, why })))
    }

    /// The broker refuses something and does not say what: it is asked record by record.
    fn clarify(&mut self, size: bool, why: String, publication: &Publication<'_>) -> Turn {
        if size {
            warn!(
                "a request was too large for the broker; sending its records one by one. If this repeats, lower batch.size \
                 in [kafka.properties] to the broker's message.max.bytes"
            );
            return self.go(At::Abort(Behind::Attempt(Way::Singly(SINGLY_MAX - 1))));
        }
        let mut topics = BTreeSet::new();
        let firsts = publication.records.iter().enumerate().filter(|(_, record)| topics.insert(&record.topic));
        let rows = firsts.map(|(index, _)| index).collect();
        self.go(At::Abort(Behind::Attempt(Way::Rehearsal { rows, why })))
    }

    /// Even the abort failed, so the producer is spent. What is known about a record still is: the next transaction says
    /// that a claim is needed.
    fn not_taken_back(&self, behind: Behind, error: SinkError) -> PublishError {
        let commit = self.commit;
        match (behind, error) {
            (Behind::Failure(refused @ PublishError::Refused { .. }), SinkError::Spent(_)) => refused,
            (Behind::Failure(PublishError::Aborted(why)), SinkError::Spent(_)) => PublishError::Lost { commit, why },
            (_, SinkError::Spent(why)) => PublishError::Lost { commit, why },
            (_, SinkError::Fenced(why)) => PublishError::Fenced { commit, why },
            (Behind::Failure(known), _) => known,
            (Behind::Attempt(_), error) => PublishError::Aborted(error.to_string()),
        }
    }

    fn note_time(&mut self, now: Now) {
        match self.at {
            At::Begin => _ = self.began.get_or_insert(now.steady),
            At::Send(_) => _ = self.reached[0].get_or_insert(now.steady),
            At::End => _ = self.reached[1].get_or_insert(now.steady),
            At::Offsets | At::Poll(_) | At::Abort(_) => {}
        }
    }

    /// For whoever asks why it takes so long.
    pub fn took(&self, now: Now) -> Took {
        let began = self.began.unwrap_or(now.steady);
        let drained = self.reached[1].unwrap_or(began);
        let sending = self.reached[0].unwrap_or(drained);
        Took { offsets: sending.since(began), drain: drained.since(sending), commit: now.steady.since(drained) }
    }
}

/// Where the time of a transaction went.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    pub offsets: Duration,
    pub drain: Duration,
    pub commit: Duration,
}
