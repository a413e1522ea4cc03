//! What follows from an error of a transactional call. Invariant: this table alone decides; where the code says more
//! than librdkafka's flag, the code wins: `INVALID_PRODUCER_ID_MAPPING` is flagged abortable by one call and fatal by
//! another, and the same producer never gets over it.

use rdkafka::{error::RDKafkaError, types::RDKafkaErrorCode as Code};

use super::errors;

/// The calls of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// `init_transactions`.
    Claim,
    Begin,
    Offsets,
    /// The delivery of records, and adding their partitions to the transaction.
    Produce,
    Commit,
    Abort,
}

/// How librdkafka flags an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    None,
    Retriable,
    Abortable,
    Fatal,
}

impl Flag {
    pub fn of(error: &RDKafkaError) -> Self {
        if error.is_fatal() {
            Self::Fatal
        } else if error.txn_requires_abort() {
            Self::Abortable
        } else if error.is_retriable() {
            Self::Retriable
        } else {
            Self::None
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same call again, within its time limit.
    Again,
    /// Abort; the same producer can send the same publication again.
    AbortAndAgain,
    /// This producer is spent: a new one claims the transactional id.
    NewProducer,
    /// Only the broker knows what was committed, or by whom: look before claiming.
    LookFirst,
    /// No repetition helps until a person has changed something. It is reported, and tried again slowly.
    Stop,
}

/// What a code says whatever the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Another producer claimed the transactional id, or the coordinator ended a transaction that took too long.
    Fenced,
    /// The coordinator or a partition's leader no longer knows this producer.
    Forgotten,
    /// The numbers of a producer's records have a gap, as behind one that was refused.
    Miscounted,
    /// A permission, a version or a setting.
    Forbidden,
    /// A record failed: librdkafka refuses to commit, and has sent nothing.
    Undelivered,
    Passing,
    Other,
}

fn meaning(code: Code) -> Meaning {
    match code {
        code if errors::is_fenced(code) => Meaning::Fenced,
        Code::OutOfOrderSequenceNumber | Code::DuplicateSequenceNumber => Meaning::Miscounted,
        Code::InvalidProducerIdMapping
        | Code::UnknownProducerId
        | Code::InvalidTransactionalState
        | Code::GaplessGuarantee
        | Code::Fatal => Meaning::Forgotten,
        Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::UnsupportedForMessageFormat
        | Code::InvalidTransactionTimeout => Meaning::Forbidden,
        Code::Inconsistent => Meaning::Undelivered,
        code if errors::is_passing(code) => Meaning::Passing,
        _ => Meaning::Other,
    }
}

pub(super) fn verdict(call: Call, code: Code, flag: Flag) -> Verdict {
    // After a commit was asked for, a spent producer leaves the question whether it was committed.
    let spent = if call == Call::Commit { Verdict::LookFirst } else { Verdict::NewProducer };
    match (meaning(code), flag) {
        (Meaning::Fenced, _) => Verdict::LookFirst,
        // The abort gives the producer a new epoch, in which it counts from the beginning.
        (Meaning::Miscounted, Flag::Abortable) if call == Call::Produce => Verdict::AbortAndAgain,
        (Meaning::Forgotten | Meaning::Miscounted, _) => spent,
        (Meaning::Forbidden, _) => Verdict::Stop,
        (Meaning::Undelivered, Flag::None | Flag::Retriable | Flag::Abortable) => Verdict::AbortAndAgain,
        (Meaning::Passing, Flag::None) if call == Call::Produce => Verdict::AbortAndAgain,
        (Meaning::Passing, Flag::None) | (_, Flag::Retriable) => Verdict::Again,
        (Meaning::Passing | Meaning::Other, Flag::Abortable) => match call {
            // The coordinator may have committed before the transaction failed here.
            Call::Commit => Verdict::LookFirst,
            Call::Claim | Call::Abort => Verdict::NewProducer,
            Call::Begin | Call::Offsets | Call::Produce => Verdict::AbortAndAgain,
        },
        // A record that was thrown away or turned down, in a transaction that is still good.
        (Meaning::Other, Flag::None) if call == Call::Produce => Verdict::AbortAndAgain,
        (Meaning::Undelivered | Meaning::Passing | Meaning::Other, Flag::Fatal) | (Meaning::Other, Flag::None) => spent,
    }
}

#[cfg(test)]
mod tests {
    use Call::{Abort, Begin, Claim, Commit, Offsets, Produce};
    use Verdict::{AbortAndAgain, Again, LookFirst, NewProducer, Stop};

