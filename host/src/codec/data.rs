//! The data of an event, looked into where the configuration asks for it. Invariant: what passes `check_json` is JSON
//! and UTF-8, so a guest's parser takes it.

use std::cell::OnceCell;

use serde_json::Value;

use super::undecodable::{INVALID_JSON, Undecodable};

/// `application/json`, `text/json` and everything `+json`.
pub(super) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let ends = |end: &str| {
        essence.len() >= end.len() && {
            let tail = essence.as_bytes().get(essence.len() - end.len()..).unwrap_or_default();
            tail.eq_ignore_ascii_case(end.as_bytes())
        }
    };
    essence.eq_ignore_ascii_case("application/json") || essence.eq_ignore_ascii_case("text/json") || ends("+json")
}

pub(super) fn check_json(data: &[u8]) -> Result<(), Undecodable> {
    let wrong = |detail: String| Undecodable::new(INVALID_JSON, detail);
    if data.is_empty() {
        return Err(wrong("the data is empty".to_owned()));
    }
    if data[0] == 0 {
        let hint = "the data begins with a zero byte, as records of a schema registry do; only JSON is read";
        return Err(wrong(hint.to_owned()));
    }
    let text = std::str::from_utf8(data).map_err(|error| wrong(format!("the data is not UTF-8: {error}")))?;
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(wrong(format!("the data is not JSON: {error}"))),
    }
}

/// Parsed at most once, and only where a pointer is asked for.
pub(super) struct Data<'r> {
    bytes: &'r [u8],
    parsed: OnceCell<Option<Value>>,
}

impl<'r> Data<'r> {
    pub fn new(bytes: &'r [u8]) -> Self {
        Self { bytes, parsed: OnceCell::new() }
    }

    pub fn bytes(&self) -> &'r [u8] {
        self.bytes
    }

    /// A string or an integer as text. None: not there, or something else.
    pub fn at(&self, pointer: &str) -> Option<String> {
        let parsed = self.parsed.get_or_init(|| serde_json::from_slice(self.bytes).ok());
        match parsed.as_ref()?.pointer(pointer)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
            _ => None,
        }
    }
}
