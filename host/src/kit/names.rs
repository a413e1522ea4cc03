//! From the names that an author types to those in Rust. Invariant: what comes through here makes a crate that compiles
//! and a manifest that is admitted.

use sagahost_sandbox::manifest::{is_kind, is_participant_name};

/// What the crate is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The participant's and the package's.
    pub name: String,
    /// Its struct.
    pub participant: String,
    pub on: KindName,
    pub emits: KindName,
}

/// A kind of event and its type in Rust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindName {
    pub kind: String,
    pub of: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("`{name}` is not a valid name of a plugin: use lower-case letters, digits and hyphens, a letter first{}", like(.suggestion))]
    Name { name: String, suggestion: Option<String> },
    #[error("a crate cannot be named `{name}`: {why}; choose another name")]
    Taken { name: String, why: &'static str },
    #[error(
        "`{kind}` is not a valid name of a kind of event: use letters, digits and `._-/:`, 128 at most, as OrderCreated"
    )]
    Kind { kind: String },
    #[error("--on and --emits are both `{kind}`: such a plugin would take what it emits, and never end")]
    Loop { kind: String },
}

fn like(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map(|name| format!(", as `{name}`")).unwrap_or_default()
}

/// Words that cannot be the name of a library.
const KEYWORDS: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];
/// Types that the template uses; an event of such a name would hide them.
const TYPES: &[&str] = &[
    "Cause",
    "Compensated",
    "Config",
    "Context",
    "Delay",
    "Done",
    "Emission",
    "Err",
    "Evidence",
    "Fail",
    "Handled",
    "MockHost",
    "NotUndone",
    "Ok",
    "OrFail",
    "Problem",
    "Rejection",
    "Result",
    "Self",
    "Status",
    "Step",
    "String",
    "Taken",
    "Undone",
];
/// What a plugin takes that nobody named a kind for: the demo and the reference saga begin with it.
const ON: &str = "OrderCreated";

impl Names {
    /// `taken`: packages that the crate depends on.
    pub fn check(name: &str, on: Option<&str>, emits: Option<&str>, taken: &[String]) -> Result<Self, NameError> {
        if !is_participant_name(name) {
            return Err(NameError::Name { name: name.to_owned(), suggestion: suggestion(name) });
        }
        if KEYWORDS.contains(&name) {
            return Err(NameError::Taken { name: name.to_owned(), why: "Rust uses the word itself" });
        }
        if taken.iter().any(|package| package == name) {
            return Err(NameError::Taken { name: name.to_owned(), why: "a crate that it depends on has this name" });
        }
        let mut types: Vec<String> = TYPES.iter().map(ToString::to_string).collect();
        let participant = distinct(camel(name), "Participant", &mut types);
        let default = format!("{}Done", camel(name));
        let (on, emits) = (on.unwrap_or(ON), emits.unwrap_or(&default));
        if on == emits {
            return Err(NameError::Loop { kind: on.to_owned() });
        }
        let on = KindName::check(on, &mut types)?;
        let emits = KindName::check(emits, &mut types)?;
        Ok(Self { name: name.to_owned(), participant, on, emits })
    }
}

impl KindName {
    fn check(kind: &str, types: &mut Vec<String>) -> Result<Self, NameError> {
        if !is_kind(kind) || !kind.contains(|c: char| c.is_ascii_alphanumeric()) {
            return Err(NameError::Kind { kind: kind.to_owned() });
        }
        Ok(Self { kind: kind.to_owned(), of: distinct(camel(kind), "Event", types) })
    }
}

/// `order-created`, `shop.order_created` and `OrderCreated` are all `OrderCreated`.
fn camel(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    let name: String = words.map(capital).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("Kind{name}") } else { name }
}

fn distinct(name: String, suffix: &str, types: &mut Vec<String>) -> String {
    let mut name = name;
    while types.contains(&name) {
        name += suffix;
    }
    types.push(name.clone());
    name
}

/// The nearest name that is allowed.
fn suggestion(name: &str) -> Option<String> {
    let mut near = String::new();
    for c in name.chars() {
        match c {
            'A'..='Z' if near.ends_with(|c: char| c.is_ascii_lowercase()) => {
                near.push('-');
                near.push(c.to_ascii_lowercase());
            }
            'A'..='Z' => near.push(c.to_ascii_lowercase()),
            'a'..='z' | '0'..='9' => near.push(c),
            _ if near.ends_with('-') => {}
            _ => near.push('-'),
        }
    }
    let near = near.trim_matches('-').trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
    is_participant_name(near).then(|| near.to_owned())
}
