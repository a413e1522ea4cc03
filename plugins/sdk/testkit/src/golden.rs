//! Texts that are kept in files. Invariant: a file is written only when that is asked for.

use std::{env, fmt::Write as _, fs, path::Path};

const UPDATE: &str = "UPDATE_GOLDEN";

pub(crate) fn compare(file: &str, text: &str) -> Result<(), String> {
    let path = Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join(file);
    if env::var_os(UPDATE).is_some_and(|value| value == "1") {
        let dir = path.parent().unwrap_or(Path::new("."));
        return fs::create_dir_all(dir)
            .and_then(|()| fs::write(&path, text))
            .map_err(|error| format!("failed to write {}: {error}", path.display()));
    }
    let again = format!("if it is right now, run the test with {UPDATE}=1 and look at the difference");
    let expected = fs::read_to_string(&path)
        .map_err(|error| format!("failed to read {}: {error}\n{again}\n\n{text}", path.display()))?;
    if expected == text {
        return Ok(());
    }
    Err(format!("{} says something else ({again}):\n\n{}", path.display(), difference(&expected, text)))
}

/// Lines of both, from the first that differ to the last.
fn difference(expected: &str, text: &str) -> String {
    let (expected, text): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), text.lines().collect());
    let same = expected.iter().zip(&text).take_while(|(a, b)| a == b).count();
    let rest = expected.len().min(text.len()) - same;
    let tail = expected.iter().rev().zip(text.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let mut shown = String::new();
    let mut lines = |mark: &str, lines: &[&str]| {
        for line in lines {
            let _ = writeln!(shown, "{mark} {line}");
        }
    };
    lines(" ", &expected[..same]);
    lines("-", &expected[same..expected.len() - tail]);
    lines("+", &text[same..text.len() - tail]);
    lines(" ", &expected[expected.len() - tail..]);
    shown
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_difference_shows_both() {
        assert_eq!(super::difference("a\nb\nc\n", "a\nx\ny\nc\n"), "  a\n- b\n+ x\n+ y\n  c\n");
        assert_eq!(super::difference("a\n", "a\na\n"), "  a\n+ a\n");
    }
}
