//! Records as events and events as records. A record with `ce_*` headers is a CloudEvent and says itself what it is;
//! any other is plain JSON, and its topic's configuration says. Invariant: a record becomes the same event however often
//! it is read, and a record that is no event becomes an `Undecodable` with a reason, never a guess.

pub mod timestamp;
pub mod undecodable;

mod data;
mod encode;
mod headers;
mod plain;
mod structured;

use std::{collections::HashMap, sync::Arc};

use sagahost_saga::{
    event::{AsItCame, Event, Origin},
    id::{EventKey, Kind, SagaId, Time},
};

use self::{
    data::{Data, check_json, is_json},
    headers::{Found, HANDLED, check_attributes, required, text},
    undecodable::{
        BAD_TIME, INVALID_HEADER, INVALID_SAGA_ID, MISSING_SAGA_ID, OVERSIZED_RECORD, TOMBSTONE, UNSUPPORTED_MODE,
    },
};
use crate::{
    config::{SAGA_FAILED, TopicSettings},
    journal::StoredLetter,
    transport::{Partition, Record},
};

pub use self::{
    encode::Handled,
    headers::{LETTER, OMITTED},
    undecodable::Undecodable,
};

const SAGA_ID_BYTES_MAX: usize = 1024;
const EVENT_ID_BYTES_MAX: usize = 1024;

pub struct Codec {
    app: Arc<str>,
    /// `sagahost/<app>`: what the source of an event of this app begins with.
    source: String,
    topics: TopicSettings,
    record_bytes_max: usize,
    topic_of_kind: HashMap<Kind, Arc<str>>,
    /// Known kinds of a topic. Several: its plain records need a mapping.
    kinds_of_topic: HashMap<Arc<str>, Vec<Kind>>,
    json: Arc<str>,
}

/// What both kinds of record come to.
struct Draft<'r> {
    key: EventKey,
    saga: SagaId,
    kind: Kind,
    time: Option<&'r str>,
    content_type: Arc<str>,
    data: Arc<[u8]>,
}

impl Codec {
    pub fn new(app: &str, topics: &TopicSettings, record_bytes_max: usize) -> Self {
        let codec = Self {
            app: app.into(),
            source: format!("sagahost/{app}"),
            topics: topics.clone(),
            record_bytes_max,
            topic_of_kind: HashMap::new(),
            kinds_of_topic: HashMap::new(),
            json: "application/json".into(),
        };
        let mapped: Vec<Kind> = topics.of_kind.keys().cloned().collect();
        codec.with_kinds(&mapped).with_kinds(&[Kind::new(SAGA_FAILED)])
    }

    /// Kinds that the participants read: a plain record in the topic of one of them has that kind.
    pub fn with_kinds(mut self, kinds: &[Kind]) -> Self {
        for kind in kinds {
            let topic = self.topics.topic_of(kind);
            self.topic_of_kind.insert(kind.clone(), topic.clone());
            let known = self.kinds_of_topic.entry(topic).or_default();
            if !known.contains(kind) {
                known.push(kind.clone());
            }
        }
        self
    }

    pub fn topic_of(&self, kind: &Kind) -> Arc<str> {
        self.topic_of_kind.get(kind).cloned().unwrap_or_else(|| self.topics.topic_of(kind))
    }

    /// Which kind a plain record of this topic has: as the configuration says, else the one known kind whose topic it
    /// is. None: no such kind, or several.
    pub fn kind_of_topic(&self, topic: &str) -> Option<Kind> {
        let mapped = self.topics.records.get(topic).and_then(|mapping| mapping.kind.clone());
        mapped.or_else(|| match self.kinds_of_topic.get(topic).map(Vec::as_slice) {
            Some([kind]) => Some(kind.clone()),
            Some(_) | None => None,
        })
    }

    pub fn decode(&self, record: &Record) -> Result<Event, Undecodable> {
        let found = Found::read(&record.headers, &self.topics.headers);
        let event = found.as_ref().map_err(Clone::clone).and_then(|found| {
            let event = self.event(record, found)?;
            Ok(Event { origin: Some(self.origin(record, &event, found.is_cloud_event())), ..event })
        });
        event.map_err(|why| Undecodable { saga: self.said_saga(record, found.as_ref().ok()), ..why })
    }

