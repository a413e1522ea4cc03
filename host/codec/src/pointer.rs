//! JSON pointers (RFC 6901) into a text, without a tree of it. Invariant: where `serde_json` makes a value of the text,
//! `at` finds what `Value::pointer` finds; what lies beside the way there need not fit any type.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer as _,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Deserializer, value::RawValue};

/// The text of the value that the pointer names; None: there is none. The text must be JSON.
pub(super) fn at<'d>(text: &'d str, pointer: &str) -> Option<&'d str> {
    let root = text.trim_matches([' ', '\t', '\r', '\n']);
    if pointer.is_empty() {
        return Some(root);
    }
    pointer.strip_prefix('/')?.split('/').try_fold(root, |value, token| {
        let token = token.replace("~1", "/").replace("~0", "~");
        match value.as_bytes().first()? {
            b'{' => {
                let mut found = None;
                // The last of several members with one name counts, as in a map that is filled in order.
                members(value, |name, member| {
                    if *name == *token.as_bytes() {
                        found = Some(member);
                    }
                })
                .ok()?;
                found
            }
            b'[' => element(value, index(&token)?),
            _ => None,
        }
    })
}

/// Each member of an object, in order: its name (which may hold lone surrogates, so it is bytes) and the text of its
/// value.
pub(super) fn members<'d>(object: &'d str, each: impl FnMut(Cow<'d, [u8]>, &'d str)) -> Result<(), serde_json::Error> {
    let mut deserializer = Deserializer::from_str(object);
    deserializer.deserialize_map(Members(each))?;
    deserializer.end()
}

fn element(array: &str, index: usize) -> Option<&str> {
    Deserializer::from_str(array).deserialize_seq(Element(index)).ok()?
}

/// As RFC 6901 writes them: without signs and leading zeros.
fn index(token: &str) -> Option<usize> {
    let plain = token == "0" || !token.starts_with(['0', '+']);
    plain.then(|| token.parse().ok())?
}

struct Members<F>(F);

impl<'d, F: FnMut(Cow<'d, [u8]>, &'d str)> Visitor<'d> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'d>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            let value: &RawValue = map.next_value()?;
            (self.0)(name, value.get());
        }
        Ok(())
    }
}

struct Element(usize);

impl<'d> Visitor<'d> for Element {
    type Value = Option<&'d str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON array")
    }

    fn visit_seq<A: SeqAccess<'d>>(self, mut array: A) -> Result<Option<&'d str>, A::Error> {
        let (mut at, mut found) = (0, None);
        // To the end: the parser wants all of it read.
        while let Some(value) = array.next_element::<&RawValue>()? {
            if at == self.0 {
                found = Some(value.get());
            }
            at += 1;
        }
        Ok(found)
    }
}

/// As bytes: a name with a lone surrogate is not text, and must not be in the way of others.
struct Name<'d>(Cow<'d, [u8]>);

impl<'d> Deserialize<'d> for Name<'d> {
    fn deserialize<D: serde::Deserializer<'d>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'d> Visitor<'d> for Bytes {
            type Value = Name<'d>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a member")
            }
            fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'d [u8]) -> Result<Name<'d>, E> {
                Ok(Name(Cow::Borrowed(bytes)))
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Name<'d>, E> {
                Ok(Name(Cow::Owned(bytes.to_vec())))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::tests::Draw;

    #[test]
    fn what_is_beside_the_way_need_not_fit_a_type() {
        let nested = format!("{}{}", "[".repeat(500), "]".repeat(500));
        let beside = [r#""\ud800""#, "1e400", "-18446744073709551616", &nested, r#"{"\udfff": 1e999}"#];
        for value in beside {
            for text in [format!(r#"{{"a": {value}, "id": "o-1"}}"#), format!(r#"{{"id": "o-1", "\ud800": {value}}}"#)]
            {
                assert_eq!(at(&text, "/id"), Some(r#""o-1""#), "{text}");
            }
            let text = format!("\t[[{value}, {{\"id\": 7 }}], {value}] ");
            assert_eq!(at(&text, "/0/1/id"), Some("7"), "{text}");
        }
    }

    const LEAVES: [&str; 8] =
        ["null", "true", "0", "-7", "-1.50e3", r#""plain""#, r#""\u00e9\n\\\"""#, "9223372036854775808"];
    /// Some that pointers must escape, and two that are one.
    const NAMES: [&str; 9] = ["a", "b", r"\u0061", "", "/", "~", "~1", "0", "01"];
    const TOKENS: [&str; 15] = ["a", "b", "", "~1", "~0", "~01", "~", "0", "1", "2", "01", "00", "+1", "-1", "-"];

    /// JSON of all kinds, with doubles of names and space in between.
    fn json(draw: &mut Draw, depth: usize) -> String {
        let space = ["", " ", "\n\t"][draw.below(3)];
        let count = draw.below(5);
        match draw.below(if depth == 0 { 1 } else { 3 }) {
            0 => LEAVES[draw.below(LEAVES.len())].to_owned(),
            1 => {
                let items: Vec<String> = (0..count).map(|_| json(draw, depth - 1)).collect();
                format!("[{space}{}{space}]", items.join(&format!("{space},")))
            }
            _ => {
                let mut member =
                    || format!("\"{}\"{space}:{space}{}", NAMES[draw.below(NAMES.len())], json(draw, depth - 1));
                let members: Vec<String> = (0..count).map(|_| member()).collect();
                format!("{{{space}{}}}", members.join(&format!(",{space}")))
            }
        }
    }

    #[test]
    fn finds_what_a_tree_finds() {
        let mut found = 0;
        for seed in 0..20_000 {
            let mut draw = Draw(seed);
            let text = json(&mut draw, 4);
            let tree: Value = serde_json::from_str(&text).expect("it is JSON");
            for _ in 0..20 {
                let pointer: String =
                    (0..draw.below(4)).map(|_| format!("/{}", TOKENS[draw.below(TOKENS.len())])).collect();
                let value = at(&text, &pointer).map(|value| serde_json::from_str::<Value>(value).expect("a value"));
                assert_eq!(value.as_ref(), tree.pointer(&pointer), "seed {seed}: {pointer} in {text}");
                found += usize::from(value.is_some() && !pointer.is_empty());
            }
        }
        assert!(found > 5_000, "only {found} pointers led anywhere");
        assert_eq!(at("{\"a\": 1}", "a"), None, "not a pointer");
    }

    #[test]
    fn what_is_no_json_is_not_a_panic() {
        for seed in 0..20_000 {
            let mut draw = Draw(seed);
            let mut text = json(&mut draw, 4);
            text.truncate(text.floor_char_boundary(draw.below(text.len() + 1)));
            let _ = (at(&text, "/a/0"), at(&text, "/0/a"));
        }
    }
}