    use super::*;

    const CALLS: [Call; 6] = [Claim, Begin, Offsets, Produce, Commit, Abort];
    const FLAGS: [Flag; 4] = [Flag::None, Flag::Retriable, Flag::Abortable, Flag::Fatal];

    /// For each code: the verdicts for `CALLS`, the same for all of these flags.
    #[track_caller]
    fn check(codes: &[Code], flags: &[Flag], expected: [Verdict; 6]) {
        for (code, flag) in codes.iter().flat_map(|code| flags.iter().map(move |flag| (*code, *flag))) {
            let found = CALLS.map(|call| verdict(call, code, flag));
            assert_eq!(found, expected, "{code:?} flagged {flag:?} by {CALLS:?}");
        }
    }

    #[test]
    fn the_code_wins_over_the_flag() {
        check(
            &[Code::InvalidProducerIdMapping, Code::UnknownProducerId],
            &FLAGS,
            [NewProducer, NewProducer, NewProducer, NewProducer, LookFirst, NewProducer],
        );
        check(
            &[Code::InvalidTransactionalState, Code::GaplessGuarantee, Code::Fatal],
            &FLAGS,
            [NewProducer, NewProducer, NewProducer, NewProducer, LookFirst, NewProducer],
        );
        let miscounted = [Code::OutOfOrderSequenceNumber, Code::DuplicateSequenceNumber];
        check(
            &miscounted,
            &[Flag::None, Flag::Retriable, Flag::Fatal],
            [NewProducer, NewProducer, NewProducer, NewProducer, LookFirst, NewProducer],
        );
        check(
            &miscounted,
            &[Flag::Abortable],
            [NewProducer, NewProducer, NewProducer, AbortAndAgain, LookFirst, NewProducer],
        );
        let fenced =
            [Code::Fenced, Code::ProducerFenced, Code::InvalidProducerEpoch, Code::TransactionCoordinatorFenced];
        check(&fenced, &FLAGS, [LookFirst; 6]);
        check(
            &[
                Code::GroupAuthorizationFailed,
                Code::ClusterAuthorizationFailed,
                Code::TransactionalIdAuthorizationFailed,
                Code::UnsupportedVersion,
                Code::UnsupportedForMessageFormat,
                Code::InvalidTransactionTimeout,
            ],
            &FLAGS,
            [Stop; 6],
        );
    }

    #[test]
    fn otherwise_the_flag_decides() {
        let passing = [
            Code::OperationTimedOut,
            Code::BrokerTransportFailure,
            Code::CoordinatorNotAvailable,
            Code::NotCoordinator,
            Code::ConcurrentTransactions,
            Code::RequestTimedOut,
        ];
        let others = [Code::UnknownTopicOrPartition, Code::State, Code::Unknown];
        check(&passing, &[Flag::None], [Again, Again, Again, AbortAndAgain, Again, Again]);
        check(&[&passing[..], &others[..]].concat(), &[Flag::Retriable], [Again; 6]);
        check(
            &[&passing[..], &others[..]].concat(),
            &[Flag::Abortable],
            [NewProducer, AbortAndAgain, AbortAndAgain, AbortAndAgain, LookFirst, NewProducer],
        );
        check(
            &[&passing[..], &others[..]].concat(),
            &[Flag::Fatal],
            [NewProducer, NewProducer, NewProducer, NewProducer, LookFirst, NewProducer],
        );
        check(&others, &[Flag::None], [NewProducer, NewProducer, NewProducer, AbortAndAgain, LookFirst, NewProducer]);
    }

    #[test]
    fn a_commit_that_was_never_sent_needs_no_look() {
        check(&[Code::Inconsistent], &[Flag::None, Flag::Retriable, Flag::Abortable], [AbortAndAgain; 6]);
    }
}
