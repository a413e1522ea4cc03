//! One transaction: offsets, records, commit; or what became of it. Invariant: it is committed only when every record
//! is known to be delivered; it is left open only where nobody answers.
//!
//! Offsets go first: while the transaction before this one is still being completed, the coordinator turns down the
//! first request of the next, and this one is repeated after 5 ms where a record's is after 20; and from then on there
//! is a transaction that can be aborted, even when no record could be added to it. The commit comes when every
//! delivery report is in: librdkafka waits in steps of 100 ms for anything in flight.

use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer as _,
    error::{KafkaError, KafkaResult, RDKafkaError},
    producer::Producer as _,
    types::RDKafkaErrorCode as Code,
};
use sagahost_transport::{CommitState, Publication, PublishError};
use sagahost_wire::Outgoing;
use tracing::debug;

use super::{
    SLICE, base_record,
    connection::{Connection, Consumer, Served},
    drain::{Drain, Drained},
    errors,
    producer::Producer,
    undelivered,
    verdict::{Call, Flag, Verdict, verdict},
};

const ABORT_PATIENCE: Duration = Duration::from_secs(5);
/// Before the same call again: some are turned down at once while the coordinator is away.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// How long a full queue is waited for at a time.
const FULL_QUEUE_WAIT: Duration = Duration::from_millis(100);

/// How records travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Together,
    /// One after another, so that a refusal is about that one.
    Singly,
}

/// Why nothing of it is visible, or is not known to be.
#[derive(Debug)]
pub(super) enum Failure {
    Known(PublishError),
    /// Aborted: the broker refuses something, and only sending singly will tell what.
    Unclear(Code, String),
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        Self::Known(error)
    }
}

impl Failure {
    pub fn into_error(self) -> PublishError {
        match self {
            Self::Known(error) => error,
            Self::Unclear(_, text) => PublishError::Aborted(text),
        }
    }
}

pub(super) struct Transaction<'a> {
    connection: &'a Connection,
    producer: &'a Producer,
    /// Of the app's group.
    consumer: &'a Consumer,
    /// Tells its delivery reports from late ones of another.
    round: u32,
    way: Way,
    commit: Cell<CommitState>,
}

