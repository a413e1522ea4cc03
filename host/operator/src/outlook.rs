//! What becomes of a record that is about to be published by hand. Invariant: it is read as the host will read it, so that
//! nobody has to find out from a saga that never begins.

use sagahost_codec::{Codec, SAGA_FAILED};
use sagahost_processor::lookalike;
use sagahost_saga::{id::Kind, notation};
use sagahost_sandbox::Manifest;
use sagahost_wire::{Outgoing, Partition, Record};

use super::{
    protocol::{Refusal, Why},
    topics,
};
use crate::settings::Settings;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Plugins that act on it.
    pub handled_by: Vec<String>,
    /// Why none does.
    pub note: Option<String>,
}

impl Outlook {
    /// # Errors
    /// The host would read the record as another kind than `kind`.
    pub fn of(
        settings: &Settings,
        manifests: &[Manifest],
        record: &Outgoing,
        kind: Option<&str>,
    ) -> Result<Self, Refusal> {
        let topic = &record.topic;
        if !topics::needed(&settings.topics, manifests).get(topic).is_some_and(|line| line.read) {
            return Ok(Self::nobody(format!("this app does not read topic {topic}: no plugin here handles it")));
        }
        let kinds: Vec<Kind> = manifests.iter().flat_map(kinds_of).map(Kind::new).collect();
        let codec = Codec::new(&settings.app, &settings.topics, settings.record_bytes_max).with_kinds(&kinds);
        let event = match codec.decode(&as_read(record)) {
            Ok(decoded) => decoded.event,
            Err(why) => return Ok(Self::nobody(format!("the host will keep it as a dead letter: {why}"))),
        };
        let found = event.kind.as_str();
        if let Some(kind) = kind.filter(|kind| *kind != found) {
            let text = format!(
                "the host would read this record in topic {topic} as {found}, not as {}: send it as a CloudEvent \
                 (without --plain), or name the topic of its kind",
                notation::id(kind)
            );
            return Err(Refusal::new(Why::Invalid, text));
        }
        let handled_by: Vec<String> = manifests
            .iter()
            .filter(|manifest| kinds_of(manifest).any(|known| known == found))
            .map(|manifest| manifest.name.clone())
            .collect();
        if !handled_by.is_empty() || found == SAGA_FAILED {
            return Ok(Self { handled_by, note: None });
        }
        let meant = lookalike::meant(found, manifests.iter().flat_map(kinds_of));
        let hint = meant.map(|meant| format!(": {}", lookalike::hint(meant))).unwrap_or_default();
        Ok(Self::nobody(format!("no plugin of this app handles {}{hint}", notation::id(found))))
    }

    fn nobody(note: String) -> Self {
        Self { handled_by: Vec::new(), note: Some(note) }
    }
}

/// Kinds that a plugin acts on.
fn kinds_of(manifest: &Manifest) -> impl Iterator<Item = &str> + Clone {
    let handled = manifest.subscriptions.iter().map(|subscription| &subscription.kind);
    handled.chain(&manifest.compensate_on).chain(&manifest.finish_on).map(String::as_str)
}

fn as_read(record: &Outgoing) -> Record {
    Record {
        partition: Partition { topic: record.topic.clone(), number: 0 },
        offset: 0,
        timestamp_ms: None,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
    }
}
