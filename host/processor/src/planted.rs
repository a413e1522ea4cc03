//! Planted faults, here and in `sagahost-serving`, with which the simulation shows that it would find such. Invariant:
//! without the feature `simulation`, which no host is built with, `on` is the constant `false`.

macro_rules! planted {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// One mistake that somebody could make here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Planted {
            $($(#[$doc])+ $name,)+
        }

        impl Planted {
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

planted! {
    /// A batch goes out before it is journaled.
    PublishBeforeJournal,
    /// A position passes records that are not accounted for.
    CommitPastGap,
    /// A record counts as handled when it is read.
    AccountWhenRead,
    /// What is journaled and not out is forgotten at a start.
    ForgetOutbox,
    /// A start takes what the journal says as published, and does not look.
    StartWithoutLooking,
    /// A batch whose commit only said that it failed is not handed over.
    IgnoreLies,
    /// Batches are confirmed before they are out.
    ConfirmEarly,
    /// A lost publication counts as out.
    GuessOut,
    /// A lost publication counts as not out.
    GuessNotOut,
    /// The id is claimed, and nobody looks whose batch is the newest.
    ClaimWithoutLooking,
    /// What retries wait for is not looked at.
    LoseTimers,
    /// Stale counters are taken as they were.
    TrustCounters,
    /// A batch that met a change of somebody else's counts as journaled.
    IgnoreConflict,
    /// Stale reads are taken as they were.
    TrustReads,
    /// What an attempt wrote stays, however it ended.
    KeepFailedWrites,
    /// Memory is kept when everything begins anew.
    KeepMemory,
    /// A chain of an earlier life is staged.
    StageOldLife,
    /// The source does not go back when everything begins anew.
    NoRewind,
    /// What is read before the source has gone back is taken in.
    ReadWhileResetting,
    /// Memory drops what the journal does not hold yet.
    DropUnjournaled,
    /// A request has another key on each attempt.
    NewKeys,
    /// Requests of a step that is done are kept.
    KeepSent,
    /// Known ids that the record no longer holds are forgotten.
    ForgetSpilled,
    /// Nobody is told that the open batch has room.
    NoRoomSignal,
    /// That a batch is out moves no signal.
    NoProgressSignal,
    /// Nobody is told that something waits.
    NoReadySignal,
    /// What waits for its turn with another participant is forgotten.
    LoseAside,
    /// A chain that began before a switch is staged behind it, and the new subscriber never sees its events.
    KeepOutdated,
    /// A partition's position is moved while what was read of it is not journaled.
    MoveAtOnce,
    /// What parked in the moments of a switch stays so.
    WakeOnce,
    /// A row that an operator lets through again is left out.
    DropRefused,
    /// A dead letter that no saga knows of is thrown away.
    DropLetters,
    /// Two workers may be in one saga.
    ShareSagas,
    /// A start does not look whether its journal is the newest one.
    TrustJournal,
    /// A producer that the broker has forgotten is kept.
    KeepProducer,
    /// A call outside leaves while it is not durable that it began.
    LeaveAtOnce,
    /// A call that was under way when the host before this one died counts as one that never left.
    ForgetInterrupted,
    /// What left the host counts as never sent.
    ForgetLeft,
    /// The end of a call outside is lost when everything begins anew.
    DropAnswers,
    /// Another row than the one that an operator leaves out is left out.
    SkipAnother,
    /// A version that was taken out of service is not in quarantine.
    ForgetQuarantine,
    /// Plugins serve before the journal knows of them.
    SwitchBeforeJournal,
    /// Nobody looks at a file again when it has been compiled.
    ForgetCompiling,
    /// A version that is new makes no new generation.
    KeepGeneration,
    /// Of files that came together, those that are admitted serve without the others.
    SplitGroups,
    /// A participant whose file is gone is forgotten.
    ForgetAway,
    /// A start puts no version on probation.
    ForgetProbation,
    /// What the key of a request is about is not written.
    ForgetKeys,
    /// That nobody else had the key is not compared again when the chain is staged.
    TrustKeys,
    /// A request is answered before its batch is journaled.
    AnswerEarly,
    /// The event of a request goes out as one that this app has not taken in.
    ForgetHandled,
    /// What a step emits that was asked for is kept nowhere.
    ForgetAnswers,
    /// The disk says that it has synced, and has not. (The simulation's own, to see that it would find a journal that is
    /// not synced.)
    NoSync,
}

#[cfg(feature = "simulation")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Planted>> = const { std::cell::Cell::new(None) };
}

/// In this thread, until something else is planted.
#[cfg(feature = "simulation")]
pub fn plant(fault: Option<Planted>) {
    PLANTED.set(fault);
}

/// Is it planted?
#[cfg(feature = "simulation")]
pub fn on(fault: Planted) -> bool {
    PLANTED.get() == Some(fault)
}

/// Is it planted? Nothing is.
#[cfg(not(feature = "simulation"))]
pub const fn on(_: Planted) -> bool {
    false
}
