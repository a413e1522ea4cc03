//! `sagahost outbox`. Invariant: a row is skipped only by its place, with a name and a reason.

use clap::Subcommand;
use sagahost_operator::{OutboxAction, protocol::Request, view::OutboxLine};
use sagahost_wire::BatchNo;

use super::{
    Operator, Site,
    exit::Failure,
    output::Output,
    reach,
    sagas::told,
    table::{Cell, Table},
};

#[derive(Debug, Subcommand)]
pub enum Outbox {
    /// Batches that are journaled and not known to be published.
    List {
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Try the refused row again.
    Retry,
    /// Leave one row unpublished for good, so that publication continues.
    Skip {
        /// The batch, as the refusal names it.
        batch: u64,
        /// The row in it, as the refusal names it.
        row: usize,
        /// Why, for the journal.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        operator: Operator,
    },
}

impl Outbox {
    pub fn carry_out(self, site: &Site, out: &mut Output) -> Result<(), Failure> {
        let config = site.config()?;
        let action = match self {
            Self::List { limit } => {
                let batches: Vec<OutboxLine> = reach::ask(&config, Request::Outbox { limit })?;
                return out.show(&batches, |batches, out| list_text(batches, out));
            }
            Self::Retry => OutboxAction::Retry,
            Self::Skip { batch, row, reason, operator } => {
                OutboxAction::Skip { batch: BatchNo(batch), index: row, by: operator.by, reason }
            }
        };
        let done = reach::ask(&config, Request::OutboxChange { action })?;
        told(&done, out)
    }
}

pub fn list_text(batches: &[OutboxLine], out: &Output) -> String {
    if batches.is_empty() {
        return "everything that is journaled is published\n".to_owned();
    }
    let mut table = Table::new(["batch", "records", "bytes", "topics", "skipped"]);
    for batch in batches {
        let topics: Vec<String> = batch.topics.iter().map(|(topic, count)| format!("{topic} {count}")).collect();
        let skipped: Vec<String> = batch.skipped.iter().map(|(row, why)| format!("{row} ({why})")).collect();
        table.row([
            Cell::number(batch.batch),
            Cell::number(batch.records),
            Cell::number(batch.bytes),
            topics.join(", ").into(),
            skipped.join(", ").into(),
        ]);
    }
    table.render(out.colour)
}
