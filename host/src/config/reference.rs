//! The page about the configuration against the configuration itself. Invariant: a default stands in one place; the page
//! repeats it, and this compares.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::{collections::BTreeSet, path::Path};

use toml::{Table, Value};

use super::{Config, field_names};

const PAGE: &str = include_str!("../../docs/configuration.md");

/// Defaults that are words, since they follow from something else. Each is tested where it is made.
const WORDS: [&str; 5] =
    ["compiled-code-key", "kafka.bootstrap-servers", "pipeline.workers", "topics.dead-letters", "admin.socket"];

/// A field of the page, `saga.hops-max`, and its default as it is written there.
fn documented() -> Vec<(String, String)> {
    let mut fields = Vec::new();
    for section in PAGE.split("\n## ").skip(1) {
        let heading = section.lines().next().unwrap();
        let table = match heading {
            "Top level" => String::new(),
            _ => heading.trim_matches(['`', '[', ']']).to_owned(),
        };
        if !section.contains("\n| field | default | meaning |\n") || table.contains("TOPIC") {
            continue;
        }
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let name = cells[1].trim_matches('`');
            let path = if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
            fields.push((path, cells[2].to_owned()));
        }
    }
    fields
}

/// What an empty configuration means; and one with `[kafka]`, which has no embedded topics.
fn defaults() -> Table {
    let parse = |text: &str| Config::parse(text, Path::new("sagahost.toml")).unwrap().shown();
    let mut all = parse("");
    all.insert("kafka".into(), parse("app = \"shop\"\n[kafka]\nbootstrap-servers = \"a:9092\"\n")["kafka"].clone());
    all
}

fn value<'t>(table: &'t Table, path: &str) -> Option<&'t Value> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let value = table.get(first)?;
    if rest.is_empty() { Some(value) } else { value.as_table()?.get(rest) }
}

#[test]
fn the_documented_defaults_are_the_real_ones() {
    let defaults = defaults();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (field, said) in documented().iter().filter(|(field, _)| !WORDS.contains(&field.as_str())) {
        let real = value(&defaults, field);
        let text = format!("default = {}", said.trim_matches('`'));
        match text.parse::<Table>() {
            Ok(table) if Some(&table["default"]) == real => compared += 1,
            Ok(_) => wrong.push(format!("{field}: the page says {said}, it is {real:?}")),
            Err(error) => wrong.push(format!("{field}: {said} is not a value: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(compared > 60, "{compared} defaults were found on the page");
}

/// The other direction: what has a default is on the page with it, and the page names nothing that does not exist.
#[test]
fn every_default_is_documented_and_every_documented_field_exists() {
    let page: BTreeSet<String> = documented().into_iter().map(|(field, _)| field).collect();
    let real: BTreeSet<String> = field_names().into_iter().collect();
    let unknown: Vec<&String> = page.iter().filter(|field| !real.contains(*field)).collect();
    assert!(unknown.is_empty(), "the page names fields that do not exist: {unknown:?}");
    let defaults = defaults();
    let missing: Vec<&String> = real
        .iter()
        .filter(|field| value(&defaults, field).is_some_and(|value| !value.is_table()) && !page.contains(*field))
        .collect();
    assert!(missing.is_empty(), "the page has no default of {missing:?}");
}
