//! How far each partition is handled. Invariant: a position passes a record only when that record is accounted for:
//! staged, parked, dead-lettered or skipped.

use std::collections::{BTreeMap, BTreeSet};

use crate::{journal::Position, transport::Partition};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tracker {
    /// Behind the last record delivered.
    end: i64,
    outstanding: BTreeSet<i64>,
    last: Option<(i64, u64)>,
    /// As of the last sealed batch.
    sealed: i64,
}

impl Tracker {
    fn next(&self) -> i64 {
        self.outstanding.first().copied().unwrap_or(self.end)
    }
}

/// One delivery: the receipt with which it is accounted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub partition: Partition,
    pub offset: i64,
    pub timestamp_ms: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Positions {
    trackers: BTreeMap<Partition, Tracker>,
    anchor: Option<Partition>,
    outstanding: usize,
    /// From a reset until the source reads from the positions that it set: what comes in between was read too early,
    /// and comes again.
    resetting: bool,
    /// The next batch carries all positions, moved or not.
    whole: bool,
}

impl Positions {
    /// Replaces everything by what the journal holds.
    pub fn reset(&mut self, journaled: &BTreeMap<Partition, Position>, anchor: Option<Partition>) {
        self.anchor = anchor;
        self.outstanding = 0;
        self.resetting = true;
        self.trackers = journaled
            .iter()
            .map(|(partition, position)| {
                let tracker = Tracker {
                    end: position.next,
                    outstanding: BTreeSet::new(),
                    last: position.last,
                    sealed: position.next,
                };
                (partition.clone(), tracker)
            })
            .collect();
    }

    /// The source reads from the positions of the last reset on.
    pub fn source_follows(&mut self) {
        self.resetting = false;
    }

    /// Records that are with a worker, or wait for one.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// A record was read. False: it lies below the position, it was handled before; or it comes again.
    pub fn delivered(&mut self, receipt: &Receipt) -> bool {
        if self.resetting {
            return false;
        }
        let tracker = self.tracker(&receipt.partition, receipt.offset);
        if receipt.offset < tracker.end {
            return false;
        }
        tracker.end = receipt.offset + 1;
        tracker.outstanding.insert(receipt.offset);
        self.outstanding += 1;
        true
    }

    pub fn accounted(&mut self, receipt: &Receipt) {
        let Some(tracker) = self.trackers.get_mut(&receipt.partition) else { return };
        if tracker.outstanding.remove(&receipt.offset) {
            self.outstanding -= 1;
        }
        if let Some(timestamp) = receipt.timestamp_ms
            && tracker.last.is_none_or(|(offset, _)| offset < receipt.offset)
        {
            tracker.last = Some((receipt.offset, timestamp));
        }
    }

    /// Nothing is left to read below `offset`: gaps (control records, removed records) are passed.
    pub fn passed(&mut self, partition: &Partition, offset: i64) {
        if self.resetting {
            return;
        }
        let tracker = self.tracker(partition, offset);
        tracker.end = tracker.end.max(offset);
    }

    /// The next batch carries all positions: what was committed of those that stand still expires, or is wrong.
    pub fn touch(&mut self) {
        self.whole = true;
    }

    pub fn next(&self, partition: &Partition) -> Option<i64> {
        self.trackers.get(partition).map(Tracker::next)
    }

    /// Has any position moved since the last batch sealed?
    pub fn moved(&self) -> bool {
        self.trackers.values().any(|tracker| tracker.next() != tracker.sealed)
    }

    /// Positions of the partitions that moved, and the anchor's always; from here on they count as sealed.
    pub fn seal(&mut self) -> BTreeMap<Partition, Position> {
        let anchor = self.anchor.clone();
        let whole = std::mem::take(&mut self.whole);
        self.trackers
            .iter_mut()
            .filter(|(partition, tracker)| {
                whole || tracker.next() != tracker.sealed || Some(*partition) == anchor.as_ref()
            })
            .map(|(partition, tracker)| {
                tracker.sealed = tracker.next();
                (partition.clone(), Position { next: tracker.sealed, last: tracker.last })
            })
            .collect()
    }

    /// Everything handled, as if a batch sealed now.
    pub fn all(&self) -> BTreeMap<Partition, Position> {
        let position = |tracker: &Tracker| Position { next: tracker.next(), last: tracker.last };
        self.trackers.iter().map(|(partition, tracker)| (partition.clone(), position(tracker))).collect()
    }

    fn tracker(&mut self, partition: &Partition, first: i64) -> &mut Tracker {
        self.trackers.entry(partition.clone()).or_insert_with(|| Tracker {
            end: first,
            outstanding: BTreeSet::new(),
            last: None,
            sealed: first,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(offset: i64) -> Receipt {
        Receipt { partition: Partition::new("orders", 0), offset, timestamp_ms: Some(1_000 + offset.unsigned_abs()) }
    }

    #[test]
    fn a_position_waits_for_the_oldest_record_that_is_not_accounted_for() {
        let mut positions = Positions::default();
        for offset in [5, 6, 9] {
            assert!(positions.delivered(&receipt(offset)));
        }
        positions.accounted(&receipt(6));
        positions.accounted(&receipt(9));
        assert_eq!(positions.next(&receipt(0).partition), Some(5));
        assert_eq!(positions.outstanding(), 1);
        positions.accounted(&receipt(5));
        assert_eq!(positions.next(&receipt(0).partition), Some(10));
        let sealed = positions.seal();
        assert_eq!(sealed[&receipt(0).partition], Position { next: 10, last: Some((9, 1_009)) });
        assert!(!positions.moved());
    }

    #[test]
    fn a_record_below_the_position_is_not_taken_again() {
        let mut positions = Positions::default();
        let journaled = BTreeMap::from([(receipt(0).partition, Position { next: 7, last: None })]);
        positions.reset(&journaled, None);
        assert!(!positions.delivered(&receipt(9)), "read before the source went back");
        positions.source_follows();
        assert!(!positions.delivered(&receipt(6)));
        assert!(positions.delivered(&receipt(7)));
    }

    #[test]
    fn the_anchor_is_in_every_batch() {
        let mut positions = Positions::default();
        let anchor = Partition::new("orders", 0);
        let journaled = BTreeMap::from([
            (anchor.clone(), Position { next: 7, last: None }),
            (Partition::new("orders", 1), Position { next: 3, last: None }),
        ]);
        positions.reset(&journaled, Some(anchor.clone()));
        assert!(!positions.moved());
        assert_eq!(positions.seal().into_keys().collect::<Vec<_>>(), [anchor]);
        positions.touch();
        assert_eq!(positions.seal().len(), 2, "now and then all of them are");
        assert_eq!(positions.seal().len(), 1);
    }
}