    /// The event of a dead letter, as if its record were read again where it stood.
    pub fn decode_letter(&self, letter: &StoredLetter) -> Result<Event, Undecodable> {
        let elsewhere = || (Partition { topic: letter.record.topic.clone(), number: -1 }, -1);
        let (partition, offset) = letter.origin.clone().unwrap_or_else(elsewhere);
        let record = Record {
            partition,
            offset,
            timestamp_ms: Some(letter.at.0),
            key: letter.record.key.clone(),
            value: letter.record.value.clone(),
            headers: letter.record.headers.clone(),
        };
        let mut event = self.decode(&record)?;
        if letter.origin.is_none() {
            event.origin = None;
        }
        Ok(event)
    }

    /// Where the record stood, and how it came where encoding the event would not give it back.
    fn origin(&self, record: &Record, event: &Event, cloud_event: bool) -> Origin {
        let headers = || record.headers.iter().filter(|(name, _)| name != HANDLED);
        let same = cloud_event && {
            let encoded = self.encode(event);
            encoded.key == record.key && encoded.value == record.value && encoded.headers.iter().eq(headers())
        };
        let as_it_came = || AsItCame {
            key: record.key.clone(),
            value: record.value.clone().filter(|value| **value != *event.data),
            headers: headers().cloned().collect(),
        };
        Origin {
            topic: record.partition.topic.clone(),
            partition: record.partition.number,
            offset: record.offset,
            record: (!same).then(|| Arc::new(as_it_came())),
        }
    }

    fn event(&self, record: &Record, found: &Found<'_>) -> Result<Event, Undecodable> {
        let value = self.value(record)?;
        let content_type = text("content-type", found.content_type)?;
        match content_type.and_then(structured_mode) {
            Some(Mode::Json) => self.structured(record, found, value),
            Some(Mode::Other(mode)) => Err(Undecodable::new(
                UNSUPPORTED_MODE,
                format!(
                    "the content type is {mode}; CloudEvents are read in binary mode and as application/cloudevents+json"
                ),
            )),
            None if found.is_cloud_event() => self.binary(record, found, value, content_type),
            None => self.plain(record, found, value, content_type),
        }
    }

