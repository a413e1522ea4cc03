//! Bodies made from an example: fields that are missing, unknown, of another type, huge; and what is not JSON at all.
//! Invariant: each is one that a producer could send within the host's limits.

use serde_json::{Map, Value, json};

use crate::{
    case::{Body, nested},
    random::Random,
};

/// Longer than any name, shorter than a record.
const LONG: usize = 64 * 1024;
const MANY: usize = 1_000;
/// Deeper than what most parsers follow.
const DEEP: usize = 200;
/// Changes of one random body.
const CHANGES_MAX: usize = 4;

/// Where a value stands in a body: names of fields and places in lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Field(String),
    Item(usize),
}

pub type Path = Vec<Part>;

/// Every single change of the example, the same list each time.
pub fn systematic(example: &Value) -> Vec<Body> {
    let mut bodies = outer(example);
    for path in paths(example) {
        if let Some(without) = removed(example, &path) {
            bodies.push(Body::Json(without));
        }
        let old = at(example, &path).cloned().unwrap_or_default();
        bodies.extend(replacements(&old).into_iter().map(|new| Body::Json(replaced(example, &path, new))));
    }
    for object in objects(example) {
        bodies.push(Body::Json(with_unknown(example, &object)));
    }
    bodies
}

/// Several changes at once.
pub fn random(example: &Value, random: &mut Random) -> Body {
    let mut value = example.clone();
    for _ in 0..=random.below(CHANGES_MAX) {
        let paths = paths(&value);
        let Some(path) = random.pick(&paths).cloned() else { break };
        let old = at(&value, &path).cloned().unwrap_or_default();
        let choices = replacements(&old);
        value = match random.below(choices.len() + 2) {
            0 => removed(&value, &path).unwrap_or(value),
            1 => objects(&value).first().map_or_else(|| value.clone(), |object| with_unknown(&value, object)),
            choice => replaced(&value, &path, choices[choice - 2].clone()),
        };
    }
    Body::Json(value)
}

/// One value changed to another that means something: what a business rule is likely to take.
pub fn plausible(example: &Value, random: &mut Random) -> Body {
    let paths: Vec<Path> = paths(example).into_iter().filter(|path| at(example, path).is_some_and(is_scalar)).collect();
    let Some(path) = random.pick(&paths) else { return Body::Json(example.clone()) };
    let new = match at(example, path) {
        Some(Value::Number(number)) => {
            let number = number.as_i64().unwrap_or(1);
            let small = i64::try_from(random.below(100)).unwrap_or(1);
            let choices = [1, 2, small, number / 2, number.saturating_add(1), number.saturating_mul(2)];
            random.pick(&choices).map_or(Value::Null, |number| json!(number))
        }
        Some(Value::String(text)) => {
            json!(format!("{}{}", text.trim_end_matches(|c: char| c.is_ascii_digit()), random.below(100)))
        }
        Some(Value::Bool(flag)) => json!(!flag),
        _ => Value::Null,
    };
    Body::Json(replaced(example, path, new))
}

/// How many ids there are in a body.
pub fn count_ids(value: &Value) -> usize {
    ids("", value).len()
}

/// The body of another saga: each of its ids ends in this number, as long as before where it was long.
pub fn renamed(value: &Value, number: usize) -> Value {
    renamed_field("", value, number)
}

/// A number that none of its ids ends in.
pub fn unused_number(value: &Value) -> usize {
    let ids = ids("", value);
    let used = |number: &usize| ids.iter().any(|id| renumbered(id, *number) == **id);
    (2..).find(|number| !used(number)).unwrap_or_default()
}

fn ids<'v>(field: &str, value: &'v Value) -> Vec<&'v Value> {
    match value {
        Value::Array(items) => items.iter().flat_map(|item| ids(field, item)).collect(),
        Value::Object(fields) => fields.iter().flat_map(|(name, value)| ids(name, value)).collect(),
        _ if is_id(field, value) => vec![value],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

fn renamed_field(field: &str, value: &Value, number: usize) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| renamed_field(field, item, number)).collect(),
        Value::Object(fields) => {
            let renamed = |(name, value): (&String, &Value)| (name.clone(), renamed_field(name, value, number));
            fields.iter().map(renamed).collect()
        }
        _ if is_id(field, value) => renumbered(value, number),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// By the name of its field; or it begins as a name does and ends in a number, which neither dates nor amounts do.
