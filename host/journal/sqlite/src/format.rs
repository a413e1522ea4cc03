//! What the journal's cells hold. Invariant: a cell that this version did not write is refused by name, never guessed.
//!
//! Hot cells are postcard behind one byte of format; rare ones are JSON, for people with a database shell.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::Row;
use sagahost_saga::{
    id::{SagaId, Time},
    input::Status,
};
use sagahost_wire::{Outgoing, Partition, Position};
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use super::{
    fault::{Fault, Outcome, corrupt, failed},
    packed::{Packer, unpack},
};

/// First byte of a postcard cell.
const FORMAT: u8 = 2;
/// Before it: values of headers were never null.
const WITHOUT_NULLS: u8 = 1;

/// Numbers and times are far below 2^63; SQLite's integers are signed.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn number(row: &Row<'_>, column: usize) -> Outcome<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| corrupt(format!("column {column} holds {value}, which must not be negative")))
}

pub(super) fn time(row: &Row<'_>, column: usize) -> Outcome<Time> {
    number(row, column).map(Time)
}

pub(super) fn saga_id(row: &Row<'_>, column: usize) -> rusqlite::Result<SagaId> {
    Ok(SagaId::new(row.get_ref(column)?.as_str()?))
}

/// Where a saga's row is found.
pub(super) fn id_hash(id: &SagaId) -> i64 {
    first64(Sha256::digest(id.as_str()).as_slice())
}

pub(super) fn note_hash(name: &str, value: &str) -> i64 {
    first64(&sagahost_saga::id::sha256(&[name.as_bytes(), value.as_bytes()]))
}

fn first64(hash: &[u8]) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(first)
}

pub(super) fn status_code(status: Status) -> i64 {
    match status {
        Status::Waiting => 0,
        Status::Running => 1,
        Status::Finishing => 2,
        Status::Completed => 3,
        Status::Compensating => 4,
        Status::Compensated => 5,
        Status::NeedsOperator => 6,
        Status::Quarantined => 7,
    }
}

pub(super) fn status(row: &Row<'_>, column: usize) -> Outcome<Status> {
    Ok(match row.get::<_, i64>(column)? {
        0 => Status::Waiting,
        1 => Status::Running,
        2 => Status::Finishing,
        3 => Status::Completed,
        4 => Status::Compensating,
        5 => Status::Compensated,
        6 => Status::NeedsOperator,
        7 => Status::Quarantined,
        code => {
            return Err(corrupt(format!("a saga has the status {code}, which does not exist")));
        }
    })
}

pub(super) fn json<T: Serialize>(value: &T) -> Outcome<String> {
    serde_json::to_string(value).map_err(|error| failed(format!("failed to write a value as JSON: {error}")))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str, what: &str) -> Outcome<T> {
    serde_json::from_str(text).map_err(|error| corrupt(format!("{what} cannot be read: {error}")))
}

/// None in the cell: no notes.
pub(super) fn notes_cell(notes: &[(String, String)]) -> Outcome<Option<String>> {
    if notes.is_empty() { Ok(None) } else { json(&notes).map(Some) }
}

pub(super) fn notes(cell: Option<&str>) -> Outcome<Vec<(String, String)>> {
    cell.map_or(Ok(Vec::new()), |text| from_json(text, "the notes of a saga"))
}

/// Written as one piece; `Vec<u8>` reads it back.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

#[derive(Serialize)]
struct RecordOut<'a> {
    topic: &'a str,
    key: Option<Bytes<'a>>,
    value: Option<Bytes<'a>>,
    headers: Vec<(&'a str, Option<Bytes<'a>>)>,
}

/// `V`: what a header's value is in the cell's format.
#[derive(Deserialize)]
struct RecordIn<V> {
    topic: Arc<str>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, V)>,
}

impl<'a> From<&'a Outgoing> for RecordOut<'a> {
    fn from(record: &'a Outgoing) -> Self {
        Self {
            topic: &record.topic,
            key: record.key.as_deref().map(Bytes),
            value: record.value.as_deref().map(Bytes),
            headers: record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref().map(Bytes))).collect(),
        }
    }
}

