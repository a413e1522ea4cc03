//! The headers of a record, read once. Invariant: what gives an event its identity is said once, or always with the
//! same value, in whichever spelling.

use std::borrow::Cow;

use sagahost_saga::event::Attributes;
use sagahost_wire::{Headers, header_bytes};

use super::{
    content_type::ContentTypes,
    spelling::{self, Spelling},
    undecodable::{INVALID_HEADER, Undecodable},
};

pub(super) const HANDLED: &str = "sagahost-handled";
pub(super) const HOPS: &str = "sagahost-hops";
pub(super) const DEAD_LETTER: &str = "sagahost-dlq-";
/// On a published dead letter: its key in the journal.
pub const LETTER: &str = "sagahost-dlq-letter";
/// On a published dead letter: what of the record was left out.
pub const OMITTED: &str = "sagahost-dlq-omitted";
/// Carries an attribute whose name CloudEvents does not allow: it knows small letters and digits only.
pub(super) const ATTRIBUTE: &str = "sagahost-attribute-";
pub(super) const EXTENSION: &str = spelling::KAFKA;

/// A record with more is refused.
const HEADERS_MAX: usize = 256;
const HEADERS_BYTES_MAX: usize = 64 << 10;

/// Names that the envelope needs for itself: no attribute has them.
const ENVELOPE: [&str; 11] = [
    "id",
    "source",
    "type",
    "specversion",
    "time",
    "datacontenttype",
    "data",
    "sagaid",
    "sagahop",
    "content-type",
    "contenttype",
];

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

/// By which rules a record is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    Current,
    /// Those of hosts that knew no spelling but Kafka's. They say which identity such a host gave an event.
    Former,
}

/// What one header says of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said<'r> {
    /// The header's name as it stands on the record.
    pub header: &'r str,
    pub value: Cow<'r, [u8]>,
    /// None: a header of no binding of CloudEvents.
    spelling: Option<Spelling>,
}

impl Said<'_> {
    pub fn text(&self) -> Result<&str, Undecodable> {
        std::str::from_utf8(&self.value).map_err(|_| not_utf8(self.header))
    }
}

/// What a record's headers say.
#[derive(Debug)]
pub(super) struct Found<'r> {
    pub rules: Rules,
    pub id: Option<Said<'r>>,
    pub source: Option<Said<'r>>,
    pub kind: Option<Said<'r>>,
    pub spec_version: Option<Said<'r>>,
    pub time: Option<Said<'r>>,
    pub saga: Option<Said<'r>>,
    pub content_types: ContentTypes<'r>,
    /// Something that may change an identity is said in a way that former rules did not read.
    pub respelled: bool,
    hops: Option<Said<'r>>,
    /// Extensions, the trace, and what the operator lets through.
    others: Vec<(Cow<'r, str>, Said<'r>)>,
}

impl<'r> Found<'r> {
    pub fn read(headers: &'r Headers, let_through: &[String], rules: Rules) -> Result<Self, Undecodable> {
        check_bounds(headers)?;
        let mut found = Self::new(rules);
        for (header, value) in headers {
            // A null value says nothing: the header counts as absent.
            if let Some(value) = value {
                found.header(header, value, let_through)?;
            }
        }
        Ok(found)
    }

    fn new(rules: Rules) -> Self {
        Self {
            rules,
            id: None,
            source: None,
            kind: None,
            spec_version: None,
            time: None,
            saga: None,
            content_types: ContentTypes::default(),
            respelled: false,
            hops: None,
            others: Vec::new(),
        }
    }

    fn header(&mut self, header: &'r str, value: &'r [u8], let_through: &[String]) -> Result<(), Undecodable> {
        let lower = lower_case(header);
        let spelled =
            Spelling::of(&lower).filter(|(spelling, _)| self.rules == Rules::Current || *spelling == Spelling::Kafka);
        if let Some((spelling, name)) = spelled {
            let name = name.to_owned();
            return self.attribute(header, value, spelling, name);
        }
        match &*lower {
            HOPS => return keep(&mut self.hops, Said { header, value: value.into(), spelling: None }),
            "content-type" => return self.content_types.of_record(header, value, self.rules),
            "contenttype" if self.rules == Rules::Current => {
                self.respelled = true;
                return self.content_types.of_record(header, value, self.rules);
            }
            _ => {}
        }
        let name = match lower.strip_prefix(ATTRIBUTE) {
            Some(inner) => Cow::Owned(inner.to_owned()),
            None if is_trace(&lower) || let_through.iter().any(|known| *known == *lower) => lower,
            None => return Ok(()),
        };
        self.other(name, Said { header, value: value.into(), spelling: None })
    }

    fn attribute(
        &mut self,
        header: &'r str,
        value: &'r [u8],
        spelling: Spelling,
        name: String,
    ) -> Result<(), Undecodable> {
        let Some(value) = spelling.value(value) else {
            let detail = format!("{header} has a % that is not followed by two hexadecimal digits");
            return Err(Undecodable::new(INVALID_HEADER, detail));
        };
        let said = Said { header, value, spelling: Some(spelling) };
        let place = match name.as_str() {
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "specversion" => &mut self.spec_version,
            "time" => &mut self.time,
            "sagaid" => &mut self.saga,
            "datacontenttype" => match self.rules {
                Rules::Current => return self.content_types.of_data(header, &said.value),
                Rules::Former => return Ok(()),
            },
            _ => return self.other(Cow::Owned(name), said),
        };
        self.respelled |= spelling != Spelling::Kafka;
        keep(place, said)
    }

