//! `sagahost mock --stdio` as other languages see it: the page's own examples, and lines that are wrong. Invariant: what
//! the page shows works as it stands there.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use sagahost_tests::built;
use serde_json::{Value, json};

/// The example of this language in the page.
fn example(language: &str) -> String {
    let page = fs::read_to_string(built::root().join("host/docs/mock-protocol.md")).unwrap();
    let (_, rest) = page.split_once(&format!("```{language}\n")).expect("the page has an example");
    rest.split_once("```").expect("the example ends").0.to_owned()
}

/// Runs a command beside the example and the plugin, and returns what it said.
fn run(dir: &Path, words: &[&str]) -> String {
    built::copy(&["payment"], dir);
    let ran = Command::new(words[0])
        .args(&words[1..])
        .current_dir(dir)
        .env("SAGAHOST", built::sagahost())
        .output()
        .unwrap_or_else(|error| panic!("failed to start {}: {error} (demo/prepare languages)", words[0]));
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    said
}

#[test]
fn the_example_for_pytest_runs() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("test_payment.py"), example("python")).unwrap();
    let said = run(dir.path(), &["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_payment.py"]);
    assert!(said.contains("3 passed"), "{said}");
}

/// All lines in, all replies out.
fn replies(requests: &str) -> Vec<Value> {
    let mut host = Command::new(built::sagahost())
        .args(["mock", "--stdio"])
        .arg(built::all().join("payment.wasm"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    host.stdin.take().unwrap().write_all(requests.as_bytes()).unwrap();
    let ended = host.wait_with_output().unwrap();
    assert!(ended.status.success());
    let lines = String::from_utf8(ended.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_cannot_be_read_is_answered_and_the_next_line_is_taken() {
    let replies = replies(concat!(
        "{\"do\": \"send-again\"}\n",
        "{\"do\": \"hello\", \"protocol\": 2}\n",
        "{\"do\": \"hello\", \"protocol\": 1}\n",
        "\n",
        "no json\n",
        "{\"do\": \"fly\"}\n",
        "{\"do\": \"send\", \"kind\": \"OrderCreated\", \"dat\": {}}\n",
        "{\"do\": \"send\", \"kind\": \"OrderCreate\"}\n",
        "{\"do\": \"counter-value\", \"name\": \"balance/c-1\"}",
    ));
    let error = |reply: &Value| reply["error"].as_str().unwrap_or_default().to_owned();
    assert!(error(&replies[0]).starts_with("say hello first"), "{}", replies[0]);
    assert_eq!(error(&replies[1]), "protocol 2 was asked for, this host speaks 1");
    assert_eq!(replies[2]["ok"]["plugins"], json!(["payment"]));
    assert!(error(&replies[3]).starts_with("not a valid request: expected"), "{}", replies[3]);
    assert!(error(&replies[4]).contains("unknown variant `fly`"), "{}", replies[4]);
    assert!(error(&replies[5]).contains("unknown field `dat`"), "{}", replies[5]);
    assert_eq!(error(&replies[6]), "no plugin takes OrderCreate; did you mean `OrderCreated`?");
    assert_eq!(replies[7], json!({"ok": {"value": null}}));
    assert_eq!(replies.len(), 8);
}
