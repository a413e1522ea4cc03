//! Saga ids in paths. Invariant: `decode` gives back what `encode` was given, and no encoded id is a path of its own.
//!
//! Percent-encoding alone does not do: a client resolves `.` and `..` away, encoded or not (RFC 3986, 5.2.4 and 6.2.2.2). So `.`
//! and `..` are `~2E` and `~2E~2E`, and `~` is `~7E`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sagahost_saga::id::SagaId;

const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `/sagas/ID`
pub fn path_of_saga(saga: &SagaId) -> String {
    format!("/sagas/{}", encode(saga.as_str()))
}

fn encode(id: &str) -> String {
    match id {
        "." | ".." => id.replace('.', "~2E"),
        _ => utf8_percent_encode(id, ENCODED).to_string().replace('~', "~7E"),
    }
}

/// None: nothing is encoded so.
pub fn decode(segment: &str) -> Option<SagaId> {
    let text = percent_decode_str(segment).decode_utf8().ok()?;
    let mut parts = text.split('~');
    let mut id = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        id.push(match code {
            "7E" | "7e" => '~',
            "2E" | "2e" => '.',
            _ => return None,
        });
        id += rest;
    }
    (!id.is_empty()).then(|| SagaId::new(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_back_and_is_one_segment() {
        for id in ["o-1", ".", "..", "...", "~", "~2E", "a/b", "a b", "ü", "%", "%2F", "a?b#c", ";", "~7E~"] {
            let encoded = encode(id);
            assert!(!encoded.contains(['/', '?', '#', ' ']) && encoded != "." && encoded != "..", "{encoded}");
            assert_eq!(decode(&encoded).as_ref().map(SagaId::as_str), Some(id), "{encoded}");
        }
        assert_eq!(path_of_saga(&SagaId::new("a/b")), "/sagas/a%2Fb");
        for wrong in ["", "~", "~4", "~41", "%ff", "a~"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
