//! How far reading runs ahead of the workers. Invariant: what is in memory stays below two bounds, of events and of bytes;
//! and a partition that brings more than is done leaves room for the others.
//!
//! A partition may hold so many times what is free (dynamic thresholds; Choudhury, Hahne: Dynamic Queue Length Thresholds
//! for Shared-Memory Packet Switches, IEEE/ACM Transactions on Networking 1998). One alone has four fifths, and whoever
//! comes next always finds some room. Within a partition the order is kept: what stands behind there waits.

/// Of what is free.
const TIMES: usize = 4;

/// What is in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub events: usize,
    pub bytes: usize,
}

impl Held {
    /// One more event.
    pub fn add(&mut self, bytes: usize) {
        self.events += 1;
        self.bytes += bytes;
    }

    /// One that was added is done.
    pub fn remove(&mut self, bytes: usize) {
        self.events -= 1;
        self.bytes -= bytes;
    }
}

/// The bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAhead {
    /// Events that are with the workers or wait for one.
    pub events_max: usize,
    /// Records that are with the workers or wait for one, and batches that are not out.
    pub bytes_max: usize,
    /// The largest record that is to be expected.
    pub record_bytes_max: usize,
    /// What the transport may queue of each partition before it is read. It counts towards `bytes_max`.
    pub queued_bytes_max: usize,
}

impl ReadAhead {
    /// What is left beside the transport's queues of so many partitions: at least half.
    pub fn beside_queues(self, partitions: usize) -> Self {
        let queued = partitions.saturating_mul(self.queued_bytes_max).min(self.bytes_max / 2);
        Self { bytes_max: self.bytes_max - queued, ..self }
    }

    /// May the queues of so many partitions take more than their half?
    pub fn is_exceeded(&self, partitions: usize) -> bool {
        partitions.saturating_mul(self.queued_bytes_max) > self.bytes_max / 2
    }

    /// Records that may be read at once, of whatever size.
    pub fn room(&self, all: Held) -> usize {
        let free = self.free(all);
        free.events.min(free.bytes / self.record_bytes_max.max(1))
    }

    fn free(&self, all: Held) -> Held {
        Held { events: self.events_max.saturating_sub(all.events), bytes: self.bytes_max.saturating_sub(all.bytes) }
    }

    /// Is a partition that holds `of` to be read no further?
    pub fn is_full(&self, all: Held, of: Held) -> bool {
        let free = self.free(all);
        of.events >= TIMES * free.events || of.bytes >= TIMES * free.bytes
    }

    /// May one that was full be read again? From half of the bound on: not record by record.
    pub fn is_relieved(&self, all: Held, of: Held) -> bool {
        let Held { events, bytes } = self.free(all);
        let below = |of: usize, free: usize| free > 0 && of <= TIMES * free / 2;
        below(of.events, events) && below(of.bytes, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: ReadAhead =
        ReadAhead { events_max: 100, bytes_max: 1_000, record_bytes_max: 200, queued_bytes_max: 100 };

    fn held(events: usize, bytes: usize) -> Held {
        Held { events, bytes }
    }

    /// Each of them has more than can be done: how much does each get to hold?
    fn filled(partitions: usize, of: Held) -> Vec<usize> {
        let mut each = vec![Held::default(); partitions];
        for turn in 0..10_000 {
            let all = each.iter().fold(Held::default(), |all, of| held(all.events + of.events, all.bytes + of.bytes));
            let at = &mut each[turn % partitions];
            if !BOUNDS.is_full(all, *at) {
                *at = held(at.events + of.events, at.bytes + of.bytes);
            }
        }
        each.into_iter().map(|held| held.events).collect()
    }

    #[test]
    fn one_partition_leaves_a_fifth_and_several_share_with_room_for_another() {
        assert_eq!(filled(1, held(1, 1)), [80]);
        assert_eq!(filled(2, held(1, 1)), [45, 44]);
        assert_eq!(filled(4, held(1, 1)), [24, 24, 24, 23]);
    }

    #[test]
    fn large_records_count_by_their_bytes() {
        assert_eq!(filled(1, held(1, 100)), [8]);
        assert_eq!(filled(1, held(1, 5_000)), [1], "one that is larger than all comes through, alone");
    }

    #[test]
    fn queues_of_the_transport_take_up_to_half_of_the_bytes() {
        let left = |partitions| BOUNDS.beside_queues(partitions).bytes_max;
        assert_eq!([0, 1, 5, 6, usize::MAX].map(left), [1_000, 900, 500, 500, 500]);
        assert_eq!([5, 6].map(|partitions| BOUNDS.is_exceeded(partitions)), [false, true]);
        assert!(!ReadAhead { queued_bytes_max: 0, ..BOUNDS }.is_exceeded(usize::MAX), "a transport without queues");
    }

    #[test]
    fn no_more_is_read_at_once_than_there_is_room_for_if_all_are_large() {
        assert_eq!(BOUNDS.room(held(0, 0)), 5);
        assert_eq!(BOUNDS.room(held(98, 0)), 2);
        assert_eq!(BOUNDS.room(held(1, 900)), 0);
    }

    #[test]
    fn what_was_full_is_read_again_from_half_of_its_bound_on() {
        assert!(BOUNDS.is_full(held(80, 0), held(80, 0)));
        assert!(!BOUNDS.is_relieved(held(67, 0), held(67, 0)));
        assert!(BOUNDS.is_relieved(held(66, 0), held(66, 0)));
        assert!(!BOUNDS.is_relieved(held(0, 1_000), held(0, 0)), "batches that are not out hold it all");
    }
}
