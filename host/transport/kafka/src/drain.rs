//! Delivery reports of one transaction. Invariant: reports of an earlier one are never counted.

use std::time::{Duration, Instant};

use rdkafka::{error::RDKafkaError, types::RDKafkaErrorCode as Code};

use super::{connection::Served, producer::Producer, transaction::spoilt};

/// No report for so long: something may have gone wrong that has none.
const QUIET: Duration = Duration::from_millis(150);

pub(super) struct Drain<'a> {
    producer: &'a Producer,
    round: u32,
    pub sent: usize,
    reported: usize,
    failures: Vec<(usize, Code)>,
}

/// How it stands with what was sent so far.
pub(super) enum Drained {
    All,
    /// Some records failed, by index.
    Failed(Vec<(usize, Code)>),
    /// The transaction itself failed.
    Spoilt(RDKafkaError),
    /// Not all reports came in time.
    Late,
}

impl<'a> Drain<'a> {
    pub fn new(producer: &'a Producer, round: u32) -> Self {
        Self { producer, round, sent: 0, reported: 0, failures: Vec::new() }
    }

    /// Sleeps until so many reports are in, or until the time is over.
    pub fn gather(&mut self, wanted: usize, until: Instant) {
        for (number, outcome) in Served::context(self.producer).await_reports(wanted, until) {
            if number >> 32 != self.round as usize {
                continue;
            }
            self.reported += 1;
            if let Err(code) = outcome {
                self.failures.push((number & 0xffff_ffff, code));
            }
        }
    }

    pub fn wait(&mut self, deadline: Instant) -> Drained {
        while self.reported < self.sent {
            let before = self.reported;
            self.gather(self.sent - self.reported, deadline.min(Instant::now() + QUIET));
            if self.reported == before {
                // After a failure librdkafka sends nothing more: what was in flight is answered by now.
                if !self.failures.is_empty() {
                    break;
                }
                if let Some(error) = spoilt(self.producer) {
                    return Drained::Spoilt(error);
                }
            }
            if Instant::now() > deadline {
                return Drained::Late;
            }
        }
        if self.failures.is_empty() {
            return Drained::All;
        }
        self.failures.sort_by_key(|(index, _)| *index);
        Drained::Failed(std::mem::take(&mut self.failures))
    }
}
