//! Table `[kafka]`: with it records go through a broker, without it through embedded topics. Invariant: what
//! librdkafka would refuse or wait for is a fault of the file, with its line.

use std::{collections::BTreeMap, path::Path};

use super::{
    properties::{self, Property},
    reader::Table,
    servers,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSettings {
    pub bootstrap_servers: String,
    /// Where the very first start of an app begins to read.
    pub start: Start,
    /// Make the topics that are missing.
    pub create_topics: bool,
    /// Of topics that it makes.
    pub partitions: i32,
    pub replication: i32,
    /// Passed to librdkafka as they are.
    pub properties: BTreeMap<String, Property>,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            bootstrap_servers: String::new(),
            start: Start::Earliest,
            create_topics: false,
            partitions: 4,
            replication: 1,
            properties: BTreeMap::new(),
        }
    }
}

impl KafkaSettings {
    fn security_protocol(&self) -> String {
        self.properties.get("security.protocol").map_or_else(|| "plaintext".to_owned(), |is| is.value().to_lowercase())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
}

pub fn read(mut table: Table<'_, '_>, base: &Path) -> Option<KafkaSettings> {
    let d = KafkaSettings::default();
    let servers = table.text("bootstrap-servers");
    let settings = KafkaSettings {
        bootstrap_servers: servers.as_ref().map_or_else(String::new, |(servers, _)| servers.clone()),
        start: table.choice("start", &[("earliest", Start::Earliest), ("latest", Start::Latest)]).unwrap_or(d.start),
        create_topics: table.boolean("create-topics", d.create_topics),
        partitions: table.number("partitions", 1..=10_000, d.partitions),
        replication: table.number("replication", 1..=100, d.replication),
        properties: properties::read(&table.table("properties"), base),
    };
    match servers {
        Some((servers, at)) => {
            for fault in servers::faults(&servers, &settings.security_protocol()) {
                table.fault("bootstrap-servers", at.clone(), fault);
            }
        }
        None if table.is_present() && !table.has("bootstrap-servers") => {
            table.fault_of_table("needs bootstrap-servers = \"127.0.0.1:9092\"");
        }
        None => {}
    }
    let present = table.is_present();
    table.finish();
    present.then_some(settings)
}
