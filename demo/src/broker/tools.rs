//! Kafka's own command line tools, and a plain client: what the tests compare the host with. Invariant: nothing here
//! uses the host's code.

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Header, Headers, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};

use super::{Broker, run};

/// A record as the console consumer prints it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub value: String,
    pub headers: Vec<(String, String)>,
}

/// Nothing in a record is expected to contain these.
const BETWEEN_FIELDS: &str = "\u{1f}";
const BETWEEN_HEADERS: &str = "\u{1e}";

impl Broker {
    /// Runs one of Kafka's tools, by its class, against this broker.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> Result<String> {
        let mut java = self.java("-Xmx256m");
        java.arg(class).arg("--bootstrap-server").arg(self.bootstrap()).args(arguments);
        run(&mut java).with_context(|| format!("{class} {}", arguments.join(" ")))
    }

    /// With settings of its own, as `retention.ms=1000`.
    pub fn create_topic(&self, topic: &str, partitions: i32, settings: &[&str]) -> Result<()> {
        let partitions = partitions.to_string();
        let mut arguments = vec!["--create", "--topic", topic, "--partitions", &partitions];
        for setting in settings {
            arguments.extend(["--config", setting]);
        }
        self.tool("org.apache.kafka.tools.TopicCommand", &arguments).map(drop)
    }

    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        self.tool("org.apache.kafka.tools.TopicCommand", &["--delete", "--topic", topic]).map(drop)
    }

    /// Makes a topic grow.
    pub fn alter_partitions(&self, topic: &str, partitions: i32) -> Result<()> {
        let partitions = partitions.to_string();
        let arguments = ["--alter", "--topic", topic, "--partitions", &partitions];
        self.tool("org.apache.kafka.tools.TopicCommand", &arguments).map(drop)
    }

    /// Removes what lies before the offset, as retention does.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        let wanted = serde_json::json!({
            "version": 1,
            "partitions": [{ "topic": topic, "partition": partition, "offset": before }],
        });
        fs::write(file.path(), wanted.to_string())?;
        let file = file.path().display().to_string();
        self.tool("org.apache.kafka.tools.DeleteRecordsCommand", &["--offset-json-file", &file]).map(drop)
    }

    /// `to` as the tool has it: `--to-earliest`, `--to-offset 5`.
    pub fn reset_offsets(&self, group: &str, topic: Option<&str>, to: &str) -> Result<String> {
        let mut arguments = vec!["--group", group, "--reset-offsets", "--execute"];
        arguments.extend(topic.map_or(vec!["--all-topics"], |topic| vec!["--topic", topic]));
        arguments.extend(to.split(' '));
        self.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", &arguments)
    }

    /// Committed offsets and lag, as the tool prints them.
    pub fn describe_group(&self, group: &str) -> Result<String> {
        self.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", &["--group", group, "--describe"])
    }

    /// `permission` as the tool has it: `--operation Write --topic orders`.
    pub fn allow(&self, principal: &str, permission: &str) -> Result<()> {
        let principal = format!("User:{principal}");
        let mut arguments = vec!["--add", "--allow-principal", &principal];
        arguments.extend(permission.split(' '));
        self.tool("org.apache.kafka.tools.AclCommand", &arguments).map(drop)
    }

    /// Everything that a reader of committed records sees, until nothing came for `quiet`.
    pub fn read(&self, topic: &str, quiet: Duration) -> Result<Vec<Line>> {
        let quiet = quiet.as_millis().to_string();
        let mut arguments = vec!["--topic", topic, "--from-beginning", "--timeout-ms", &quiet];
        arguments.extend(["--isolation-level", "read_committed"]);
        let separators = [format!("key.separator={BETWEEN_FIELDS}"), format!("headers.separator={BETWEEN_HEADERS}")];
        let printed = ["print.partition=true", "print.offset=true", "print.headers=true", "print.key=true"];
        for property in printed.into_iter().chain(separators.iter().map(String::as_str)) {
            arguments.extend(["--property", property]);
        }
        let text = self.tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &arguments)?;
        text.lines().filter(|line| line.starts_with("Partition:")).map(line).collect()
    }

    /// What is committed in a topic by now, read by a plain client: in milliseconds, where the console consumer takes
    /// seconds.
    pub fn committed(&self, topic: &str) -> Result<Vec<Line>> {
        const PATIENCE: Duration = Duration::from_secs(20);
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap()).set("group.id", "reader-of-committed-records");
        config.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        config.set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        config.set("allow.auto.create.topics", "false").set("fetch.wait.max.ms", "20");
        let consumer: BaseConsumer = config.create()?;
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let partitions = metadata.topics().iter().find(|found| found.name() == topic);
        let count = partitions.map_or(0, |found| found.partitions().len());
        if count == 0 {
            bail!("there is no topic {topic}");
        }
        let mut list = TopicPartitionList::new();
        for number in 0..count {
            list.add_partition_offset(topic, i32::try_from(number)?, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        let (mut lines, mut ended) = (Vec::new(), 0);
        while ended < count {
            match consumer.poll(PATIENCE).with_context(|| format!("{topic}: nothing comes"))? {
                Ok(message) => lines.push(line_of(&message)),
                Err(KafkaError::PartitionEOF(_)) => ended += 1,
                Err(error) => bail!("{topic}: {error}"),
            }
        }
        Ok(lines)
    }

    /// Those that the coordinators know.
    pub fn transactional_ids(&self) -> Result<Vec<String>> {
        let listed = self.tool("org.apache.kafka.tools.TransactionsCommand", &["list"])?;
        Ok(listed.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    /// How the transactions of an id have ended so far, as the broker's own log of committed offsets has it: committed,
    /// aborted. Each of them must have carried offsets.
    pub fn transactions(&self, id: &str) -> Result<(usize, usize)> {
        let described =
            self.tool("org.apache.kafka.tools.TransactionsCommand", &["describe", "--transactional-id", id])?;
        let columns = |line: usize| described.lines().nth(line).into_iter().flat_map(str::split_whitespace);
        let producer = columns(0).zip(columns(1)).find(|(name, _)| *name == "ProducerId").map(|(_, value)| value);
        let producer = producer.with_context(|| format!("no ProducerId in: {described}"))?;
        let of_producer = format!("producerId: {producer} ");
        let (mut committed, mut aborted) = (0, 0);
        let files = self.log_files("__consumer_offsets-")?.join(",");
        let mut java = self.java("-Xmx256m");
        java.args(["kafka.tools.DumpLogSegments", "--deep-iteration", "--files", &files]);
        let mut ours = false;
        for line in run(&mut java)?.lines() {
            // A batch's line names the producer, the lines of its records follow.
            if line.starts_with("baseOffset:") {
                ours = line.contains(&of_producer);
            } else if ours {
                committed += usize::from(line.contains("endTxnMarker: COMMIT"));
                aborted += usize::from(line.contains("endTxnMarker: ABORT"));
            }
        }
        Ok((committed, aborted))
    }

    /// Segments of the partitions whose directory begins like this.
    fn log_files(&self, prefix: &str) -> Result<Vec<String>> {
        let mut files = Vec::new();
        for directory in fs::read_dir(self.log_dir())?.flatten() {
            if directory.file_name().to_string_lossy().starts_with(prefix) {
                let entries = fs::read_dir(directory.path())?.flatten().map(|entry| entry.path().display().to_string());
                files.extend(entries.filter(|path| path.ends_with(".log")));
            }
        }
        Ok(files)
    }

    /// Sets one of a topic's settings, as `max.message.bytes=1000`.
    pub fn alter_topic(&self, topic: &str, setting: &str) -> Result<()> {
        let arguments = ["--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", setting];
        self.tool("kafka.admin.ConfigCommand", &arguments).map(drop)
    }

    /// Sends records of a plain client, keyed as Java clients do it, and waits until the broker has them all.
    pub fn produce<'a>(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = (&'a str, &'a str, &'a [(&'a str, &'a str)])>,
    ) -> Result<()> {
        self.produce_with(topic, records, &[])
    }

    /// With properties of librdkafka, as `compression.type`.
    pub fn produce_with<'a>(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = (&'a str, &'a str, &'a [(&'a str, &'a str)])>,
        properties: &[(&str, &str)],
    ) -> Result<()> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap()).set("partitioner", "murmur2_random").set("linger.ms", "5");
        config.set("queue.buffering.max.messages", "1000000").set("enable.idempotence", "true");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        let producer: BaseProducer = config.create()?;
        for (key, value, headers) in records {
            let headers = headers
                .iter()
                .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
            let mut record = BaseRecord::to(topic).key(key).payload(value).headers(headers);
            while let Err((error, back)) = producer.send(record) {
                if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                    bail!("failed to send to {topic}: {error}");
                }
                producer.poll(Duration::from_millis(10));
                record = back;
            }
            producer.poll(Duration::ZERO);
        }
        producer.flush(Duration::from_secs(60)).context("failed to send everything within a minute")
    }
}

