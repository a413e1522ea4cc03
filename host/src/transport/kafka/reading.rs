//! One partition that is read: what its next record must be, and whether that record still is what it was.
//! Invariant: what is delivered of a partition only goes forward, until somebody seeks.

use std::time::{Duration, Instant};

use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers as _},
};

use crate::transport::{Assignment, Partition, Record};

/// Reading on up to the position costs less than asking again, up to this many records.
const READ_ON_MAX: i64 = 500;
/// What an answer "there is no such topic" is worth: it is asked again after this.
const DOUBT: Duration = Duration::from_secs(1);

pub(super) struct Reading {
    pub partition: Partition,
    /// The next offset to deliver.
    pub next: i64,
    /// The last record that was handled: if another one stands there now, the topic was made anew.
    expected: Option<(i64, u64)>,
    /// The last one that was delivered.
    last: Option<(i64, u64)>,
    pub paused: bool,
    pub held: bool,
    /// Something is wrong; when to look what it is, and how often that was done.
    pub doubt: Option<(Instant, u8)>,
}

/// What to do with a record that was read.
pub(super) enum Taken {
    Deliver(Record),
    Skip,
    /// Read from the position on: what lies between is not wanted.
    Jump,
    Hold(String),
}

impl Reading {
    pub fn new(assignment: &Assignment) -> Self {
        Self {
            partition: assignment.partition.clone(),
            next: assignment.position,
            expected: assignment.last,
            last: assignment.last,
            paused: false,
            held: false,
            doubt: None,
        }
    }

    pub fn is_open(&self) -> bool {
        !self.paused && !self.held && self.doubt.is_none()
    }

    /// To be checked like an assignment.
    pub fn as_assignment(&self) -> Assignment {
        Assignment { partition: self.partition.clone(), position: self.next, last: self.last }
    }

    /// Goes to `position`; nothing is known of the record before it.
    pub fn seek(&mut self, position: i64) {
        self.next = position;
        self.expected = None;
        self.last = self.last.filter(|(offset, _)| *offset < position);
    }

    /// From the position on once more, with the check that an assignment gets.
    pub fn again(&mut self, assignment: &Assignment) {
        *self = Self { paused: self.paused, ..Self::new(assignment) };
    }

    pub fn doubt(&mut self) {
        let looks = self.doubt.map_or(0, |(_, looks)| looks);
        let due = if looks == 0 { Instant::now() } else { Instant::now() + DOUBT };
        self.doubt = Some((due, looks + 1));
    }

    pub fn take(&mut self, message: &BorrowedMessage<'_>) -> Taken {
        let offset = message.offset();
        let timestamp = message.timestamp().to_millis().and_then(|millis| u64::try_from(millis).ok());
        if let Some((handled, at)) = self.expected
            && offset >= handled
        {
            self.expected = None;
            if offset == handled && timestamp.is_some_and(|timestamp| timestamp != at) {
                return Taken::Hold(made_anew(&self.partition, handled));
            }
            if self.next - offset > READ_ON_MAX {
                return Taken::Jump;
            }
        }
        if offset < self.next {
            return Taken::Skip;
        }
        self.next = offset + 1;
        self.last = timestamp.map(|timestamp| (offset, timestamp)).or(self.last);
        Taken::Deliver(record(&self.partition, message, timestamp))
    }

    /// The end of the partition was reached. An absent record proves nothing.
    pub fn end(&mut self, at: Option<i64>) -> i64 {
        self.expected = None;
        self.next = self.next.max(at.unwrap_or(self.next));
        self.next
    }
}

/// Where to begin reading so that the check of an assignment can be made.
pub(super) fn first_offset(assignment: &Assignment, kept_from: i64) -> i64 {
    assignment
        .last
        .map(|(offset, _)| offset)
        .filter(|offset| (kept_from..assignment.position).contains(offset))
        .unwrap_or(assignment.position)
}

/// Why a partition with these bounds cannot be read from there.
pub(super) fn objection(assignment: &Assignment, (low, end): (i64, i64)) -> Option<String> {
    let Assignment { partition, position, .. } = assignment;
    if *position > end {
        return Some(format!(
            "{partition} ends at {end}, but this app has handled records up to {position}: the topic was made anew, or \
             records were lost. From `earliest` it is read as a topic that is new, from `latest` behind what it holds"
        ));
    }
    if *position < low {
        return Some(format!(
            "the records of {partition} from {position} to {low} were removed before this app read them (retention, or \
             deleted by hand): {} offsets are lost to it. From `earliest` it goes on with what is left; then lengthen \
             retention.ms of the topic",
            low - position
        ));
    }
    None
}

pub(super) fn missing(partition: &Partition) -> String {
    format!(
        "{partition} does not exist any more: the topic was deleted. Make it again; then it is read from `earliest`"
    )
}

pub(super) fn forbidden(partition: &Partition) -> String {
    format!("no permission to READ {partition}: give it to the app's principal")
}

pub(super) fn unreadable(partition: &Partition, next: i64, why: &str) -> String {
    format!(
        "what stands in {partition} at {next} cannot be read ({why}). Repair or remove it on the broker (kafka-delete-records.sh), \
         or go on from the offset behind it"
    )
}

fn made_anew(partition: &Partition, offset: i64) -> String {
    format!(
        "another record than the one handled stands in {partition} at {offset}: the topic was made anew. From `earliest` \
         it is read from its beginning"
    )
}

fn record(partition: &Partition, message: &BorrowedMessage<'_>, timestamp_ms: Option<u64>) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Record {
        partition: partition.clone(),
        offset: message.offset(),
        timestamp_ms,
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}
