//! Dead letters' copies in the outbox. Invariant: what is left out of a copy is named in its headers.

use sagahost_wire::Outgoing;

use super::headers::{LETTER, OMITTED};

/// The key of the dead letter that the record is the copy of; none: it is not a copy. Only the host writes such headers.
pub fn copied_letter(record: &Outgoing) -> Option<&str> {
    let (_, key) = record.headers.iter().find(|(header, _)| header == LETTER)?;
    std::str::from_utf8(key.as_deref()?).ok()
}

/// The copy with an empty value, as one that is too large to publish goes out from the first.
pub fn without_value(record: &Outgoing) -> Outgoing {
    let mut copy = Outgoing { value: Some(Vec::new()), ..record.clone() };
    if !copy.headers.iter().any(|(header, _)| header == OMITTED) {
        copy.headers.push((OMITTED.to_owned(), Some(b"value".to_vec())));
    }
    copy
}
