//! A counterexample made shorter. Invariant: what comes out breaks the law as the case that went in does, and is never
//! longer.

use sagahost_manifest::Law;
use sagahost_sandbox::HostError;
use serde_json::{Value, json};

use crate::{
    bench::Bench,
    case::{Body, Case},
    laws::{Verdict, judge},
    mutation::{at, count_ids, paths, removed, replaced},
};

/// Tries of one counterexample.
const TRIES_MAX: usize = 2_000;
/// Where each try takes as long as a call may.
const SLOW_TRIES_MAX: usize = 6;

pub struct Shrunk {
    pub case: Case,
    /// What happens in it.
    pub why: String,
}

/// The shortest that is found, step by step. `said`: what happened in `case`.
pub fn shrunk(law: Law, bench: &Bench<'_>, case: Case, said: String) -> Result<Shrunk, HostError> {
    let mut left = if said.ends_with("(deadline)") { SLOW_TRIES_MAX } else { TRIES_MAX };
    let mut best = Shrunk { case, why: said };
    'again: loop {
        for candidate in candidates(law, &best.case) {
            if left == 0 {
                return Ok(best);
            }
            left -= 1;
            if let Verdict::Broken(why) = judge(law, bench, &candidate)? {
                best = Shrunk { case: candidate, why };
                continue 'again;
            }
        }
        return Ok(best);
    }
}

/// Simpler cases, the boldest first.
fn candidates(law: Law, case: &Case) -> Vec<Case> {
    let mut found = Vec::new();
    for at in 0..case.0.len() {
        if case.0.len() > 1 {
            let mut shorter = case.clone();
            shorter.0.remove(at);
            found.push(shorter);
        }
    }
    for at in 0..case.0.len() {
        for body in bodies(&case.0[at].body) {
            let mut simpler = case.clone();
            simpler.0[at].body = body;
            found.push(simpler);
        }
    }
    found.retain(|candidate| weight(candidate) < weight(case));
    if law == Law::Order {
        // Sagas that share an id are not independent: ids stay ids.
        found.retain(|candidate| candidate.0.len() < case.0.len() || ids(candidate) == ids(case));
    }
    found
}

fn ids(case: &Case) -> usize {
    case.0.iter().filter_map(|input| input.body.json()).map(count_ids).sum()
}

fn bodies(body: &Body) -> Vec<Body> {
    match body {
        Body::Json(value) => values(value).into_iter().map(Body::Json).collect(),
        Body::Bytes(bytes) => {
            let half = bytes.len() / 2;
            let parts = [&bytes[..0], &bytes[..half], &bytes[half..], &bytes[..bytes.len().saturating_sub(1)]];
            let mut shorter: Vec<Body> = parts.into_iter().map(|part| Body::Bytes(part.to_vec())).collect();
            shorter.extend(serde_json::from_slice(bytes).ok().map(Body::Json));
            shorter
        }
    }
}

fn values(value: &Value) -> Vec<Value> {
    let paths = paths(value);
    let mut found = simpler(value);
    found.extend(paths.iter().filter_map(|path| removed(value, path)));
    for path in paths {
        let inner = at(value, &path).map(simpler).unwrap_or_default();
        found.extend(inner.into_iter().map(|new| replaced(value, &path, new)));
    }
    found
}

fn simpler(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Bool(_) => vec![Value::Null],
        Value::Number(number) => {
            let halved = number.as_i64().map(|number| json!(number / 2));
            let lowered = number.as_i64().map(|number| json!(number - number.signum()));
            [Some(json!(0)), Some(json!(1)), halved, lowered].into_iter().flatten().collect()
        }
        Value::String(text) => {
            let letters: Vec<char> = text.chars().collect();
            let to = |end: usize| json!(letters[..end].iter().collect::<String>());
            let count = letters.len();
            // Ever smaller steps, so that a length at a limit is found soon.
            let steps = (1..=12).map(|power| count - count.div_ceil(1 << power));
            [0].into_iter().chain(steps).map(to).collect()
        }
        Value::Array(items) => {
            let half = items.len() / 2;
            vec![json!([]), json!(items[..half]), json!(items[half..])]
        }
        Value::Object(_) => vec![json!({})],
    }
}

/// Cases get lighter, so shrinking ends.
fn weight(case: &Case) -> (usize, usize, u128) {
    let bodies = case.0.iter().map(|input| &input.body);
    let bytes = bodies.clone().map(|body| body.bytes().len()).sum();
    let numbers = bodies.map(|body| body.json().map_or(0, magnitude)).sum();
    (case.0.len(), bytes, numbers)
}

/// Of two bodies of one length the one with smaller numbers is simpler.
fn magnitude(value: &Value) -> u128 {
    match value {
        Value::Number(number) => {
            number.as_i64().map_or(u128::from(u64::MAX), |number| u128::from(number.unsigned_abs()))
        }
        Value::Array(items) => items.iter().map(magnitude).sum(),
        Value::Object(fields) => fields.values().map(magnitude).sum(),
        Value::Null | Value::Bool(_) | Value::String(_) => 0,
    }
}
