//! Partitions that another producer's open transaction holds up. Invariant: one is named only when it stood at the same
//! offset at two looks in a row: a transaction that ends in time holds up nobody.
//!
//! What is committed behind the first record of an open transaction cannot be read until that ends; for a reader, and
//! for every measure of lag, the partition ends there.

use std::{collections::BTreeMap, time::Duration};

use sagahost_codec::timestamp;
use sagahost_saga::id::Time;
use sagahost_transport::{Transport, Unstable};
use sagahost_wire::Partition;
use tracing::{debug, info, warn};

use crate::{
    intake::Intake,
    stage::Stage,
    step::{Now, Steady},
};

const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks now and then.
#[derive(Default)]
pub struct OpenTransactions {
    next_look: Option<Steady>,
    /// Where partitions were found held up, since when, and whether that was said.
    seen: BTreeMap<Partition, Seen>,
}

struct Seen {
    stable: i64,
    since: Time,
    reported: bool,
}

impl OpenTransactions {
    pub fn look(&mut self, stage: &Stage, intake: &Intake, transport: &dyn Transport, now: Now) {
        // A broker that is away is reported as that.
        let next_look = *self.next_look.get_or_insert(now.steady.after(LOOK_EVERY));
        if now.steady < next_look || !intake.waiting().is_empty() {
            return;
        }
        self.next_look = Some(now.steady.after(LOOK_EVERY));
        match transport.unstable(&intake.assigned()) {
            Ok(unstable) => self.compare(unstable, stage, intake, transport, now),
            Err(error) => debug!(%error, "failed to ask where partitions end"),
        }
    }

    fn compare(
        &mut self,
        unstable: Vec<Unstable>,
        stage: &Stage,
        intake: &Intake,
        transport: &dyn Transport,
        now: Now,
    ) {
        let positions = stage.positions();
        let reached = |at: &Unstable| positions.get(&at.partition).is_some_and(|position| position.next >= at.stable);
        let mut there = BTreeMap::new();
        let mut lines = Vec::new();
        for at in unstable.into_iter().filter(reached) {
            let before = self.seen.remove(&at.partition).filter(|seen| seen.stable == at.stable);
            let mut seen = Seen { stable: at.stable, since: now.wall, reported: false };
            if let Some(before) = before {
                seen = before;
                let text = described(&at, seen.since, transport);
                if !std::mem::replace(&mut seen.reported, true) {
                    warn!("{text}");
                }
                lines.push(text);
            }
            there.insert(at.partition, seen);
        }
        for (partition, _) in self.seen.iter().filter(|(_, seen)| seen.reported) {
            info!(%partition, "the open transaction ended");
        }
        self.seen = there;
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
