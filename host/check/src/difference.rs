//! Where two worlds differ, in words. Invariant: a counter that does not exist equals one that stands at what it was
//! created with.

use std::{collections::BTreeMap, sync::Arc};

use sagahost_saga::outcome::Saved;

use crate::bench::World;

/// Values are shown up to here.
const SHOWN: usize = 120;

/// The first counter that is another.
pub fn counters(before: &World, after: &World) -> Option<String> {
    let value = |world: &World, name: &String| {
        let opening = after.opening.get(name).or_else(|| before.opening.get(name));
        world.values.counters.get(name).or(opening).copied()
    };
    let mut names: Vec<&String> = before.values.counters.keys().chain(after.values.counters.keys()).collect();
    names.sort();
    names.into_iter().find_map(|name| {
        let (was, is) = (value(before, name), value(after, name));
        let text = |value: Option<i64>| value.map_or_else(|| "absent".to_owned(), |value| value.to_string());
        (was != is).then(|| format!("counter `{name}` is {} and was {}", text(is), text(was)))
    })
}

/// The first key of the store that is another.
pub fn store(before: &World, after: &World) -> Option<String> {
    let differs = |key: &&String| before.values.store.get(*key) != after.values.store.get(*key);
    let mut keys: Vec<&String> = before.values.store.keys().chain(after.values.store.keys()).collect();
    keys.sort();
    keys.into_iter().find(differs).map(|key| {
        let (was, is) = (before.values.store.get(key), after.values.store.get(key));
        format!("key `{key}` of the store is {} and was {}", bytes(is), bytes(was))
    })
}

/// The first saga whose state is another.
pub fn states(before: &World, after: &World) -> Option<String> {
    let all: BTreeMap<_, _> = before.states.iter().chain(&after.states).collect();
    all.into_keys().find(|saga| before.states.get(*saga) != after.states.get(*saga)).map(|saga| {
        let (was, is) = (before.states.get(saga), after.states.get(saga));
        format!("the state of {saga} is {} and was {}", saved(is), saved(was))
    })
}

fn saved(saved: Option<&Saved>) -> String {
    bytes(saved.map(|saved| &saved.data))
}

fn bytes(value: Option<&Arc<[u8]>>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| shown(&String::from_utf8_lossy(value)))
}

/// Cut to what a line can hold.
pub fn shown(text: &str) -> String {
    let cut = sagahost_manifest::cut(text, SHOWN);
    if cut.len() == text.len() { text.to_owned() } else { format!("{cut}… ({} bytes)", text.len()) }
}
