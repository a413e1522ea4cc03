//! The data of an event, looked into where the configuration asks for it. Invariant: what passes `check_json` is UTF-8
//! and JSON as RFC 8259 has it, nested no deeper than `DEPTH_MAX`, so a guest's parser takes it.
//!
//! A number that no type holds and a lone surrogate are JSON, and are delivered: a guest that does not look at them
//! reads the rest, and one that does says itself what it cannot read.

use std::cell::OnceCell;

use super::{
    pointer,
    undecodable::{INVALID_JSON, Undecodable},
};

/// Arrays and objects within each other. Parsers that call themselves run out of stack at some depth.
const DEPTH_MAX: usize = 1000;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// `application/json`, `text/json` and everything `+json`.
pub(super) fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    let ends = |end: &str| {
        essence.len() >= end.len() && {
            let tail = essence.as_bytes().get(essence.len() - end.len()..).unwrap_or_default();
            tail.eq_ignore_ascii_case(end.as_bytes())
        }
    };
    essence.eq_ignore_ascii_case("application/json") || essence.eq_ignore_ascii_case("text/json") || ends("+json")
}

/// A content type without its parameters.
pub(super) fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Some editors and libraries put a byte order mark in front of a text; parsers of JSON refuse it.
pub fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

pub(super) fn check_json(data: &[u8]) -> Result<&str, Undecodable> {
    let wrong = |detail: String| Undecodable::new(INVALID_JSON, detail);
    let text = match data {
        [] => return Err(wrong("the data is empty".to_owned())),
        [0, ..] => {
            let hint = "the data begins with a zero byte, as records of a schema registry do; only JSON is read";
            return Err(wrong(hint.to_owned()));
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            return Err(wrong("the data begins with the byte order mark of UTF-16; only UTF-8 is read".to_owned()));
        }
        data => std::str::from_utf8(data).map_err(|error| wrong(format!("the data is not UTF-8: {error}")))?,
    };
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map_err(|error| wrong(format!("the data is not JSON: {error}")))?;
    match too_deep(data) {
        None => Ok(text),
        Some(at) => Err(wrong(format!("the data is nested more than {DEPTH_MAX} deep at byte {at}"))),
    }
}

/// Where JSON is nested deeper than allowed.
fn too_deep(json: &[u8]) -> Option<usize> {
    // Each level takes two bytes.
    if json.len() <= 2 * DEPTH_MAX {
        return None;
    }
    let (mut depth, mut text, mut escaped) = (0, false, false);
    for (at, byte) in json.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b'[' | b'{' if !text => depth += 1,
            b']' | b'}' if !text => depth -= 1,
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Some(at);
        }
    }
    None
}

/// Checked at most once, and only where a pointer is asked for.
pub(super) struct Data<'r> {
    bytes: &'r [u8],
    text: OnceCell<Result<&'r str, String>>,
}

impl<'r> Data<'r> {
    pub fn new(bytes: &'r [u8]) -> Self {
        Self { bytes, text: OnceCell::new() }
    }

    /// What has passed `check_json`.
    pub fn of_json(text: &'r str) -> Self {
        Self { bytes: text.as_bytes(), text: OnceCell::from(Ok(text)) }
    }

    pub fn bytes(&self) -> &'r [u8] {
        self.bytes
    }

    /// A string or an integer as text; the error says why there is none.
    pub fn at(&self, pointer: &str) -> Result<String, String> {
        let text = self.text.get_or_init(|| check_json(self.bytes).map_err(|why| why.detail));
        let missing = |why: &str| format!("the data has no string or integer at {pointer}: {why}");
        let text = text.as_ref().map_err(|why| missing(why))?;
        let value = pointer::at(text, pointer).ok_or_else(|| missing("there is nothing"))?;
        let found = scalar(value).map_err(|why| {
            let at = value.as_ptr().addr() - text.as_ptr().addr();
            missing(&format!("at byte {at} is {why}"))
        })?;
        match found {
            Scalar::Text(text) if text.is_empty() => Err(missing("the string there is empty")),
            Scalar::Text(text) => Ok(text),
            Scalar::Integer(digits) => Ok(digits.to_owned()),
            Scalar::Boolean(_) => Err(missing("there is a boolean")),
        }
    }
}

/// What an identity or an attribute can be. Digits stay as they are: an integer may be larger than any type.
pub(super) enum Scalar<'d> {
    Text(String),
    Integer(&'d str),
    Boolean(&'d str),
}

/// `value`: the text of one JSON value. The error says what it is instead.
pub(super) fn scalar(value: &str) -> Result<Scalar<'_>, String> {
    match value.as_bytes().first() {
        Some(b'"') => match serde_json::from_str(value) {
            Ok(text) => Ok(Scalar::Text(text)),
            // All else has been checked: a text of JSON can only fail to be one of Unicode.
            Err(_) => Err("a string with a lone surrogate (half of a \\u escape pair), which is not text".to_owned()),
        },
        Some(b't' | b'f') => Ok(Scalar::Boolean(value)),
        Some(b'[') => Err("an array".to_owned()),
        Some(b'{') => Err("an object".to_owned()),
        Some(b'n') | None => Err("null".to_owned()),
        Some(_) if is_integer(value) => Ok(Scalar::Integer(value)),
        Some(_) => Err(value[..value.floor_char_boundary(40)].to_owned()),
    }
}