    fn value<'r>(&self, record: &'r Record) -> Result<&'r [u8], Undecodable> {
        let Some(value) = &record.value else {
            return Err(Undecodable::new(TOMBSTONE, "the record has no value; an event has data"));
        };
        let size = value.len() + record.key.as_ref().map_or(0, Vec::len);
        if size > self.record_bytes_max {
            let detail =
                format!("key and value have {size} bytes, {} are allowed (record-bytes-max)", self.record_bytes_max);
            return Err(Undecodable::new(OVERSIZED_RECORD, detail));
        }
        Ok(value)
    }

    fn binary(
        &self,
        record: &Record,
        found: &Found<'_>,
        value: &[u8],
        content_type: Option<&str>,
    ) -> Result<Event, Undecodable> {
        check_spec_version(required("ce_specversion", found.spec_version)?)?;
        let key = self.key(required("ce_source", found.source)?, required("ce_id", found.id)?)?;
        let kind = self.kind(required("ce_type", found.kind)?);
        if content_type.is_none_or(is_json) {
            check_json(value)?;
        }
        let draft = Draft {
            key,
            saga: self.saga(record, found, &Data::new(value))?,
            kind,
            time: text("ce_time", found.time)?,
            content_type: self.content_type(content_type),
            data: value.into(),
        };
        self.finish(record, found, draft)
    }

    fn structured(&self, record: &Record, found: &Found<'_>, value: &[u8]) -> Result<Event, Undecodable> {
        let envelope = structured::parse(value)?;
        check_spec_version(&envelope.spec_version)?;
        let data = envelope.data()?;
        if envelope.content_type.as_deref().is_none_or(is_json) {
            check_json(&data)?;
        }
        let saga = match &envelope.saga {
            Some(saga) => checked_saga(saga)?,
            None => self.saga(record, found, &Data::new(&data))?,
        };
        let draft = Draft {
            key: self.key(&envelope.source, &envelope.id)?,
            saga,
            kind: self.kind(&envelope.kind),
            time: envelope.time.as_deref(),
            content_type: self.content_type(envelope.content_type.as_deref()),
            data: data.into(),
        };
        let mut event = self.finish(record, found, draft)?;
        event.attributes = envelope.attributes(event.attributes);
        check_attributes(&event.attributes)?;
        Ok(event)
    }

    fn finish(&self, record: &Record, found: &Found<'_>, draft: Draft<'_>) -> Result<Event, Undecodable> {
        let time = match draft.time {
            Some(text) => timestamp::parse(text)
                .ok_or_else(|| Undecodable::new(BAD_TIME, format!("the time {text:?} is not as RFC 3339 has it")))?,
            None => Time(record.timestamp_ms.unwrap_or(0)),
        };
        let Draft { key, saga, kind, content_type, data, .. } = draft;
        let (attributes, hops) = (found.attributes()?, found.hops()?);
        Ok(Event { key, saga, kind, time, content_type, data, attributes, hops, origin: None })
    }

    /// Known kinds are shared, not copied.
    fn kind(&self, name: &str) -> Kind {
        self.topic_of_kind.get_key_value(name).map_or_else(|| Kind::new(name), |(kind, _)| kind.clone())
    }

    fn content_type(&self, text: Option<&str>) -> Arc<str> {
        match text {
            Some(text) if *text != *self.json => text.into(),
            Some(_) | None => self.json.clone(),
        }
    }

    fn key(&self, source: &str, id: &str) -> Result<EventKey, Undecodable> {
        let bytes = source.len() + id.len();
        if bytes > EVENT_ID_BYTES_MAX {
            let detail = format!("source and id of the event have {bytes} bytes, {EVENT_ID_BYTES_MAX} are allowed");
            return Err(Undecodable::new(INVALID_HEADER, detail));
        }
        Ok(EventKey::new(source, id))
    }

    /// Header `ce_sagaid`, else where the topic's mapping points, else the record's key.
    fn saga(&self, record: &Record, found: &Found<'_>, data: &Data<'_>) -> Result<SagaId, Undecodable> {
        if let Some(saga) = text("ce_sagaid", found.saga)? {
            return checked_saga(saga);
        }
        let mapping = self.topics.records.get(&record.partition.topic);
        if let Some(pointer) = mapping.and_then(|mapping| mapping.saga_id.as_deref()) {
            let saga = data.at(pointer);
            let missing =
                || Undecodable::new(MISSING_SAGA_ID, format!("the data has no string or integer at {pointer}"));
            return checked_saga(&saga.ok_or_else(missing)?);
        }
        match record.key.as_deref() {
            None | Some([]) => Err(Undecodable::new(MISSING_SAGA_ID, "no header ce_sagaid, and the record has no key")),
            Some(key) => match std::str::from_utf8(key) {
                Ok(key) => checked_saga(key),
                Err(_) => {
                    Err(Undecodable::new(MISSING_SAGA_ID, "no header ce_sagaid, and the record's key is not UTF-8"))
                }
            },
        }
    }

    /// The saga of a record that is no event, so that it is found where people look for it. A key says nothing where
    /// the configuration points into the data.
    fn said_saga(&self, record: &Record, found: Option<&Found<'_>>) -> Option<SagaId> {
        let pointed = self.topics.records.get(&record.partition.topic).is_some_and(|mapping| mapping.saga_id.is_some());
        let key = record.key.as_deref().filter(|_| !pointed);
        let said = found.and_then(|found| found.saga).or(key)?;
        checked_saga(std::str::from_utf8(said).ok()?).ok()
    }
}

/// How a content type of CloudEvents' own carries the event.
enum Mode<'r> {
    Json,
    Other(&'r str),
}

/// None: binary mode, or no CloudEvent at all.
fn structured_mode(content_type: &str) -> Option<Mode<'_>> {
    const PREFIX: &str = "application/cloudevents";
    let begins = content_type.get(..PREFIX.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(PREFIX));
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    begins.then(|| match essence.eq_ignore_ascii_case("application/cloudevents+json") {
        true => Mode::Json,
        false => Mode::Other(content_type),
    })
}

fn check_spec_version(version: &str) -> Result<(), Undecodable> {
    if version == "1.0" {
        return Ok(());
    }
    Err(Undecodable::new(INVALID_HEADER, format!("CloudEvents version {version:?}; only 1.0 is read")))
}

fn checked_saga(saga: &str) -> Result<SagaId, Undecodable> {
    if saga.is_empty() {
        return Err(Undecodable::new(MISSING_SAGA_ID, "the saga id is empty"));
    }
    if saga.len() > SAGA_ID_BYTES_MAX {
        let detail = format!("the saga id has {} bytes, {SAGA_ID_BYTES_MAX} are allowed", saga.len());
        return Err(Undecodable::new(INVALID_SAGA_ID, detail));
    }
    Ok(SagaId::new(saga))
}

#[cfg(test)]
mod tests;
