//! One partition that is read: what its next record must be, and whether that record still is what it was.
//! Invariant: what is delivered of a partition only goes forward, until it seeks.

use std::time::{Duration, Instant};

use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers as _},
};
use sagahost_transport::Assignment;
use sagahost_wire::{Partition, Record, TopicId};

use super::topic_id::Described;

/// Reading on up to the position costs less than asking again, up to this many records.
const READ_ON_MAX: i64 = 500;
/// What an answer "there is no such topic" is worth: it is asked again after this.
const DOUBT: Duration = Duration::from_secs(1);

pub(super) struct Reading {
    pub partition: Partition,
    /// The next offset to deliver.
    pub next: i64,
    /// The last record that was handled: if another one is there now, the topic was recreated.
    expected: Option<(i64, u64)>,
    /// The last one that was delivered.
    last: Option<(i64, u64)>,
    /// The topic that is read; none: it has no id.
    pub topic_id: Option<TopicId>,
    /// Up to where it was last said that the records came from that topic.
    pub verified: Option<i64>,
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
    /// `seen`: the topic that has the name now.
    pub fn new(assignment: &Assignment, seen: Option<&TopicId>) -> Self {
        let known = assignment.topic_id.as_ref().filter(|_| assignment.position > 0);
        Self {
            partition: assignment.partition.clone(),
            next: assignment.position,
            expected: assignment.last,
            last: assignment.last,
            topic_id: known.or(seen).or(assignment.topic_id.as_ref()).cloned(),
            verified: None,
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
        let topic_id = self.topic_id.clone();
        Assignment { partition: self.partition.clone(), position: self.next, last: self.last, topic_id }
    }

    /// Goes to `position`; nothing is known of the record before it.
    pub fn seek(&mut self, position: i64) {
        self.next = position;
        self.expected = None;
        self.last = self.last.filter(|(offset, _)| *offset < position);
        self.verified = self.verified.map(|up_to| up_to.min(position));
    }

    /// From the position on once more, with the check that an assignment gets.
    pub fn again(&mut self, assignment: &Assignment, seen: Option<&TopicId>) {
        *self = Self { paused: self.paused, ..Self::new(assignment, seen) };
    }

    /// Is it certain that the record handled last is one of this topic? Before that its id says nothing of the
    /// position.
    pub fn is_checked(&self) -> bool {
        self.expected.is_none()
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

/// Why a partition of this topic cannot be read from there. From the beginning any topic can be read.
pub(super) fn another_topic(assignment: &Assignment, described: &Described) -> Option<String> {
    let Assignment { partition, position, topic_id, .. } = assignment;
    let (was, is) = topic_id.as_ref().zip(described.id()).filter(|(was, is)| was != is && *position > 0)?;
    let gone = match described {
        Described::There { partitions, .. } if partition.number >= *partitions => {
            format!("; it has only {partitions} partitions now, and this one is held until the next start")
        }
        _ => ". From `earliest` it is read from its beginning".to_owned(),
    };
    Some(format!(
        "{partition} belongs to another topic than the one that this app has read up to {position}: the topic was \
         recreated (its id was {was}, now it is {is}){gone}"
    ))
}

/// Why a partition with these bounds cannot be read from there.
pub(super) fn objection(assignment: &Assignment, (low, end): (i64, i64)) -> Option<String> {
    let Assignment { partition, position, .. } = assignment;
    if *position > end {
        return Some(format!(
            "{partition} ends at {end}, but this app has handled records up to {position}: the topic was recreated, or \
             records were lost. From `earliest` it is read as a topic that is new, from `latest` behind what it holds"
        ));
    }
    if *position < low {
        return Some(format!(
            "the records of {partition} from {position} to {low} were removed before this app read them (retention, or \
             deleted by hand): {} offsets are lost to it. Resume from `earliest` to read what is left; then lengthen \
             retention.ms of the topic",
            low - position
        ));
    }
    None
}

pub(super) fn missing(partition: &Partition) -> String {
    format!(
        "{partition} does not exist any more: the topic was deleted. Create it again; then it is read from `earliest`"
    )
}

pub(super) fn forbidden(partition: &Partition) -> String {
    format!("no permission to READ {partition}: grant it to the app's principal")
}

pub(super) fn unreadable(partition: &Partition, next: i64, why: &str) -> String {
    format!(
        "the record in {partition} at {next} cannot be read ({why}). Repair or remove it on the broker (kafka-delete-records.sh), \
         or resume from the offset after it"
    )
}

fn made_anew(partition: &Partition, offset: i64) -> String {
    format!(
        "{partition} holds another record at {offset} than the one handled: the topic was recreated. From `earliest` \
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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TopicId {
        TopicId(text.into())
    }

    fn assignment(position: i64, topic_id: Option<&str>) -> Assignment {
        Assignment { topic_id: topic_id.map(id), ..Assignment::new(Partition::new("orders", 2), position) }
    }

    fn described(topic_id: Option<&str>, partitions: i32) -> Described {
        Described::There { id: topic_id.map(id), partitions }
    }

    #[test]
    fn another_topic_is_told_by_its_id_and_by_nothing_else() {
        let told = |position, was, is| another_topic(&assignment(position, was), &described(is, 4));
        let why = told(7, Some("a"), Some("b")).expect("another topic");
        assert!(why.contains("orders[2]") && why.contains("(its id was a, now it is b). From `earliest`"), "{why}");
        assert_eq!(told(7, Some("a"), Some("a")), None);
        assert_eq!(told(0, Some("a"), Some("b")), None, "nothing of the topic before was read");
        assert_eq!(told(7, None, Some("b")), None, "an older host journaled it");
        assert_eq!(told(7, Some("a"), None), None, "an older broker");
        for unknown in [Described::Missing, Described::Hidden] {
            assert_eq!(another_topic(&assignment(7, Some("a")), &unknown), None);
        }
        let why = another_topic(&assignment(7, Some("a")), &described(Some("b"), 2)).expect("another topic");
        assert!(why.contains("only 2 partitions"), "{why}");
    }

    #[test]
    fn a_partition_keeps_the_topic_that_its_position_belongs_to() {
        let read = |position, was, is: Option<&str>| {
            Reading::new(&assignment(position, was), is.map(id).as_ref()).topic_id.map(|id| id.to_string())
        };
        assert_eq!(read(7, Some("a"), Some("b")).as_deref(), Some("a"));
        assert_eq!(read(0, Some("a"), Some("b")).as_deref(), Some("b"));
        assert_eq!(read(7, None, Some("b")).as_deref(), Some("b"));
        assert_eq!(read(7, Some("a"), None).as_deref(), Some("a"));
    }

    #[test]
    fn what_is_verified_goes_back_with_a_seek() {
        let mut reading = Reading::new(&assignment(7, Some("a")), None);
        reading.verified = Some(7);
        reading.seek(3);
        assert_eq!(reading.verified, Some(3));
    }
}
