//! A partition that is read, with the queue that its records come through. Invariant: a lane that is closed (paused,
//! held, in doubt) is not looked at, so that nothing of it is lost.

use std::time::Duration;

use rdkafka::{consumer::base_consumer::PartitionQueue, error::KafkaError};

use super::{
    context::Context,
    reading::{Reading, Taken},
};

pub(super) struct Lane {
    pub reading: Reading,
    /// None: it is being replaced.
    pub queue: Option<PartitionQueue<Context>>,
}

/// What came out of the queue.
pub(super) enum Found {
    Taken(Taken),
    End,
    Trouble(KafkaError),
}

impl Lane {
    pub fn look(&mut self) -> Option<Found> {
        if !self.reading.is_open() {
            return None;
        }
        Some(match self.queue.as_ref()?.poll(Duration::ZERO)? {
            Ok(message) => Found::Taken(self.reading.take(&message)),
            Err(KafkaError::PartitionEOF(_)) => Found::End,
            Err(error) => Found::Trouble(error),
        })
    }
}
