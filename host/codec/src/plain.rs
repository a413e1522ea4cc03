//! Plain JSON records: what the topic's configuration says of them. Invariant: the id of such an event depends on the
//! record alone, and unless the operator wants it so, not on where it stands.

use std::borrow::Cow;

use sagahost_manifest::manifest::is_kind;
use sagahost_saga::{
    event::Event,
    id::{Kind, SagaId, hex, sha256},
};
use sagahost_wire::Record;

use super::{
    Codec, Draft,
    data::{Data, check_json, is_json, without_byte_order_mark},
    headers::{Found, Said, configured},
    pointer,
    undecodable::{INVALID_JSON, MISSING_EVENT_ID, UNKNOWN_KIND, Undecodable},
};
use crate::{EventIdFrom, KindFrom, Locator, RecordMapping};

/// The value of a plain record, and the event's data within it.
struct Content<'c> {
    value: Data<'c>,
    data: Data<'c>,
    /// The pointer from one to the other.
    envelope: Option<&'c str>,
}

impl Content<'_> {
    /// A pointer begins at the value; it continues into data that is the text of a string.
    fn at(&self, pointer: &str) -> Result<String, String> {
        let inner = self.envelope.and_then(|envelope| pointer.strip_prefix(envelope));
        match inner.filter(|inner| inner.starts_with('/')) {
            Some(inner) => self.data.at(inner),
            None => self.value.at(pointer),
        }
    }
}

impl Codec {
    pub(super) fn plain(&self, record: &Record, found: &Found<'_>, value: &[u8]) -> Result<Event, Undecodable> {
        let topic = &record.partition.topic;
        let mapping = self.topics.records.get(topic);
        let place = match mapping.and_then(|mapping| mapping.kind.as_ref()) {
            Some(KindFrom::At(place)) => Err(place),
            Some(KindFrom::Fixed(_)) | None => Ok(self.kind_of_topic(topic).ok_or_else(|| self.unknown_kind(topic))?),
        };
        let text = check_json(without_byte_order_mark(value))?;
        let envelope = mapping.and_then(|mapping| mapping.data.as_deref());
        let payload = payload(text, envelope)?;
        let content = Content { value: Data::of_json(text), data: Data::of_json(&payload), envelope };
        let kind = match place {
            Ok(kind) => kind,
            Err(place) => self.kind_at(place, record, &content)?,
        };
        let saga = self.saga(record, found, &|pointer| content.at(pointer))?;
        let id = self.plain_id(record, &kind, &saga, &content)?;
        let draft = Draft {
            key: self.key(topic, &id)?,
            saga,
            kind,
            time: found.time.as_ref().map(Said::text).transpose()?,
            content_type: self.content_type(found.content_types.of_value()?.filter(|text| is_json(text))),
            data: content.data.bytes().into(),
        };
        self.finish(record, found, draft)
    }

    fn kind_at(&self, place: &Locator, record: &Record, content: &Content<'_>) -> Result<Kind, Undecodable> {
        let topic = &record.partition.topic;
        let unknown = |why: String| {
            let asks = format!("kind = \"{place}\" in [topics.records.{topic:?}] asks for it");
            Undecodable::new(UNKNOWN_KIND, format!("the record does not say its kind: {why}; {asks}"))
        };
        let text = match place {
            Locator::Header(name) => {
                let found = configured(&record.headers, name, UNKNOWN_KIND);
                Cow::Borrowed(found.map_err(|why| unknown(why.detail))?)
            }
            Locator::Pointer(pointer) => Cow::Owned(content.at(pointer).map_err(unknown)?),
        };
        match is_kind(&text) {
            true => Ok(self.kind(&text)),
            false => Err(unknown(format!("{text:?} at {place} is not a kind (letters, digits and . _ - / : only)"))),
        }
    }

    fn plain_id(
        &self,
        record: &Record,
        kind: &Kind,
        saga: &SagaId,
        content: &Content<'_>,
    ) -> Result<String, Undecodable> {
        let topic = &record.partition.topic;
        match self.topics.records.get(topic).map(|RecordMapping { event_id, .. }| event_id) {
            None | Some(EventIdFrom::Content) => {
                let data = content.data.bytes();
                let parts = [topic.as_bytes(), kind.as_str().as_bytes(), saga.as_str().as_bytes(), data];
                Ok(hex(&sha256(&parts)[..16]))
            }
            Some(EventIdFrom::Offset) => Ok(format!("{}-{}", record.partition.number, record.offset)),
            Some(EventIdFrom::Pointer(pointer)) => {
                content.at(pointer).map_err(|why| Undecodable::new(MISSING_EVENT_ID, why))
            }
            Some(EventIdFrom::Header(header)) => {
                configured(&record.headers, header, MISSING_EVENT_ID).map(ToOwned::to_owned)
            }
        }
    }

    fn unknown_kind(&self, topic: &str) -> Undecodable {
        let detail = match self.kinds_of_topic.get(topic) {
            Some(kinds) if kinds.len() > 1 => {
                format!("topic {topic} carries several kinds, and the record does not say which ({kinds:?})")
            }
            Some(_) | None => {
                format!("the record does not say its kind, and no plugin reads one from topic {topic}")
            }
        };
        let way_on = format!("send it as a CloudEvent, or set `kind` in [topics.records.{topic:?}]");
        Undecodable::new(UNKNOWN_KIND, format!("{detail}: {way_on}"))
    }
}

/// The event's data in a value. Relays write it as JSON within the envelope, or as the text of a string.
fn payload<'v>(value: &'v str, envelope: Option<&str>) -> Result<Cow<'v, str>, Undecodable> {
    let Some(envelope) = envelope else { return Ok(Cow::Borrowed(value)) };
    let wrong = |why: String| Undecodable::new(INVALID_JSON, format!("data = \"{envelope}\": {why}"));
    let inner = pointer::at(value, envelope).ok_or_else(|| wrong("there is nothing in the value".to_owned()))?;
    match inner.as_bytes().first() {
        Some(b'n') => Err(wrong("there is null".to_owned())),
        Some(b'"') => {
            let text: String =
                serde_json::from_str(inner).map_err(|error| wrong(format!("the string there is not text: {error}")))?;
            check_json(text.as_bytes())
                .map_err(|why| wrong(format!("the text of the string there: {}", why.detail)))?;
            Ok(Cow::Owned(text))
        }
        Some(_) | None => Ok(Cow::Borrowed(inner)),
    }
}
