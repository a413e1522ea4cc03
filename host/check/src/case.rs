//! A case: the events that a law is tried on, and its text, which repeats it exactly. Invariant: reading the text of a
//! case gives the case.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize, de::Error as _};
use serde_json::{Map, Value, json};

/// Whose saga an event is where the case does not say.
pub const SAGA: &str = "saga-1";
/// Shorter runs are written out.
const RUN_MIN: usize = 48;
/// Longer runs are refused, so that a typing error does not fill the memory.
const RUN_MAX: usize = 16 * 1024 * 1024;
/// Deeper values could not even be dropped.
const DEPTH_MAX: usize = 1_000;
const TEXT: &str = "$text";
const LIST: &str = "$list";
const NEST: &str = "$nest";

/// What happens, in order. Most laws look at the last event, and take those before it as the saga's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Case(pub Vec<Input>);

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub kind: String,
    pub saga: String,
    pub body: Body,
}

/// An event's data.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Json(Value),
    /// No JSON, or not the way that a serialiser writes it.
    Bytes(Vec<u8>),
}

impl Body {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Json(value) => value.to_string().into_bytes(),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }

    pub fn json(&self) -> Option<&Value> {
        match self {
            Self::Json(value) => Some(value),
            Self::Bytes(_) => None,
        }
    }
}

impl Case {
    pub fn parse(text: &str) -> Result<Self, String> {
        let case: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if case.0.is_empty() {
            return Err("it has no event".to_owned());
        }
        Ok(case)
    }

    /// The event that most laws are about.
    pub fn subject(&self) -> Option<&Input> {
        self.0.last()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Input {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = Map::new();
        object.insert("kind".to_owned(), json!(self.kind));
        if self.saga != SAGA {
            object.insert("saga".to_owned(), json!(self.saga));
        }
        let (field, value) = match &self.body {
            Body::Json(value) => ("data", folded(value)),
            Body::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => ("text", folded(&json!(text))),
                Err(_) => ("base64", json!(STANDARD.encode(bytes))),
            },
        };
        object.insert(field.to_owned(), value);
        object.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            kind: String,
            #[serde(default)]
            saga: Option<String>,
            // `null` is a body, too.
            #[serde(default, deserialize_with = "some")]
            data: Option<Value>,
            #[serde(default)]
            text: Option<Value>,
            #[serde(default)]
            base64: Option<String>,
        }
        let Written { kind, saga, data, text, base64 } = Written::deserialize(deserializer)?;
        let body = match (data, text, base64) {
            (Some(data), None, None) => Body::Json(unfolded(data).map_err(D::Error::custom)?),
            (None, Some(text), None) => match unfolded(text).map_err(D::Error::custom)? {
                Value::String(text) => Body::Bytes(text.into_bytes()),
                other => return Err(D::Error::custom(format!("`text` is {other}, not a text"))),
            },
            (None, None, Some(text)) => Body::Bytes(STANDARD.decode(text).map_err(D::Error::custom)?),
            _ => return Err(D::Error::custom("an event has one of `data`, `text` and `base64`")),
        };
        Ok(Self { kind, saga: saga.unwrap_or_else(|| SAGA.to_owned()), body })
    }
}

fn some<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Long runs written short: `{"$text": ["x", 600]}`, `{"$list": [0, 1000]}`, `{"$nest": 200}`.
fn folded(value: &Value) -> Value {
    match value {
        Value::String(text) => match run(text.chars()) {
            Some((letter, count)) => json!({ TEXT: [letter.to_string(), count] }),
            None => value.clone(),
        },
        Value::Array(items) => match (depth(value), run(items.iter())) {
            (Some(depth), _) => json!({ NEST: depth }),
            (None, Some((item, count))) => json!({ LIST: [folded(item), count] }),
            (None, None) => items.iter().map(folded).collect(),
        },
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), folded(value))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn unfolded(value: Value) -> Result<Value, String> {
    let count = |value: &Value| {
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| *count <= RUN_MAX);
        count.ok_or_else(|| format!("{value} is not a count up to {RUN_MAX}"))
    };
    Ok(match value {
        Value::Array(items) => items.into_iter().map(unfolded).collect::<Result<_, _>>()?,
        Value::Object(fields) if fields.len() == 1 => match fields.into_iter().next().expect("it has one field") {
            (name, Value::Array(run)) if name == TEXT && run.len() == 2 => {
                json!(run[0].as_str().ok_or("the first of `$text` is a text")?.repeat(count(&run[1])?))
            }
            (name, Value::Array(run)) if name == LIST && run.len() == 2 => {
                Value::Array(vec![unfolded(run[0].clone())?; count(&run[1])?])
            }
            (name, depth) if name == NEST => nested(count(&depth)?.min(DEPTH_MAX)),
            (name, value) => json!({ name: unfolded(value)? }),
        },
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| Ok((name, unfolded(value)?)))
            .collect::<Result<Map<String, Value>, String>>()?
            .into(),
        scalar @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => scalar,
    })
}

/// Empty lists, one in the other.
pub fn nested(depth: usize) -> Value {
    (1..depth).fold(Value::Array(Vec::new()), |inner, _| Value::Array(vec![inner]))
}

fn depth(value: &Value) -> Option<usize> {
    let (mut depth, mut inner) = (0, value);
    while let Value::Array(items) = inner {
        depth += 1;
        match &items[..] {
            [] => return (RUN_MIN..=DEPTH_MAX).contains(&depth).then_some(depth),
            [one] => inner = one,
            _ => return None,
        }
    }
    None
}

fn run<T: PartialEq>(mut items: impl Iterator<Item = T>) -> Option<(T, usize)> {
    let first = items.next()?;
    let mut count = 1;
    for item in items {
        if item != first {
            return None;
        }
        count += 1;
    }
    (count >= RUN_MIN).then_some((first, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(body: Body) -> String {
        let case = Case(vec![Input { kind: "OrderCreated".into(), saga: SAGA.into(), body }]);
        let text = case.to_string();
        assert_eq!(Case::parse(&text), Ok(case), "{text}");
        text
    }

    #[test]
    fn the_text_of_a_case_is_the_case() {
        assert_eq!(again(Body::Json(json!({"a": [1, null]}))), r#"[{"data":{"a":[1,null]},"kind":"OrderCreated"}]"#);
        again(Body::Json(Value::Null));
        again(Body::Bytes(b"{\"a\":1,\"a\":2}".to_vec()));
        again(Body::Bytes(vec![0xff, 0xfe]));
        again(Body::Bytes(Vec::new()));
    }

    #[test]
    fn long_runs_are_short() {
        let text = again(Body::Json(json!({"a": "x".repeat(65_536), "b": vec![0; 1_000], "c": nested(200)})));
        assert_eq!(
            text,
            r#"[{"data":{"a":{"$text":["x",65536]},"b":{"$list":[0,1000]},"c":{"$nest":200}},"kind":"OrderCreated"}]"#
        );
        again(Body::Bytes("[".repeat(100_000).into_bytes()));
    }

    #[test]
    fn what_is_no_case_is_refused() {
        for text in ["", "[]", "{}", r#"[{"kind":"A"}]"#, r#"[{"kind":"A","data":1,"text":"x"}]"#] {
            assert!(Case::parse(text).is_err(), "{text}");
        }
        assert!(Case::parse(r#"[{"kind":"A","data":{"$text":["x",99999999999]}}]"#).is_err());
    }
}
