//! `sagahost dead-letters`. Invariant: nothing is redriven or discarded that was not named, by key or by what it has in
//! common.

use clap::{Args, Subcommand};
use sagahost_operator::{
    protocol::{LetterSelection, Request},
    view::{LetterGroup, LetterLine, LetterResult, LetterView},
};
use sagahost_saga::{
    id::{Participant, SagaId},
    notation::{self, typed},
};

use super::{
    Operator, Site,
    exit::{Exit, Failure},
    output::Output,
    reach,
    table::{Cell, Table, Tone},
    time_text::when,
};

#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// How many are open, by code and participant; each of them with --each or any choice.
    List {
        #[command(flatten)]
        choice: Choice,
        /// One line for each dead letter.
        #[arg(long)]
        each: bool,
        /// Those that are closed, too.
        #[arg(long)]
        closed: bool,
    },
    /// One dead letter: the reason, where it came from, and its record.
    Show {
        /// Its key, as `list` prints it.
        #[arg(value_parser = typed)]
        key: String,
    },
    /// Run the participant again with the letter's event.
    Redrive {
        /// The key of one.
        #[arg(value_parser = typed)]
        key: Option<String>,
        #[command(flatten)]
        choice: Choice,
        /// All that are open.
        #[arg(long)]
        all: bool,
        /// List what would be sent, and what comes too late; do nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        operator: Operator,
    },
    /// Close without running anything.
    Discard {
        /// The key of one.
        #[arg(value_parser = typed)]
        key: Option<String>,
        #[command(flatten)]
        choice: Choice,
        /// All that are open.
        #[arg(long)]
        all: bool,
        /// Why, for the timeline.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        operator: Operator,
    },
}

#[derive(Debug, Args)]
pub struct Choice {
    /// Only those with this code.
    #[arg(long)]
    code: Option<String>,
    /// Only those of this participant.
    #[arg(long, value_name = "NAME")]
    participant: Option<String>,
    /// Only those of this saga.
    #[arg(long, value_name = "ID", value_parser = typed)]
    saga: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
}

impl Choice {
    fn is_made(&self) -> bool {
        self.code.is_some() || self.participant.is_some() || self.saga.is_some()
    }

    fn selection(self, key: Option<String>) -> LetterSelection {
        LetterSelection {
            key,
            saga: self.saga.map(SagaId::new),
            code: self.code,
            participant: self.participant.map(Participant::new),
            limit: self.limit,
        }
    }

    /// Everything has to be asked for by name.
    fn deliberate(self, key: Option<String>, all: bool) -> Result<LetterSelection, Failure> {
        if key.is_none() && !self.is_made() && !all {
            return Err(Failure::usage("name a KEY, or choose with --code, --participant, --saga or --all"));
        }
        Ok(self.selection(key))
    }
}

impl DeadLetters {
    pub fn carry_out(self, site: &Site, out: &mut Output) -> Result<(), Failure> {
        let config = site.config()?;
        match self {
            Self::List { choice, each, closed } if each || closed || choice.is_made() => {
                let request = Request::Letters { of: choice.selection(None), closed };
                let letters: Vec<LetterLine> = reach::ask(&config, request)?;
                out.show(&letters, |letters, out| letters_text(letters, out))
            }
            Self::List { .. } => {
                let groups: Vec<LetterGroup> = reach::ask(&config, Request::LetterGroups)?;
                out.show(&groups, |groups, out| groups_text(groups, out))
            }
            Self::Show { key } => {
                let letter: LetterView = reach::ask(&config, Request::Letter { key })?;
                out.show(&letter, letter_text)
            }
            Self::Redrive { key, choice, all, dry_run, operator } => {
                let of = choice.deliberate(key, all)?;
                let results = reach::ask(&config, Request::Redrive { of, by: operator.by, dry_run })?;
                report(results, dry_run, out)
            }
            Self::Discard { key, choice, all, reason, operator } => {
                let of = choice.deliberate(key, all)?;
                let results = reach::ask(&config, Request::Discard { of, by: operator.by, reason })?;
                report(results, false, out)
            }
        }
    }
}

