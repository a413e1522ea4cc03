//! `sagahost topics`. Invariant: what an app needs follows from its plugins and its configuration; no host has to run.

use clap::Subcommand;
use sagahost_operator::{
    ResumeFrom,
    protocol::Request,
    topics::{self, Sources},
    view::TopicLine,
};
use sagahost_saga::notation;
use sagahost_wire::Partition;

use super::{
    Site,
    exit::Failure,
    output::Output,
    reach,
    sagas::told,
    table::{Cell, Table, Tone},
};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub enum Topics {
    /// What the app reads and writes, how much is in it, and how far the app is behind.
    List,
    /// Create topics: those named, else all that are missing.
    Create {
        /// Names of topics.
        names: Vec<String>,
        /// Partitions of each; else as the configuration says.
        #[arg(long, value_name = "N")]
        partitions: Option<i32>,
    },
    /// Resume a partition that the host holds (`sagahost status` lists them and says why).
    Resume {
        /// As the message names it: `TOPIC[NUMBER]`.
        partition: Partition,
        /// Where to resume: `earliest` or `latest` of what is there, or an offset. Default: its position.
        #[arg(long, value_name = "PLACE")]
        from: Option<ResumeFrom>,
    },
}

impl Topics {
    pub fn carry_out(self, site: &Site, out: &mut Output) -> Result<(), Failure> {
        let config = site.config()?;
        match self {
            Self::List => {
                let lines = list(&config)?;
                out.show(&lines, |lines, out| list_text(lines, out))
            }
            Self::Resume { partition, from } => told(&reach::ask(&config, Request::Resume { partition, from })?, out),
            Self::Create { names, partitions } => {
                let partitions = partitions.unwrap_or(config.operator().partitions);
                let made = create(&config, names, partitions)?;
                out.show(&made, |made, _| match made.as_slice() {
                    [] => "all of them exist".to_owned(),
                    made => notation::line(&format!("made {}", made.join(", "))).into_owned(),
                })
            }
        }
    }
}

fn list(config: &Config) -> Result<Vec<TopicLine>, Failure> {
    match reach::host(config)? {
        Some(_) => reach::ask(config, Request::Topics),
        None => {
            let journal = reach::journal_if_any(config)?;
            let sources = Sources { settings: &config.operator(), journal: journal.as_deref(), host_runs: false };
            Ok(topics::list(sources, &*reach::transport(config)?)?)
        }
    }
}

fn create(config: &Config, names: Vec<String>, partitions: i32) -> Result<Vec<String>, Failure> {
    match reach::host(config)? {
        Some(_) => reach::ask(config, Request::CreateTopics { names, partitions }),
        None => {
            let journal = if names.is_empty() { reach::journal_if_any(config)? } else { None };
            let sources = Sources { settings: &config.operator(), journal: journal.as_deref(), host_runs: false };
            Ok(topics::create(sources, &*reach::transport(config)?, &names, partitions)?)
        }
    }
}

/// Of kinds that no plugin here handles: `orderCreated 3, OrderArchived 12 (ignored)`.
fn unhandled(line: &TopicLine) -> String {
    let kinds = line.unhandled.iter().map(|kind| {
        let known = if kind.ignored { " (ignored)" } else { "" };
        format!("{} {}{known}", notation::id(&kind.kind), kind.events)
    });
    kinds.collect::<Vec<_>>().join(", ")
}

pub fn list_text(lines: &[TopicLine], out: &Output) -> String {
    let mut table = Table::new(["topic", "kinds", "the app", "partitions", "records", "behind", "unhandled", ""]);
    for line in lines {
        let use_of = match (line.read, line.written) {
            (true, true) => "reads, writes",
            (true, false) => "reads",
            (false, _) => "writes",
        };
        let number = |number: Option<i64>| number.map(Cell::number).unwrap_or_else(|| "".into());
        let fault = match &line.create {
            Some(command) => format!("missing: {command}"),
            None if line.held_up.is_empty() => String::new(),
            None => format!("an open transaction of another producer holds up {}", line.held_up.join(", ")),
        };
        table.row([
            (&line.name).into(),
            line.kinds.join(", ").into(),
            use_of.into(),
            number(line.partitions.map(i64::from)),
            number(line.records),
            number(line.lag),
            Cell::toned(
                unhandled(line),
                if line.unhandled.iter().all(|kind| kind.ignored) { Tone::Faint } else { Tone::Bad },
            ),
            Cell::toned(fault, Tone::Bad),
        ]);
    }
    table.render(out.colour)
}
