//! Events as records: CloudEvents 1.0 in Kafka's binary mode, keyed by saga id. Invariant: `decode` makes the same event
//! of it, and only the host writes `sagahost-*` headers.

use std::sync::Arc;

use sagahost_saga::{event::Event, id::EventKey};
use sagahost_wire::{Headers, Outgoing, Record, StoredLetter, header_bytes};

use super::{
    Codec,
    headers::{ATTRIBUTE, DEAD_LETTER, EXTENSION, HANDLED, HOPS, OMITTED, is_attribute_name},
    timestamp,
};

/// Of the detail of a dead letter; the journal keeps all of it.
const DETAIL_BYTES_MAX: usize = 4096;

/// Which batch of which journal took an event in when it was emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handled<'r> {
    pub journal: &'r str,
    pub incarnation: &'r str,
    pub batch: u64,
    /// Of the plugins that its chain ran with; None: a host before generations wrote it.
    pub generation: Option<u64>,
    pub event_id: &'r str,
}

impl Codec {
    pub fn encode(&self, event: &Event) -> Outgoing {
        let mut headers = Headers::with_capacity(8 + event.attributes.len());
        let mut add = |name: &str, value: &str| headers.push((name.to_owned(), Some(value.as_bytes().to_vec())));
        add("ce_specversion", "1.0");
        add("ce_id", &event.key.id);
        add("ce_source", &event.key.source);
        add("ce_type", event.kind.as_str());
        add("ce_time", &timestamp::format(event.time));
        add("ce_sagaid", event.saga.as_str());
        add("content-type", &event.content_type);
        if event.hops > 0 {
            add(HOPS, &event.hops.to_string());
        }
        for (name, value) in event.attributes.iter().filter(|(name, _)| is_attribute_name(name)) {
            let plain = name == "traceparent" || name == "tracestate" || self.topics.headers.contains(name);
            let prefix = match plain {
                true => "",
                false if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) => EXTENSION,
                false => ATTRIBUTE,
            };
            add(&format!("{prefix}{name}"), value);
        }
        let topic = self.topic_of(&event.kind);
        Outgoing { key: Some(self.published_key(&topic, event)), topic, value: Some(event.data.to_vec()), headers }
    }

    /// That of the saga's records, so that the event lands in their partition; else in the form of the topic.
    fn published_key(&self, topic: &str, event: &Event) -> Vec<u8> {
        match &event.record_key {
            Some(key) => key.to_vec(),
            None => self.key_of(topic, &event.saga).unwrap_or_else(|| event.saga.as_str().as_bytes().to_vec()),
        }
    }

    /// `batch`: `journal/incarnation/number.generation` of the batch that the event was taken in with, and of the plugins
    /// that took it in.
    pub fn mark_handled(&self, outgoing: &mut Outgoing, batch: &str, event_id: &str) {
        outgoing.headers.retain(|(name, _)| name != HANDLED);
        outgoing.headers.push((HANDLED.to_owned(), Some(format!("{batch}/{event_id}").into_bytes())));
    }

    /// Did a participant of this app emit it?
    pub fn is_own(&self, key: &EventKey) -> bool {
        is_below(key.source.as_bytes(), self.source.as_bytes())
    }

    /// Was the record taken in by this app before it was published? Only what is wanted for that is looked at. None
    /// also where the mark does not fit the record: a service that copies the headers of what it read copies the mark.
    pub fn handled<'r>(&self, record: &'r Record) -> Option<Handled<'r>> {
        let (mark, id, source) = marked(record)?;
        let mut parts = std::str::from_utf8(mark).ok()?.splitn(4, '/');
        let (journal, incarnation) = (parts.next()?, parts.next()?);
        let (place, event_id) = (parts.next()?, parts.next()?);
        let (batch, generation) = match place.split_once('.') {
            Some((batch, generation)) => (batch.parse().ok()?, Some(generation.parse().ok()?)),
            None => (place.parse().ok()?, None),
        };
        let ours = is_below(source, self.source.as_bytes());
        (ours && event_id.as_bytes() == id).then_some(Handled { journal, incarnation, batch, generation, event_id })
    }

    /// The record as it came, with the reason beside it. What would be too large to publish goes without its value.
    pub fn dead_letter(&self, letter: &StoredLetter) -> Outgoing {
        let topic = self.topics.dead_letters.clone();
        let mut outgoing = Outgoing {
            topic: topic.unwrap_or_else(|| Arc::from(format!("{}.dead-letters", self.app))),
            key: letter.record.key.clone(),
            value: letter.record.value.clone(),
            headers: letter.record.headers.clone(),
        };
        outgoing.headers.retain(|(name, _)| name != HANDLED && !name.starts_with(DEAD_LETTER));
        let reason = reason(letter);
        let size = |headers: &Headers| header_bytes(headers) + 10 * headers.len();
        if outgoing.size_bytes() + size(&reason) > self.record_bytes_max {
            outgoing.value = Some(Vec::new());
            outgoing.headers.push((OMITTED.to_owned(), Some(b"value".to_vec())));
        }
        if outgoing.size_bytes() + size(&reason) > self.record_bytes_max {
            outgoing.key = None;
            outgoing.headers = vec![(OMITTED.to_owned(), Some(b"key, value and headers".to_vec()))];
        }
        outgoing.headers.extend(reason);
        outgoing
    }
}

/// Is it this source, or one behind a `/`?
fn is_below(source: &[u8], above: &[u8]) -> bool {
    source.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// The values of `sagahost-handled`, `ce_id` and `ce_source`; None where one is missing or stands twice.
fn marked(record: &Record) -> Option<(&[u8], &[u8], &[u8])> {
    let (mut mark, mut id, mut source) = (None, None, None);
    for (name, value) in record.headers.iter().filter_map(|(name, value)| Some((name, value.as_deref()?))) {
        let place = match name.as_str() {
            HANDLED => &mut mark,
            "ce_id" => &mut id,
            "ce_source" => &mut source,
            _ => continue,
        };
        if place.replace(value).is_some() {
            return None;
        }
    }
    Some((mark?, id?, source?))
}

fn reason(letter: &StoredLetter) -> Headers {
    let mut headers = Headers::new();
    let mut add =
        |name: &str, value: &str| headers.push((format!("{DEAD_LETTER}{name}"), Some(value.as_bytes().to_vec())));
    add("letter", &letter.key);
    add("code", &letter.code);
    add("detail", shortened(&letter.detail));
    add("time", &timestamp::format(letter.at));
    if let Some((partition, offset)) = &letter.origin {
        add("topic", &partition.topic);
        add("partition", &partition.number.to_string());
        add("offset", &offset.to_string());
    }
    if let Some(saga) = &letter.saga {
        add("saga", saga.as_str());
    }
    if let Some(participant) = &letter.participant {
        add("participant", participant.as_str());
        add("attempts", &letter.attempts.to_string());
        add("plugin-version", &letter.plugin_version);
    }
    headers
}

fn shortened(detail: &str) -> &str {
    &detail[..detail.floor_char_boundary(DETAIL_BYTES_MAX)]
}
