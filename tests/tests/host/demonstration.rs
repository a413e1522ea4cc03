//! What a newcomer runs first: the demonstration judges itself, and must be right.

use std::process::Command;

use sagahost_tests::built;

fn demonstrate(words: &[&str]) -> String {
    let work = tempfile::tempdir().expect("a directory can be made");
    let plugins = work.path().join("plugins");
    built::copy(&["order", "payment", "inventory", "shipping"], &plugins);
    let mut command = Command::new(built::sagahost().with_file_name("sagahost-demo"));
    command.args(["--orders", "300", "--sagahost"]).arg(built::sagahost());
    command.arg("--plugins").arg(&plugins).arg("--work").arg(work.path()).args(words);
    command.env("XDG_STATE_HOME", built::state());
    let output = command.output().expect("tests/run builds it");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn orders_as_records() {
    let said = demonstrate(&[]);
    assert!(said.contains("money and stock      conserved"), "{said}");
}

#[test]
fn orders_as_requests() {
    let said = demonstrate(&["--http"]);
    let answered = said.lines().find(|line| line.contains("answered over HTTP")).expect("it says so");
    let counts: Vec<usize> =
        answered.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let [completed, 200, compensated, 409, ..] = counts[..] else { panic!("{answered}") };
    assert_eq!(completed + compensated, 300, "{answered}");
}
