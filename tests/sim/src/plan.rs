//! What a seed stands for: how much happens, how often each fault comes, and how tight the bounds are. Invariant: every
//! choice is a function of the seed and of how often something like it was chosen before; so one choice can be left out
//! and the others stay.

use std::{collections::BTreeSet, time::Duration};

use sagahost_processor::planted::Planted;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident: $most:literal,)+) => {
        /// What can go wrong. A seed's choices hang on the order: new ones go to the end.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $($(#[$doc])* $name,)+
        }

        impl Fault {
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Of a million occasions, at most so many.
            const fn most(self) -> u32 {
                match self {
                    $(Self::$name => $most,)+
                }
            }
        }
    };
}

faults! {
    /// The process dies before, in front of, or right behind a durable write.
    CrashBeforeCommit: 15_000,
    CrashAfterCommit: 15_000,
    CrashBeforePublish: 15_000,
    CrashAfterPublish: 15_000,
    CrashBeforeConfirm: 60_000,
    CrashAfterConfirm: 60_000,
    /// At any other moment: before a step of any part.
    CrashAnywhere: 400,
    /// While a plugin runs.
    CrashInGuest: 6_000,
    /// A commit goes through and says that it failed …
    CommitLies: 40_000,
    /// … or does not, and cannot say so,
    CommitUnclear: 40_000,
    /// or fails, and says so,
    CommitFails: 40_000,
    /// or meets a change that somebody else made.
    Conflict: 40_000,
    /// The disk is full for a while.
    DiskFull: 8_000,
    /// A read of the journal fails.
    ReadFails: 2_000,
    /// Another write of the journal fails: positions, confirmation, notes.
    WriteFails: 30_000,
    /// A publication is aborted behind its records …
    PublishAborted: 50_000,
    /// … or lost before its commit was asked for,
    PublishLostBefore: 50_000,
    /// or behind that, without having gone through …
    PublishLostAfter: 50_000,
    /// … or having gone through,
    PublishLies: 50_000,
    /// or fenced, by nobody.
    PublishFenced: 50_000,
    /// A row is refused, until an operator says that it be tried again.
    RowRefused: 15_000,
    /// The producer's claim fails.
    ClaimFails: 60_000,
    /// The broker does not say what is committed.
    CommittedFails: 60_000,
    /// The group's offsets are gone.
    OffsetsExpire: 10_000,
    /// The source fails.
    PollFails: 5_000,
    SeekFails: 200_000,
    AssignFails: 200_000,
    /// The source is away for a while.
    Away: 3_000,
    /// The same record once more, now or much later, in any partition.
    RecordAgain: 300_000,
    /// The same order under another id, at once: a sender that does not know whether it was heard.
    OrderAgain: 300_000,
    /// A record that nobody can decode.
    BadRecord: 30_000,
    /// A plugin traps.
    Trap: 60_000,
    /// A plugin asks to be called again later.
    Retry: 60_000,
    /// A plugin takes its time.
    Slow: 20_000,
    /// The clock is set.
    ClockForward: 400,
    ClockBack: 400,
    /// The machine sleeps: nothing runs, both clocks go on.
    Asleep: 400,
    /// A host stands still, another takes over, and the first goes on.
    Zombie: 250,
    /// A call outside does not leave,
    CallUnsent: 400_000,
    /// or does not arrive,
    CallLost: 400_000,
    /// or its answer does not,
    AnswerLost: 400_000,
    /// or it arrives twice.
    CallAgain: 400_000,
    /// Operators: an order is cancelled,
    Cancel: 60_000,
    /// a partition is read again from where it is,
    Retouch: 300,
    /// other plugins serve from now on.
    Switch: 1_500,
    /// Power is lost, and what the journal has not synced is gone, there, or torn,
    PowerLost: 15_000,
    /// a copy of the journal is made,
    JournalCopied: 1_500,
    /// and takes its place.
    JournalRestored: 1_500,
    /// A topic is deleted and made anew; who sends sends all again.
    TopicAnew: 150,
    /// The broker has forgotten the producer: nothing goes through until it claims its id again.
    ProducerForgotten: 20_000,
    /// An operator leaves a refused row out.
    RowSkipped: 1_000_000,
    /// The plugins of before serve again.
    RolledBack: 700,
    /// A version of a plugin traps in each call, until another one serves.
    BrokenVersion: 300,
    /// The process dies in the middle of a transaction.
    CrashInTransaction: 5_000,
    /// A call of a transaction is not done yet …
    SinkWaits: 100_000,
    /// … or never is, until the id is claimed again.
    SinkStalls: 4_000,
    /// The producer takes only some of the records at once.
    SendStops: 100_000,
    /// Something is refused, and the broker does not say what.
    RowUnclear: 20_000,
    /// The end of a transaction is turned down: it is to be aborted …
    EndSpoilt: 40_000,
    /// … or lost, and comes when somebody claims …
    EndsLate: 40_000,
    /// … or comes, and is said only when it is asked for again.
    EndUntold: 40_000,
    /// An abort is lost.
    AbortFails: 150_000,
    /// The process dies before or behind a write about plugins,
    CrashBeforePlugins: 100_000,
    CrashAfterPlugins: 100_000,
    /// or at another moment of a switch.
    CrashInSwitch: 50_000,
    /// The data directory cannot be written, or not be read.
    ArchiveFails: 20_000,
    /// The plugin directory cannot be read for a while.
    DirectoryUnreadable: 10_000,
    /// Nobody is told that it changed.
    WatchSilent: 300_000,
    /// Files that belong together do not come at once.
    FilesApart: 300_000,
    /// Whoever brings files ends the host before, and starts it again.
    StoppedForFiles: 200_000,
    /// A file that is refused, by itself or together with a good one.
    RefusedFile: 400,
    /// Operators pause a plugin,
    PluginPaused: 200,
    /// take a version back,
    TakenBackByOrder: 200,
    /// or let one out of quarantine.
    LetOutByOrder: 300_000,
    /// A person stops the host: it finishes what it read.
    Stopped: 1_000,
    /// Compiling a file takes its time.
    CompilesSlowly: 300_000,
    /// Whoever sends a request sends it once more, before it is answered or long after,
    RequestAgain: 150_000,
    /// does not hear the answer,
    AnswerUnheard: 150_000,
    /// or has a line to a host that another one took over from.
    RequestToOld: 200_000,
    /// A second request has the key of a first one, and another body,
    KeyForOtherBody: 300_000,
    /// or is about another saga;
    KeyForOtherSaga: 300_000,
    /// or it has another key, and is about the same saga.
    OtherKey: 300_000,
    /// An order is cancelled, and then it is requested.
    CancelledFirst: 150_000,
}

