//! What becomes of the partitions that are read when their topics change: grow, are deleted, are recreated. Invariant:
//! what is verified came from the topic that the lane reads, as an answer said that was asked for afterwards.

use std::{collections::BTreeSet, sync::Arc};

use sagahost_transport::{Polled, TransportError, Verified};
use sagahost_wire::{Partition, TopicId};
use tracing::warn;

use super::{
    lane::Lane,
    reading::another_topic,
    source::KafkaSource,
    topic_id::{Described, Descriptions},
    topic_watch::Seen,
};

impl KafkaSource {
    /// Topics may get more partitions, be deleted or recreated.
    pub(super) fn look_around(&mut self) -> Result<(), TransportError> {
        match self.watch().answer() {
            Some(Ok(seen)) => self.seen(seen)?,
            // Not every broker needs to be there: those that are read from may be.
            Some(Err(_)) if self.away.is_none() => {
                if let Err(why) = self.ask_broker() {
                    self.lost(why);
                }
            }
            Some(Err(_)) | None => {}
        }
        if self.away.is_none() && self.watch().is_due() && !self.counts.is_empty() {
            let topics: BTreeSet<_> = self.counts.keys().cloned().collect();
            let delivered = self.lanes.iter().map(|lane| &lane.reading).filter(|reading| reading.is_checked());
            let delivered = delivered.map(|reading| (reading.partition.clone(), reading.next)).collect();
            self.watch().ask(&topics, delivered);
        }
        Ok(())
    }

    fn seen(&mut self, (described, delivered): Seen) -> Result<(), TransportError> {
        let mut appeared = Vec::new();
        for (topic, described) in &described {
            match described {
                Described::Missing => self.doubt_above(topic, 0),
                Described::There { id, partitions } => {
                    self.compare(topic, described)?;
                    self.doubt_above(topic, *partitions);
                    appeared.extend(self.appeared(topic, id.as_ref(), *partitions));
                }
                Described::Hidden | Described::Unclear(_) => {}
            }
        }
        if !appeared.is_empty() {
            self.news.push_back(Polled::Appeared(appeared));
        }
        self.verify(&described, delivered);
        Ok(())
    }

    /// A topic that was recreated is held, unless nothing of the one before was read.
    fn compare(&mut self, topic: &Arc<str>, described: &Described) -> Result<(), TransportError> {
        for index in 0..self.lanes.len() {
            let reading = &mut self.lanes[index].reading;
            if reading.held || reading.partition.topic != *topic || reading.topic_id.as_ref() == described.id() {
                continue;
            }
            if let Some(why) = another_topic(&reading.as_assignment(), described) {
                self.hold(index, why);
            } else if described.id().is_some() {
                reading.topic_id = described.id().cloned();
                reading.verified = None;
                // What was fetched before is of the other topic.
                let next = reading.next;
                self.go_to(&[(index, next)])?;
            }
        }
        Ok(())
    }

    fn doubt_above(&mut self, topic: &Arc<str>, count: i32) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.reading.partition.topic == *topic) {
            if !lane.reading.held && lane.reading.doubt.is_none() && lane.reading.partition.number >= count {
                lane.reading.doubt();
            }
        }
    }

    /// Partitions that are new; those of a topic that is held wait until an operator resumes it.
    fn appeared(&mut self, topic: &Arc<str>, id: Option<&TopicId>, count: i32) -> Vec<Partition> {
        let known = self.counts.get(topic).copied().unwrap_or(0);
        let read = |lane: &Lane| !lane.reading.held && lane.reading.partition.topic == *topic;
        if count <= known || !self.lanes.iter().any(|lane| read(lane) && lane.reading.topic_id.as_ref() == id) {
            return Vec::new();
        }
        self.counts.insert(topic.clone(), count);
        let new = (known..count).map(|number| Partition { topic: topic.clone(), number });
        new.filter(|partition| self.index(partition).is_none()).collect()
    }

    /// What was delivered before the question came from the topic that the answer is about.
    fn verify(&mut self, described: &Descriptions, delivered: Vec<(Partition, i64)>) {
        let mut verified = Vec::new();
        for (partition, up_to) in delivered {
            let Some(index) = self.index(&partition) else { continue };
            let reading = &mut self.lanes[index].reading;
            let Some(topic_id) = reading.topic_id.clone() else { continue };
            let answered = match described.get(&partition.topic) {
                Some(Described::There { id, .. }) => id.as_ref().is_none_or(|id| *id == topic_id),
                // Nobody will ever say: then what is there is the check by offset and time.
                Some(Described::Hidden) => true,
                Some(Described::Missing | Described::Unclear(_)) | None => false,
            };
            if answered && !reading.held && reading.verified.is_none_or(|before| before < up_to) {
                reading.verified = Some(up_to);
                verified.push(Verified { partition, up_to, topic_id });
            }
        }
        if !verified.is_empty() {
            self.news.push_back(Polled::Verified(verified));
        }
    }

    pub(super) fn say_without_ids(&mut self, described: &Descriptions) {
        let without =
            |described: &&Described| matches!(described, Described::There { id: None, .. } | Described::Hidden);
        let topics: Vec<_> =
            described.iter().filter(|(_, described)| without(described)).map(|(topic, _)| topic).collect();
        if !topics.is_empty() && !std::mem::replace(&mut self.no_ids, true) {
            warn!(
                ?topics,
                "the brokers do not say the ids of topics (they are older than Kafka 2.8, or this app has no permission to \
                 DESCRIBE them): a recreated topic is noticed only by offsets and times of its records"
            );
        }
    }
}
