//! Questions about topics, and making them. Invariant: a topic that is missing is an answer, not an error.

use std::{ffi::CString, sync::Arc, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    bindings::rd_kafka_oauthbearer_set_token,
    consumer::Consumer as _,
    error::KafkaError,
    types::RDKafkaErrorCode as Code,
};
use sagahost_transport::TransportError;
use sagahost_wire::Partition;

use super::{
    PATIENCE,
    connection::{Connection, Consumer},
    context::Context,
    errors, retry_until_stopped,
};

/// How many partitions a topic has; none: it does not exist.
pub(super) fn count(
    connection: &Connection,
    consumer: &Consumer,
    topic: &str,
    patience: Duration,
) -> Result<Option<i32>, TransportError> {
    retry_until_stopped(connection, consumer, "ask for topics", patience, |slice| {
        let metadata = consumer.fetch_metadata(Some(topic), slice)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(None);
        };
        match found.error().map(Code::from) {
            None => Ok(i32::try_from(found.partitions().len()).ok().filter(|partitions| *partitions > 0)),
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic) => Ok(None),
            Some(code) => Err(KafkaError::MetadataFetch(code)),
        }
    })
}

/// The first offset still kept, and the end of what is committed.
pub(super) fn bounds(
    connection: &Connection,
    consumer: &Consumer,
    partition: &Partition,
    patience: Duration,
) -> Result<(i64, i64), TransportError> {
    retry_until_stopped(connection, consumer, "ask for the bounds of partitions", patience, |slice| {
        consumer.fetch_watermarks(&partition.topic, partition.number, slice)
    })
}

pub(super) fn create(connection: &Connection, names: &[Arc<str>], partitions: i32) -> Result<(), TransportError> {
    let admin: AdminClient<Context> = connection.admin()?;
    give_token(connection, &admin)?;
    let replication = || TopicReplication::Fixed(connection.replication);
    let topics: Vec<_> = names.iter().map(|name| NewTopic::new(name, partitions, replication())).collect();
    let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
    let doing = "make topics";
    let broken = |error: &KafkaError| errors::transport(connection, admin.inner().context(), doing, error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| TransportError::Broken(format!("failed to {doing}: {error}")))?;
    let results = runtime.block_on(admin.create_topics(&topics, &options)).map_err(|error| broken(&error))?;
    for result in results {
        match result {
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
            Err((name, Code::InvalidReplicationFactor)) => {
                return Err(TransportError::Refused(format!(
                    "topic {name} cannot have {} replicas: set replication in [kafka] to at most the number of brokers",
                    connection.replication
                )));
            }
            Err((name, code)) => {
                return Err(match broken(&KafkaError::AdminOp(code)) {
                    TransportError::Refused(why) => TransportError::Refused(format!("topic {name}: {why}")),
                    TransportError::Away(why) => TransportError::Away(format!("topic {name}: {why}")),
                    TransportError::Fenced(why) | TransportError::Broken(why) => {
                        TransportError::Refused(format!("failed to create topic {name}: {why}"))
                    }
                });
            }
        }
    }
    Ok(())
}

/// An `AdminClient` never asks its context for a token.
#[expect(unsafe_code, reason = "rdkafka has no safe way to hand a token to an admin client")]
pub(super) fn give_token(connection: &Connection, admin: &AdminClient<Context>) -> Result<(), TransportError> {
    let Some(token) = connection.token() else {
        return Ok(());
    };
    let token = token.map_err(|why| errors::turned_down(connection, &why))?;
    let text =
        |text: String| CString::new(text).map_err(|_| errors::turned_down(connection, "a token has a NUL in it"));
    let (value, principal) = (text(token.token)?, text(token.principal_name)?);
    let mut why = [0; 512];
    // SAFETY: the client outlives the call; librdkafka copies both strings; `why` is as long as said.
    let code = unsafe {
        rd_kafka_oauthbearer_set_token(
            admin.inner().native_ptr(),
            value.as_ptr(),
            token.lifetime_ms,
            principal.as_ptr(),
            std::ptr::null_mut(),
            0,
            why.as_mut_ptr(),
            why.len(),
        )
    };
    match Code::from(code) {
        Code::NoError => Ok(()),
        code => Err(errors::turned_down(connection, &format!("librdkafka refused the token ({code})"))),
    }
}
