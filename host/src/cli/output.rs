//! Where results go: text for people, JSON for machines. Invariant: no colour where nobody sees it, and a reader that
//! goes away is no failure.

use std::io::{self, IsTerminal as _, Write};

use sagahost_saga::id::Time;
use serde::Serialize;

use super::exit::Failure;
use crate::clock::{Clock as _, SystemClock};

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
        let text =
            if self.json { serde_json::to_string_pretty(view).map_err(anyhow::Error::from)? } else { text(view, self) };
        self.line(text.trim_end_matches('\n'))
    }

    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
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
            eprintln!("{}", failure.text);
        }
    }
}
