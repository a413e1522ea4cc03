//! The headers of a record, read once. Invariant: a header that gives an event its identity stands there at most once,
//! or always with the same value.

use std::borrow::Cow;

use sagahost_saga::event::Attributes;

use super::undecodable::{INVALID_HEADER, Undecodable};
use crate::transport::Headers;

pub(super) const HANDLED: &str = "sagahost-handled";
pub(super) const HOPS: &str = "sagahost-hops";
pub(super) const DEAD_LETTER: &str = "sagahost-dlq-";
/// On a published dead letter: its key in the journal.
pub const LETTER: &str = "sagahost-dlq-letter";
/// On a published dead letter: what of the record was left out.
pub const OMITTED: &str = "sagahost-dlq-omitted";
/// Carries an attribute whose name CloudEvents does not allow: it knows small letters and digits only.
pub(super) const ATTRIBUTE: &str = "sagahost-attribute-";
pub(super) const EXTENSION: &str = "ce_";

/// A record with more is refused.
const HEADERS_MAX: usize = 256;
const HEADERS_BYTES_MAX: usize = 64 << 10;

/// Names that the envelope needs for itself: no attribute has them.
const ENVELOPE: [&str; 9] =
    ["id", "source", "type", "specversion", "time", "datacontenttype", "data", "sagaid", "sagahop"];

/// Of a trace header; a longer one is dropped (W3C Trace Context, 3.3.1.5: 512 characters should be propagated). It is
/// copied into every event that follows, so that it must not grow.
pub(super) const TRACE_BYTES_MAX: usize = 512;

pub(super) fn is_trace(name: &str) -> bool {
    name == "traceparent" || name == "tracestate"
}

/// May an attribute of an event be called so on the wire?
pub(super) fn is_attribute_name(name: &str) -> bool {
    let reserved = name.starts_with("sagahost-") || name.starts_with("ce_") || name.starts_with("ce-");
    !name.is_empty() && !reserved && !ENVELOPE.contains(&name)
}

/// What a record's headers say.
#[derive(Debug, Default)]
pub(super) struct Found<'r> {
    pub id: Option<&'r [u8]>,
    pub source: Option<&'r [u8]>,
    pub kind: Option<&'r [u8]>,
    pub spec_version: Option<&'r [u8]>,
    pub time: Option<&'r [u8]>,
    pub saga: Option<&'r [u8]>,
    pub content_type: Option<&'r [u8]>,
    pub hops: Option<&'r [u8]>,
    /// Extensions, the trace, and what the operator lets through.
    pub others: Vec<(Cow<'r, str>, &'r [u8])>,
}

impl<'r> Found<'r> {
    pub fn read(headers: &'r Headers, let_through: &[String]) -> Result<Self, Undecodable> {
        check_bounds(headers)?;
        let mut found = Self::default();
        for (name, value) in headers {
            let name = lower_case(name);
            let place = match &*name {
                "ce_id" => &mut found.id,
                "ce_source" => &mut found.source,
                "ce_type" => &mut found.kind,
                "ce_specversion" => &mut found.spec_version,
                "ce_time" => &mut found.time,
                "ce_sagaid" => &mut found.saga,
                "content-type" => &mut found.content_type,
                HOPS => &mut found.hops,
                _ => {
                    found.other(name, value, let_through);
                    continue;
                }
            };
            if place.is_some_and(|earlier| earlier != value) {
                return Err(Undecodable::new(INVALID_HEADER, format!("{name} stands twice, with different values")));
            }
            *place = Some(value);
        }
        Ok(found)
    }

    /// Of several with one name the last one counts, as with Kafka's own clients.
    fn other(&mut self, name: Cow<'r, str>, value: &'r [u8], let_through: &[String]) {
        let passes = name == "traceparent" || name == "tracestate" || let_through.iter().any(|known| *known == *name);
        let name = match name.strip_prefix(EXTENSION).or_else(|| name.strip_prefix(ATTRIBUTE)) {
            Some(inner) if is_attribute_name(inner) => Cow::Owned(inner.to_owned()),
            None if passes => name,
            Some(_) | None => return,
        };
        match self.others.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => self.others.push((name, value)),
        }
    }

    /// Does the record say itself what event it is?
    pub fn is_cloud_event(&self) -> bool {
        self.id.is_some() || self.source.is_some() || self.kind.is_some() || self.spec_version.is_some()
    }

    pub fn hops(&self) -> Result<u32, Undecodable> {
        let Some(hops) = text(HOPS, self.hops)? else {
            return Ok(0);
        };
        hops.parse().map_err(|_| Undecodable::new(INVALID_HEADER, format!("{HOPS} is {hops:?}, which is no count")))
    }

    pub fn attributes(&self) -> Result<Attributes, Undecodable> {
        let mut attributes = Attributes::with_capacity(self.others.len());
        for (name, value) in &self.others {
            match std::str::from_utf8(value) {
                Ok(value) if is_trace(name) && value.len() > TRACE_BYTES_MAX => {}
                Ok(value) => attributes.push((name.as_ref().to_owned(), value.to_owned())),
                // A broken trace is no reason to lose an event.
                Err(_) if is_trace(name) => {}
                Err(_) => return Err(not_utf8(name)),
            }
        }
        Ok(attributes)
    }
}

pub(super) fn text<'r>(name: &str, value: Option<&'r [u8]>) -> Result<Option<&'r str>, Undecodable> {
    value.map(|value| std::str::from_utf8(value).map_err(|_| not_utf8(name))).transpose()
}

/// A header that must be there and must say something.
pub(super) fn required<'r>(name: &str, value: Option<&'r [u8]>) -> Result<&'r str, Undecodable> {
    match text(name, value)? {
        None => Err(Undecodable::new(INVALID_HEADER, format!("a CloudEvent must have {name}"))),
        Some("") => Err(Undecodable::new(INVALID_HEADER, format!("{name} is empty"))),
        Some(text) => Ok(text),
    }
}

fn not_utf8(name: &str) -> Undecodable {
    Undecodable::new(INVALID_HEADER, format!("{name} is not UTF-8"))
}

pub(super) fn check_attributes(attributes: &Attributes) -> Result<(), Undecodable> {
    check_sizes(attributes.len(), attributes.iter().map(|(name, value)| name.len() + value.len()).sum())
}

fn check_bounds(headers: &Headers) -> Result<(), Undecodable> {
    check_sizes(headers.len(), headers.iter().map(|(name, value)| name.len() + value.len()).sum())
}

fn check_sizes(count: usize, bytes: usize) -> Result<(), Undecodable> {
    if count > HEADERS_MAX {
        let detail = format!("{count} headers, {HEADERS_MAX} are allowed");
        return Err(Undecodable::new(INVALID_HEADER, detail));
    }
    if bytes > HEADERS_BYTES_MAX {
        let detail = format!("{bytes} bytes of headers, {HEADERS_BYTES_MAX} are allowed");
        return Err(Undecodable::new(INVALID_HEADER, detail));
    }
    Ok(())
}

/// Names on the wire are in lower case; some clients write `Content-Type` all the same.
fn lower_case(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}
