//! The SDK as a small workspace of its own, unpacked beside the crate. Invariant: its table of versions and lints is
//! taken from this repository's own, so that the two cannot drift apart.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::sources::{MEMBERS, ROOT, SOURCES};

/// What the crate depends on.
pub const SDK: &str = "plugins/sdk";
/// What its tests depend on.
pub const TESTKIT: &str = "plugins/sdk/testkit";

const HEAD: &str = "\
# The SDK and the mock host of sagahost, as the command `sagahost new` that made this crate carries them.
# Nothing here needs changing; a newer `sagahost new` unpacks a newer copy.

";

/// By path in `vendor`.
pub fn files() -> Vec<(String, String)> {
    let mut files = vec![("Cargo.toml".to_owned(), HEAD.to_owned() + &workspace().to_string())];
    files.extend(SOURCES.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
    files
}

/// `vendor/Cargo.toml`: of the repository's workspace what the members refer to.
fn workspace() -> Table {
    let root = parsed(ROOT);
    let whole = root["workspace"].as_table().expect("the root is a workspace");
    let used = inherited();
    let dependencies = whole["dependencies"].as_table().expect("the workspace has a table of dependencies");
    let dependencies: Table =
        dependencies.iter().filter(|(name, _)| used.contains(*name)).map(|(n, v)| (n.clone(), v.clone())).collect();
    let members: Vec<Value> = MEMBERS.iter().map(|dir| Value::from(*dir)).collect();
    let mut workspace = Table::new();
    workspace.insert("resolver".to_owned(), whole["resolver"].clone());
    workspace.insert("members".to_owned(), members.into());
    workspace.insert("package".to_owned(), whole["package"].clone());
    workspace.insert("dependencies".to_owned(), dependencies.into());
    workspace.insert("lints".to_owned(), whole["lints"].clone());
    Table::from_iter([("workspace".to_owned(), Value::from(workspace))])
}

/// Names that a member takes from the workspace's table, of dependencies of any sort: cargo wants to find them all.
fn inherited() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for dir in MEMBERS {
        let manifest = manifest(dir);
        for table in dependency_tables(&manifest, &["dependencies", "build-dependencies", "dev-dependencies"]) {
            let from_workspace = |value: &Value| value.get("workspace").and_then(Value::as_bool) == Some(true);
            names.extend(table.iter().filter(|(_, value)| from_workspace(value)).map(|(name, _)| name.clone()));
        }
    }
    names
}

/// Packages that a member needs when it is built, not when it is tested.
pub fn needed(dir: &str) -> BTreeSet<String> {
    let manifest = manifest(dir);
    let tables = dependency_tables(&manifest, &["dependencies", "build-dependencies"]);
    tables.into_iter().flat_map(|table| table.keys().cloned()).collect()
}

pub fn package_name(dir: &str) -> String {
    manifest(dir)["package"]["name"].as_str().expect("a member has a name").to_owned()
}

fn manifest(dir: &str) -> Table {
    let path = format!("{dir}/Cargo.toml");
    let text = SOURCES.iter().find(|(other, _)| *other == path).map(|(_, text)| text);
    parsed(text.expect("each member brings its Cargo.toml"))
}

/// Those of all targets, too.
fn dependency_tables<'a>(manifest: &'a Table, sorts: &[&str]) -> Vec<&'a Table> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let targets = targets.into_iter().flat_map(|targets| targets.values().filter_map(Value::as_table));
    let places = std::iter::once(manifest).chain(targets);
    places.flat_map(|place| sorts.iter().filter_map(|sort| place.get(*sort)?.as_table())).collect()
}

fn parsed(text: &str) -> Table {
    text.parse().expect("a Cargo.toml that this binary was built from is TOML")
}