/// Minus zero is not an integer for most parsers.
fn is_integer(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    digits.bytes().all(|byte| byte.is_ascii_digit()) && number != "-0"
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::Value;

    use super::*;
    use crate::tests::Draw;

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn json_is_what_the_grammar_says_within_a_depth() {
        let good = [r#""\ud800""#, "1e400", "-0", "123456789012345678901234567890", " [ ] ", "\"\u{feff}\""];
        let refused: Vec<_> = good.iter().filter(|text| check_json(text.as_bytes()).is_err()).collect();
        assert!(refused.is_empty(), "{refused:?}");
        assert!(check_json(nested(DEPTH_MAX).as_bytes()).is_ok());
        let brackets = format!("\"{}\\\"{}\"", "[".repeat(2000), "{".repeat(2000));
        assert!(check_json(brackets.as_bytes()).is_ok(), "brackets in a text nest nothing");
        let deep = check_json(nested(DEPTH_MAX + 1).as_bytes()).expect_err("too deep");
        assert_eq!(deep.detail, "the data is nested more than 1000 deep at byte 1000");
    }

    #[test]
    fn why_there_is_no_id() {
        let data = r#"{"a": {"b": 1.5, "c": ["x"], "e": "", "n": null, "s": "\ud800", "t": true, "z": -0}, "id": 7}"#;
        let data = Data::new(data.as_bytes());
        let pointers = ["/id", "/x", "/a/x", "/id/x", "/a", "/a/b", "/a/c", "/a/e", "/a/n", "/a/s", "/a/t", "/a/z"];
        let lines: Vec<String> = pointers.iter().map(|pointer| data.at(pointer).unwrap_or_else(|why| why)).collect();
        expect![[r#"
            7
            the data has no string or integer at /x: there is nothing
            the data has no string or integer at /a/x: there is nothing
            the data has no string or integer at /id/x: there is nothing
            the data has no string or integer at /a: at byte 6 is an object
            the data has no string or integer at /a/b: at byte 12 is 1.5
            the data has no string or integer at /a/c: at byte 22 is an array
            the data has no string or integer at /a/e: the string there is empty
            the data has no string or integer at /a/n: at byte 43 is null
            the data has no string or integer at /a/s: at byte 54 is a string with a lone surrogate (half of a \u escape pair), which is not text
            the data has no string or integer at /a/t: there is a boolean
            the data has no string or integer at /a/z: at byte 80 is -0"#]].assert_eq(&lines.join("\n"));
        expect!["the data has no string or integer at /id: the data is not JSON: EOF while parsing an object at line 1 column 1"].assert_eq(&Data::new(b"{").at("/id").expect_err("no JSON"));
    }

    #[test]
    fn an_integer_keeps_its_digits() {
        for digits in ["0", "-1", "18446744073709551615", "18446744073709551616", "-99999999999999999999999"] {
            assert_eq!(Data::new(format!("[{digits}]").as_bytes()).at("/0").as_deref(), Ok(digits));
        }
    }

    /// As before there was a lookup of its own, so that no event gets another identity.
    #[test]
    fn an_id_is_what_a_tree_gives() {
        const ANY: &str = "aZ0-_/. é日\u{0}\"\\|:";
        for seed in 0..5000 {
            let mut draw = Draw(seed);
            let number = draw.number();
            let leaf = match draw.below(6) {
                0 => number.to_string(),
                1 => number.cast_signed().to_string(),
                2 => f64::from_bits(number).to_string(),
                3 => serde_json::to_string(&draw.text(ANY, 8)).expect("a text"),
                4 => ["null", "true", "{}", "[]", "-0", "1E2", "-0.0"][draw.below(7)].to_owned(),
                _ => [r#""\ud83d\ude00""#, r#""""#, "18446744073709551615", "-9223372036854775808"][draw.below(4)]
                    .to_owned(),
            };
            let text = format!(r#"{{"id": {leaf} }}"#);
            let Ok(tree) = serde_json::from_str::<Value>(&text) else { continue };
            let expected = match &tree["id"] {
                Value::String(text) if !text.is_empty() => Some(text.clone()),
                Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
                // f64 displays whole numbers without a fraction, however large.
                Value::Number(_) if is_integer(&leaf) => Some(leaf.clone()),
                _ => None,
            };
            assert_eq!(Data::new(text.as_bytes()).at("/id").ok(), expected, "{text}");
        }
    }
}
