//! What a seed stands for: how much happens, how often each fault comes, and how tight the bounds are. Invariant: every
//! choice is a function of the seed and of how often something like it was chosen before; so one choice can be left out
//! and the others stay.

use std::collections::BTreeSet;

use sagahost_processor::planted::Planted;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The process dies before, in front of, or right behind a durable write.
    CrashBeforeCommit,
    CrashAfterCommit,
    CrashBeforePublish,
    CrashAfterPublish,
    CrashBeforeConfirm,
    CrashAfterConfirm,
    /// At any other moment: before a step of any part.
    CrashAnywhere,
    /// While a plugin runs.
    CrashInGuest,
    /// A commit goes through and says that it failed …
    CommitLies,
    /// … or does not, and cannot say so,
    CommitUnclear,
    /// or fails, and says so,
    CommitFails,
    /// or meets a change that somebody else made.
    Conflict,
    /// The disk is full for a while.
    DiskFull,
    /// A read of the journal fails.
    ReadFails,
    /// Another write of the journal fails: positions, confirmation, notes.
    WriteFails,
    /// A publication is aborted behind its records …
    PublishAborted,
    /// … or lost before its commit was asked for,
    PublishLostBefore,
    /// or behind that, without having gone through …
    PublishLostAfter,
    /// … or having gone through,
    PublishLies,
    /// or fenced, by nobody.
    PublishFenced,
    /// A row is refused, until an operator says that it be tried again.
    RowRefused,
    /// The producer's claim fails.
    ClaimFails,
    /// The broker does not say what is committed.
    CommittedFails,
    /// The group's offsets are gone.
    OffsetsExpire,
    /// The source fails.
    PollFails,
    SeekFails,
    AssignFails,
    /// The source is away for a while.
    Away,
    /// The same record once more, now or much later, in any partition.
    RecordAgain,
    /// The same order under another id, at once: a sender that does not know whether it was heard.
    OrderAgain,
    /// A record that nobody can decode.
    BadRecord,
    /// A plugin traps.
    Trap,
    /// A plugin asks to be called again later.
    Retry,
    /// A plugin takes its time.
    Slow,
    /// The clock is set.
    ClockForward,
    ClockBack,
    /// The machine sleeps: nothing runs, both clocks go on.
    Asleep,
    /// A host stands still, another takes over, and the first goes on.
    Zombie,
    /// A call outside does not leave,
    CallUnsent,
    /// or does not arrive,
    CallLost,
    /// or its answer does not,
    AnswerLost,
    /// or it arrives twice.
    CallAgain,
    /// Operators: an order is cancelled,
    Cancel,
    /// a partition is read again from where it is,
    Retouch,
    /// other plugins serve from now on.
    Switch,
    /// The process dies in the middle of a transaction.
    CrashInTransaction,
    /// A call of a transaction is not done yet …
    SinkWaits,
    /// … or never is, until the id is claimed again.
    SinkStalls,
    /// The producer takes only some of the records at once.
    SendStops,
    /// Something is refused, and the broker does not say what.
    RowUnclear,
    /// The end of a transaction is turned down: it is to be aborted …
    EndSpoilt,
    /// … or lost, and comes when somebody claims …
    EndsLate,
    /// … or comes, and is said only when it is asked for again.
    EndUntold,
    /// An abort is lost.
    AbortFails,
}

impl Fault {
    pub const ALL: [Self; 54] = [
        Self::CrashBeforeCommit,
        Self::CrashAfterCommit,
        Self::CrashBeforePublish,
        Self::CrashAfterPublish,
        Self::CrashBeforeConfirm,
        Self::CrashAfterConfirm,
        Self::CrashAnywhere,
        Self::CrashInGuest,
        Self::CommitLies,
        Self::CommitUnclear,
        Self::CommitFails,
        Self::Conflict,
        Self::DiskFull,
        Self::ReadFails,
        Self::WriteFails,
        Self::PublishAborted,
        Self::PublishLostBefore,
        Self::PublishLostAfter,
        Self::PublishLies,
        Self::PublishFenced,
        Self::RowRefused,
        Self::ClaimFails,
        Self::CommittedFails,
        Self::OffsetsExpire,
        Self::PollFails,
        Self::SeekFails,
        Self::AssignFails,
        Self::Away,
        Self::RecordAgain,
        Self::OrderAgain,
        Self::BadRecord,
        Self::Trap,
        Self::Retry,
        Self::Slow,
        Self::ClockForward,
        Self::ClockBack,
        Self::Asleep,
        Self::Zombie,
        Self::CallUnsent,
        Self::CallLost,
        Self::AnswerLost,
        Self::CallAgain,
        Self::Cancel,
        Self::Retouch,
        Self::Switch,
        Self::CrashInTransaction,
        Self::SinkWaits,
        Self::SinkStalls,
        Self::SendStops,
        Self::RowUnclear,
        Self::EndSpoilt,
        Self::EndsLate,
        Self::EndUntold,
        Self::AbortFails,
    ];