/// `Partition:0␟Offset:7␟name:value␞name:value␟key␟value`
fn line(text: &str) -> Result<Line> {
    let mut fields = text.splitn(5, BETWEEN_FIELDS);
    let mut next = || fields.next().with_context(|| format!("an unexpected line of the console consumer: {text:?}"));
    let number = |field: &str, name: &str| -> Result<i64> {
        field
            .strip_prefix(name)
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("{field:?} is not a valid {name}"))
    };
    let (partition, offset) = (number(next()?, "Partition:")?, number(next()?, "Offset:")?);
    let headers = match next()? {
        "NO_HEADERS" => Vec::new(),
        headers => headers
            .split(BETWEEN_HEADERS)
            .filter_map(|header| header.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    };
    Ok(Line {
        partition: i32::try_from(partition)?,
        offset,
        headers,
        key: next()?.to_owned(),
        value: next()?.to_owned(),
    })
}

fn line_of(message: &BorrowedMessage<'_>) -> Line {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        // As the console consumer prints it.
        let null = Some(&b"null"[..]);
        headers.iter().map(|header| (header.key.to_owned(), text(header.value.or(null)))).collect()
    });
    Line {
        partition: message.partition(),
        offset: message.offset(),
        key: text(message.key()),
        value: text(message.payload()),
        headers,
    }
}

/// A cluster id: 22 characters of Base64, as `StorageTool random-uuid` makes them.
pub(super) fn random_id() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let seed = std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), 0);
    let mut bits = u128::from(seed) << 64 | u128::from(seed.rotate_left(17) ^ 0x9e37_79b9_7f4a_7c15);
    let mut id = String::from("A");
    for _ in 0..20 {
        id.push(char::from(ALPHABET[(bits & 63) as usize]));
        bits >>= 6;
    }
    id.push('A');
    id
}
