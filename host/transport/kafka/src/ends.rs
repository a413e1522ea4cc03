//! Where partitions end, for many at once. Invariant: one request to each broker, however many partitions.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{Offset, TopicPartitionList, consumer::Consumer as _};
use sagahost_transport::TransportError;
use sagahost_wire::Partition;

use super::{
    connection::{Connection, Consumer},
    retry_until_stopped,
};

/// What the consumer could read up to: with `read_committed` the first record of an open transaction.
pub(super) fn ends(
    connection: &Connection,
    consumer: &Consumer,
    partitions: &[Partition],
    patience: Duration,
) -> Result<BTreeMap<Partition, i64>, TransportError> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    retry_until_stopped(connection, consumer, "ask for the ends of partitions", patience, |slice| {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(&partition.topic, partition.number, Offset::End)?;
        }
        let list = consumer.offsets_for_times(list, slice)?;
        let known = list.elements().into_iter().filter(|element| element.error().is_ok());
        Ok(known
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some((Partition::new(element.topic(), element.partition()), offset)),
                _ => None,
            })
            .collect())
    })
}
