//! Records as events and events as records. A CloudEvent says itself what it is, by its headers or by its value; any
//! other record is plain JSON, and its topic's configuration says. Invariant: a record becomes the same event however
//! often it is read, and a record that is not an event becomes an `Undecodable` with a reason, never a guess.

pub mod mapping;
pub mod timestamp;
pub mod topics;
pub mod undecodable;

mod mode;

mod headers;
mod spelling;

mod content_type;

mod plain;
mod structured;

mod data;
mod pointer;

mod key;

mod encode;
mod former;
mod letter_copy;
mod request;

use std::{collections::HashMap, sync::Arc};

use sagahost_saga::{
    event::{AsItCame, Event, Origin},
    id::{EventKey, Kind, SagaId, Time},
};
use sagahost_wire::{Partition, Record, StoredLetter};

use self::{
    data::{Data, check_json, is_json},
    headers::{Found, HANDLED, Rules, Said, check_attributes, configured, required},
    mode::Mode,
    undecodable::{BAD_TIME, INVALID_HEADER, INVALID_SAGA_ID, MISSING_SAGA_ID, OVERSIZED_RECORD, TOMBSTONE},
};

pub use self::{
    data::without_byte_order_mark,
    encode::Handled,
    former::{Decoded, Formerly},
    headers::{LETTER, OMITTED},
    letter_copy::{copied_letter, without_value},
    mapping::{EventIdFrom, KeyForm, KindFrom, Locator, RecordMapping},
    request::{data_of_request, json_of_request, saga_of_request},
    topics::{SAGA_FAILED, TopicSettings},
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
    /// is. None: no such kind, or several, or each record says its own.
    pub fn kind_of_topic(&self, topic: &str) -> Option<Kind> {
        let mapped = match self.topics.records.get(topic).and_then(|mapping| mapping.kind.as_ref()) {
            Some(KindFrom::Fixed(kind)) => Some(kind.clone()),
            Some(KindFrom::At(_)) => return None,
            None => None,
        };
        mapped.or_else(|| match self.kinds_of_topic.get(topic).map(Vec::as_slice) {
            Some([kind]) => Some(kind.clone()),
            Some(_) | None => None,
        })
    }

    pub fn decode(&self, record: &Record) -> Result<Decoded, Undecodable> {
        let found = Found::read(&record.headers, &self.topics.headers, Rules::Current);
        let decoded = found.as_ref().map_err(Clone::clone).and_then(|found| {
            let (event, mode) = self.event(record, found)?;
            let formerly = self.formerly(record, found, mode, &event);
            Ok(Decoded { event: Event { origin: Some(self.origin(record, &event, mode)), ..event }, formerly })
        });
        decoded.map_err(|why| Undecodable { saga: self.said_saga(record, found.as_ref().ok()), ..why })
    }

    /// The event of a dead letter, as if its record were read again where it stood.
    pub fn decode_letter(&self, letter: &StoredLetter) -> Result<Decoded, Undecodable> {
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
        let mut decoded = self.decode(&record)?;
        if letter.origin.is_none() {
            decoded.event.origin = None;
        }
        Ok(decoded)
    }

    /// Where the record stood, and how it came where encoding the event would not give it back.
    fn origin(&self, record: &Record, event: &Event, mode: Mode) -> Origin {
        let headers = || record.headers.iter().filter(|(name, _)| name != HANDLED);
        let same = mode == Mode::Binary && {
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

    fn event(&self, record: &Record, found: &Found<'_>) -> Result<(Event, Mode), Undecodable> {
        let value = self.value(record)?;
        let mode = self.mode(record, found, value)?;
        let event = match mode {
            Mode::Binary => self.binary(record, found, value),
            Mode::Structured => self.structured(record, found, value),
            Mode::Recognised => self.structured(record, found, value).map_err(|why| {
                let topic = &record.partition.topic;
                let hint = format!(
                    "(it is read as a CloudEvent because it has `specversion`; if it is a plain record, set \
                     `structured = false` in [topics.records.{topic:?}])"
                );
                Undecodable { detail: format!("{} {hint}", why.detail), ..why }
            }),
            Mode::Plain => self.plain(record, found, value),
        };
        Ok((event?, mode))
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

    fn binary(&self, record: &Record, found: &Found<'_>, value: &[u8]) -> Result<Event, Undecodable> {
        check_spec_version(required("ce_specversion", found.spec_version.as_ref())?)?;
        let key = self.key(required("ce_source", found.source.as_ref())?, required("ce_id", found.id.as_ref())?)?;
        let kind = self.kind(required("ce_type", found.kind.as_ref())?);
        let content_type = found.content_types.of_value()?;
        let data = match content_type.is_none_or(is_json) {
            true => Data::of_json(check_json(without_byte_order_mark(value))?),
            false => Data::new(value),
        };
        let draft = Draft {
            key,
            saga: self.saga(record, found, &|pointer| data.at(pointer))?,
            kind,
            time: found.time.as_ref().map(Said::text).transpose()?,
            content_type: self.content_type(content_type),
            data: data.bytes().into(),
        };
        self.finish(record, found, draft)
    }

    fn structured(&self, record: &Record, found: &Found<'_>, value: &[u8]) -> Result<Event, Undecodable> {
        let envelope = structured::parse(without_byte_order_mark(value))?;
        check_spec_version(&envelope.spec_version)?;
        if found.rules == Rules::Current {
            envelope.agrees_with(found)?;
        }
        let bytes = envelope.data()?;
        let data = match envelope.content_type.as_deref().is_none_or(is_json) {
            true => Data::of_json(check_json(&bytes)?),
            false => Data::new(&bytes),
        };
        let saga = match &envelope.saga {
            Some(saga) => checked_saga(saga)?,
            None => self.saga(record, found, &|pointer| data.at(pointer))?,
        };
        let draft = Draft {
            key: self.key(&envelope.source, &envelope.id)?,
            saga,
            kind: self.kind(&envelope.kind),
            time: envelope.time.as_deref(),
            content_type: self.content_type(envelope.content_type.as_deref()),
            data: data.bytes().into(),
        };
        let mut event = self.finish(record, found, draft)?;
        event.attributes = envelope.attributes(event.attributes);
        check_attributes(&event.attributes)?;
        Ok(event)
    }

    fn finish(&self, record: &Record, found: &Found<'_>, draft: Draft<'_>) -> Result<Event, Undecodable> {
        let time = match draft.time {
            Some(text) => timestamp::parse(text)
                .ok_or_else(|| Undecodable::new(BAD_TIME, format!("{text:?} is not a valid RFC 3339 time")))?,
            None => Time(record.timestamp_ms.unwrap_or(0)),
        };
        let Draft { key, saga, kind, content_type, data, .. } = draft;
        let record_key = self.record_key(record, &saga);
        let (attributes, hops) = (found.attributes()?, found.hops()?);
        Ok(Event { key, saga, kind, time, content_type, data, attributes, hops, origin: None, record_key })
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

    /// Attribute `sagaid`, else where the topic's mapping points, else the record's key. `at` reads a pointer.
    fn saga(
        &self,
        record: &Record,
        found: &Found<'_>,
        at: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<SagaId, Undecodable> {
        if let Some(saga) = &found.saga {
            return checked_saga(saga.text()?);
        }
        match self.saga_place(&record.partition.topic) {
            Some(Locator::Pointer(pointer)) => {
                checked_saga(&at(pointer).map_err(|why| Undecodable::new(MISSING_SAGA_ID, why))?)
            }
            Some(Locator::Header(name)) => checked_saga(configured(&record.headers, name, MISSING_SAGA_ID)?),
            None => self.saga_of_key(record, found.rules),
        }
    }

    fn saga_place(&self, topic: &str) -> Option<&Locator> {
        self.topics.records.get(topic)?.saga_id.as_ref()
    }

    fn saga_of_key(&self, record: &Record, rules: Rules) -> Result<SagaId, Undecodable> {
        let key = match record.key.as_deref() {
            None | Some([]) => {
                return Err(Undecodable::new(MISSING_SAGA_ID, "no header ce_sagaid, and the record has no key"));
            }
            Some(key) => key,
        };
        let topic = &record.partition.topic;
        match rules {
            Rules::Current => checked_saga(&key::decode(self.key_form(topic), key, topic)?),
            Rules::Former => {
                let text = std::str::from_utf8(key);
                checked_saga(text.map_err(|_| Undecodable::new(MISSING_SAGA_ID, "the record's key is not UTF-8"))?)
            }
        }
    }

    fn key_form(&self, topic: &str) -> KeyForm {
        self.topics.records.get(topic).map_or(KeyForm::Text, |mapping| mapping.key)
    }

    /// Of a saga of which no record has come yet. None: no key in the form of this topic stands for it.
    pub fn key_of(&self, topic: &str, saga: &SagaId) -> Option<Vec<u8>> {
        key::encode(self.key_form(topic), saga.as_str())
    }

    /// The key as it came, where it stands for the saga id and is not its text.
    fn record_key(&self, record: &Record, saga: &SagaId) -> Option<Arc<[u8]>> {
        let (topic, key) = (&record.partition.topic, record.key.as_deref()?);
        let form = self.key_form(topic);
        let stands = form != KeyForm::Text && key::decode(form, key, topic).is_ok_and(|text| text == saga.as_str());
        stands.then(|| key.into())
    }

    /// The saga of a record that is not an event, so that it is found where people look for it. A key says nothing where
    /// the configuration points elsewhere.
    fn said_saga(&self, record: &Record, found: Option<&Found<'_>>) -> Option<SagaId> {
        if let Some(said) = found.and_then(|found| found.saga.as_ref()) {
            return checked_saga(said.text().ok()?).ok();
        }
        match self.saga_place(&record.partition.topic) {
            Some(Locator::Pointer(_)) => None,
            Some(Locator::Header(name)) => checked_saga(configured(&record.headers, name, MISSING_SAGA_ID).ok()?).ok(),
            None => self.saga_of_key(record, Rules::Current).ok(),
        }
    }
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
