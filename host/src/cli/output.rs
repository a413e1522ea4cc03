//! Where results go: text for people, JSON for machines. Invariant: no control character reaches a terminal but line
//! breaks and this program's own colours; no colour where nobody sees it; a reader that goes away is not a failure.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write},
};

use sagahost_saga::{id::Time, notation};
use sagahost_wire::clock::{Clock as _, SystemClock};
use serde::Serialize;

use super::{exit::Failure, table::Tone};

pub struct Output {
    pub json: bool,
    pub colour: bool,
    pub now: Time,
    to: Box<dyn Write>,
}

impl Output {
    pub fn to_stdout(json: bool) -> Self {
        let stdout = io::stdout();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { json, colour: stdout.is_terminal() && !plain, now: SystemClock.now(), to: Box::new(stdout) }
    }

    #[cfg(test)]
    pub fn plain(now: Time) -> Self {
        Self { json: false, colour: false, now, to: Box::new(io::sink()) }
    }

    /// The same facts in both.
    pub fn show<T: Serialize>(&mut self, view: &T, text: impl FnOnce(&T, &Self) -> String) -> Result<(), Failure> {
        let text = if self.json { serde_json::to_string_pretty(view)? } else { text(view, self) };
        self.line(text.trim_end_matches('\n'))
    }

    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        let text = if self.json { text.into() } else { screened(text, self.colour) };
        match writeln!(self.to, "{text}").and_then(|()| self.to.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        }
    }

    pub fn failed(&mut self, failure: &Failure) {
        if self.json {
            let object = serde_json::json!({ "error": failure.text, "exit-code": failure.exit as u8 });
            eprintln!("{object}");
        } else {
            say(&failure.text);
        }
    }
}

/// To standard error, beside the result.
pub fn say(text: &str) {
    eprintln!("{}", screened(text, false));
}

/// The last look at a text before a terminal gets it. Values from elsewhere are shown within their line by whoever prints
/// them (`notation::line`, `table::Cell`); what was missed there is escaped here.
pub fn screened(text: &str, colour: bool) -> Cow<'_, str> {
    let passes = |c: char| c == '\n' || !notation::is_hidden(c);
    if text.chars().all(passes) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match Tone::sequence(rest).filter(|_| colour) {
            Some(sequence) => {
                shown.push_str(sequence);
                sequence.len()
            }
            None => {
                if passes(c) {
                    shown.push(c)
                } else {
                    notation::escape(c, &mut shown)
                }
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    shown.into()
}
