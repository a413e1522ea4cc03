//! How far each partition is handled. Invariant: a position passes a record only when that record is accounted for
//! (staged, parked, dead-lettered or skipped) and known to be of the topic that the position belongs to.

use std::collections::BTreeMap;

use sagahost_transport::Verified;
use sagahost_wire::{Partition, Position, TopicId};

use crate::{
    planted::{self, Planted},
    read_ahead::Held,
};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tracker {
    /// Behind the last record delivered.
    end: i64,
    /// With their bytes.
    outstanding: BTreeMap<i64, usize>,
    held: Held,
    last: Option<(i64, u64)>,
    topic_id: Option<TopicId>,
    /// Up to here the topic is verified; none: its source does not verify.
    verified: Option<i64>,
    /// As of the last sealed batch.
    sealed: Position,
}

impl Tracker {
    fn new(position: Position, verified: Option<i64>) -> Self {
        Self {
            end: position.next,
            outstanding: BTreeMap::new(),
            held: Held::default(),
            last: position.last,
            topic_id: position.topic_id.clone(),
            verified,
            sealed: position,
        }
    }

    fn next(&self) -> i64 {
        if planted::on(Planted::CommitPastGap) {
            return self.end;
        }
        self.outstanding.first_key_value().map_or(self.end, |(first, _)| *first)
    }

    /// What a batch may journal: nothing that another topic of the same name may have delivered.
    fn verified(&self) -> Position {
        let up_to = self.verified.unwrap_or(Verified::CERTAIN);
        let last = if self.last.is_some_and(|(offset, _)| offset >= up_to) { self.sealed.last } else { self.last };
        Position { next: self.next().min(up_to), last, topic_id: self.topic_id.clone() }
    }

    fn moved(&self) -> bool {
        let next = self.next().min(self.verified.unwrap_or(Verified::CERTAIN));
        next != self.sealed.next || self.topic_id != self.sealed.topic_id
    }

    /// What is verified after a reset to `next`, if anything was before it.
    fn verified_from(&self, next: i64) -> Option<i64> {
        self.verified.map(|up_to| if up_to == Verified::CERTAIN { up_to } else { next })
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
    held: Held,
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
        self.held = Held::default();
        self.resetting = true;
        let before = std::mem::take(&mut self.trackers);
        let verified =
            |partition, next| before.get(partition).and_then(|tracker: &Tracker| tracker.verified_from(next));
        self.trackers = journaled
            .iter()
            .map(|(at, position)| (at.clone(), Tracker::new(position.clone(), verified(at, position.next))))
            .collect();
    }

    /// The source reads from the positions of the last reset on.
    pub fn source_follows(&mut self) {
        self.resetting = false;
    }

    /// Records that are with a worker, or wait for one.
    pub fn held(&self) -> Held {
        self.held
    }

    /// Of this partition.
    pub fn held_of(&self, partition: &Partition) -> Held {
        self.trackers.get(partition).map_or_else(Held::default, |tracker| tracker.held)
    }

    /// A record was read. False: it lies below the position, it was handled before; or it comes again.
    pub fn delivered(&mut self, receipt: &Receipt, bytes: usize) -> bool {
        if self.resetting && !planted::on(Planted::ReadWhileResetting) {
            return false;
        }
        let tracker = self.tracker(&receipt.partition, receipt.offset);
        if receipt.offset < tracker.end {
            return false;
        }
        tracker.end = receipt.offset + 1;
        tracker.outstanding.insert(receipt.offset, bytes);
        tracker.held.add(bytes);
        self.held.add(bytes);
        true
    }

