//! The page about the command line against the command line itself. Invariant: a default stands in one place; the page
//! repeats it in parentheses, and this compares.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use clap::CommandFactory as _;

use super::Cli;

const PAGE: &str = include_str!("../../docs/cli.md");

/// Numbers and times: what else is a default is said in words.
fn is_figure(text: &str) -> bool {
    let digits = text.trim_end_matches(['s', 'm']);
    !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
}

/// `sagas list --limit` and what follows when it is not given, of a command and all below it.
fn defaults(command: &clap::Command, path: &str, found: &mut Vec<(String, String, String)>) {
    for argument in command.get_arguments() {
        let Some(long) = argument.get_long() else { continue };
        let values = argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned());
        found
            .extend(values.filter(|value| is_figure(value)).map(|value| (path.to_owned(), format!("--{long}"), value)));
    }
    for sub in command.get_subcommands() {
        defaults(sub, &format!("{path} {}", sub.get_name()), found);
    }
}

/// The same as the page says it: a line that names the flag, and a figure in parentheses.
fn documented() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for section in PAGE.split("\n## `").skip(1) {
        let path = section.split('`').next().unwrap();
        for line in section.lines().filter(|line| line.contains("`--")) {
            let flag = line.split("`--").nth(1).unwrap().split(['`', ' ']).next().unwrap();
            let figures =
                line.split('(').skip(1).filter_map(|rest| rest.split(')').next()).filter(|text| is_figure(text));
            found.extend(figures.map(|figure| (path.to_owned(), format!("--{flag}"), figure.to_owned())));
        }
    }
    found
}

#[test]
fn the_documented_defaults_are_the_real_ones() {
    let mut real = Vec::new();
    defaults(&Cli::command(), "sagahost", &mut real);
    let mut page = documented();
    real.sort();
    page.sort();
    assert!(real.len() >= 6, "{real:?}");
    assert_eq!(page, real, "host/docs/cli.md, and what it is about");
}