fn report(results: Vec<LetterResult>, dry_run: bool, out: &mut Output) -> Result<(), Failure> {
    out.show(&results, |results, out| results_text(results, out))?;
    let undone = results.iter().filter(|result| !result.done).count();
    if dry_run || undone == 0 {
        return Ok(());
    }
    Err(Failure::new(Exit::Declined, format!("{undone} of {} were declined", results.len())))
}

pub fn groups_text(groups: &[LetterGroup], out: &Output) -> String {
    let mut text = "no dead letter is open\n".to_owned();
    if groups.iter().any(|group| group.open > 0) {
        let mut table = Table::new(["open", "code", "participant"]);
        for group in groups.iter().filter(|group| group.open > 0) {
            let participant = group.participant.clone().unwrap_or_default();
            table.row([Cell::number(group.open), (&group.code).into(), participant.into()]);
        }
        text = table.render(out.colour) + "\nlist them with --each, or choose with --code, --participant, --saga\n";
    }
    text + &removed_text(groups, out)
}

fn removed_text(groups: &[LetterGroup], out: &Output) -> String {
    if groups.iter().all(|group| group.removed == 0) {
        return String::new();
    }
    let mut table = Table::new(["removed", "code", "the last one"]);
    for group in groups.iter().filter(|group| group.removed > 0) {
        let last = group.removed_at.map_or_else(String::new, |at| when(at, out.now));
        table.row([Cell::number(group.removed), (&group.code).into(), last.into()]);
    }
    let why = "their records could not be decoded, and [dead-letters] in the configuration allows no more";
    format!("\n{}\n{why}\n", table.render(out.colour))
}

pub fn letters_text(letters: &[LetterLine], out: &Output) -> String {
    if letters.is_empty() {
        return "no dead letter matches\n".to_owned();
    }
    let mut table = Table::new(["when", "code", "participant", "event", "saga", "tries", "key", "closed"]);
    for letter in letters {
        let tries = if letter.attempts > 0 { Cell::number(letter.attempts) } else { "".into() };
        table.row([
            when(letter.at, out.now).into(),
            (&letter.code).into(),
            letter.participant.clone().unwrap_or_default().into(),
            letter.kind.clone().unwrap_or_default().into(),
            Cell::id_if_any(letter.saga.as_deref()),
            tries,
            Cell::id(&letter.key),
            letter.closed.clone().unwrap_or_default().into(),
        ]);
    }
    table.render(out.colour)
}

pub fn letter_text(letter: &LetterView, out: &Output) -> String {
    let line = &letter.line;
    let code = Tone::Bad.paint(&notation::line(&line.code), out.colour);
    let mut text = format!("dead letter {}\n  {:<12} {code}\n", notation::id(&line.key), "code");
    let mut say = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            text += &format!("  {name:<12} {}\n", notation::line(&value));
        }
    };
    say("detail", Some(line.detail.clone()));
    say("when", Some(when(line.at, out.now)));
    say("saga", line.saga.as_deref().map(|saga| notation::id(saga).into_owned()));
    say("participant", line.participant.clone());
    say("version", Some(line.version.clone()));
    say("event", line.kind.clone());
    say("tries", (line.attempts > 0).then(|| line.attempts.to_string()));
    say("came from", line.origin.clone());
    say("closed", line.closed.clone());
    say("topic", Some(letter.topic.clone()));
    say("key", letter.record_key.as_deref().map(|key| notation::id(key).into_owned()));
    for (name, value) in &letter.headers {
        say("header", Some(format!("{name}: {}", value.as_deref().unwrap_or("(null)"))));
    }
    say("value", Some(letter.value.clone().unwrap_or_else(|| "(tombstone)".to_owned())));
    text
}

pub fn results_text(results: &[LetterResult], out: &Output) -> String {
    let mut table = Table::new(["key", "saga", "saga is", "code", ""]);
    for result in results {
        let tone = if result.done { Tone::Plain } else { Tone::Bad };
        table.row([
            Cell::id(&result.key),
            Cell::id_if_any(result.saga.as_deref()),
            result.saga_status.clone().unwrap_or_default().into(),
            (&result.code).into(),
            Cell::toned(&result.text, tone),
        ]);
    }
    table.render(out.colour)
}
