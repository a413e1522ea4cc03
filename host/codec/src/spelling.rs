//! How the bindings of CloudEvents spell an attribute as a header. Invariant: one spelling of a name is one attribute,
//! whoever carried the record to the topic.

use std::borrow::Cow;

/// Of Kafka's binding; what the host writes.
pub(super) const KAFKA: &str = "ce_";

/// Prefixes, in lower case. The AMQP binding has two: a colon is not allowed everywhere.
const PREFIXES: [(&str, Spelling); 4] = [
    (KAFKA, Spelling::Kafka),
    ("ce-", Spelling::Http),
    ("cloudevents:", Spelling::Amqp),
    ("cloudevents_", Spelling::AmqpUnderscore),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    Kafka,
    Http,
    Amqp,
    AmqpUnderscore,
}

impl Spelling {
    /// The name of the attribute that a header (in lower case) carries, and how it is spelled.
    pub fn of(header: &str) -> Option<(Self, &str)> {
        let (prefix, spelling) = PREFIXES.iter().find(|(prefix, _)| header.starts_with(prefix))?;
        let name = &header[prefix.len()..];
        (!name.is_empty()).then_some((*spelling, name))
    }

    /// The attribute's value. None: it is not written as its binding has it.
    pub fn value(self, value: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Http => http_value(value),
            Self::Kafka | Self::Amqp | Self::AmqpUnderscore => Some(Cow::Borrowed(value)),
        }
    }
}

/// A quoted string is unquoted, then escapes (`%20`) are decoded, once.
fn http_value(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let unquoted = match value {
        [b'"', inner @ .., b'"'] => Cow::Owned(without_backslashes(inner)),
        other => Cow::Borrowed(other),
    };
    if !unquoted.contains(&b'%') {
        return Some(unquoted);
    }
    let mut decoded = Vec::with_capacity(unquoted.len());
    let mut rest = &*unquoted;
    while let [first, after @ ..] = rest {
        (rest, _) = match (first, after) {
            (b'%', [high, low, after @ ..]) => (after, decoded.push(hex(*high)? << 4 | hex(*low)?)),
            (b'%', _) => return None,
            (byte, after) => (after, decoded.push(*byte)),
        };
    }
    Some(Cow::Owned(decoded))
}

fn without_backslashes(quoted: &[u8]) -> Vec<u8> {
    let mut escaped = false;
    let keep = |byte: &&u8| {
        escaped = **byte == b'\\' && !escaped;
        !escaped
    };
    quoted.iter().filter(keep).copied().collect()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        assert_eq!(Spelling::of("ce_id"), Some((Spelling::Kafka, "id")));
        assert_eq!(Spelling::of("ce-id"), Some((Spelling::Http, "id")));
        assert_eq!(Spelling::of("cloudevents:id"), Some((Spelling::Amqp, "id")));
        assert_eq!(Spelling::of("cloudevents_id"), Some((Spelling::AmqpUnderscore, "id")));
        for other in ["ce_", "ce-", "ceid", "ce", "id", "cloudevents", "x-ce-id", ""] {
            assert_eq!(Spelling::of(other), None, "{other}");
        }
    }

    #[test]
    fn values_of_the_http_binding_are_unquoted_and_decoded_once() {
        let read = |value: &str| {
            Spelling::Http.value(value.as_bytes()).map(|value| String::from_utf8_lossy(&value).into_owned())
        };
        assert_eq!(read("Euro%20%E2%82%ac%2520").as_deref(), Some("Euro €%20"));
        assert_eq!(read(r#""a \"b\" \\ c""#).as_deref(), Some(r#"a "b" \ c"#));
        assert_eq!(read("\"").as_deref(), Some("\""));
        for wrong in ["50%", "%2", "%zz", "%é"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(Spelling::Kafka.value(b"50%").as_deref(), Some(&b"50%"[..]));
    }
}
