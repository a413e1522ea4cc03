//! What a tool can hold of how the project is laid out: which crate may know which, and that documents name what exists.
//! Invariant: each rule has a reason in `host/ARCHITECTURE.md`.

use std::{collections::BTreeSet, fs, path::Path};

use sagahost_tests::built::root;

/// Crates of the house, each with those of the house that it may know.
const ARROWS: [(&str, &[&str]); 19] = [
    ("host/saga", &[]),
    ("host/manifest", &["saga"]),
    ("host/private", &[]),
    ("host/sandbox", &["manifest", "private", "saga"]),
    ("host/wire", &["saga"]),
    ("host/codec", &["manifest", "saga", "wire"]),
    ("host/journal", &["manifest", "saga", "wire"]),
    ("host/journal/sqlite", &["codec", "journal", "private", "saga", "wire"]),
    ("host/transport", &["wire"]),
    ("host/transport/embedded", &["private", "saga", "transport", "wire"]),
    ("host/transport/kafka", &["manifest", "transport", "wire"]),
    ("host/processor", &["codec", "journal", "manifest", "saga", "transport", "wire"]),
    ("host/serving", &["codec", "journal", "manifest", "processor", "saga", "transport", "wire"]),
    ("host/net", &[]),
    ("host/alerts", &["codec", "journal", "net", "saga", "wire"]),
    ("host/ingress", &["codec", "journal", "manifest", "net", "processor", "saga", "wire"]),
    ("host/outbound", &["manifest", "net", "processor", "saga"]),
    ("host/remote", &["codec", "manifest", "net", "outbound", "processor", "saga", "serving"]),
    ("host/operator", &["codec", "journal", "private", "processor", "saga", "sandbox", "serving", "transport", "wire"]),
];

/// What decides builds and tests in seconds because it needs none of these.
const LIGHT: [&str; 9] = [
    "host/saga",
    "host/manifest",
    "host/private",
    "host/wire",
    "host/codec",
    "host/journal",
    "host/transport",
    "host/processor",
    "host/serving",
];
const HEAVY: [&str; 4] = ["rdkafka", "rusqlite", "tokio", "wasmtime"];

/// Names under `[dependencies]`.
fn dependencies(manifest: &str) -> BTreeSet<&str> {
    let section = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let lines = section.take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split(['.', ' ', '=']).next()).filter(|name| !name.is_empty()).collect()
}

#[test]
fn a_crate_knows_only_what_it_may() {
    for (dir, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(dir).join("Cargo.toml")).expect("a crate has a manifest");
        let all = dependencies(&manifest);
        assert!(all.len() >= 2, "{dir}: its dependencies were not found: {all:?}");
        let known: BTreeSet<&str> = all.iter().filter_map(|name| name.strip_prefix("sagahost-")).collect();
        assert_eq!(known, allowed.iter().copied().collect(), "{dir} (ARROWS in {})", file!());
        let heavy: Vec<&&str> = all.iter().filter(|name| LIGHT.contains(&dir) && HEAVY.contains(name)).collect();
        assert!(heavy.is_empty(), "{dir} decides; it may not need {heavy:?}");
    }
}

/// What stands between backticks and looks like a path of this repository, and not like the pattern of one.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let tops = ["host/", "plugins/", "wit/", "demo/", "tests/", ".ci/"];
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(move |quoted| {
        tops.iter().any(|top| quoted.starts_with(top))
            && quoted.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
            && !quoted.contains("NOUN")
    })
}

#[test]
fn documents_name_files_that_exist() {
    for document in ["host/ARCHITECTURE.md", "host/SEMANTICS.md", "CONTRIBUTING.md", "README.md"] {
        let text = fs::read_to_string(root().join(document)).expect("it is there");
        let missing: Vec<&str> = paths(&text).filter(|path| !root().join(path).exists()).collect();
        assert_eq!(missing, Vec::<&str>::new(), "{document} names what does not exist");
    }
    let architecture = fs::read_to_string(root().join("host/ARCHITECTURE.md")).expect("it is there");
    assert!(paths(&architecture).count() > 50, "the paths were not found");
}

/// `NAME` in `PATH`, wherever the page says it.
#[test]
fn what_the_page_names_in_a_file_is_there() {
    let page = fs::read_to_string(root().join("host/ARCHITECTURE.md")).expect("it is there");
    let quoted: Vec<&str> = page.split('`').collect();
    let named = quoted.windows(3).skip(1).step_by(2).filter(|words| words[1] == " in " && words[2].ends_with(".rs"));
    let named: Vec<_> = named.map(|words| (words[0], words[2])).collect();
    assert!(named.len() > 10, "only {named:?} were found");
    for (name, file) in named {
        let text = fs::read_to_string(root().join(file)).expect("it is there");
        assert!(text.contains(name), "{file} has no {name}");
    }
}

