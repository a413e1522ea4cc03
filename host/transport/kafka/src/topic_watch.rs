//! Asks again and again which topics are there, without waiting for the answers. Invariant: what an answer verifies was
//! delivered before its question.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::error::KafkaResult;
use sagahost_wire::Partition;

use super::{
    SLICE,
    topic_id::{Descriptions, Questions},
};

/// How often, while nothing is read.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often, while records are read.
const VERIFY_EVERY: Duration = Duration::from_millis(20);

pub(super) struct TopicWatch {
    questions: Questions,
    /// A question is on its way: up to where each partition had been delivered when it was asked.
    asked: Option<Vec<(Partition, i64)>>,
    last: Option<Instant>,
    delivered: bool,
}

/// An answer, and what had been delivered before its question.
pub(super) type Seen = (Descriptions, Vec<(Partition, i64)>);

impl TopicWatch {
    pub fn new(questions: Questions) -> Self {
        Self { questions, asked: None, last: None, delivered: false }
    }

    /// Something was delivered since the last question.
    pub fn delivered(&mut self) {
        self.delivered = true;
    }

    pub fn is_due(&self) -> bool {
        self.due_in() == Some(Duration::ZERO)
    }

    /// None: a question is on its way.
    pub fn due_in(&self) -> Option<Duration> {
        let every = if self.delivered { VERIFY_EVERY } else { LOOK_EVERY };
        let left = self.last.map_or(Duration::ZERO, |last| every.saturating_sub(last.elapsed()));
        self.asked.is_none().then_some(left)
    }

    pub fn ask(&mut self, topics: &BTreeSet<Arc<str>>, delivered: Vec<(Partition, i64)>) {
        self.last = Some(Instant::now());
        self.delivered = false;
        self.asked = Some(delivered);
        self.questions.ask(topics, SLICE);
    }

    /// What is delivered from now on is not what had been: the answer that is on its way verifies nothing.
    pub fn forget(&mut self) {
        if let Some(asked) = &mut self.asked {
            asked.clear();
            self.delivered = true;
        }
    }

    pub fn answer(&mut self) -> Option<KafkaResult<Seen>> {
        self.asked.as_ref()?;
        let answer = self.questions.answer(Duration::ZERO)?;
        let asked = self.asked.take().unwrap_or_default();
        Some(answer.map(|descriptions| (descriptions, asked)))
    }
}
