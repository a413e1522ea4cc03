//! Dead letters as they are kept. Invariant: key, value and headers of the record stay as they came; what the host
//! adds stands in `sagahost-dlq-*` headers.

use sagahost_codec::{Codec, Undecodable};
use sagahost_saga::{
    event::Event,
    id::{SagaId, Time, hex},
    input::{Letter, letter_key},
};
use sagahost_wire::{Outgoing, Partition, Record, StoredLetter};

/// A letter that the saga's state machine opened.
pub fn of_saga(id: &SagaId, letter: Letter, codec: &Codec) -> StoredLetter {
    StoredLetter {
        key: letter.key.clone(),
        saga: Some(id.clone()),
        participant: letter.participant.clone(),
        kind: Some(letter.event.kind.as_str().into()),
        code: letter.problem.code.clone(),
        detail: letter.problem.detail.clone(),
        attempts: letter.attempts,
        plugin_version: letter.by.version.clone(),
        at: letter.at,
        origin: origin(&letter.event),
        record: record_of(&letter.event, codec),
        letter: Some(letter),
        closed: None,
    }
}

/// An event for which its saga has no room. If the letter is redriven, the event is taken in as new.
pub fn kept_aside(letter: Letter, codec: &Codec) -> StoredLetter {
    let saga = letter.event.saga.clone();
    StoredLetter { letter: None, ..of_saga(&saga, letter, codec) }
}

/// The code of events that are kept aside while their saga is in quarantine.
pub const QUARANTINED: &str = "saga-quarantined";

/// An event of a saga that is in quarantine. It is taken in again when the saga is released.
pub fn quarantined(event: &Event, why: &str, codec: &Codec, now: Time) -> StoredLetter {
    StoredLetter {
        // Two events under one id are two letters.
        key: format!("{}#{}", letter_key(&event.key, None), hex(&event.data_hash()[..4])),
        saga: Some(event.saga.clone()),
        participant: None,
        kind: Some(event.kind.as_str().into()),
        code: QUARANTINED.to_owned(),
        detail: why.to_owned(),
        attempts: 0,
        plugin_version: "".into(),
        at: now,
        origin: origin(event),
        record: record_of(event, codec),
        letter: None,
        closed: None,
    }
}

/// The code of events that an earlier version may have taken in under another identity.
pub const FORMER_SAGA_UNREADABLE: &str = "former-saga-unreadable";

/// An event of which nobody can say whether it was taken in before.
pub fn undecided(event: &Event, why: &str, codec: &Codec, now: Time) -> StoredLetter {
    StoredLetter { code: FORMER_SAGA_UNREADABLE.to_owned(), ..quarantined(event, why, codec, now) }
}

/// A record that could not be decoded: kept by where it stood.
pub fn undecodable(record: &Record, why: &Undecodable, now: Time) -> StoredLetter {
    StoredLetter {
        key: format!("{}@{}", record.partition, record.offset),
        saga: why.saga.clone(),
        participant: None,
        kind: None,
        code: why.code.to_string(),
        detail: why.detail.clone(),
        attempts: 0,
        plugin_version: "".into(),
        at: now,
        origin: Some((record.partition.clone(), record.offset)),
        record: Outgoing {
            topic: record.partition.topic.clone(),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        },
        letter: None,
        closed: None,
    }
}

/// The record as it came; an event that was emitted in its chain has none, and is written as it would be published.
fn record_of(event: &Event, codec: &Codec) -> Outgoing {
    let Some((origin, came)) = event.origin.as_ref().and_then(|origin| Some((origin, origin.record.as_ref()?))) else {
        return codec.encode(event);
    };
    Outgoing {
        topic: origin.topic.clone(),
        key: came.key.clone(),
        value: Some(came.value.clone().unwrap_or_else(|| event.data.to_vec())),
        headers: came.headers.clone(),
    }
}

fn origin(event: &Event) -> Option<(Partition, i64)> {
    event.origin.as_ref().map(|at| (Partition { topic: at.topic.clone(), number: at.partition }, at.offset))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use sagahost_saga::id::Kind;

    use super::*;
    use sagahost_codec::TopicSettings;

    fn kept(record: &Record, codec: &Codec) -> Outgoing {
        quarantined(&codec.decode(record).unwrap().event, "a test", codec, Time(1)).record
    }

    #[test]
    fn the_record_of_a_letter_is_the_record_as_it_came() {
        let codec = Codec::new("shop", &TopicSettings::of_app("shop"), 10_000).with_kinds(&[Kind::new("OrderCreated")]);
        let headers =
            |pairs: &[(&str, &[u8])]| pairs.iter().map(|(n, v)| ((*n).to_owned(), Some(v.to_vec()))).collect();
        let mut record = Record {
            partition: Partition::new("order-created", 1),
            offset: 7,
            timestamp_ms: Some(5),
            key: Some(b"o-1".to_vec()),
            value: Some(br#"{ "a": 1 }"#.to_vec()),
            headers: headers(&[("trace", b"\xff\x00"), ("Content-Type", b"application/json")]),
        };
        let as_it_came = |record: &Record| Outgoing {
            topic: record.partition.topic.clone(),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        };
        assert_eq!(kept(&record, &codec), as_it_came(&record), "a plain record");
        record.headers.extend([("ce_time".to_owned(), None), ("content-type".to_owned(), None)]);
        assert_eq!(kept(&record, &codec), as_it_came(&record), "null headers");

        let structured = br#"{"specversion":"1.0","id":"1","source":"s","type":"OrderCreated","data":{}}"#;
        record.value = Some(structured.to_vec());
        record.headers = headers(&[("content-type", b"application/cloudevents+json"), ("x", b"y")]);
        assert_eq!(kept(&record, &codec), as_it_came(&record), "a structured CloudEvent");

        let foreign: [(&str, &[u8]); 5] = [
            ("ce_type", b"OrderCreated"),
            ("ce_id", b"1"),
            ("ce_source", b"s"),
            ("ce_specversion", b"1.0"),
            ("x", b"y"),
        ];
        record.headers = headers(&foreign);
        record.key = Some(b"o-1".to_vec());
        assert_eq!(kept(&record, &codec), as_it_came(&record), "somebody else's CloudEvent");

        let event = codec.decode(&record).unwrap().event;
        let own = codec.encode(&event);
        record = Record { key: own.key.clone(), value: own.value.clone(), headers: own.headers.clone(), ..record };
        let origin = codec.decode(&record).unwrap().event.origin.unwrap();
        assert_eq!(origin.record, None, "what encoding gives back is not kept twice");
        assert_eq!(kept(&record, &codec), own);
    }
}