    /// Of a million occasions, at most so many.
    const fn most(self) -> u32 {
        match self {
            Self::CrashAnywhere => 400,
            Self::CrashInGuest => 6_000,
            Self::CrashBeforeCommit | Self::CrashAfterCommit => 15_000,
            Self::CrashBeforePublish | Self::CrashAfterPublish => 15_000,
            Self::CrashBeforeConfirm | Self::CrashAfterConfirm => 60_000,
            Self::CommitLies | Self::CommitUnclear | Self::CommitFails | Self::Conflict => 40_000,
            Self::DiskFull => 8_000,
            Self::ReadFails => 2_000,
            Self::WriteFails => 30_000,
            Self::PublishAborted | Self::PublishLostBefore | Self::PublishLostAfter => 50_000,
            Self::PublishLies | Self::PublishFenced => 50_000,
            Self::RowRefused => 15_000,
            Self::ClaimFails | Self::CommittedFails => 60_000,
            Self::OffsetsExpire => 10_000,
            Self::PollFails => 5_000,
            Self::SeekFails | Self::AssignFails => 200_000,
            Self::Away => 3_000,
            Self::RecordAgain | Self::OrderAgain => 300_000,
            Self::BadRecord => 30_000,
            Self::Trap | Self::Retry => 60_000,
            Self::Slow => 20_000,
            Self::ClockForward | Self::ClockBack | Self::Asleep => 400,
            Self::Zombie => 250,
            Self::CallUnsent | Self::CallLost | Self::AnswerLost | Self::CallAgain => 400_000,
            Self::Cancel => 60_000,
            Self::Retouch => 300,
            Self::Switch => 1_500,
            Self::CrashInTransaction => 5_000,
            Self::SinkWaits | Self::SendStops => 100_000,
            Self::SinkStalls => 4_000,
            Self::RowUnclear => 20_000,
            Self::EndSpoilt | Self::EndsLate | Self::EndUntold => 40_000,
            Self::AbortFails => 150_000,
        }
    }
}

/// What a run is asked for, and what of it is left out while it is made shorter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    pub seed: u64,
    /// None: as many as the seed says.
    pub orders: Option<usize>,
    /// Occasions at which nothing goes wrong after all.
    pub without: BTreeSet<(Fault, u64)>,
    /// A mistake in the processor, to see whether it is found.
    pub planted: Option<Planted>,
    /// Steps are taken in turn, and never inside others.
    pub in_turn: bool,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub ask: Ask,
    pub orders: usize,
    pub workers: usize,
    pub chains_max: usize,
    pub cache_bytes_max: usize,
    pub queue_events_max: usize,
    pub unpublished_max: u64,
    pub chain_steps_max: usize,
    pub customers: u64,
    pub known_max: usize,
    /// The ledger is dropped in while the others run.
    pub ledger_joins: bool,
    /// A service outside takes part.
    pub courier: bool,
    /// Of a thousand calls of a part's surroundings, in so many another part takes a step.
    pub inside: u64,
    /// For each fault: of a million occasions, in so many.
    rates: Vec<u32>,
}

/// A number for this occasion, without memory.
pub fn draw(seed: u64, stream: u64, occasion: u64) -> u64 {
    // SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014), over the three.
    let mut z = seed
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(stream.wrapping_mul(0xd1b5_4a32_d192_ed03))
        .wrapping_add(occasion.wrapping_mul(0x8cb9_2ba7_2f3d_8dd7));
    for _ in 0..2 {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
    }
    z
}

impl Plan {
    pub fn new(ask: Ask) -> Self {
        let seed = ask.seed;
        let pick = |stream: u64, among: &[usize]| among[(draw(seed, stream, 0) % among.len() as u64) as usize];
        // Most seeds have a few kinds of faults only: all of them at once hide each other.
        let few = !draw(seed, 1, 0).is_multiple_of(4);
        let rate = |fault: &Fault| {
            let at = draw(seed, 2, *fault as u64);
            let there = !few || at.is_multiple_of(5);
            if there { fault.most() * [1, 1, 2, 4][(at >> 8) as usize % 4] / 4 } else { 0 }
        };
        Self {
            orders: ask.orders.unwrap_or_else(|| pick(3, &[10, 40, 150, 600])),
            workers: pick(4, &[1, 2, 3, 3]),
            chains_max: pick(5, &[1, 3, 8, 1_000]),
            cache_bytes_max: pick(6, &[1, 20_000, 64 << 20]),
            queue_events_max: pick(7, &[3, 20, 2_000]),
            unpublished_max: pick(8, &[1, 2, 2]) as u64,
            chain_steps_max: pick(9, &[1, 2, 64, 64]),
            known_max: pick(12, &[1, 3, 32]),
            ledger_joins: pick(13, &[0, 1]) == 1,
            courier: pick(14, &[0, 1]) == 1,
            customers: pick(10, &[1, 3, 20]) as u64,
            inside: if ask.in_turn { 0 } else { pick(11, &[0, 20, 100, 300]) as u64 },
            rates: Fault::ALL.iter().map(rate).collect(),
            ask,
        }
    }

    /// Does it happen at this occasion?
    pub fn happens(&self, fault: Fault, occasion: u64) -> bool {
        let rate = u64::from(self.rates[fault as usize]);
        rate > 0
            && draw(self.ask.seed, 1_000 + fault as u64, occasion) % 1_000_000 < rate
            && !self.ask.without.contains(&(fault, occasion))
    }
}
