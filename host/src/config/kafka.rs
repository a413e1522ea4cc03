//! Table `[kafka]`: with it records go through a broker, without it through embedded topics. Invariant: what
//! librdkafka would refuse or wait for is a fault of the file, with its line.

use std::path::Path;

use sagahost_transport::StartAt;
use sagahost_transport_kafka::KafkaSettings;

use super::{properties, reader::Table, servers};

pub fn read(mut table: Table<'_, '_>, base: &Path) -> Option<KafkaSettings> {
    let d = KafkaSettings::default();
    let servers = table.text("bootstrap-servers");
    let settings = KafkaSettings {
        bootstrap_servers: servers.as_ref().map_or_else(String::new, |(servers, _)| servers.clone()),
        start: table
            .choice("start", &[("earliest", StartAt::Earliest), ("latest", StartAt::Latest)])
            .unwrap_or(d.start),
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
