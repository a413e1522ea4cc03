//! One transaction: offsets, records, commit; or what became of it. Invariant: it is committed only when every record
//! is known to be delivered; it is left open only where nobody answers.
//!
//! Offsets go first: while the transaction before this one is still being completed, the coordinator turns down the
//! first request of the next, and this one is repeated after 5 ms where a record's is after 20; and from then on there
//! is a transaction that can be aborted, even when no record could be added to it. The commit comes when every
//! delivery report is in: librdkafka waits in steps of 100 ms for anything in flight.

use std::{
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer as _,
    error::{KafkaError, RDKafkaError},
    producer::Producer as _,
    types::RDKafkaErrorCode as Code,
};
use tracing::debug;

use super::{
    SLICE, base_record,
    connection::{Connection, Consumer, Producer, Served},
    drain::{Drain, Drained},
    errors,
};
use crate::{
    crash,
    transport::{Outgoing, Publication, PublishError},
};

const ABORT_PATIENCE: Duration = Duration::from_secs(5);

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
    pub connection: &'a Connection,
    pub producer: &'a Producer,
    /// Of the app's group.
    pub consumer: &'a Consumer,
    /// Tells its delivery reports from late ones of another.
    pub round: u32,
    pub way: Way,
}

impl Transaction<'_> {
    pub fn publish(&self, publication: &Publication<'_>) -> Result<(), Failure> {
        let started = Instant::now();
        crash::point("before-offsets");
        let with_offsets = self.begin(publication)?;
        crash::point("after-offsets");
        crash::point("before-produce");
        self.send(publication.records)?;
        crash::point("after-produce");
        let drained = started.elapsed();
        crash::point("before-end-of-transaction");
        self.commit()?;
        crash::point("after-end-of-transaction");
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
        self.producer.begin_transaction().map_err(|error| self.failed(&error))?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in publication.offsets {
            let mut element = list.add_partition(&partition.topic, partition.number);
            let set = element.set_offset(Offset::Offset(*offset));
            set.map_err(|error| PublishError::Fatal(format!("offset {offset} of {partition}: {error}")))?;
            element.set_metadata(publication.metadata);
        }
        self.consumer.serve(Duration::ZERO);
        let group = self.consumer.group_metadata();
        let group = group.ok_or_else(|| PublishError::Fatal("the consumer has no group".to_owned()))?;
        self.settle(self.connection.delivery_timeout(), |slice| {
            self.producer.send_offsets_to_transaction(&list, &group, slice)
        })?;
        Ok(started.elapsed())
    }

    fn commit(&self) -> Result<(), PublishError> {
        // Resumed slice by slice: without a timeout librdkafka waits as long as the coordinator is away.
        let commit = |slice| self.producer.commit_transaction(slice);
        match self.settle(self.connection.transaction_timeout, commit) {
            // From here on the coordinator may have decided.
            Err(PublishError::Fatal(why)) => Err(PublishError::Away(why)),
            settled => settled,
        }
    }

    /// The same call again while that may help.
    fn settle(
        &self,
        patience: Duration,
        mut call: impl FnMut(Duration) -> Result<(), KafkaError>,
    ) -> Result<(), PublishError> {
        let deadline = Instant::now() + patience;
        loop {
            let Err(error) = call(SLICE) else {
                return Ok(());
            };
            self.producer.poll(Duration::ZERO);
            if let KafkaError::Transaction(error) = &error
                && error.is_retriable()
                && Instant::now() < deadline
            {
                debug!(%error, "the same call again");
                continue;
            }
            return Err(match self.failed(&error) {
                failed @ PublishError::Aborted(_) => self.back_out(failed),
                failed => failed,
            });
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
                    Code::QueueFull if Instant::now() < deadline => drain.serve(),
                    Code::QueueFull => return Err(self.away().into()),
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
            Drained::Late => Err(self.away().into()),
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
        if let Some(error) = spoilt(self.producer) {
            return self.unclear(records, last, &error);
        }
        let late = |(_, code): &(usize, Code)| matches!(code, Code::MessageTimedOut | Code::BrokerTransportFailure);
        let text = failures.first().map_or_else(String::new, |(_, code)| code.to_string());
        let verdict = if failures.iter().all(late) {
            PublishError::Away(format!("{}: {text}", self.connection.servers))
        } else {
            PublishError::Aborted(text)
        };
        self.back_out(verdict).into()
    }

    fn unclear(&self, records: &[Outgoing], last: usize, error: &RDKafkaError) -> Failure {
        let verdict = errors::publication(self.connection, error);
        if errors::refusal(error.code()).is_none() || !error.txn_requires_abort() {
            return self.back_out(verdict).into();
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
            return self.back_out(PublishError::Aborted(code.to_string())).into();
        };
        let why = format!("{why} ({code})");
        self.back_out(PublishError::Refused { index, topic: records[index].topic.clone(), why }).into()
    }

    /// What to say once everything is taken back. Where even that fails, the producer is of no use, and what is known
    /// about a record still is: the next call says that a claim is needed.
    fn back_out(&self, verdict: PublishError) -> PublishError {
        if matches!(verdict, PublishError::Fenced(_) | PublishError::Fatal(_)) {
            return verdict;
        }
        match (&verdict, self.abort()) {
            (_, Ok(())) | (PublishError::Refused { .. }, Err(PublishError::Fatal(_))) => verdict,
            (_, Err(error)) => error,
        }
    }

    fn abort(&self) -> Result<(), PublishError> {
        let started = Instant::now();
        // librdkafka waits for reports, which somebody has to take meanwhile.
        let aborted = thread::scope(|scope| {
            let abort = scope.spawn(|| {
                loop {
                    match self.producer.abort_transaction(SLICE) {
                        Err(KafkaError::Transaction(error))
                            if error.is_retriable() && started.elapsed() < ABORT_PATIENCE => {}
                        ended => return ended,
                    }
                }
            });
            while !abort.is_finished() {
                self.producer.poll(Duration::from_millis(1));
            }
            abort.join()
        });
        let aborted = aborted.map_err(|_| PublishError::Fatal("aborting panicked".to_owned()))?;
        aborted.map_err(|error| match self.failed(&error) {
            // Asked to abort what cannot be aborted.
            PublishError::Aborted(why) => PublishError::Fatal(why),
            failed => failed,
        })?;
        // Records that were thrown away are reported too, and belong to nobody now.
        while self.producer.in_flight_count() > 0 && started.elapsed() < ABORT_PATIENCE {
            self.producer.poll(Duration::from_millis(1));
        }
        Served::context(self.producer).take_reports();
        Ok(())
    }

    fn failed(&self, error: &KafkaError) -> PublishError {
        match error {
            KafkaError::Transaction(error) => errors::publication(self.connection, error),
            error => PublishError::Fatal(self.connection.redaction.clean(&error.to_string())),
        }
    }

    fn away(&self) -> PublishError {
        let trouble = Served::context(self.producer).last_trouble();
        let why = trouble.unwrap_or_else(|| "no answer".to_owned());
        PublishError::Away(format!("{}: {why}", self.connection.servers))
    }
}

/// Has the open transaction failed? A second begin is refused anyhow, and says why.
pub(super) fn spoilt(producer: &Producer) -> Option<RDKafkaError> {
    match producer.begin_transaction() {
        Err(KafkaError::Transaction(error)) if error.txn_requires_abort() || error.is_fatal() => Some(error),
        _ => None,
    }
}