/// A call that did not come back, or could not be made: only another producer can go on.
struct Unanswered(&'static str);

impl<'a> Transaction<'a> {
    pub fn new(
        connection: &'a Connection,
        producer: &'a Producer,
        consumer: &'a Consumer,
        round: u32,
        way: Way,
    ) -> Self {
        Self { connection, producer, consumer, round, way, commit: Cell::new(CommitState::NotAsked) }
    }

    pub fn publish(&self, publication: &Publication<'_>) -> Result<(), Failure> {
        let started = Instant::now();
        self.connection.reached("before-offsets");
        let with_offsets = self.begin(publication)?;
        self.connection.reached("after-offsets");
        self.connection.reached("before-produce");
        self.send(publication.records)?;
        self.connection.reached("after-produce");
        let drained = started.elapsed();
        self.connection.reached("before-end-of-transaction");
        self.commit()?;
        self.connection.reached("after-end-of-transaction");
        debug!(
            records = publication.records.len(),
            metadata = publication.metadata,
            offsets_us = with_offsets.as_micros(),
            drain_us = (drained - with_offsets).as_micros(),
            commit_us = (started.elapsed() - drained).as_micros(),
            "published"
        );
        Ok(())
    }

    /// As far as the commit, and then back: to learn what is refused.
    pub fn rehearse(&self, publication: &Publication<'_>) -> Result<(), Failure> {
        self.begin(publication)?;
        self.send(publication.records)?;
        Ok(self.abort()?)
    }

    fn begin(&self, publication: &Publication<'_>) -> Result<Duration, PublishError> {
        let started = Instant::now();
        Served::context(self.producer).take_reports();
        self.producer.begin_transaction().map_err(|error| self.failed(Call::Begin, &error))?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in publication.offsets {
            let mut element = list.add_partition(&partition.topic, partition.number);
            let set = element.set_offset(Offset::Offset(*offset));
            set.map_err(|error| self.lost(format!("offset {offset} of {partition}: {error}")))?;
            element.set_metadata(publication.metadata);
        }
        self.consumer.serve(Duration::ZERO);
        let patience = self.connection.delivery_timeout();
        let deadline = Instant::now() + patience;
        self.settle(Call::Offsets, patience, |slice| {
            let group = self.consumer.group_metadata().ok_or(Unanswered("the consumer has no group"))?;
            let left = deadline.saturating_duration_since(Instant::now()).max(slice);
            let sent = self.producer.send_offsets(list.clone(), group, slice, left + SLICE);
            sent.ok_or(Unanswered("no answer from the coordinator of the group"))
        })?;
        Ok(started.elapsed())
    }

    fn commit(&self) -> Result<(), PublishError> {
        self.commit.set(CommitState::Asked);
        // Resumed slice by slice: without a timeout librdkafka waits as long as the coordinator is away.
        self.settle(Call::Commit, self.connection.transaction_timeout, |slice| {
            Ok(self.producer.commit_transaction(slice))
        })
    }

    /// The same call again while that may help.
    fn settle(
        &self,
        call: Call,
        patience: Duration,
        mut attempt: impl FnMut(Duration) -> Result<KafkaResult<()>, Unanswered>,
    ) -> Result<(), PublishError> {
        let deadline = Instant::now() + patience;
        loop {
            let answer = attempt(SLICE).map_err(|Unanswered(why)| self.lost(why.to_owned()))?;
            let Err(error) = answer else {
                return Ok(());
            };
            if judge(call, &error) != Verdict::Again || Instant::now() >= deadline {
                return Err(match self.failed(call, &error) {
                    failed @ PublishError::Aborted(_) => self.back_out(failed),
                    failed => failed,
                });
            }
            debug!(%error, "the same call again");
            thread::sleep(RETRY_PAUSE);
        }
    }

    /// All of them, delivered.
    fn send(&self, records: &[Outgoing]) -> Result<(), Failure> {
        let mut drain = Drain::new(self.producer, self.round);
        let deadline = Instant::now() + self.connection.delivery_timeout() + SLICE;
        for (index, record) in records.iter().enumerate() {
            let number = (self.round as usize) << 32 | index;
            while let Err((error, _)) = self.producer.send(base_record(record, number)) {
                match errors::code(&error) {
                    Code::QueueFull if Instant::now() < deadline => {
                        drain.gather(1, deadline.min(Instant::now() + FULL_QUEUE_WAIT));
                    }
                    Code::QueueFull => return Err(self.lost(self.trouble()).into()),
                    code => {
                        // What was sent before has to be answered before anything is aborted.
                        drain.wait(deadline);
                        return Err(self.blamed(records, index, code));
                    }
                }
            }
            drain.sent += 1;
            if self.way == Way::Singly {
                self.judge(records, index, drain.wait(deadline))?;
            }
        }
        self.judge(records, records.len().saturating_sub(1), drain.wait(deadline))
    }

    /// `last`: the record that was sent last; sent singly, it is the one to blame.
    fn judge(&self, records: &[Outgoing], last: usize, drained: Drained) -> Result<(), Failure> {
        match drained {
            Drained::All => Ok(()),
            Drained::Late => Err(self.lost(self.trouble()).into()),
            Drained::Spoilt(error) => Err(self.unclear(records, last, &error)),
            Drained::Failed(failures) => Err(self.failures(records, last, &failures)),
        }
    }

    fn failures(&self, records: &[Outgoing], last: usize, failures: &[(usize, Code)]) -> Failure {
        let refusals = || failures.iter().filter(|(_, code)| errors::refusal(*code).is_some());
        if let Some((index, code)) = refusals().next() {
            // The size is that of a request: some of its records may fit.
            let shared = errors::is_size(*code) && refusals().count() > 1 && self.way == Way::Together;
            return if shared { self.unclear_code(*code) } else { self.blamed(records, *index, *code) };
        }
        // Records are thrown away too because of a failure that has no report.
        let spoilt = spoilt(self.producer);
        let (code, flag) = match (&spoilt, failures.first()) {
            (Some(error), _) => (error.code(), Flag::of(error)),
            (None, Some((_, code))) => (*code, Flag::None),
            (None, None) => return self.back_out(PublishError::Aborted(self.trouble())).into(),
        };
        if let Some((_, late)) = failures.iter().find(|(_, code)| undelivered::is_late(*code)) {
            let topics = failures.iter().filter_map(|(index, _)| records.get(*index)).map(|record| &*record.topic);
            let why = undelivered::reason(self.connection, self.consumer, self.producer, topics, *late);
            return self.back_out(self.outcome(Call::Produce, code, flag, why)).into();
        }
        match spoilt {
            Some(error) => self.unclear(records, last, &error),
            None => self.back_out(self.outcome(Call::Produce, code, flag, code.to_string())).into(),
        }
    }

    fn unclear(&self, records: &[Outgoing], last: usize, error: &RDKafkaError) -> Failure {
        if errors::refusal(error.code()).is_none() || !error.txn_requires_abort() {
            let why = match undelivered::is_late(error.code()) {
                true => {
                    let topics = records.iter().map(|record| &*record.topic);
                    undelivered::reason(self.connection, self.consumer, self.producer, topics, error.code())
                }
                false => self.connection.redaction.clean(&error.string()),
            };
            return self.back_out(self.outcome(Call::Produce, error.code(), Flag::of(error), why)).into();
        }
        match self.way {
            Way::Singly => self.blamed(records, last, error.code()),
            Way::Together => self.unclear_code(error.code()),
        }
    }

    fn unclear_code(&self, code: Code) -> Failure {
        match self.abort() {
            Ok(()) => Failure::Unclear(code, code.to_string()),
            Err(error) => error.into(),
        }
    }

    fn blamed(&self, records: &[Outgoing], index: usize, code: Code) -> Failure {
        let Some(why) = errors::refusal(code) else {
            return self.back_out(self.outcome(Call::Produce, code, Flag::None, code.to_string())).into();
        };
        let why = format!("{why} ({code})");
        self.back_out(PublishError::Refused { index, topic: records[index].topic.clone(), why }).into()
    }

    /// What to say once everything is taken back. Where even that fails, the producer is spent, and what is known
    /// about a record still is: the next call says that a claim is needed.
    fn back_out(&self, outcome: PublishError) -> PublishError {
        if matches!(outcome, PublishError::Fenced { .. } | PublishError::Lost { .. }) {
            return outcome;
        }
        match (&outcome, self.abort()) {
            (_, Ok(())) | (PublishError::Refused { .. }, Err(PublishError::Lost { .. })) => outcome,
            (PublishError::Aborted(why), Err(PublishError::Lost { commit, .. })) => {
                PublishError::Lost { commit, why: why.clone() }
            }
            (_, Err(error)) => error,
        }
    }

    /// librdkafka waits for reports, which the producer's thread takes meanwhile.
    fn abort(&self) -> Result<(), PublishError> {
        let deadline = Instant::now() + ABORT_PATIENCE;
        self.settle_abort(deadline)?;
        // Records that were thrown away are reported too, and belong to nobody now.
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            thread::sleep(RETRY_PAUSE);
        }
        Served::context(self.producer).take_reports();
        Ok(())
    }

    fn settle_abort(&self, deadline: Instant) -> Result<(), PublishError> {
        loop {
            let Err(error) = self.producer.abort_transaction(SLICE) else {
                return Ok(());
            };
            if judge(Call::Abort, &error) != Verdict::Again || Instant::now() >= deadline {
                return Err(self.failed(Call::Abort, &error));
            }
            thread::sleep(RETRY_PAUSE);
        }
    }

    fn failed(&self, call: Call, error: &KafkaError) -> PublishError {
        let code = errors::code(error);
        let text = match error {
            KafkaError::Transaction(error) => error.string(),
            error => error.to_string(),
        };
        self.outcome(call, code, flag(error), self.connection.redaction.clean(&text))
    }

    /// What the publisher has to do, and what it knows.
    fn outcome(&self, call: Call, code: Code, flag: Flag, why: String) -> PublishError {
        let commit = self.commit.get();
        match verdict(call, code, flag) {
            Verdict::AbortAndAgain => PublishError::Aborted(why),
            Verdict::LookFirst if errors::is_fenced(code) => PublishError::Fenced { commit, why },
            Verdict::LookFirst | Verdict::NewProducer => PublishError::Lost { commit, why },
            Verdict::Stop if errors::is_forbidden(code) => {
                PublishError::Lost { commit, why: errors::forbidden(self.connection, "publish", code) }
            }
            Verdict::Stop => PublishError::Lost { commit, why },
            // It was repeated for as long as it may take.
            Verdict::Again => PublishError::Lost { commit, why: format!("{}: {why}", self.connection.servers) },
        }
    }

    fn lost(&self, why: String) -> PublishError {
        PublishError::Lost { commit: self.commit.get(), why }
    }

    fn trouble(&self) -> String {
        let trouble = Served::context(self.producer).last_trouble();
        format!("{}: {}", self.connection.servers, trouble.unwrap_or_else(|| "no answer".to_owned()))
    }
}

fn flag(error: &KafkaError) -> Flag {
    match error {
        KafkaError::Transaction(error) => Flag::of(error),
        _ => Flag::None,
    }
}

fn judge(call: Call, error: &KafkaError) -> Verdict {
    verdict(call, errors::code(error), flag(error))
}

/// Has the open transaction failed? A second begin is refused anyhow, and says why.
pub(super) fn spoilt(producer: &Producer) -> Option<RDKafkaError> {
    match producer.begin_transaction() {
        Err(KafkaError::Transaction(error)) if error.txn_requires_abort() || error.is_fatal() => Some(error),
        _ => None,
    }
}