impl<V: Into<Option<Vec<u8>>>> From<RecordIn<V>> for Outgoing {
    fn from(record: RecordIn<V>) -> Self {
        let headers = record.headers.into_iter().map(|(name, value)| (name, value.into())).collect();
        Self { topic: record.topic, key: record.key, value: record.value, headers }
    }
}

/// Topic, partition, next offset, last (offset, timestamp).
type PositionCell<T> = (T, i32, i64, Option<(i64, u64)>);

#[derive(Serialize)]
struct OutboxOut<'a> {
    records: Records<'a>,
    positions: Vec<PositionCell<&'a str>>,
}

#[derive(Deserialize)]
struct OutboxIn<V> {
    records: Vec<RecordIn<V>>,
    positions: Vec<PositionCell<Arc<str>>>,
}

/// What a batch publishes: its records, and the positions of the partitions that it moved.
pub(super) type OutboxBody = (Vec<Outgoing>, BTreeMap<Partition, Position>);

pub(super) fn outbox_cell(records: &[Outgoing], positions: &BTreeMap<Partition, Position>) -> Outcome<Vec<u8>> {
    let positions = positions.iter().map(|(at, p)| (&*at.topic, at.number, p.next, p.last)).collect();
    let body = OutboxOut { records: Records(records), positions };
    Ok(postcard::to_io(&body, Packer::new(FORMAT)).map_err(unwritten)?.finish())
}

/// One after the other: the shapes of a batch's records are never in memory together.
struct Records<'a>(&'a [Outgoing]);

impl Serialize for Records<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(RecordOut::from))
    }
}

impl<V: Into<Option<Vec<u8>>>> From<OutboxIn<V>> for OutboxBody {
    fn from(body: OutboxIn<V>) -> Self {
        let positions = body
            .positions
            .into_iter()
            // A publication goes to whichever topic has the name, so the id is not kept with it.
            .map(|(topic, number, next, last)| (Partition { topic, number }, Position { next, last, topic_id: None }))
            .collect();
        (body.records.into_iter().map(Outgoing::from).collect(), positions)
    }
}

pub(super) fn outbox(cell: &[u8]) -> Outcome<OutboxBody> {
    let what = "a batch of the outbox";
    from_postcard::<OutboxIn<Option<Vec<u8>>>, OutboxIn<Vec<u8>>, _>(&unpack(cell, what)?, what)
}

pub(super) fn record_cell(record: &Outgoing) -> Outcome<Vec<u8>> {
    postcard_cell(&RecordOut::from(record))
}

pub(super) fn record(cell: &[u8]) -> Outcome<Outgoing> {
    from_postcard::<RecordIn<Option<Vec<u8>>>, RecordIn<Vec<u8>>, _>(cell, "the record of a dead letter")
}

fn postcard_cell<T: Serialize>(value: &T) -> Outcome<Vec<u8>> {
    postcard::to_extend(value, vec![FORMAT]).map_err(unwritten)
}

fn unwritten(error: postcard::Error) -> Fault {
    failed(format!("a value cannot be written: {error}"))
}

/// `New` and `Old` are the shapes of the two formats.
fn from_postcard<New, Old, T>(cell: &[u8], what: &str) -> Outcome<T>
where
    New: DeserializeOwned + Into<T>,
    Old: DeserializeOwned + Into<T>,
{
    let read = match cell.split_first() {
        Some((&FORMAT, body)) => postcard::from_bytes::<New>(body).map(New::into),
        Some((&WITHOUT_NULLS, body)) => postcard::from_bytes::<Old>(body).map(Old::into),
        Some((format, _)) => {
            let why = format!("it has the format {format}, this host knows {WITHOUT_NULLS} and {FORMAT}");
            return Err(unreadable(what, &why));
        }
        None => return Err(unreadable(what, "it is empty")),
    };
    read.map_err(|error| unreadable(what, &error.to_string()))
}

fn unreadable(what: &str, why: &str) -> Fault {
    corrupt(format!("{what} cannot be read: {why}"))
}