/// Files of Rust below a directory that are neither tests nor generated.
fn sources(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory can be read").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() && !["tests", "target", "fixtures", ".work"].contains(&&*name) {
            sources(&path, found);
        } else if name.ends_with(".rs") && !["tests.rs", "bindings.rs"].contains(&&*name) {
            found.push(path);
        }
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    let mut found = Vec::new();
    for top in ["host", "plugins", "demo", "tests/src", "tests/sim/src", "tests/neighbours/src"] {
        sources(&root().join(top), &mut found);
    }
    assert!(found.len() > 200, "only {} files were found", found.len());
    let silent: Vec<_> =
        found.iter().filter(|path| !fs::read_to_string(path).is_ok_and(|text| text.starts_with("//!"))).collect();
    assert!(silent.is_empty(), "these do not begin with `//!`: {silent:#?}");
}

/// Errors keep their types up to the command line, where their kind becomes an exit code.
#[test]
fn errors_keep_their_types_up_to_the_command_line() {
    let mut found = Vec::new();
    sources(&root().join("host"), &mut found);
    let edge = [root().join("host/src/cli"), root().join("host/src/main.rs"), root().join("host/sandbox/examples")];
    found.retain(|path| !edge.iter().any(|edge| path.starts_with(edge)));
    assert!(found.len() > 150, "only {} files were found", found.len());
    let untyped: Vec<_> =
        found.iter().filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("anyhow::"))).collect();
    assert!(untyped.is_empty(), "these lose the type of an error: {untyped:#?}");
}

/// What decides is driven from outside, so that all of it can be simulated.
#[test]
fn the_processor_neither_waits_nor_looks_at_a_clock_nor_touches_a_file() {
    let forbidden = [
        "std::thread",
        "std::fs",
        "std::net",
        "Instant",
        "SystemTime",
        "Condvar",
        "sleep(",
        "recv",
        "spawn(",
        "clock::",
    ];
    let mut found = Vec::new();
    sources(&root().join("host/processor/src"), &mut found);
    assert!(found.len() > 25, "only {} files were found", found.len());
    for path in found {
        let text = fs::read_to_string(&path).expect("it can be read");
        // How those who drive it are woken is said here, and done in `host/src/threads.rs`.
        let text = text.replace("fn sleep(&self", "");
        let used: Vec<&str> = forbidden.into_iter().filter(|word| text.contains(word)).collect();
        assert!(used.is_empty(), "{}: {used:?}", path.display());
    }
}

/// Turns of phrase that no native engineer writes, each with a plainer one.
const PHRASES: [(&str, &str); 13] = [
    ("all the same", "anyway, still"),
    ("begins anew", "starts again"),
    ("goes on", "continues, resumes"),
    ("in vain", "timed out"),
    ("is told", "is asked, is reported"),
    ("was made anew", "was recreated"),
    ("of no use", "unusable, cannot be loaded"),
    ("patiently", "retry_until_stopped"),
    ("roomy", "larger"),
    ("serve on", "keep serving"),
    ("somebody", "an operator, another host"),
    ("stands there", "is there; duplicate"),
    ("was told", "was asked, was reported"),
];

/// Crates whose text is read by people, and pages.
const PLAIN: [&str; 20] = [
    "host/saga",
    "host/manifest",
    "host/private",
    "host/wire",
    "host/codec",
    "host/journal",
    "host/transport",
    "host/operator",
    "host/net",
    "host/ingress",
    "host/alerts",
    "host/remote",
    "host/outbound",
    "host/check",
    "host/src",
    "host/docs",
    "plugins",
    "demo",
    "README.md",
    "CONTRIBUTING.md",
];

/// Files of Rust and pages below a path, or the path itself.
fn texts(path: &Path, found: &mut Vec<std::path::PathBuf>) {
    if path.is_dir() {
        sources(path, found);
        let entries = fs::read_dir(path).expect("a directory can be read").flatten();
        found.extend(entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "md")));
    } else {
        found.push(path.to_owned());
    }
}

#[test]
fn text_for_people_is_plain_english() {
    let mut found = Vec::new();
    for top in PLAIN {
        texts(&root().join(top), &mut found);
    }
    assert!(found.len() > 250, "only {} files were found", found.len());
    let mut odd = Vec::new();
    for path in found {
        let text = fs::read_to_string(&path).expect("it can be read");
        for (number, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            let phrases = PHRASES.iter().filter(|(phrase, _)| line.contains(phrase));
            odd.extend(
                phrases
                    .map(|(phrase, plain)| format!("{}:{}: `{phrase}` (write: {plain})", path.display(), number + 1)),
            );
        }
    }
    assert!(odd.is_empty(), "{odd:#?}");
}
