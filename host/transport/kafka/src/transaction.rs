//! The transaction that is open on a producer: what was handed over, what is reported of it, and what an error of any of
//! its calls means. Invariant: reports of an earlier transaction are never counted; a failure of records is reported only when
//! nothing of what was sent is under way any more.

use std::{
    sync::Arc,
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
use sagahost_transport::{Progress, SinkError};
use sagahost_wire::{Outgoing, Partition};
use tracing::debug;

use super::{
    SLICE,
    aside::Aside,
    base_record,
    connection::{Connection, Consumer, Served},
    context::Context,
    errors,
    producer::Producer,
    undelivered,
    verdict::{Call, Flag, Verdict, verdict},
};

/// No report for so long: something may have gone wrong that has none.
const QUIET: Duration = Duration::from_millis(150);
/// Without a report for so long, a producer that may be blind to a leader is given up. One that is not has found it by then.
const BLIND_MAX: Duration = Duration::from_secs(3);

pub(super) struct Transaction {
    connection: Arc<Connection>,
    producer: Producer,
    /// Of the app's group.
    consumer: Arc<Consumer>,
    /// Tells its delivery reports from late ones of another.
    round: u32,
    /// Of each record that was handed over, its topic.
    sent: Vec<Arc<str>>,
    reported: usize,
    failures: Vec<(usize, Code)>,
    /// The offsets are on their way.
    asked: Option<Aside<KafkaResult<()>>>,
    /// The brokers are being asked why they did not take a record in time.
    diagnosis: Option<(Code, Flag, Aside<String>)>,
    /// It is aborted, but for reports of what was thrown away.
    aborted: Option<Instant>,
}

impl Transaction {
    pub fn new(connection: Arc<Connection>, producer: Producer, consumer: Arc<Consumer>, round: u32) -> Self {
        Self {
            connection,
            producer,
            consumer,
            round,
            sent: Vec::new(),
            reported: 0,
            failures: Vec::new(),
            asked: None,
            diagnosis: None,
            aborted: None,
        }
    }

    pub fn begin(&mut self) -> Result<(), SinkError> {
        self.context().take_reports();
        let answer = self.producer.begin_transaction();
        match self.answered(Call::Begin, answer)? {
            Progress::Done => Ok(()),
            // No broker is asked for it.
            Progress::NotYet(why) => Err(SinkError::Spent(why)),
        }
    }

    pub fn into_producer(self) -> Producer {
        self.producer
    }

    fn context(&self) -> &Context {
        Served::context(&self.producer)
    }

    pub fn sends_offsets(&self) -> bool {
        self.asked.is_some()
    }

    /// Made in a thread of its own: while the group's coordinator is away librdkafka forgets the timeout of this call
    /// (confluentinc/librdkafka#5456).
    pub fn offsets(&mut self, offsets: &[(Partition, i64)], metadata: &str) -> Result<Progress, SinkError> {
        let asked = match &self.asked {
            Some(asked) => asked,
            None => {
                let asked = self.send_offsets(offsets, metadata)?;
                self.asked.insert(asked)
            }
        };
        let Some(answer) = asked.answer(SLICE) else {
            return Ok(Progress::NotYet("no answer from the coordinator of the group".to_owned()));
        };
        self.asked = None;
        self.answered(Call::Offsets, answer)
    }

    fn send_offsets(&self, offsets: &[(Partition, i64)], metadata: &str) -> Result<Aside<KafkaResult<()>>, SinkError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            let mut element = list.add_partition(&partition.topic, partition.number);
            let set = element.set_offset(Offset::Offset(*offset));
            set.map_err(|error| SinkError::Spent(format!("offset {offset} of {partition}: {error}")))?;
            element.set_metadata(metadata);
        }
        self.consumer.serve(Duration::ZERO);
        let group = self.consumer.group_metadata();
        let group = group.ok_or_else(|| SinkError::Spent("the consumer has no group".to_owned()))?;
        let client = self.producer.client();
        let asked = Aside::start("offsets", move || client.send_offsets_to_transaction(&list, &group, SLICE));
        asked.ok_or_else(|| SinkError::Spent("failed to start a thread for the offsets".to_owned()))
    }

    /// Stops at a full queue, and behind a failure. One that librdkafka refuses at once counts as reported.
    pub fn send(&mut self, records: &[Outgoing]) -> usize {
        for (taken, record) in records.iter().enumerate() {
            if !self.failures.is_empty() {
                return taken;
            }
            let index = self.sent.len();
            let number = (self.round as usize) << 32 | index;
            if let Err((error, _)) = self.producer.send(base_record(record, number)) {
                match errors::code(&error) {
                    Code::QueueFull => return taken,
                    code => {
                        self.failures.push((index, code));
                        self.reported += 1;
                    }
                }
            }
            self.sent.push(record.topic.clone());
        }
        records.len()
    }

    /// Sleeps until the last report is in, or until there is none for a while.
    pub fn poll(&mut self) -> Result<Progress, SinkError> {
        if let Some(told) = self.diagnosed() {
            return told;
        }
        let before = self.reported;
        self.gather();
        if self.reported < self.sent.len() {
            if self.reported > before {
                return Ok(Progress::NotYet(self.trouble()));
            }
            // After a failure librdkafka sends nothing more: what was in flight is answered by now.
            if self.failures.is_empty() {
                return match spoilt(&self.producer) {
                    Some(error) => self.unclear(&error),
                    None if self.context().blind_for().is_some_and(|blind| blind > BLIND_MAX) => Err(SinkError::Spent(
                        "a partition had no leader for a moment; continuing with a new producer".to_owned(),
                    )),
                    None => Ok(Progress::NotYet(self.trouble())),
                };
            }
        }
        if self.failures.is_empty() { Ok(Progress::Done) } else { self.failures() }
    }

    fn gather(&mut self) {
        let wanted = self.sent.len() - self.reported;
        if wanted == 0 {
            return;
        }
        for (number, outcome) in self.context().await_reports(wanted, Instant::now() + QUIET) {
            if number >> 32 != self.round as usize {
                continue;
            }
            self.reported += 1;
            if let Err(code) = outcome {
                self.failures.push((number & 0xffff_ffff, code));
            }
        }
    }

    fn failures(&mut self) -> Result<Progress, SinkError> {
        self.failures.sort_by_key(|(index, _)| *index);
        let refusals: Vec<_> =
            self.failures.iter().filter_map(|(index, code)| Some((*index, *code, errors::refusal(*code)?))).collect();
        if let Some((index, code, why)) = refusals.first() {
            let why = format!("{why} ({code})");
            // The size is that of a request: some of its records may fit.
            let shared = errors::is_size(*code) && refusals.len() > 1;
            return Err(match shared {
                true => SinkError::Unclear { size: true, why },
                false => SinkError::Refused { index: *index, why },
            });
        }
        // Records are thrown away too because of a failure that has no report.
        let spoilt = spoilt(&self.producer);
        let first = self.failures.first().map_or(Code::Unknown, |(_, code)| *code);
        let (code, flag) = spoilt.as_ref().map_or((first, Flag::None), |error| (error.code(), Flag::of(error)));
        if let Some((_, late)) = self.failures.iter().find(|(_, code)| undelivered::is_late(*code)) {
            let topics = self.failures.iter().filter_map(|(index, _)| self.sent.get(*index)).cloned().collect();
            return self.diagnose(code, flag, *late, topics);
        }
        match spoilt {
            Some(error) => self.unclear(&error),
            None => self.produce_failed(code, flag, code.to_string()),
        }
    }

    /// The transaction has failed, and no report says of which record.
    fn unclear(&mut self, error: &RDKafkaError) -> Result<Progress, SinkError> {
        let (code, flag) = (error.code(), Flag::of(error));
        match errors::refusal(code) {
            Some(why) if error.txn_requires_abort() => {
                Err(SinkError::Unclear { size: errors::is_size(code), why: format!("{why} ({code})") })
            }
            _ if undelivered::is_late(code) => self.diagnose(code, flag, code, self.sent.clone()),
            _ => self.produce_failed(code, flag, self.connection.redaction.clean(&error.string())),
        }
    }

    fn diagnose(&mut self, code: Code, flag: Flag, late: Code, topics: Vec<Arc<str>>) -> Result<Progress, SinkError> {
        let (connection, consumer) = (self.connection.clone(), self.consumer.clone());
        let trouble = self.context().last_trouble();
        let ask =
            move || undelivered::reason(&connection, &consumer, trouble, topics.iter().map(|topic| &**topic), late);
        let Some(asked) = Aside::start("undelivered", ask) else {
            return self.produce_failed(code, flag, late.to_string());
        };
        self.diagnosis = Some((code, flag, asked));
        self.diagnosed().unwrap_or_else(|| Ok(Progress::NotYet(self.trouble())))
    }

    fn diagnosed(&mut self) -> Option<Result<Progress, SinkError>> {
        let (code, flag, asked) = self.diagnosis.as_ref()?;
        let (code, flag) = (*code, *flag);
        Some(match asked.answer(SLICE) {
            Some(why) => self.produce_failed(code, flag, why),
            None => Ok(Progress::NotYet(self.trouble())),
        })
    }

    fn produce_failed(&self, code: Code, flag: Flag, why: String) -> Result<Progress, SinkError> {
        match self.means(Call::Produce, code, flag, why) {
            // Librdkafka has repeated it for as long as it may.
            Ok(Progress::NotYet(why)) => Err(SinkError::Spent(why)),
            told => told,
        }
    }

    /// librdkafka continues it after a timeout; the next call asks how far it is.
    pub fn end(&mut self) -> Result<Progress, SinkError> {
        if !self.is_drained() {
            return Ok(Progress::NotYet("the last delivery reports are still being taken".to_owned()));
        }
        let answer = self.producer.commit_transaction(SLICE);
        self.answered(Call::Commit, answer)
    }

    /// The last report is in a moment before its record leaves librdkafka's count. rdkafka flushes before it commits: in that
    /// moment it would sleep for 100 ms, for an event that does not come.
    fn is_drained(&self) -> bool {
        const LOOKS: u32 = 50;
        for _ in 0..LOOKS {
            if self.producer.in_flight_count() == 0 {
                return true;
            }
            thread::sleep(Duration::from_micros(20));
        }
        false
    }

    /// librdkafka waits for reports, which the producer's thread takes meanwhile.
    pub fn abort(&mut self) -> Result<Progress, SinkError> {
        if self.aborted.is_none() {
            let answer = self.producer.abort_transaction(SLICE);
            match self.answered(Call::Abort, answer)? {
                Progress::Done => self.aborted = Some(Instant::now()),
                not_yet @ Progress::NotYet(_) => return Ok(not_yet),
            }
        }
        // Records that were thrown away are reported too, and belong to nobody now.
        let may_wait = self.aborted.is_some_and(|at| at.elapsed() < SLICE);
        if self.producer.in_flight_count() > 0 && may_wait {
            return Ok(Progress::NotYet("records that were thrown away are still to be reported".to_owned()));
        }
        self.context().take_reports();
        Ok(Progress::Done)
    }

    fn answered(&self, call: Call, answer: KafkaResult<()>) -> Result<Progress, SinkError> {
        match answer {
            Ok(()) => Ok(Progress::Done),
            Err(error) => self.failed(call, &error),
        }
    }

    fn failed(&self, call: Call, error: &KafkaError) -> Result<Progress, SinkError> {
        let text = match error {
            KafkaError::Transaction(error) => error.string(),
            error => error.to_string(),
        };
        self.means(call, errors::code(error), flag(error), self.connection.redaction.clean(&text))
    }

    /// What an error means for the transaction.
    fn means(&self, call: Call, code: Code, flag: Flag, why: String) -> Result<Progress, SinkError> {
        debug!(?call, ?code, ?flag, why, "a call of a transaction failed");
        match verdict(call, code, flag) {
            Verdict::Again => Ok(Progress::NotYet(format!("{}: {why}", self.connection.servers))),
            Verdict::AbortAndAgain => Err(SinkError::Spoilt(why)),
            Verdict::LookFirst if errors::is_fenced(code) => Err(SinkError::Fenced(why)),
            Verdict::Stop if errors::is_forbidden(code) => {
                Err(SinkError::Spent(errors::forbidden(&self.connection, "publish", code)))
            }
            Verdict::LookFirst | Verdict::NewProducer | Verdict::Stop => Err(SinkError::Spent(why)),
        }
    }

    fn trouble(&self) -> String {
        let trouble = self.context().last_trouble();
        format!("{}: {}", self.connection.servers, trouble.unwrap_or_else(|| "no answer".to_owned()))
    }
}

fn flag(error: &KafkaError) -> Flag {
    match error {
        KafkaError::Transaction(error) => Flag::of(error),
        _ => Flag::None,
    }
}

/// Has the open transaction failed? A second begin is refused anyhow, and says why.
fn spoilt(producer: &Producer) -> Option<RDKafkaError> {
    match producer.begin_transaction() {
        Err(KafkaError::Transaction(error)) if error.txn_requires_abort() || error.is_fatal() => Some(error),
        _ => None,
    }
}
