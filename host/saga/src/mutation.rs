//! Planted faults, with which the tests show that each invariant can fail. Invariant: outside this crate's own tests
//! `on` is the constant `false`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// Attempts are never spent.
    EndlessAttempts,
    /// A second compensation of a step has the key of the first.
    OneKeyForAll,
    /// The oldest done step is undone first.
    UndoInOrder,
    /// A done step is left out of the plan.
    ForgetDone,
    /// A step that is undone is undone again.
    UndoTwice,
    /// A late event starts a finished saga again.
    LeaveTerminal,
    /// A retry's time is not remembered.
    LoseRetry,
    /// A known id is taken in again.
    ForgetSeen,
    /// Early and waiting events have no bound.
    ParkWithoutBound,
    /// All emissions of a call have one id.
    OneEmittedId,
    /// A pivot holds nothing.
    IgnorePivot,
    /// The end is said while a step is stuck.
    EndWhileStuck,
    /// A new attempt has the number of the one before.
    SameAttempt,
    /// The same failure is announced on every occasion.
    AnnounceAgain,
    /// Seen ids stay in the record.
    NeverSpill,
    /// A letter that opens is not remembered by the saga.
    ForgetLetter,
    /// A finished saga is kept only as long as if nothing of it were open.
    ForgetOpenLetters,
    /// A forward step begins although the saga compensates.
    ForwardBehindFence,
    /// A second failure replaces the first one's cause.
    LastFailureWins,
    /// What a late attempt wrote stays.
    KeepLateWrites,
    /// A result of a done step is accepted once more.
    AcceptAgain,
    /// A known event leaves a trace without saying so.
    SilentChange,
    /// A change has the version of the one before.
    SameVersion,
    /// Steps have no bound.
    StepsWithoutBound,
    /// What steps keep has no bound.
    DataWithoutBound,
    /// Ids stay in the record, history spills.
    KeepIds,
    /// Beside `needs-operator` nothing is said.
    SayNoCommand,
    /// A compensation that is over is not said to be.
    NeverSettle,
    /// A deadline that cannot fire is asked for.
    HotTimer,
    /// `resolve` finds nothing to resolve.
    ResolveNothing,
    /// Something of the record is not written.
    LoseCount,
    /// A step is undone with what the first step left.
    SwapUndoData,
    /// The time to live of an early event is not remembered.
    ForgetEarly,
    /// A second request begins a saga that exists.
    BeginTwice,
    /// What a step emits that a request asked for is published.
    PublishAnswers,
    /// A request that nobody acts on is taken in.
    AdmitIgnored,
    /// The time of a saga runs although requests asked for all of its steps.
    DeadlineOfAsked,
    /// A request that the host did not see end leaves as if it were the same.
    SendTwice,
    /// A plugin's no settles its step, whatever its requests did.
    BelieveNo,
    /// What participants keep is gone when a compensation ends, though more of the saga may have to be called off.
    ForgetStates,
}

#[cfg(test)]
thread_local! {
    static ON: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(crate) fn on(mutation: Mutation) -> bool {
    ON.get() == Some(mutation)
}

#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn on(_: Mutation) -> bool {
    false
}

#[cfg(test)]
pub(crate) fn planted() -> bool {
    ON.get().is_some()
}

/// Runs `what` with one fault planted.
#[cfg(test)]
pub(crate) fn with<T>(mutation: Mutation, what: impl FnOnce() -> T) -> T {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            ON.set(None);
        }
    }
    ON.set(Some(mutation));
    let _off = Off;
    what()
}