    /// Of several with one name the last one counts, as with Kafka's own clients; but bindings must agree.
    fn other(&mut self, name: Cow<'r, str>, said: Said<'r>) -> Result<(), Undecodable> {
        if !is_attribute_name(&name) {
            return Ok(());
        }
        let Some((_, known)) = self.others.iter_mut().find(|(known, _)| *known == name) else {
            self.others.push((name, said));
            return Ok(());
        };
        let bindings = known.spelling.is_some() && said.spelling.is_some() && known.spelling != said.spelling;
        if bindings && known.value != said.value && !is_trace(&name) {
            return Err(disagree(known.header, said.header));
        }
        *known = said;
        Ok(())
    }

    /// Does the record say itself what event it is? A record that says a part of it is neither a CloudEvent nor plain.
    /// `configured`: headers that the topic's configuration asks for, which may be there by themselves.
    pub fn is_cloud_event(&self, configured: &[&str]) -> Result<bool, Undecodable> {
        let four = [
            ("ce_id", &self.id),
            ("ce_source", &self.source),
            ("ce_type", &self.kind),
            ("ce_specversion", &self.spec_version),
        ];
        let missing: Vec<&str> = four.iter().filter(|(_, said)| said.is_none()).map(|(name, _)| *name).collect();
        if missing.is_empty() {
            return Ok(true);
        }
        let present = four.iter().filter_map(|(_, said)| said.as_ref()).chain(self.extensions());
        let present = present.map(|said| said.header);
        let present: Vec<&str> =
            present.filter(|header| !configured.iter().any(|name| name.eq_ignore_ascii_case(header))).collect();
        if present.is_empty() {
            return Ok(false);
        }
        let (present, missing) = (present.join(", "), missing.join(", "));
        let detail = format!(
            "the record has {present}, but not {missing}: a CloudEvent must have all four of ce_id, ce_source, ce_type and \
             ce_specversion, and a plain record no header of CloudEvents but ce_sagaid, ce_time and ce_datacontenttype"
        );
        Err(Undecodable::new(INVALID_HEADER, detail))
    }

    /// Headers of CloudEvents that a plain record has no use for.
    fn extensions(&self) -> impl Iterator<Item = &Said<'r>> {
        let current = self.rules == Rules::Current;
        let extension =
            move |(name, said): &&(Cow<'r, str>, Said<'r>)| current && said.spelling.is_some() && !is_trace(name);
        self.others.iter().filter(extension).map(|(_, said)| said)
    }

    pub fn hops(&self) -> Result<u32, Undecodable> {
        let Some(hops) = self.hops.as_ref().map(Said::text).transpose()? else {
            return Ok(0);
        };
        hops.parse().map_err(|_| Undecodable::new(INVALID_HEADER, format!("{HOPS} is {hops:?}, which is not a count")))
    }

    pub fn attributes(&self) -> Result<Attributes, Undecodable> {
        let mut attributes = Attributes::with_capacity(self.others.len());
        for (name, said) in &self.others {
            match said.text() {
                Ok(value) if is_trace(name) && value.len() > TRACE_BYTES_MAX => {}
                Ok(value) => attributes.push((name.as_ref().to_owned(), value.to_owned())),
                // A broken trace is not a reason to lose an event.
                Err(_) if is_trace(name) => {}
                Err(why) => return Err(why),
            }
        }
        Ok(attributes)
    }
}

fn keep<'r>(place: &mut Option<Said<'r>>, said: Said<'r>) -> Result<(), Undecodable> {
    match place {
        Some(earlier) if earlier.value != said.value => Err(disagree(earlier.header, said.header)),
        Some(_) => Ok(()),
        None => {
            *place = Some(said);
            Ok(())
        }
    }
}

pub(super) fn disagree(one: &str, other: &str) -> Undecodable {
    let detail = match one.eq_ignore_ascii_case(other) {
        true => format!("{one} appears twice, with different values"),
        false => format!("{one} and {other} disagree: they are spellings of one attribute and must have one value"),
    };
    Undecodable::new(INVALID_HEADER, detail)
}

/// A header that must be there and must say something.
pub(super) fn required<'f>(name: &str, said: Option<&'f Said<'_>>) -> Result<&'f str, Undecodable> {
    match said.map(|said| Ok((said.header, said.text()?))).transpose()? {
        None => Err(Undecodable::new(INVALID_HEADER, format!("a CloudEvent must have {name}"))),
        Some((header, "")) => Err(Undecodable::new(INVALID_HEADER, format!("{header} is empty"))),
        Some((_, text)) => Ok(text),
    }
}

/// A header that the topic's configuration asks for; `code` is for one that is not there. Of several with one name the
/// last one counts.
pub(super) fn configured<'r>(headers: &'r Headers, name: &str, code: &'static str) -> Result<&'r str, Undecodable> {
    let found = headers.iter().rev().find(|(header, _)| header.eq_ignore_ascii_case(name));
    match found.and_then(|(_, value)| value.as_deref()).map(std::str::from_utf8) {
        Some(Err(_)) => Err(not_utf8(name)),
        Some(Ok("")) => Err(Undecodable::new(code, format!("the header {name} is empty"))),
        Some(Ok(text)) => Ok(text),
        None => Err(Undecodable::new(code, format!("there is no header {name}"))),
    }
}

pub(super) fn not_utf8(name: &str) -> Undecodable {
    Undecodable::new(INVALID_HEADER, format!("{name} is not UTF-8"))
}

pub(super) fn check_attributes(attributes: &Attributes) -> Result<(), Undecodable> {
    check_sizes(attributes.len(), attributes.iter().map(|(name, value)| name.len() + value.len()).sum())
}

fn check_bounds(headers: &Headers) -> Result<(), Undecodable> {
    check_sizes(headers.len(), header_bytes(headers))
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

/// Names on the wire are in lower case; some clients write `Content-Type`.
fn lower_case(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}
