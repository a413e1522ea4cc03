//! Table `[kafka]`: with it records go through a broker, without it through embedded topics. Invariant: a secret's
//! value is in no message, no `Debug` and no output of `config show`.

use std::{collections::BTreeMap, env, fmt, fs, ops::Range, path::Path};

use toml::de::{DeTable, DeValue};

use super::reader::{Table, Value};

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Property {
    value: String,
    /// Where a secret came from: `env KAFKA_PASSWORD`, `file secrets/password`. None: it stands in the file.
    from: Option<String>,
    secret: bool,
}

impl Property {
    pub fn plain(name: &str, value: impl Into<String>) -> Self {
        Self { value: value.into(), from: None, secret: is_secret(name) }
    }
    /// For librdkafka, and for nobody else.
    pub fn value(&self) -> &str {
        &self.value
    }
    /// For people.
    pub fn shown(&self) -> String {
        match (&self.from, self.secret) {
            (Some(from), _) => format!("({from})"),
            (None, true) => "(hidden)".to_owned(),
            (None, false) => self.value.clone(),
        }
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

/// Does librdkafka read something from this property that nobody else should?
pub fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let public = name.ends_with(".location") || name.ends_with(".url") || name.ends_with(".mechanism");
    let words = ["password", "secret", "token", "jaas", "oauthbearer.config", "assertion", "key.pem"];
    !public && words.iter().any(|word| name.contains(word))
}

/// Properties that the commit protocol depends on.
const OWN: [(&str, &str); 17] = [
    ("bootstrap.servers", "write bootstrap-servers in [kafka]"),
    ("group.id", "it is the app's name"),
    ("transactional.id", "it is the app's name"),
    ("enable.idempotence", "publication is transactional"),
    ("enable.auto.commit", "offsets are committed with the events"),
    ("enable.auto.offset.store", "offsets are committed with the events"),
    ("enable.partition.eof", "the host needs it"),
    ("isolation.level", "it is read_committed"),
    ("auto.offset.reset", "write start = \"earliest\" or \"latest\" in [kafka]"),
    ("partitioner", "records are keyed by saga id as Java clients do it"),
    ("group.instance.id", "the host assigns partitions itself"),
    ("acks", "it is all"),
    ("request.required.acks", "it is all"),
    ("metadata.broker.list", "write bootstrap-servers in [kafka]"),
    ("message.timeout.ms", "it follows from transaction.timeout.ms"),
    ("delivery.timeout.ms", "it follows from transaction.timeout.ms"),
    ("group.protocol", "the host assigns partitions itself"),
];

pub fn read(mut table: Table<'_, '_>, base: &Path) -> Option<KafkaSettings> {
    let d = KafkaSettings::default();
    let settings = KafkaSettings {
        bootstrap_servers: servers(&mut table),
        start: table.choice("start", &[("earliest", Start::Earliest), ("latest", Start::Latest)]).unwrap_or(d.start),
        create_topics: table.boolean("create-topics", d.create_topics),
        partitions: table.number("partitions", 1..=10_000, d.partitions),
        replication: table.number("replication", 1..=100, d.replication),
        properties: properties(&table.table("properties"), base),
    };
    let present = table.is_present();
    table.finish();
    present.then_some(settings)
}

fn servers(table: &mut Table<'_, '_>) -> String {
    let example = "bootstrap-servers = \"127.0.0.1:9092\"";
    match table.text("bootstrap-servers") {
        Some((servers, at)) if servers.trim().is_empty() => {
            table.fault("bootstrap-servers", at, format_args!("must name a broker: {example}"));
            servers
        }
        Some((servers, _)) => servers,
        None => {
            if table.is_present() && !table.has("bootstrap-servers") {
                table.fault_of_table(format_args!("needs {example}"));
            }
            String::new()
        }
    }
}

fn properties(table: &Table<'_, '_>, base: &Path) -> BTreeMap<String, Property> {
    let mut found = BTreeMap::new();
    for (name, at, value) in table.values() {
        gather(table, &name, at, value, base, &mut found);
    }
    found
}

/// `sasl.password = …` without quotes is a table `sasl` to TOML: it is meant as one name all the same.
fn gather(
    table: &Table<'_, '_>,
    name: &str,
    at: Range<usize>,
    value: &Value<'_>,
    base: &Path,
    found: &mut BTreeMap<String, Property>,
) {
    if let DeValue::Table(entries) = value.get_ref()
        && !is_source(entries)
    {
        for (key, value) in entries {
            gather(table, &format!("{name}.{}", key.get_ref()), key.span(), value, base, found);
        }
        return;
    }
    if let Some((_, instead)) = OWN.iter().find(|(own, _)| *own == name) {
        table.fault(name, at, format_args!("is the host's own: {instead}"));
    } else if let Some(property) = property(table, name, value, base) {
        found.insert(name.to_owned(), property);
    }
}

fn is_source(entries: &DeTable<'_>) -> bool {
    entries.len() == 1
        && entries.iter().all(|(key, value)| {
            matches!(&**key.get_ref(), "env" | "file") && matches!(value.get_ref(), DeValue::String(_))
        })
}

fn property(table: &Table<'_, '_>, name: &str, value: &Value<'_>, base: &Path) -> Option<Property> {
    match value.get_ref() {
        DeValue::String(text) => Some(Property::plain(name, text.as_ref())),
        DeValue::Boolean(is) => Some(Property::plain(name, is.to_string())),
        DeValue::Integer(number) => Some(Property::plain(name, number.as_str())),
        DeValue::Float(number) => Some(Property::plain(name, number.as_str())),
        DeValue::Table(entries) => {
            let (key, source) = entries.iter().next()?;
            let DeValue::String(source) = source.get_ref() else { return None };
            match secret(key.get_ref(), source, base) {
                Ok(value) => Some(Property { value, from: Some(format!("{} {source}", key.get_ref())), secret: true }),
                Err(why) => {
                    table.fault(name, value.span(), why);
                    None
                }
            }
        }
        DeValue::Datetime(_) | DeValue::Array(_) => {
            let wanted = "text, a number, true or false, { env = \"NAME\" } or { file = \"PATH\" }";
            table.wrong_type(name, value.span(), wanted, value.get_ref())
        }
    }
}

/// A file may end with a line break; that is not part of the secret.
fn secret(kind: &str, source: &str, base: &Path) -> Result<String, String> {
    if kind == "env" {
        return env::var(source).map_err(|_| format!("environment variable {source} is not set, or is no text"));
    }
    let path = base.join(source);
    let text = fs::read_to_string(&path).map_err(|error| format!("failed to read {}: {error}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
