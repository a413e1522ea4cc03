//! Table `[kafka.properties]`: what is passed to librdkafka. Invariant: a secret's value is in no message, no `Debug` and
//! no output of `config show`; a name or a value that librdkafka would refuse is a fault of the file.

use std::{collections::BTreeMap, ops::Range, path::Path};

use sagahost_transport_kafka::{Property, TOKEN_FILE, TRANSACTION_TIMEOUT, is_known, properties as librdkafka};
use toml::de::DeValue;

use super::{
    java_clients,
    reader::{Table, Value},
    secrets,
};

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

pub fn read(table: &Table<'_, '_>, base: &Path) -> BTreeMap<String, Property> {
    let mut found = BTreeMap::new();
    for (name, at, value) in table.values() {
        gather(table, &name, at, value, base, &mut found);
    }
    found
}

/// `sasl.password = …` without quotes is a table `sasl` to TOML: it is still meant as one name.
fn gather(
    table: &Table<'_, '_>,
    name: &str,
    at: Range<usize>,
    value: &Value<'_>,
    base: &Path,
    found: &mut BTreeMap<String, Property>,
) {
    if let DeValue::Table(entries) = value.get_ref()
        && !secrets::is_source(entries)
    {
        for (key, value) in entries {
            gather(table, &format!("{name}.{}", key.get_ref()), key.span(), value, base, found);
        }
        return;
    }
    if let Some(fault) = name_fault(name) {
        table.fault(name, at, fault);
    } else if let Some(property) = property(table, name, value, base) {
        if let Some(fault) = value_fault(name, property.value()) {
            table.fault(name, value.span(), fault);
        }
        found.insert(name.to_owned(), property);
    }
}

fn name_fault(name: &str) -> Option<String> {
    if let Some((_, instead)) = OWN.iter().find(|(own, _)| *own == name) {
        return Some(format!("is the host's own: {instead}"));
    }
    if is_known(name) {
        return None;
    }
    Some(match (java_clients::advice(name), librdkafka::nearest_name(name)) {
        (Some(advice), _) => advice.text(),
        (None, Some(near)) => format!("librdkafka has no such property; did you mean `{near}`?"),
        (None, None) => "librdkafka has no such property; its CONFIGURATION.md lists what it knows".to_owned(),
    })
}

fn value_fault(name: &str, value: &str) -> Option<String> {
    match name {
        TOKEN_FILE => None,
        "transaction.timeout.ms" => {
            let (from, to) = (TRANSACTION_TIMEOUT.start().as_millis(), TRANSACTION_TIMEOUT.end().as_millis());
            let fits = value.trim().parse().is_ok_and(|ms: u128| (from..=to).contains(&ms));
            (!fits).then(|| format!("must be from {from} to {to}"))
        }
        name => librdkafka::value_fault(name, value),
    }
}

fn property(table: &Table<'_, '_>, name: &str, value: &Value<'_>, base: &Path) -> Option<Property> {
    match value.get_ref() {
        DeValue::String(text) => Some(Property::plain(name, text.as_ref())),
        DeValue::Boolean(is) => Some(Property::plain(name, is.to_string())),
        DeValue::Integer(number) => Some(Property::plain(name, number.as_str())),
        DeValue::Float(number) => Some(Property::plain(name, number.as_str())),
        DeValue::Table(entries) => {
            let (kind, place) = secrets::source(entries)?;
            match secrets::read(kind, place, base) {
                Ok(value) => Some(Property::secret(value, format!("{kind} {place}"))),
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
