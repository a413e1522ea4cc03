//! `sagahost sagas`. Invariant: a decision goes through the saga's mailbox, with a name and a reason.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use sagahost_operator::{
    protocol::Request,
    view::{Done, SagaPage, SagaView},
};
use sagahost_saga::{
    id::{Participant, SagaId},
    input::{Command, Status},
    notation::{self, typed},
};

use super::{
    Operator, Site,
    emit::name_value,
    exit::{Exit, Failure},
    output::Output,
    reach,
    table::{Cell, Table},
    time_text::when,
    timeline,
};

#[derive(Debug, Subcommand)]
pub enum Sagas {
    /// Newest first, with how many there are in each state.
    List(List),
    /// One saga: its steps, its timeline, and what to type where it needs an operator.
    Show {
        /// The saga's id, as commands print it.
        #[arg(value_parser = typed)]
        id: String,
    },
    /// Stop a saga and undo what it has done. Too late after a pivot step and at the end.
    Cancel {
        /// The saga's id, as commands print it. One that has not begun yet will never begin.
        #[arg(value_parser = typed)]
        id: String,
        /// Why, for the timeline.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        operator: Operator,
    },
    /// Try again what is stuck, blocked or waiting for its next attempt.
    Retry {
        /// The saga's id, as commands print it.
        #[arg(value_parser = typed)]
        id: String,
        #[command(flatten)]
        operator: Operator,
    },
    /// Settle by hand what cannot be settled otherwise.
    Resolve(Resolve),
}

#[derive(Debug, Args)]
pub struct List {
    /// Only sagas in this state.
    #[arg(long, value_enum)]
    status: Option<StatusName>,
    /// Only sagas with this note; may be repeated.
    #[arg(long = "where", value_name = "NAME=VALUE", value_parser = name_value)]
    notes: Vec<(String, String)>,
    /// How many at most.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Continue where the last page ended (it says where).
    #[arg(long, value_name = "N")]
    before: Option<i64>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("how").required(true).args(["undone", "accept"]))]
pub struct Resolve {
    /// The saga's id, as commands print it.
    #[arg(value_parser = typed)]
    id: String,
    /// What is stuck was undone by hand.
    #[arg(long)]
    undone: bool,
    /// What is stuck stays as it is.
    #[arg(long)]
    accept: bool,
    /// Only what this participant did.
    #[arg(long, value_name = "NAME")]
    participant: Option<String>,
    /// Why, for the timeline.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    operator: Operator,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StatusName {
    Waiting,
    Running,
    Finishing,
    Completed,
    Compensating,
    Compensated,
    NeedsOperator,
    Quarantined,
}

impl From<StatusName> for Status {
    fn from(name: StatusName) -> Self {
        match name {
            StatusName::Waiting => Self::Waiting,
            StatusName::Running => Self::Running,
            StatusName::Finishing => Self::Finishing,
            StatusName::Completed => Self::Completed,
            StatusName::Compensating => Self::Compensating,
            StatusName::Compensated => Self::Compensated,
            StatusName::NeedsOperator => Self::NeedsOperator,
            StatusName::Quarantined => Self::Quarantined,
        }
    }
}

impl Sagas {
    pub fn carry_out(self, site: &Site, out: &mut Output) -> Result<(), Failure> {
        let config = site.config()?;
        let (id, command) = match self {
            Self::List(list) => {
                let request = Request::Sagas {
                    status: list.status.map(Status::from),
                    notes: list.notes,
                    before: list.before,
                    limit: list.limit,
                };
                let page: SagaPage = reach::ask(&config, request)?;
                return out.show(&page, list_text);
            }
            Self::Show { id } => {
                let view: SagaView = reach::ask(&config, Request::Saga { id: SagaId::new(id) })?;
                return out.show(&view, |view, out| timeline::text(view, out.now, out.colour));
            }
            Self::Cancel { id, reason, operator } => (id, Command::Cancel { by: operator.by, reason }),
            Self::Retry { id, operator } => (id, Command::Retry { by: operator.by }),
            Self::Resolve(resolve) => {
                let command = Command::Resolve {
                    by: resolve.operator.by,
                    reason: resolve.reason,
                    accept: resolve.accept,
                    participant: resolve.participant.map(Participant::new),
                };
                (resolve.id, command)
            }
        };
        let done = reach::ask(&config, Request::Command { saga: SagaId::new(id), command })?;
        told(&done, out)
    }
}

/// Prints what a command did; where it did nothing, that is the exit code.
pub fn told(done: &Done, out: &mut Output) -> Result<(), Failure> {
    if !done.done {
        return Err(Failure::new(Exit::Declined, done.text.clone()));
    }
    out.show(done, done_text)
}

pub fn done_text(done: &Done, _: &Output) -> String {
    notation::line(&done.text).into_owned()
}

pub fn list_text(page: &SagaPage, out: &Output) -> String {
    let mut table = Table::new(["saga", "status", "changed", "notes"]);
    for saga in &page.sagas {
        let notes: Vec<String> = saga.notes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        table.row([
            Cell::id(&saga.id),
            Cell::state(&saga.status),
            when(saga.updated, out.now).into(),
            notes.join(" ").into(),
        ]);
    }
    let mut text = if page.sagas.is_empty() { "no saga matches\n".to_owned() } else { table.render(out.colour) };
    if !page.counts.is_empty() {
        let counts: Vec<String> = page.counts.iter().map(|(status, count)| format!("{count} {status}")).collect();
        text += &format!("\nin the journal: {}\n", notation::line(&counts.join(", ")));
    }
    if let Some(before) = page.more_before {
        text += &format!("more: --before {before}\n");
    }
    text
}
