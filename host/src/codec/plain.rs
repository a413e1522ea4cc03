//! Plain JSON records: what the topic's configuration says of them. Invariant: the id of such an event depends on the
//! record alone, and unless the operator wants it so, not on where it stands.

use sagahost_saga::{
    event::Event,
    id::{Kind, SagaId, hex, sha256},
};

use super::{
    Codec, Draft,
    data::{Data, check_json, is_json, without_byte_order_mark},
    headers::{Found, Said, not_utf8},
    undecodable::{MISSING_EVENT_ID, UNKNOWN_KIND, Undecodable},
};
use crate::{
    config::{EventIdFrom, RecordMapping},
    transport::Record,
};

impl Codec {
    pub(super) fn plain(&self, record: &Record, found: &Found<'_>, value: &[u8]) -> Result<Event, Undecodable> {
        let topic = &record.partition.topic;
        let kind = self.kind_of_topic(topic).ok_or_else(|| self.unknown_kind(topic))?;
        let data = Data::of_json(check_json(without_byte_order_mark(value))?);
        let saga = self.saga(record, found, &data)?;
        let id = self.plain_id(record, &kind, &saga, &data)?;
        let draft = Draft {
            key: self.key(topic, &id)?,
            saga,
            kind,
            time: found.time.as_ref().map(Said::text).transpose()?,
            content_type: self.content_type(found.content_types.of_value()?.filter(|text| is_json(text))),
            data: data.bytes().into(),
        };
        self.finish(record, found, draft)
    }

    fn plain_id(&self, record: &Record, kind: &Kind, saga: &SagaId, data: &Data<'_>) -> Result<String, Undecodable> {
        let missing = |what: String| Undecodable::new(MISSING_EVENT_ID, what);
        let topic = &record.partition.topic;
        match self.topics.records.get(topic).map(|RecordMapping { event_id, .. }| event_id) {
            None | Some(EventIdFrom::Content) => {
                let parts = [topic.as_bytes(), kind.as_str().as_bytes(), saga.as_str().as_bytes(), data.bytes()];
                Ok(hex(&sha256(&parts)[..16]))
            }
            Some(EventIdFrom::Offset) => Ok(format!("{}-{}", record.partition.number, record.offset)),
            Some(EventIdFrom::Pointer(pointer)) => data.at(pointer).map_err(missing),
            Some(EventIdFrom::Header(header)) => {
                let found = record.headers.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(header));
                match found.and_then(|(_, value)| value.as_deref()).map(std::str::from_utf8) {
                    Some(Err(_)) => Err(not_utf8(header)),
                    Some(Ok(id)) if !id.is_empty() => Ok(id.to_owned()),
                    Some(Ok(_)) => Err(missing(format!("the header {header} is empty"))),
                    None => Err(missing(format!("there is no header {header}"))),
                }
            }
        }
    }

    fn unknown_kind(&self, topic: &str) -> Undecodable {
        let detail = match self.kinds_of_topic.get(topic) {
            Some(kinds) if kinds.len() > 1 => {
                format!("topic {topic} carries several kinds, and the record does not say which ({kinds:?})")
            }
            Some(_) | None => {
                format!("the record does not say its kind, and nobody reads one from topic {topic}")
            }
        };
        let way_on = format!("send it as a CloudEvent, or set `kind` in [topics.records.{topic:?}]");
        Undecodable::new(UNKNOWN_KIND, format!("{detail}: {way_on}"))
    }
}
