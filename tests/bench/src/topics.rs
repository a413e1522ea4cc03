//! Topics, before anybody is measured. Invariant: all teams have the same ones, with the same number of partitions.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    types::RDKafkaErrorCode,
};

const PARTITIONS: i32 = 4;
const TOPICS: [&str; 9] = [
    "order-created",
    "payment-processed",
    "payment-failed",
    "payment-refunded",
    "inventory-updated",
    "inventory-rejected",
    "inventory-released",
    "order-completed",
    "order-cancelled",
];

pub fn make(bootstrap: &str) -> Result<()> {
    let mut config = ClientConfig::new();
    let client: AdminClient<DefaultClientContext> = config.set("bootstrap.servers", bootstrap).create()?;
    let new = TOPICS.map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for made in runtime.block_on(client.create_topics(&new, &options)).context("failed to make topics")? {
        match made {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, error)) => anyhow::bail!("failed to make {topic}: {error}"),
        }
    }
    Ok(())
}