fn is_id(field: &str, value: &Value) -> bool {
    let named = ["id", "ids", "uuid", "guid"].iter().any(|name| field.eq_ignore_ascii_case(name))
        || ["Id", "Ids", "ID", "IDs", "_id", "_ids", "-id", "-ids"].iter().any(|end| field.ends_with(end));
    match value {
        Value::String(text) => {
            let bounds = (text.chars().next(), text.chars().next_back());
            (named && !text.is_empty())
                || matches!(bounds, (Some(first), Some(last)) if first.is_alphabetic() && last.is_ascii_digit())
        }
        Value::Number(number) => named && (number.is_u64() || number.is_i64()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

/// From this length on an id is taken for one of a fixed length: a UUID or a hash.
const FIXED_LENGTH: usize = 26;

fn renumbered(id: &Value, number: usize) -> Value {
    let Value::String(text) = id else { return json!(number) };
    let number = number.to_string();
    let kept = match text.len() {
        length if length >= FIXED_LENGTH && text.is_ascii() => length - number.len(),
        _ => text.trim_end_matches(|c: char| c.is_ascii_digit()).len(),
    };
    json!(format!("{}{number:0>width$}", &text[..kept], width = text.len() - kept))
}

/// The body as a whole.
fn outer(example: &Value) -> Vec<Body> {
    let text = example.to_string();
    let half = text.len() / 2;
    let bytes: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"no JSON".to_vec(),
        b"{".to_vec(),
        text.as_bytes()[..half].to_vec(),
        format!("{text} {text}").into_bytes(),
        format!("\u{feff}{text}").into_bytes(),
        vec![0xff, 0xfe, 0x00, 0x80],
        "[".repeat(DEEP).into_bytes(),
        b"1e999".to_vec(),
        doubled(example).into_bytes(),
    ];
    let values = [Value::Null, json!([]), json!({}), json!(0), json!("text"), json!(true), json!([example])];
    bytes.into_iter().map(Body::Bytes).chain(values.map(Body::Json)).collect()
}

/// Each field twice.
fn doubled(example: &Value) -> String {
    let inner = example.to_string();
    let inner = inner.trim_start_matches('{').trim_end_matches('}');
    if inner.is_empty() { "{}".to_owned() } else { format!("{{{inner},{inner}}}") }
}

fn replacements(old: &Value) -> Vec<Value> {
    let mut new = vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(0.5),
        json!(1e308),
        json!(""),
        json!("x"),
        json!("7"),
        json!("\u{0}\n\u{1b}"),
        json!("ÿ𝄞\u{202e}"),
        json!("x".repeat(LONG)),
        json!([]),
        json!({}),
        Value::Array(vec![json!(0); MANY]),
        nested(DEEP / 2),
        json!([old]),
    ];
    if let Value::Number(number) = old {
        let number = number.as_i64().unwrap_or_default();
        let near = [number.saturating_neg(), number.saturating_mul(1_000_000), number.saturating_add(1)];
        new.extend(near.map(|number| json!(number)));
    }
    new.retain(|value| value != old);
    new
}

fn with_unknown(example: &Value, object: &Path) -> Value {
    let mut fields = match at(example, object) {
        Some(Value::Object(fields)) => fields.clone(),
        _ => Map::new(),
    };
    fields.insert("unheardOf".to_owned(), json!({"by": ["this", 1]}));
    replaced(example, object, fields.into())
}

fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_))
}

/// Of every value within, the outermost left out.
pub fn paths(value: &Value) -> Vec<Path> {
    let mut found = Vec::new();
    let mut open: Vec<(Path, &Value)> = vec![(Vec::new(), value)];
    while let Some((path, value)) = open.pop() {
        let inner: Vec<(Part, &Value)> = match value {
            Value::Object(fields) => fields.iter().map(|(name, value)| (Part::Field(name.clone()), value)).collect(),
            // One item stands for all.
            Value::Array(items) => items.iter().take(1).enumerate().map(|(i, v)| (Part::Item(i), v)).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        };
        for (part, value) in inner {
            let path: Path = path.iter().cloned().chain([part]).collect();
            found.push(path.clone());
            open.push((path, value));
        }
    }
    found
}

