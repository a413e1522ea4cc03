//! Which kind of record it is: a CloudEvent by its headers, one by its value, or a plain one. Invariant: a record that
//! says a part of what an event is, is refused with the part by name; its topic is never asked instead.

use sagahost_wire::Record;

use super::{
    Codec,
    data::{is_json, without_byte_order_mark},
    headers::{Found, Rules},
    pointer,
    undecodable::{UNSUPPORTED_MODE, Undecodable},
};
use crate::RecordMapping;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A CloudEvent: attributes in headers, data in the value.
    Binary,
    /// A CloudEvent: all of it in the value, as the content type says.
    Structured,
    /// The same without a content type that says so: the value has `specversion`.
    Recognised,
    /// The topic's configuration says what it is.
    Plain,
}

impl Codec {
    pub(super) fn mode(&self, record: &Record, found: &Found<'_>, value: &[u8]) -> Result<Mode, Undecodable> {
        if found.content_types.is_structured()? {
            return Ok(Mode::Structured);
        }
        let mapping = self.topics.records.get(&record.partition.topic);
        let by_headers = found.is_cloud_event(&mapping.map_or_else(Vec::new, RecordMapping::headers));
        if by_headers == Ok(true) {
            return Ok(Mode::Binary);
        }
        let recognises = mapping.is_none_or(|mapping| mapping.structured) && found.rules == Rules::Current;
        if recognises && found.content_types.of_value()?.is_none_or(is_json) && has_spec_version(value)? {
            return Ok(Mode::Recognised);
        }
        by_headers.map(|_| Mode::Plain)
    }
}

/// Is the value an object with `specversion`? An array of such is a batch, which no record carries.
fn has_spec_version(value: &[u8]) -> Result<bool, Undecodable> {
    let Ok(text) = std::str::from_utf8(without_byte_order_mark(value)) else { return Ok(false) };
    // Nearly all records end here.
    if !text.contains("\"specversion\"") {
        return Ok(false);
    }
    if pointer::at(text, "/0/specversion").is_some() && text.trim_start().starts_with('[') {
        let detail =
            "the value is a batch of CloudEvents; a record carries one event: send each as a record of its own";
        return Err(Undecodable::new(UNSUPPORTED_MODE, detail));
    }
    Ok(pointer::at(text, "/specversion").is_some())
}
