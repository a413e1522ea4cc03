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

/// Each set-up over HTTP is built, measured, broken and checked; the broker's are for whoever wants the figures.
#[test]
fn the_comparison_measures_what_it_says() {
    let plugins = tempfile::tempdir().expect("a directory can be made");
    built::copy(&["order", "payment", "inventory", "loyalty"], plugins.path());
    let mut command = Command::new(built::sagahost().with_file_name("sagahost-compare"));
    command.args(["--only", "HTTP", "--orders", "200", "--away-seconds", "1", "--sagahost"]).arg(built::sagahost());
    command.arg("--plugins").arg(plugins.path()).env("XDG_STATE_HOME", built::state());
    let output = command.output().expect("tests/run builds it");
    let page = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{page}{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| |")).collect();
    for figure in ["orders a second", "loyalty", "payments away", "orders away", "answers lost"] {
        let of: Vec<_> = rows.iter().filter(|row| row.contains(figure)).collect();
        assert!(!of.is_empty() && !of.iter().any(|row| row.ends_with("| – |")), "{figure}: {of:?}");
    }
}
