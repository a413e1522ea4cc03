//! Ends of orders, as any consumer of the topics reads them. Invariant: each record is read once, from the beginning on.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use sagahost_transport::{Assignment, Polled, Transport, waiting::Waiting};
use sagahost_wire::Partition;

use crate::workload::Ends;

/// Reads the ends of orders, as a consumer of the topics.
pub struct Watch(Waiting);

impl Watch {
    /// When a host has made the topics, which it does when it starts. `alive`: fails where that host has ended.
    ///
    /// # Errors
    /// They are not made within a minute, or cannot be read.
    pub fn begin(transport: &dyn Transport, mut alive: impl FnMut() -> Result<()>) -> Result<Self> {
        let wanted: Vec<Arc<str>> = ["order-created", "order-completed", "order-cancelled"].map(Arc::from).to_vec();
        let end = Instant::now() + Duration::from_secs(60);
        while transport.topics(&wanted)?.len() < wanted.len() {
            alive()?;
            ensure!(Instant::now() < end, "the host made no topics within a minute");
            thread::sleep(Duration::from_millis(50));
        }
        let topics: Vec<Arc<str>> = ["order-completed", "order-cancelled"].map(Arc::from).to_vec();
        let partitions = transport.topics(&topics)?;
        let assignments: Vec<Assignment> = partitions
            .iter()
            .flat_map(|(topic, count)| (0..*count).map(move |number| Partition { topic: topic.clone(), number }))
            .map(|partition| Assignment::new(partition, 0))
            .collect();
        let mut source = Waiting::new(transport.source()?);
        source.assign(&assignments)?;
        Ok(Self(source))
    }

    /// Whatever is there, for at most this long.
    ///
    /// # Errors
    /// The topics cannot be read.
    pub fn read(&mut self, ends: &mut Ends, wait: Duration) -> Result<()> {
        let end = Instant::now() + wait;
        loop {
            if let Some(Polled::Record(record)) = self.0.poll(end.saturating_duration_since(Instant::now()))? {
                let kind =
                    if &*record.partition.topic == "order-completed" { "OrderCompleted" } else { "OrderCancelled" };
                let key = record.key.as_deref().unwrap_or_default();
                ends.read(kind, &String::from_utf8_lossy(key), record.timestamp_ms.unwrap_or(0));
            }
            if Instant::now() >= end {
                return Ok(());
            }
        }
    }
}
