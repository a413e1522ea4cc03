//! Values that stand elsewhere: `{ env = "NAME" }`, `{ file = "PATH" }`. Invariant: what is there is in no message.

use std::{env, fs, path::Path};

use toml::de::{DeTable, DeValue};

/// Does a table say where a value stands, and nothing else?
pub fn is_source(entries: &DeTable<'_>) -> bool {
    source(entries).is_some()
}

/// `env` or `file`, and which.
pub fn source<'e>(entries: &'e DeTable<'_>) -> Option<(&'e str, &'e str)> {
    let mut entries = entries.iter();
    let (Some((kind, value)), None) = (entries.next(), entries.next()) else { return None };
    let DeValue::String(place) = value.get_ref() else { return None };
    let kind: &str = kind.get_ref();
    matches!(kind, "env" | "file").then_some((kind, place))
}

/// What is there. A file may end with a line break; that is not part of the secret.
///
/// # Errors
/// It is not there, or is not text.
pub fn read(kind: &str, place: &str, base: &Path) -> Result<String, String> {
    if kind == "env" {
        return env::var(place).map_err(|_| format!("environment variable {place} is not set, or is not text"));
    }
    let path = base.join(place);
    let text = fs::read_to_string(&path).map_err(|error| format!("failed to read {}: {error}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
