//! Why a partition's leader did not take a record in time. Invariant: that the brokers do not answer is said only when
//! they do not answer now.
//!
//! librdkafka repeats a record until its time is over, and reports just that: what the leader said is lost. So the
//! brokers are asked what is wrong.

use std::collections::BTreeSet;

use rdkafka::{
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    consumer::Consumer as _,
    types::RDKafkaErrorCode as Code,
};

use super::{
    SLICE,
    connection::{Connection, Consumer},
    context::Context,
    topics,
};

/// Topics that are asked about.
const TOPICS_MAX: usize = 3;

/// The time of a record was over, or its partition has too few replicas.
pub(super) fn is_late(code: Code) -> bool {
    timed_out(code) || lacks_replicas(code)
}

fn timed_out(code: Code) -> bool {
    matches!(code, Code::MessageTimedOut | Code::OperationTimedOut | Code::BrokerTransportFailure)
}

fn lacks_replicas(code: Code) -> bool {
    matches!(code, Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend)
}

/// `code`: of a delivery report that is late. `last_trouble`: what the producer heard last.
pub(super) fn reason<'t>(
    connection: &Connection,
    consumer: &Consumer,
    last_trouble: Option<String>,
    topics: impl Iterator<Item = &'t str>,
    code: Code,
) -> String {
    let topics: BTreeSet<&str> = topics.collect();
    let lacking = lacks_replicas(code);
    let found = topics.iter().take(TOPICS_MAX).map(|topic| of_topic(connection, consumer, topic, lacking));
    match found.collect::<Option<Vec<String>>>() {
        Some(found) => {
            let named = found.into_iter().filter(|found| !found.is_empty()).collect::<Vec<_>>().join("; ");
            match named.as_str() {
                "" => format!(
                    "{} did not confirm records for {} within {} s ({code})",
                    connection.servers,
                    topics.into_iter().collect::<Vec<_>>().join(", "),
                    connection.delivery_timeout().as_secs()
                ),
                named => named.to_owned(),
            }
        }
        None => {
            format!("no answer from {}: {}", connection.servers, last_trouble.unwrap_or_else(|| code.to_string()))
        }
    }
}

/// A partition as the brokers describe it.
#[derive(Clone, Copy, Debug)]
struct Replicas {
    number: i32,
    has_leader: bool,
    in_sync: usize,
    all: usize,
}

/// What is wrong with a topic; empty: nothing that can be seen. None: the brokers do not answer.
fn of_topic(connection: &Connection, consumer: &Consumer, topic: &str, lacking: bool) -> Option<String> {
    let metadata = consumer.fetch_metadata(Some(topic), SLICE).ok()?;
    let found = metadata.topics().iter().find(|found| found.name() == topic)?;
    let partitions = found.partitions().iter().map(|partition| Replicas {
        number: partition.id(),
        has_leader: partition.leader() >= 0,
        in_sync: partition.isr().len(),
        all: partition.replicas().len(),
    });
    let partitions: Vec<Replicas> = partitions.collect();
    Some(fault(topic, &partitions, min_in_sync(connection, topic), lacking))
}

/// `wanted`: in-sync replicas, where that is known. `lacking`: the leader said that there are too few.
fn fault(topic: &str, partitions: &[Replicas], wanted: Option<usize>, lacking: bool) -> String {
    if let Some(Replicas { number, .. }) = partitions.iter().find(|partition| !partition.has_leader) {
        return format!("{topic}[{number}] has no leader: check that the brokers that hold its replicas run");
    }
    let Some(Replicas { number, in_sync, all, .. }) =
        partitions.iter().copied().min_by_key(|partition| partition.in_sync)
    else {
        return String::new();
    };
    let too_few = wanted.map_or(in_sync < all, |wanted| in_sync < wanted);
    if !lacking && !too_few {
        return String::new();
    }
    let wanted = wanted.map(|wanted| format!(" = {wanted}")).unwrap_or_default();
    format!(
        "min.insync.replicas{wanted} of topic {topic} is not met: {in_sync} of {all} replicas of {topic}[{number}] are in \
         sync. Start the brokers that are missing, or lower min.insync.replicas of the topic"
    )
}

/// None: the setting cannot be read, for lack of permission perhaps.
fn min_in_sync(connection: &Connection, topic: &str) -> Option<usize> {
    let admin: AdminClient<Context> = connection.admin().ok()?;
    topics::give_token(connection, &admin).ok()?;
    let options = AdminOptions::new().request_timeout(Some(SLICE)).operation_timeout(Some(SLICE));
    let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
    let described = runtime.block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options)).ok()?;
    let resource = described.into_iter().next()?.ok()?;
    resource.get("min.insync.replicas")?.value.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(number: i32, in_sync: usize, all: usize) -> Replicas {
        Replicas { number, has_leader: true, in_sync, all }
    }

    #[test]
    fn too_few_replicas_are_named_with_the_partition_that_has_fewest() {
        let partitions = [replicas(0, 2, 3), replicas(1, 1, 3), replicas(2, 3, 3)];
        assert_eq!(
            fault("orders", &partitions, Some(2), false),
            "min.insync.replicas = 2 of topic orders is not met: 1 of 3 replicas of orders[1] are in sync. Start the \
             brokers that are missing, or lower min.insync.replicas of the topic"
        );
        assert_eq!(fault("orders", &partitions, Some(1), false), "", "enough of them");
        assert!(fault("orders", &partitions, Some(1), true).contains("is not met"), "the leader said so");
        assert!(
            fault("orders", &partitions, None, false).starts_with("min.insync.replicas of topic orders is not met")
        );
        assert_eq!(fault("orders", &[replicas(0, 3, 3)], None, false), "");
        let leaderless = [Replicas { has_leader: false, ..replicas(4, 0, 3) }];
        assert!(fault("orders", &leaderless, Some(2), false).starts_with("orders[4] has no leader"));
    }
}