/// What a run is asked for, and what of it is left out while it is made shorter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    pub seed: u64,
    /// None: as many as the seed says.
    pub orders: Option<usize>,
    /// Orders that are not placed after all.
    pub without_orders: BTreeSet<usize>,
    /// Occasions at which nothing goes wrong after all.
    pub without: BTreeSet<(Fault, u64)>,
    /// A mistake in the processor, to see whether it is found.
    pub planted: Option<Planted>,
    /// Steps are taken in turn, and never inside others.
    pub in_turn: bool,
    /// All orders come as records, whatever the seed says.
    pub without_requests: bool,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub ask: Ask,
    pub orders: usize,
    pub workers: usize,
    pub chains_max: usize,
    pub cache_bytes_max: usize,
    pub slow_max: usize,
    pub queue_events_max: usize,
    pub in_flight_bytes_max: usize,
    pub unpublished_max: u64,
    pub chain_steps_max: usize,
    pub chain_bytes_max: usize,
    pub customers: u64,
    pub known_max: usize,
    /// The ledger is dropped in while the others run.
    pub ledger_joins: bool,
    /// A service outside takes part.
    pub courier: bool,
    /// A plugin that asks others takes part.
    pub agent: bool,
    /// One of so many orders comes as a request over HTTP; 0: none.
    pub requests: usize,
    /// A participant that only requests reach takes part.
    pub till: bool,
    /// How long a version that replaced another is on probation.
    pub probation: Duration,
    /// Of a thousand calls of a part's surroundings, in so many another part takes a step.
    pub inside: u64,
    /// For each fault: of a million occasions, in so many.
    rates: Vec<u32>,
}

/// What would hide the other: without the broker's word nobody can tell that a journal is an older copy; and what came
/// with a topic that is gone cannot be counted.
const EXCLUSIVE: [(Fault, &[Fault]); 2] =
    [(Fault::JournalRestored, &[Fault::OffsetsExpire, Fault::TopicAnew]), (Fault::TopicAnew, &[Fault::BadRecord])];

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
        let mut rates: Vec<u32> = Fault::ALL.iter().map(rate).collect();
        for (fault, others) in EXCLUSIVE {
            if rates[fault as usize] > 0 {
                others.iter().for_each(|other| rates[*other as usize] = 0);
            }
        }
        let requests = if ask.without_requests { 0 } else { pick(20, &[0, 0, 0, 4, 2, 1]) };
        Self {
            orders: ask.orders.unwrap_or_else(|| pick(3, &[10, 40, 150, 300])),
            workers: pick(4, &[1, 2, 3, 3]),
            chains_max: pick(5, &[1, 3, 8, 1_000]),
            cache_bytes_max: pick(6, &[1, 20_000, 64 << 20]),
            slow_max: pick(15, &[0, 1, 2]),
            queue_events_max: pick(7, &[3, 20, 2_000]),
            in_flight_bytes_max: pick(16, &[5_000, 64 << 20, 64 << 20]),
            unpublished_max: pick(8, &[1, 2, 2]) as u64,
            chain_steps_max: pick(9, &[1, 2, 64, 64]),
            // Both tight ones make a run long.
            chain_bytes_max: [1, 2_000].get(pick(17, &[0, 1, 2, 2, 2, 2, 2, 2, 2, 2])).copied().unwrap_or(16 << 20),
            known_max: pick(12, &[1, 3, 32]),
            ledger_joins: pick(13, &[0, 1]) == 1,
            // An older copy of the journal knows nothing of calls that were made since.
            courier: pick(14, &[0, 1]) == 1 && rates[Fault::JournalRestored as usize] == 0,
            agent: pick(22, &[0, 0, 1]) == 1 && rates[Fault::JournalRestored as usize] == 0,
            requests,
            till: requests > 0 && pick(21, &[0, 1]) == 1,
            probation: Duration::from_secs(pick(15, &[2, 5, 20]) as u64),
            customers: pick(10, &[1, 3, 20]) as u64,
            inside: if ask.in_turn { 0 } else { pick(11, &[0, 20, 100, 300]) as u64 },
            rates,
            ask,
        }
    }

    /// May it happen at all?
    pub fn has(&self, fault: Fault) -> bool {
        self.rates[fault as usize] > 0
    }

    /// Does it happen at this occasion?
    pub fn happens(&self, fault: Fault, occasion: u64) -> bool {
        let rate = u64::from(self.rates[fault as usize]);
        rate > 0
            && draw(self.ask.seed, 1_000 + fault as u64, occasion) % 1_000_000 < rate
            && !self.ask.without.contains(&(fault, occasion))
    }
}