fn objects(value: &Value) -> Vec<Path> {
    let inner = paths(value).into_iter().filter(|path| at(value, path).is_some_and(Value::is_object));
    value.is_object().then(Vec::new).into_iter().chain(inner).collect()
}

pub fn at<'v>(value: &'v Value, path: &[Part]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, part| match part {
        Part::Field(name) => value.get(name),
        Part::Item(index) => value.get(index),
    })
}

fn at_mut<'v>(value: &'v mut Value, path: &[Part]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, |value, part| match part {
        Part::Field(name) => value.get_mut(name),
        Part::Item(index) => value.get_mut(index),
    })
}

pub fn replaced(value: &Value, path: &[Part], new: Value) -> Value {
    let mut changed = value.clone();
    if let Some(place) = at_mut(&mut changed, path) {
        *place = new;
    }
    changed
}

/// Without the value at `path`; none for the outermost.
pub fn removed(value: &Value, path: &[Part]) -> Option<Value> {
    let (last, parent) = path.split_last()?;
    let mut changed = value.clone();
    match (at_mut(&mut changed, parent)?, last) {
        (Value::Object(fields), Part::Field(name)) => drop(fields.remove(name)?),
        (Value::Array(items), Part::Item(index)) if *index < items.len() => drop(items.remove(*index)),
        _ => return None,
    }
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_removed_and_replaced() {
        let example = json!({"a": 1, "b": {"c": "o-1"}});
        let bodies = systematic(&example);
        for wanted in [
            json!({"b": {"c": "o-1"}}),
            json!({"a": 1, "b": {}}),
            json!({"a": null, "b": {"c": "o-1"}}),
            json!({"a": 1, "b": {"c": "o-1", "unheardOf": {"by": ["this", 1]}}}),
        ] {
            assert!(bodies.contains(&Body::Json(wanted.clone())), "{wanted}");
        }
        assert!(bodies.contains(&Body::Bytes(Vec::new())));
        assert!(!bodies.contains(&Body::Json(example)));
    }

    #[test]
    fn the_same_seed_gives_the_same_bodies() {
        let example = json!({"a": 1, "b": {"c": "o-1"}});
        let bodies = |seed| {
            let mut numbers = Random::new(seed, "bodies");
            (0..20).map(|_| random(&example, &mut numbers)).collect::<Vec<_>>()
        };
        assert_eq!(bodies(1), bodies(1));
        assert_ne!(bodies(1), bodies(2));
    }

    #[test]
    fn another_saga_has_other_ids() {
        let renamed = |value| renamed(&value, 2);
        let body = json!({"id": "o-1", "sku": "apple", "n": 1, "l": ["c-17"]});
        assert_eq!(renamed(body), json!({"id": "o-2", "sku": "apple", "n": 1, "l": ["c-02"]}));
        let body = json!({"orderId": 1, "lines": [{"article_id": "x"}], "seatIds": [7, "42"]});
        assert_eq!(renamed(body), json!({"orderId": 2, "lines": [{"article_id": "x2"}], "seatIds": [2, "02"]}));
        let uuid = json!({"id": "550e8400-e29b-41d4-a716-44665544000f"});
        assert_eq!(renamed(uuid), json!({"id": "550e8400-e29b-41d4-a716-446655440002"}));
    }

    #[test]
    fn dates_and_amounts_are_no_ids() {
        let body = json!({"on": "2026-11-26", "at": "2026-11-26T10:00:00", "amount": "12.50", "paid": 3, "x": "7"});
        assert_eq!(count_ids(&body), 0);
        assert_eq!(renamed(&body, 2), body);
    }

    #[test]
    fn the_number_of_another_saga_is_in_none_of_its_ids() {
        assert_eq!(unused_number(&json!({"orderId": "o-1", "customerId": "c-0002", "id": 3})), 4);
        assert_eq!(unused_number(&json!({})), 2);
    }
}