    pub fn accounted(&mut self, receipt: &Receipt) {
        let Some(tracker) = self.trackers.get_mut(&receipt.partition) else { return };
        if let Some(bytes) = tracker.outstanding.remove(&receipt.offset) {
            tracker.held.remove(bytes);
            self.held.remove(bytes);
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

    /// A partition is read from here on.
    pub fn begin(&mut self, partition: &Partition, position: Position) {
        self.trackers.entry(partition.clone()).or_insert_with(|| Tracker::new(position, None));
    }

    /// The source knows which topic its records came from.
    pub fn verified(&mut self, of: &Verified) {
        let Some(tracker) = self.trackers.get_mut(&of.partition).filter(|_| !self.resetting) else { return };
        tracker.verified = tracker.verified.max(Some(of.up_to));
        tracker.topic_id = Some(of.topic_id.clone());
    }

    /// Was anything read that is not verified yet?
    pub fn unverified(&self) -> bool {
        self.trackers.values().any(|tracker| tracker.verified.is_some_and(|up_to| up_to < tracker.end))
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
        self.trackers.values().any(Tracker::moved)
    }

    /// Positions of the partitions that moved, and the anchor's always; from here on they count as sealed.
    pub fn seal(&mut self) -> BTreeMap<Partition, Position> {
        let anchor = self.anchor.clone();
        let whole = std::mem::take(&mut self.whole);
        self.trackers
            .iter_mut()
            .filter(|(partition, tracker)| whole || tracker.moved() || Some(*partition) == anchor.as_ref())
            .map(|(partition, tracker)| {
                tracker.sealed = tracker.verified();
                (partition.clone(), tracker.sealed.clone())
            })
            .collect()
    }

    /// Everything handled, verified or not.
    pub fn all(&self) -> BTreeMap<Partition, Position> {
        let position = |tracker: &Tracker| Position {
            next: tracker.next(),
            last: tracker.last,
            topic_id: tracker.topic_id.clone(),
        };
        self.trackers.iter().map(|(partition, tracker)| (partition.clone(), position(tracker))).collect()
    }

    fn tracker(&mut self, partition: &Partition, first: i64) -> &mut Tracker {
        self.trackers.entry(partition.clone()).or_insert_with(|| Tracker::new(Position::new(first, None), None))
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
            assert!(positions.delivered(&receipt(offset), 10));
        }
        positions.accounted(&receipt(6));
        positions.accounted(&receipt(9));
        assert_eq!(positions.next(&receipt(0).partition), Some(5));
        assert_eq!(positions.held().events, 1);
        positions.accounted(&receipt(5));
        assert_eq!(positions.next(&receipt(0).partition), Some(10));
        let sealed = positions.seal();
        assert_eq!(sealed[&receipt(0).partition], Position { next: 10, last: Some((9, 1_009)), topic_id: None });
        assert!(!positions.moved());
    }

    #[test]
    fn a_record_below_the_position_is_not_taken_again() {
        let mut positions = Positions::default();
        let journaled = BTreeMap::from([(receipt(0).partition, Position::new(7, None))]);
        positions.reset(&journaled, None);
        assert!(!positions.delivered(&receipt(9), 10), "read before the source went back");
        positions.source_follows();
        assert!(!positions.delivered(&receipt(6), 10));
        assert!(positions.delivered(&receipt(7), 10));
    }

    #[test]
    fn the_anchor_is_in_every_batch() {
        let mut positions = Positions::default();
        let anchor = Partition::new("orders", 0);
        let journaled = BTreeMap::from([
            (anchor.clone(), Position::new(7, None)),
            (Partition::new("orders", 1), Position::new(3, None)),
        ]);
        positions.reset(&journaled, Some(anchor.clone()));
        assert!(!positions.moved());
        assert_eq!(positions.seal().into_keys().collect::<Vec<_>>(), [anchor]);
        positions.touch();
        assert_eq!(positions.seal().len(), 2, "now and then all of them are");
        assert_eq!(positions.seal().len(), 1);
    }

    fn verified(up_to: i64, id: &str) -> Verified {
        Verified { partition: receipt(0).partition, up_to, topic_id: TopicId(id.into()) }
    }

    #[test]
    fn a_position_waits_until_its_topic_is_verified() {
        let mut positions = Positions::default();
        let journaled = Position { next: 5, last: Some((4, 1_004)), topic_id: None };
        positions.reset(&BTreeMap::from([(receipt(0).partition, journaled)]), None);
        positions.source_follows();
        positions.verified(&verified(5, "a"));
        assert!(positions.moved(), "the id is journaled, though nothing was read");
        let sealed = |positions: &mut Positions| positions.seal().remove(&receipt(0).partition);
        let id = Some(TopicId("a".into()));
        assert_eq!(sealed(&mut positions), Some(Position { next: 5, last: Some((4, 1_004)), topic_id: id.clone() }));
        for offset in [5, 6] {
            assert!(positions.delivered(&receipt(offset), 10));
            positions.accounted(&receipt(offset));
        }
        assert!(!positions.moved() && positions.unverified());
        assert_eq!(sealed(&mut positions), None);
        assert_eq!(positions.next(&receipt(0).partition), Some(7), "handled it is");
        positions.verified(&verified(6, "a"));
        assert_eq!(sealed(&mut positions), Some(Position { next: 6, last: Some((4, 1_004)), topic_id: id.clone() }));
        positions.verified(&verified(7, "a"));
        assert!(!positions.unverified());
        assert_eq!(sealed(&mut positions), Some(Position { next: 7, last: Some((6, 1_006)), topic_id: id }));
    }

    #[test]
    fn what_is_verified_goes_back_with_the_position() {
        let mut positions = Positions::default();
        let journaled = BTreeMap::from([(receipt(0).partition, Position::new(5, Some(TopicId("a".into()))))]);
        positions.begin(&receipt(0).partition, Position::new(5, None));
        positions.verified(&verified(9, "a"));
        positions.reset(&journaled, None);
        positions.verified(&verified(9, "a"));
        positions.source_follows();
        assert!(positions.delivered(&receipt(5), 10));
        positions.accounted(&receipt(5));
        assert!(!positions.moved(), "what comes again may be of another topic");
        positions.verified(&verified(6, "a"));
        assert!(positions.moved());
    }

    #[test]
    fn a_source_that_is_certain_verifies_once() {
        let mut positions = Positions::default();
        let journaled = BTreeMap::from([(receipt(0).partition, Position::new(5, None))]);
        for round in 0..2 {
            positions.reset(&journaled, None);
            positions.source_follows();
            if round == 0 {
                positions.verified(&verified(Verified::CERTAIN, "a"));
            }
            positions.seal();
            positions.delivered(&receipt(5), 10);
            positions.accounted(&receipt(5));
            assert!(positions.moved() && !positions.unverified());
        }
    }
}
