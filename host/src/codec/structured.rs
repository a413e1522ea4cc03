//! CloudEvents in structured mode: the whole event is one JSON object. Invariant: it becomes the same event as the
//! same facts in binary mode.

use std::collections::BTreeMap;

use base64::Engine as _;
use sagahost_saga::event::Attributes;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    data::is_json,
    headers::{TRACE_BYTES_MAX, is_attribute_name, is_trace},
    undecodable::{INVALID_HEADER, INVALID_JSON, Undecodable},
};

/// Attributes as they stand in the object; `data` keeps its bytes.
#[derive(Deserialize)]
pub(super) struct Envelope<'r> {
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub source: String,
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default, rename = "specversion")]
    pub spec_version: String,
    pub time: Option<String>,
    #[serde(rename = "datacontenttype")]
    pub content_type: Option<String>,
    #[serde(rename = "sagaid")]
    pub saga: Option<String>,
    #[serde(borrow)]
    data: Option<&'r RawValue>,
    data_base64: Option<String>,
    #[serde(flatten)]
    extensions: BTreeMap<String, Value>,
}

pub(super) fn parse(value: &[u8]) -> Result<Envelope<'_>, Undecodable> {
    let wrong = |error: String| Undecodable::new(INVALID_JSON, format!("the value is no CloudEvent in JSON: {error}"));
    let text = std::str::from_utf8(value).map_err(|error| wrong(error.to_string()))?;
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    for (name, value) in [("id", &envelope.id), ("source", &envelope.source), ("type", &envelope.kind)] {
        if value.is_empty() {
            return Err(Undecodable::new(INVALID_HEADER, format!("a CloudEvent must have `{name}`")));
        }
    }
    Ok(envelope)
}

impl Envelope<'_> {
    pub fn data(&self) -> Result<Vec<u8>, Undecodable> {
        let json = self.content_type.as_deref().is_none_or(is_json);
        match (&self.data, &self.data_base64) {
            (Some(_), Some(_)) => Err(Undecodable::new(INVALID_JSON, "both `data` and `data_base64` are there")),
            (None, None) => Ok(Vec::new()),
            (None, Some(base64)) => base64::engine::general_purpose::STANDARD
                .decode(base64)
                .map_err(|error| Undecodable::new(INVALID_JSON, format!("`data_base64` is no base64: {error}"))),
            (Some(data), None) if json => Ok(data.get().as_bytes().to_vec()),
            // Other content stands as the text of a JSON string.
            (Some(data), None) => match serde_json::from_str::<String>(data.get()) {
                Ok(text) => Ok(text.into_bytes()),
                Err(_) => Ok(data.get().as_bytes().to_vec()),
            },
        }
    }

    /// Those of the record's headers give way to these.
    pub fn attributes(&self, mut attributes: Attributes) -> Attributes {
        for (name, value) in &self.extensions {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => continue,
            };
            let name = name.to_ascii_lowercase();
            if is_attribute_name(&name) && !(is_trace(&name) && value.len() > TRACE_BYTES_MAX) {
                attributes.retain(|(known, _)| *known != name);
                attributes.push((name, value));
            }
        }
        attributes
    }
}
