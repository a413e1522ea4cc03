//! How records that are not CloudEvents become events. Invariant: what is said here of a topic holds for each of its
//! records; nothing is guessed from one.

use std::fmt;

use sagahost_saga::id::Kind;

/// How a plain JSON record becomes an event. (A CloudEvent says it all itself, but for the form of its key.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordMapping {
    /// None: the kind whose topic this is.
    pub kind: Option<KindFrom>,
    /// None: header `ce_sagaid`, else the record's key.
    pub saga_id: Option<Locator>,
    pub event_id: EventIdFrom,
    /// JSON pointer to the event's data within the value. None: the value itself.
    pub data: Option<String>,
    pub key: KeyForm,
    /// Is a JSON object with `specversion`, whose headers do not say so, read as a CloudEvent? In a topic without a
    /// mapping it is; a mapping that does not say so was made for values as they are.
    pub structured: bool,
}

impl RecordMapping {
    /// Headers that the mapping asks for; a plain record may have them.
    pub fn headers(&self) -> Vec<&str> {
        let kind = self.kind.as_ref().and_then(|kind| match kind {
            KindFrom::Fixed(_) => None,
            KindFrom::At(at) => at.header(),
        });
        let event_id = match &self.event_id {
            EventIdFrom::Header(name) => Some(name.as_str()),
            EventIdFrom::Content | EventIdFrom::Pointer(_) | EventIdFrom::Offset => None,
        };
        kind.into_iter().chain(self.saga_id.as_ref().and_then(Locator::header)).chain(event_id).collect()
    }
}

/// A place in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locator {
    /// JSON pointer into the value.
    Pointer(String),
    /// Name of a header, in lower case.
    Header(String),
}

impl Locator {
    /// As the configuration names it; none where it does not name a place.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("header:").map(str::trim) {
            Some("") => None,
            Some(name) => Some(Self::Header(name.to_lowercase())),
            None => text.starts_with('/').then(|| Self::Pointer(text.to_owned())),
        }
    }

    fn header(&self) -> Option<&str> {
        match self {
            Self::Header(name) => Some(name),
            Self::Pointer(_) => None,
        }
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointer(pointer) => f.write_str(pointer),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

/// Where the kind of a plain record is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KindFrom {
    /// Each record of the topic is of this kind.
    Fixed(Kind),
    At(Locator),
}

impl fmt::Display for KindFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(kind) => fmt::Display::fmt(kind, f),
            Self::At(at) => fmt::Display::fmt(at, f),
        }
    }
}

/// What makes two plain records one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EventIdFrom {
    /// Hash of topic, kind, saga id and data: a producer's double is one event.
    #[default]
    Content,
    /// JSON pointer into the value.
    Pointer(String),
    /// Name of a header, in lower case.
    Header(String),
    /// Each record is an event of its own. A producer that sends one twice has made two.
    Offset,
}

impl fmt::Display for EventIdFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content => f.write_str("content"),
            Self::Offset => f.write_str("offset"),
            Self::Pointer(pointer) => f.write_str(pointer),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

/// What the bytes of a record's key are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyForm {
    /// UTF-8.
    #[default]
    Text,
    /// Eight bytes, as Java's `LongSerializer` writes them.
    Long,
    /// Four bytes.
    Int,
    /// Sixteen bytes. (Java's `UUIDSerializer` writes text.)
    Uuid,
    /// Any; the saga id is their hexadecimal digits.
    BytesHex,
}

impl KeyForm {
    pub const ALL: [(&'static str, Self); 5] = [
        ("text", Self::Text),
        ("long", Self::Long),
        ("int", Self::Int),
        ("uuid", Self::Uuid),
        ("bytes-hex", Self::BytesHex),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, form)| *form == self).map_or("text", |(name, _)| name)
    }
}
