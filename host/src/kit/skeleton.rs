//! The files of the crate itself, from templates. Invariant: they are what an author would write by hand, and no more.

use super::{Names, Sdk, names::KindName, vendor};

const FILES: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("template/Cargo.toml.txt")),
    ("README.md", include_str!("template/README.md.txt")),
    ("src/lib.rs", include_str!("template/lib.rs.txt")),
    (".github/workflows/ci.yml", include_str!("template/ci.yml.txt")),
    (".gitignore", "/target\n/plugins\n/.sagahost-dev\n"),
];

pub fn files(names: &Names, sdk: &Sdk) -> Vec<(String, String)> {
    let (way, exclude) = match sdk {
        Sdk::Unpacked => ("vendor", "exclude = [\"vendor\"]\n"),
        Sdk::Repository(way) => (way.as_str(), ""),
    };
    let words = [
        ("{{name}}", names.name.clone()),
        ("{{Participant}}", names.participant.clone()),
        ("{{on}}", names.on.kind.clone()),
        ("{{On}}", names.on.of.clone()),
        ("{{on-arguments}}", arguments(&names.on, Some(r#"example = {"orderId": "o-1", "quantity": 2}"#))),
        ("{{emits}}", names.emits.kind.clone()),
        ("{{Emits}}", names.emits.of.clone()),
        ("{{emits-arguments}}", arguments(&names.emits, None)),
        ("{{sdk}}", format!("{way}/{}", vendor::SDK)),
        ("{{testkit}}", format!("{way}/{}", vendor::TESTKIT)),
        ("{{exclude}}", exclude.to_owned()),
    ];
    let fill = |text: &str| words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value));
    FILES.iter().map(|(path, text)| ((*path).to_owned(), fill(text))).collect()
}

/// What `#[event]` needs: the kind, where it is not the type's name, and the example.
fn arguments(name: &KindName, example: Option<&str>) -> String {
    let kind = (name.kind != name.of).then(|| format!("kind = \"{}\"", name.kind));
    let all: Vec<String> = kind.into_iter().chain(example.map(str::to_owned)).collect();
    if all.is_empty() { String::new() } else { format!("({})", all.join(", ")) }
}
