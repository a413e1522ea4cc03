//! Partitions that another producer's open transaction holds up. Invariant: one is named only when it stood at the same
//! offset at two looks in a row: a transaction that ends in time holds up nobody.
//!
//! What is committed behind the first record of an open transaction cannot be read until that ends; for a reader, and
//! for every measure of lag, the partition ends there.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sagahost_codec::timestamp;
use sagahost_saga::id::Time;
use sagahost_transport::{Transport, Unstable};
use sagahost_wire::Partition;
use tracing::{debug, info, warn};

use crate::{intake::Intake, pipeline::Pipeline};

const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks now and then; for a thread that may wait for the broker.
pub struct OpenTransactions {
    next_look: Instant,
    /// Where partitions were found held up, since when, and whether that was said.
    seen: BTreeMap<Partition, Seen>,
}

struct Seen {
    stable: i64,
    since: Time,
    reported: bool,
}

impl Default for OpenTransactions {
    fn default() -> Self {
        Self { next_look: Instant::now() + LOOK_EVERY, seen: BTreeMap::new() }
    }
}

impl OpenTransactions {
    pub fn look(&mut self, pipeline: &Pipeline, intake: &Intake, transport: &dyn Transport) {
        // A broker that is away is reported as that.
        if Instant::now() < self.next_look || !intake.waiting().is_empty() {
            return;
        }
        self.next_look = Instant::now() + LOOK_EVERY;
        match transport.unstable(&intake.assigned()) {
            Ok(unstable) => self.compare(unstable, pipeline, intake, transport),
            Err(error) => debug!(%error, "failed to ask where partitions end"),
        }
    }

    fn compare(&mut self, unstable: Vec<Unstable>, pipeline: &Pipeline, intake: &Intake, transport: &dyn Transport) {
        let positions = pipeline.stage.positions();
        let reached = |at: &Unstable| positions.get(&at.partition).is_some_and(|position| position.next >= at.stable);
        let mut now = BTreeMap::new();
        let mut lines = Vec::new();
        for at in unstable.into_iter().filter(reached) {
            let before = self.seen.remove(&at.partition).filter(|seen| seen.stable == at.stable);
            let mut seen = Seen { stable: at.stable, since: pipeline.clock.now(), reported: false };
            if let Some(before) = before {
                seen = before;
                let text = described(&at, seen.since, transport);
                if !std::mem::replace(&mut seen.reported, true) {
                    warn!("{text}");
                }
                lines.push(text);
            }
            now.insert(at.partition, seen);
        }
        for (partition, _) in self.seen.iter().filter(|(_, seen)| seen.reported) {
            info!(%partition, "the open transaction ended");
        }
        self.seen = now;
        intake.set_held_up(lines);
    }
}

fn described(at: &Unstable, since: Time, transport: &dyn Transport) -> String {
    format!(
        "{} is held up at offset {} since {}: a transaction of another producer is open there, and {} offsets from there \
         on cannot be read until it ends. {}",
        at.partition,
        at.stable,
        timestamp::format(since),
        at.end - at.stable,
        transport.find_producers(&at.partition)
    )
}
