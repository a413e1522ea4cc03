//! The key of a record as the text of a saga id, and back, as the topic's configuration says. Invariant: `encode` gives
//! the key back that `decode` read, so that what is published about a saga stays in its partition.

use super::undecodable::{INVALID_KEY, Undecodable};
use crate::KeyForm;

/// Serializers of a schema registry put a zero byte and the schema's id in front.
const REGISTRY_BYTES: usize = 5;

/// The saga id that a key stands for; `topic` is for the advice.
pub(super) fn decode(form: KeyForm, key: &[u8], topic: &str) -> Result<String, Undecodable> {
    match form {
        KeyForm::Text => match std::str::from_utf8(key) {
            Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
            Ok(_) | Err(_) => Err(not_text(key, topic)),
        },
        KeyForm::Long => fixed(form, key, topic).map(|key| i64::from_be_bytes(key).to_string()),
        KeyForm::Int => fixed(form, key, topic).map(|key| i32::from_be_bytes(key).to_string()),
        KeyForm::Uuid => fixed(form, key, topic).map(uuid),
        KeyForm::BytesHex => Ok(hex(key)),
    }
}

/// None: no key of this form stands for that saga id.
pub(super) fn encode(form: KeyForm, saga: &str) -> Option<Vec<u8>> {
    let key = match form {
        KeyForm::Text => saga.as_bytes().to_vec(),
        KeyForm::Long => saga.parse::<i64>().ok()?.to_be_bytes().to_vec(),
        KeyForm::Int => saga.parse::<i32>().ok()?.to_be_bytes().to_vec(),
        KeyForm::Uuid => unhex(&saga.replace('-', ""))?,
        KeyForm::BytesHex => unhex(saga)?,
    };
    // `007`, `+7` and capitals name other sagas than `7` and small letters do.
    decode(form, &key, "").is_ok_and(|decoded| decoded == saga).then_some(key)
}

fn fixed<const N: usize>(form: KeyForm, key: &[u8], topic: &str) -> Result<[u8; N], Undecodable> {
    key.try_into().map_err(|_| {
        let (bytes, name) = (key.len(), form.name());
        let fix = format!("set `key` in [topics.records.{topic:?}] to what the producers of this topic write");
        Undecodable::new(INVALID_KEY, format!("the key has {bytes} bytes, and key = \"{name}\" needs {N}: {fix}"))
    })
}

fn not_text(key: &[u8], topic: &str) -> Undecodable {
    let bytes = key.len();
    let table = format!("[topics.records.{topic:?}]");
    let fix = match (bytes, key.first()) {
        (8, _) => format!("if it is a long, set key = \"long\" in {table}"),
        (4, _) => format!("if it is an int, set key = \"int\" in {table}"),
        (16, _) => format!("if it is a UUID, set key = \"uuid\" in {table}"),
        (_, Some(0)) if bytes > REGISTRY_BYTES => format!(
            "it looks like a key of a schema registry, which is not read: set saga-id to a JSON pointer or \
             \"header:NAME\" in {table}, or key = \"bytes-hex\""
        ),
        _ => format!("set key = \"bytes-hex\", or saga-id to a JSON pointer or \"header:NAME\", in {table}"),
    };
    Undecodable::new(INVALID_KEY, format!("no header ce_sagaid, and the key ({bytes} bytes) is not text: {fix}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// `123e4567-e89b-12d3-a456-426614174000`.
fn uuid(bytes: [u8; 16]) -> String {
    let text = hex(&bytes);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: [u8; 16] = *b"\x12\x3e\x45\x67\xe8\x9b\x12\xd3\xa4\x56\x42\x66\x14\x17\x40\x00";

    #[test]
    fn a_key_is_the_text_of_a_saga_id_and_comes_back() {
        for (form, key, saga) in [
            (KeyForm::Text, &b"o-1"[..], "o-1"),
            (KeyForm::Text, "b\u{e4}r\n".as_bytes(), "b\u{e4}r\n"),
            (KeyForm::Long, &42_i64.to_be_bytes(), "42"),
            (KeyForm::Long, &(-1_i64).to_be_bytes(), "-1"),
            (KeyForm::Long, &i64::MIN.to_be_bytes(), "-9223372036854775808"),
            (KeyForm::Int, &7_i32.to_be_bytes(), "7"),
            (KeyForm::Uuid, &UUID, "123e4567-e89b-12d3-a456-426614174000"),
            (KeyForm::BytesHex, b"\0\0\0\0\x01\xff", "0000000001ff"),
        ] {
            assert_eq!(decode(form, key, "t").as_deref(), Ok(saga));
            assert_eq!(encode(form, saga).as_deref(), Some(key), "{saga}");
        }
    }

    #[test]
    fn a_saga_id_that_is_no_such_key_has_none() {
        for (form, saga) in [
            (KeyForm::Long, "o-1"),
            (KeyForm::Long, "+7"),
            (KeyForm::Long, "007"),
            (KeyForm::Long, "9223372036854775808"),
            (KeyForm::Int, "2147483648"),
            (KeyForm::Uuid, "123e4567e89b12d3a456426614174000"),
            (KeyForm::Uuid, "123E4567-e89b-12d3-a456-426614174000"),
            (KeyForm::BytesHex, "0"),
            (KeyForm::BytesHex, "0G"),
            (KeyForm::BytesHex, "AB"),
        ] {
            assert_eq!(encode(form, saga), None, "{saga}");
        }
    }

    /// Whoever follows the advice has the key decoded.
    #[test]
    fn a_key_that_is_not_text_names_the_setting() {
        for (key, fix, form) in [
            (&42_i64.to_be_bytes()[..], "key = \"long\"", KeyForm::Long),
            (&7_i32.to_be_bytes(), "key = \"int\"", KeyForm::Int),
            (b"\xffbcdefghijklmnop", "key = \"uuid\"", KeyForm::Uuid),
            (b"\0\0\0\0\x01o-1", "key = \"long\"", KeyForm::Long),
            (b"\0\0\0\0\x01\x0eorder-1", "schema registry", KeyForm::BytesHex),
            (b"\xff", "key = \"bytes-hex\"", KeyForm::BytesHex),
        ] {
            let why = decode(KeyForm::Text, key, "orders").expect_err("not text");
            assert_eq!(why.code, INVALID_KEY);
            assert!(why.detail.contains(fix) && why.detail.contains("[topics.records.\"orders\"]"), "{}", why.detail);
            assert!(decode(form, key, "orders").is_ok(), "{fix}");
        }
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        let why = decode(KeyForm::Long, b"o-1", "orders").expect_err("too short");
        assert_eq!(
            why.detail,
            "the key has 3 bytes, and key = \"long\" needs 8: set `key` in [topics.records.\"orders\"] to what the \
             producers of this topic write"
        );
    }
}
