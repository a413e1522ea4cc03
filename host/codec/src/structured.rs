//! CloudEvents in structured mode: the whole event is one JSON object. Invariant: it becomes the same event as the
//! same facts in binary mode.

use std::borrow::Cow;

use base64::Engine as _;
use sagahost_saga::event::Attributes;

use super::{
    data::{Scalar, check_json, is_json, scalar},
    headers::{Found, Said, TRACE_BYTES_MAX, disagree, is_attribute_name, is_trace},
    pointer,
    undecodable::{INVALID_HEADER, INVALID_JSON, Undecodable},
};

/// The members of the object that are attributes, as they are written. Null is as good as absent.
#[derive(Default)]
pub(super) struct Envelope<'r> {
    pub id: String,
    pub source: String,
    pub kind: String,
    pub spec_version: String,
    pub time: Option<String>,
    pub content_type: Option<String>,
    pub saga: Option<String>,
    data: Option<&'r str>,
    data_base64: Option<String>,
    extensions: Vec<(String, String)>,
}

/// `value`: without a byte order mark.
pub(super) fn parse(value: &[u8]) -> Result<Envelope<'_>, Undecodable> {
    let wrong = |why: String| Undecodable::new(INVALID_JSON, format!("the value is not a CloudEvent in JSON: {why}"));
    let text = check_json(value).map_err(|why| wrong(why.detail))?;
    let mut members = Vec::new();
    pointer::members(text, |name, value| members.push((name, value))).map_err(|error| wrong(error.to_string()))?;
    let mut envelope = Envelope::default();
    let mut seen: Vec<&str> = Vec::new();
    for (name, value) in &members {
        // A name that is not text names no attribute.
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if is_own(name) && seen.contains(&name) {
            return Err(wrong(format!("`{name}` appears twice")));
        }
        seen.push(name);
        if *value != "null" {
            envelope.member(name, value).map_err(wrong)?;
        }
    }
    for (name, value) in [("id", &envelope.id), ("source", &envelope.source), ("type", &envelope.kind)] {
        if value.is_empty() {
            return Err(Undecodable::new(INVALID_HEADER, format!("a CloudEvent must have `{name}`")));
        }
    }
    Ok(envelope)
}

/// Members that the envelope has places for.
fn is_own(name: &str) -> bool {
    const OWN: [&str; 9] =
        ["id", "source", "type", "specversion", "time", "datacontenttype", "sagaid", "data", "data_base64"];
    OWN.contains(&name)
}

impl<'r> Envelope<'r> {
    fn member(&mut self, name: &str, value: &'r str) -> Result<(), String> {
        let text = || match scalar(value) {
            Ok(Scalar::Text(text)) => Ok(text),
            Ok(Scalar::Integer(other) | Scalar::Boolean(other)) => Err(format!("`{name}` is {other}, not a string")),
            Err(what) => Err(format!("`{name}` is {what}, not a string")),
        };
        match name {
            "id" => self.id = text()?,
            "source" => self.source = text()?,
            "type" => self.kind = text()?,
            "specversion" => self.spec_version = text()?,
            "time" => self.time = Some(text()?),
            "datacontenttype" => self.content_type = Some(text()?),
            // An extension may be of any type of CloudEvents; these have a canonical form as text.
            "sagaid" => {
                self.saga = Some(
                    canonical(value)
                        .map_err(|what| format!("`sagaid` is {what}; it must be a string, an integer or a boolean"))?,
                )
            }
            "data" => self.data = Some(value),
            "data_base64" => self.data_base64 = Some(text()?),
            other => self.extension(other, value)?,
        }
        Ok(())
    }

    fn extension(&mut self, name: &str, value: &str) -> Result<(), String> {
        let name = name.to_ascii_lowercase();
        let value = match value.as_bytes().first() {
            // No attribute of CloudEvents can be one of these.
            Some(b'[' | b'{') => return Ok(()),
            Some(b'"') => canonical(value).map_err(|what| format!("`{name}` is {what}"))?,
            // A number that is not an integer keeps the form that it always had here.
            _ => canonical(value).unwrap_or_else(|_| match serde_json::from_str::<serde_json::Number>(value) {
                Ok(number) => number.to_string(),
                Err(_) => value.to_owned(),
            }),
        };
        if is_attribute_name(&name) && !(is_trace(&name) && value.len() > TRACE_BYTES_MAX) {
            self.extensions.retain(|(known, _)| *known != name);
            self.extensions.push((name, value));
        }
        Ok(())
    }

    pub fn data(&self) -> Result<Cow<'r, [u8]>, Undecodable> {
        let json = self.content_type.as_deref().is_none_or(is_json);
        match (self.data, &self.data_base64) {
            (Some(_), Some(_)) => Err(Undecodable::new(INVALID_JSON, "both `data` and `data_base64` are there")),
            (None, None) => Ok(Cow::Borrowed(&[])),
            (None, Some(base64)) => base64::engine::general_purpose::STANDARD
                .decode(base64)
                .map(Cow::Owned)
                .map_err(|error| Undecodable::new(INVALID_JSON, format!("`data_base64` is not base64: {error}"))),
            (Some(data), None) if json => Ok(Cow::Borrowed(data.as_bytes())),
            // Other content stands as the text of a JSON string.
            (Some(data), None) => match serde_json::from_str::<String>(data) {
                Ok(text) => Ok(Cow::Owned(text.into_bytes())),
                Err(_) => Ok(Cow::Borrowed(data.as_bytes())),
            },
        }
    }

    /// Those of the record's headers give way to these.
    pub fn attributes(mut self, mut attributes: Attributes) -> Attributes {
        self.extensions.sort();
        for (name, value) in self.extensions {
            attributes.retain(|(known, _)| *known != name);
            attributes.push((name, value));
        }
        attributes
    }

    /// A header may repeat what the object says of the event's identity; it must not say something else.
    pub fn agrees_with(&self, found: &Found<'_>) -> Result<(), Undecodable> {
        let pairs = [
            ("id", Some(&self.id), &found.id),
            ("source", Some(&self.source), &found.source),
            ("type", Some(&self.kind), &found.kind),
            ("sagaid", self.saga.as_ref(), &found.saga),
        ];
        let differ = |(_, own, header): &&(&str, Option<&String>, &Option<Said<'_>>)| {
            own.zip(header.as_ref()).is_some_and(|(own, header)| *own.as_bytes() != *header.value)
        };
        match pairs.iter().find(differ) {
            Some((name, _, Some(header))) => Err(disagree(header.header, &format!("`{name}` in the value"))),
            Some(_) | None => Ok(()),
        }
    }
}

/// Of a string, an integer or a boolean: the digits stay as they are.
fn canonical(value: &str) -> Result<String, String> {
    match scalar(value)? {
        Scalar::Text(text) => Ok(text),
        Scalar::Integer(text) | Scalar::Boolean(text) => Ok(text.to_owned()),
    }
}
