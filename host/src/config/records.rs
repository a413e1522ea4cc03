//! Table `[topics.records.TOPIC]`: how records are read that are not CloudEvents. Invariant: what is not understood is
//! refused with what to write instead, and that is accepted.

use std::{fmt, ops::Range};

use sagahost_saga::id::Kind;
use sagahost_sandbox::manifest::is_kind;

use super::reader::Table;

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
    fn parse(text: &str) -> Option<Self> {
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

pub fn read(mut table: Table<'_, '_>) -> RecordMapping {
    let mapping = RecordMapping {
        kind: table.text("kind").and_then(|(text, at)| kind(&table, &text, at)),
        saga_id: table.text("saga-id").and_then(|(text, at)| locator(&table, "saga-id", &text, at)),
        event_id: table.text("event-id").and_then(|(text, at)| event_id(&table, &text, at)).unwrap_or_default(),
        data: table.text("data").and_then(|(text, at)| data(&table, text, at)),
        key: table.choice("key", &KeyForm::ALL).unwrap_or_default(),
        structured: table.boolean("structured", false),
    };
    table.finish();
    mapping
}

fn kind(table: &Table<'_, '_>, text: &str, at: Range<usize>) -> Option<KindFrom> {
    if let Some(found) = Locator::parse(text) {
        return Some(KindFrom::At(found));
    }
    // A kind may have a colon in it; `header:` and `headers.` are slips.
    let slip = meant(text);
    if slip.is_none() && is_kind(text) {
        return Some(KindFrom::Fixed(Kind::new(text)));
    }
    let advice = slip.unwrap_or_else(|| "\"OrderCreated\", \"header:NAME\" or a JSON pointer (\"/type\")".to_owned());
    table.fault("kind", at, format_args!("`{text}` is neither a kind nor a place in a record: write {advice}"));
    None
}

fn locator(table: &Table<'_, '_>, name: &str, text: &str, at: Range<usize>) -> Option<Locator> {
    let found = Locator::parse(text);
    if found.is_none() {
        let advice = meant(text).unwrap_or_else(|| format!("\"/{}\" or \"header:{}\"", path(text), plain_name(text)));
        table.fault(name, at, format_args!("`{text}` is neither a JSON pointer nor a header: write {advice}"));
    }
    found
}

fn event_id(table: &Table<'_, '_>, text: &str, at: Range<usize>) -> Option<EventIdFrom> {
    match (text, Locator::parse(text)) {
        ("content", _) => Some(EventIdFrom::Content),
        ("offset", _) => Some(EventIdFrom::Offset),
        (_, Some(Locator::Pointer(pointer))) => Some(EventIdFrom::Pointer(pointer)),
        (_, Some(Locator::Header(name))) => Some(EventIdFrom::Header(name)),
        (_, None) => {
            let place =
                meant(text).unwrap_or_else(|| format!("\"/{}\" or \"header:{}\"", path(text), plain_name(text)));
            let ways = format!("{place}, or \"content\" or \"offset\"");
            table.fault("event-id", at, format_args!("`{text}` is not a place of an event's id: write {ways}"));
            None
        }
    }
}

fn data(table: &Table<'_, '_>, text: String, at: Range<usize>) -> Option<String> {
    if text.is_empty() || text.starts_with('/') {
        return Some(text);
    }
    let advice = format!("\"/{}\", or \"\" for a value that is JSON within a string", path(&text));
    table.fault("data", at, format_args!("`{text}` is not a JSON pointer: write {advice}"));
    None
}

/// What a text that is nearly a place was meant to be, as it has to be written.
fn meant(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    for prefix in ["header:", "headers:", "header.", "headers.", "header/", "header ", "$header."] {
        if lower.starts_with(prefix) {
            return Some(format!("\"header:{}\"", plain_name(text.get(prefix.len()..).unwrap_or_default())));
        }
    }
    let rest = ["$.", "$/", "pointer:", "jsonpath:", "#/"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
    Some(format!("\"/{}\"", path(rest.trim_start_matches(['$', '.', '/']))))
}

fn plain_name(text: &str) -> String {
    let name: String = text.trim().chars().filter(|c| !matches!(c, '"' | '\\' | '`') && !c.is_control()).collect();
    if name.is_empty() { "NAME".to_owned() } else { name }
}

/// `order.id` as a pointer has it, without the first stroke.
fn path(text: &str) -> String {
    plain_name(text).replace('.', "/").trim_start_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    fn faults(field: &str, value: &str) -> Option<String> {
        let text = format!("[topics.records.t]\n{field} = '{value}'\n");
        Config::parse(&text, Path::new("sagahost.toml")).err().map(|faults| faults.to_string())
    }

    #[test]
    fn what_is_not_understood_comes_with_advice_that_is_accepted() {
        for (field, value, advised) in [
            ("kind", "header: ", "header:NAME"),
            ("kind", "headers:eventType", "header:eventType"),
            ("kind", "Header:eventType", "header:eventType"),
            ("kind", "headers.eventType", "header:eventType"),
            ("kind", "$.type", "/type"),
            ("kind", "order created", "OrderCreated"),
            ("kind", "", "OrderCreated"),
            ("saga-id", "order.id", "/order/id"),
            ("saga-id", "orderId", "/orderId"),
            ("saga-id", "header:", "header:NAME"),
            ("saga-id", "$.order.id", "/order/id"),
            ("saga-id", "", "/NAME"),
            ("event-id", "id", "/id"),
            ("event-id", "headers:id", "header:id"),
            ("event-id", "Offset", "/Offset"),
            ("data", "payload", "/payload"),
            ("data", "after.payload", "/after/payload"),
            ("key", "Long", "long"),
            ("key", "string", "text"),
        ] {
            let fault = faults(field, value).unwrap_or_else(|| panic!("{field} = {value:?} is accepted"));
            assert!(fault.contains(&format!("\"{advised}\"")), "{field} = {value:?}: {fault}");
            assert_eq!(faults(field, advised), None, "{field} = {advised:?}");
        }
    }
}
