//! librdkafka's errors as ours. Invariant: a text names the brokers and what to check, and has no secret in it.

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};
use sagahost_transport::TransportError;

use super::{
    connection::Connection,
    context::Context,
    verdict::{Call, Flag, Verdict, verdict},
};

/// A client that librdkafka would not make.
pub(super) fn configuration(connection: &Connection, error: &KafkaError) -> TransportError {
    let text = match error {
        // Its own text has the value, which may be secret.
        KafkaError::ClientConfig(_, why, name, _) => format!("kafka.properties.{name}: {why}"),
        KafkaError::ClientCreation(why) => format!("[kafka.properties]: librdkafka refuses it: {why}"),
        error => format!("[kafka.properties]: {error}"),
    };
    TransportError::Refused(connection.redaction.clean(text.trim()))
}

/// May the same call succeed a little later? Of the transactional calls only the claim is asked about here.
pub(super) fn passing(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => verdict(Call::Claim, error.code(), Flag::of(error)) == Verdict::Again,
        error => is_passing(code(error)),
    }
}

pub(super) fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::RequestTimedOut
            | Code::MessageTimedOut
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::WaitingForCoordinator
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::NetworkException
            | Code::UnstableOffsetCommit
            | Code::ConcurrentTransactions
            | Code::Retry
            | Code::WaitCache
    )
}

pub(super) fn code(error: &KafkaError) -> Code {
    match error {
        KafkaError::AdminOp(code) => *code,
        error => error.rdkafka_error_code().unwrap_or(Code::Unknown),
    }
}

pub(super) fn is_fenced(code: Code) -> bool {
    matches!(
        code,
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::TransactionCoordinatorFenced
    )
}

pub(super) fn transport(connection: &Connection, context: &Context, doing: &str, error: &KafkaError) -> TransportError {
    let text = connection.redaction.clean(&match error {
        KafkaError::Transaction(error) => error.string(),
        error => error.to_string(),
    });
    match code(error) {
        code if is_fenced(code) => TransportError::Fenced(text),
        code if is_forbidden(code) => TransportError::Refused(forbidden(connection, doing, code)),
        Code::InvalidTransactionTimeout => TransportError::Refused(format!(
            "the brokers do not allow a transaction.timeout.ms of {}: lower it in [kafka.properties]",
            connection.transaction_timeout.as_millis()
        )),
        _ if passing(error) => away(connection, context, doing, &text),
        _ => TransportError::Broken(format!("failed to {doing} at {}: {text}", connection.servers)),
    }
}

pub(super) fn away(connection: &Connection, context: &Context, doing: &str, text: &str) -> TransportError {
    let last = context.last_trouble().map(|last| format!("; last seen: {last}")).unwrap_or_default();
    TransportError::Away(format!(
        "failed to {doing}: no answer from {} ({text}{last}); check that the brokers run, that bootstrap-servers in \
         [kafka] is right, and that security.protocol in [kafka.properties] is the listener's",
        connection.servers
    ))
}

/// The broker answered, and turned us down.
pub(super) fn turned_down(connection: &Connection, reason: &str) -> TransportError {
    let reason = connection.redaction.clean(reason);
    let check = match connection.mechanism() {
        Some(mechanism) => {
            format!("check the credentials for SASL mechanism {mechanism}, and that the broker offers it")
        }
        None => "check security.protocol and the ssl.* settings (ssl.ca.location names the certificates to trust)"
            .to_owned(),
    };
    TransportError::Refused(format!(
        "{} refused the connection: {reason}; {check} in [kafka.properties]",
        connection.servers
    ))
}

pub(super) fn is_forbidden(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}

pub(super) fn forbidden(connection: &Connection, doing: &str, code: Code) -> String {
    let app = &connection.app;
    let needed = match code {
        Code::TopicAuthorizationFailed => {
            "READ, WRITE and DESCRIBE on its topics (CREATE where create-topics is on)".into()
        }
        Code::GroupAuthorizationFailed => format!("READ on the group {app}"),
        Code::TransactionalIdAuthorizationFailed => {
            format!("WRITE and DESCRIBE on the transactional id {app}")
        }
        _ => "IDEMPOTENT_WRITE on the cluster (CREATE where create-topics is on)".to_owned(),
    };
    format!("not permitted to {doing} at {} ({code}): give the principal of app {app} {needed}", connection.servers)
}

/// About the size of a record, or of the request that it travelled in.
pub(super) fn is_size(code: Code) -> bool {
    matches!(code, Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize)
}

/// Why a record will never be accepted as it is; none for what may pass.
pub(super) fn refusal(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            "it is too large: raise max.message.bytes of the topic, and message.max.bytes in [kafka.properties]"
        }
        Code::TopicAuthorizationFailed => "no permission to WRITE to the topic",
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownTopicId => "the topic does not exist",
        Code::UnknownPartition => "the topic has no such partition",
        Code::InvalidTopic => "it is not a valid topic name",
        Code::PolicyViolation => "a policy of the broker forbids it",
        Code::InvalidRecord => "the broker says that the record is invalid; a compacted topic needs a key",
        Code::InvalidTimestamp => "the broker refuses its timestamp: compare the clocks",
        _ => return None,
    })
}
