//! What happened in a saga, for people: on a failed assertion, and in golden files. Invariant: in simulated time it is
//! the same text on every run, since it names no id that the host made up.

use std::{fmt::Write as _, time::Duration};

use sagahost_saga::{
    history::{Entry, What},
    id::Time,
};
use serde::{Deserialize, Serialize};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Line {
    /// Since the saga's first entry.
    pub after_ms: u64,
    /// Who did it: a plugin, an operator, or nobody.
    pub who: String,
    /// What was done.
    pub what: String,
    /// How it ended.
    pub outcome: String,
    /// Why.
    pub why: String,
}

/// The entries of a saga's history.
pub fn lines(history: &[Entry]) -> Vec<Line> {
    let first = history.first().map(|entry| entry.at).unwrap_or_default();
    history.iter().map(|entry| line(entry, first)).collect()
}

fn line(entry: &Entry, first: Time) -> Line {
    let since = |at: Time| u64::try_from(at.since(first).as_millis()).unwrap_or(u64::MAX);
    let said = |who: &str, what: String, outcome: &str, why: String| Line {
        after_ms: since(entry.at),
        who: who.to_owned(),
        what,
        outcome: outcome.to_owned(),
        why,
    };
    match &entry.what {
        What::Event { kind, note, .. } => said("", format!("event {kind}"), note.name(), String::new()),
        What::Attempt { participant, kind, direction, attempt, outcome, code, detail, .. } => {
            let verb = direction.name();
            said(participant.as_str(), format!("{verb} {kind} #{attempt}"), outcome, because(code, detail))
        }
        What::Emitted { participant, kind, .. } => {
            let who = participant.as_ref().map_or("", |participant| participant.as_str());
            said(who, format!("emit {kind}"), "", String::new())
        }
        What::Parked { participant, kind, why, until } => {
            let until = until.map(|until| format!(" until {}", elapsed(since(until)))).unwrap_or_default();
            said(participant.as_str(), format!("{kind} waits{until}"), "", why.to_string())
        }
        What::Sent { participant, what, .. } => said(participant.as_str(), "request".to_owned(), what, String::new()),
        What::Status { to, cause, detail } => said("", "saga".to_owned(), to.name(), because(cause, detail)),
        What::Operator { by, did, reason } => said(by, did.to_string(), "", reason.to_string()),
        What::DeadLetter { code, closed, .. } => {
            let outcome = closed.as_ref().map_or_else(|| "open".to_owned(), |how| format!("closed: {how}"));
            said("", "dead letter".to_owned(), &outcome, code.to_string())
        }
    }
}

fn because(code: &str, detail: &str) -> String {
    match (code.is_empty(), detail.is_empty()) {
        (_, true) => code.to_owned(),
        (true, false) => detail.to_owned(),
        (false, false) => format!("{code}: {detail}"),
    }
}

/// `+250ms`, `+1.5s`, `+15m`, `+2h`
fn elapsed(ms: u64) -> String {
    match ms {
        0..=999 => format!("+{ms}ms"),
        _ if ms % 3_600_000 == 0 => format!("+{}h", ms / 3_600_000),
        _ if ms % 60_000 == 0 => format!("+{}m", ms / 60_000),
        _ => format!("+{:?}", Duration::from_millis(ms)),
    }
}

/// Aligned columns, one line each.
pub fn text(lines: &[Line]) -> String {
    let rows: Vec<[String; 5]> = lines
        .iter()
        .map(|line| {
            let Line { after_ms, who, what, outcome, why } = line.clone();
            [elapsed(after_ms), who, what, outcome, why]
        })
        .collect();
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(widths).enumerate().filter(|(_, (_, width))| *width > 0) {
            let _ = match index {
                0 => write!(line, "  {cell:>width$}"),
                _ => write!(line, "  {cell:<width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
