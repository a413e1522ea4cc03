//! Dead letters as they are kept. Invariant: key, value and headers of the record stay as they came; what the host
//! adds stands in `sagahost-dlq-*` headers.

use sagahost_saga::{
    event::Event,
    id::{SagaId, Time},
    input::{Letter, letter_key},
};

use crate::{
    codec::{Codec, Undecodable},
    journal::StoredLetter,
    transport::{Outgoing, Partition, Record},
};

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
        record: codec.encode(&letter.event),
        letter: Some(letter),
        closed: None,
    }
}

/// An event of a saga that is in quarantine. Redriving takes it in again.
pub fn quarantined(event: &Event, why: &str, codec: &Codec, now: Time) -> StoredLetter {
    StoredLetter {
        key: letter_key(&event.key, None),
        saga: Some(event.saga.clone()),
        participant: None,
        kind: Some(event.kind.as_str().into()),
        code: "saga-quarantined".to_owned(),
        detail: why.to_owned(),
        attempts: 0,
        plugin_version: "".into(),
        at: now,
        origin: origin(event),
        record: codec.encode(event),
        letter: None,
        closed: None,
    }
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

fn origin(event: &Event) -> Option<(Partition, i64)> {
    event.origin.as_ref().map(|at| (Partition { topic: at.topic.clone(), number: at.partition }, at.offset))
}
