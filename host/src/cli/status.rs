//! `sagahost status`. Invariant: what the app waits for stands first.

use sagahost_operator::{
    protocol::Request,
    view::{StatusView, UnhandledLine},
};
use sagahost_processor::lookalike;
use sagahost_saga::notation::{self, line};

use super::{
    Site,
    exit::Failure,
    output::Output,
    reach,
    table::{Cell, Table, Tone},
};

pub fn carry_out(site: &Site, out: &mut Output) -> Result<(), Failure> {
    let status: StatusView = reach::ask(&site.config()?, Request::Status)?;
    out.show(&status, text)
}

/// `unhandled    3 × orderCreated in order-created, last at order-created[2]@17: did you mean OrderCreated?`
fn unhandled(kind: &UnhandledLine, out: &Output) -> String {
    let UnhandledLine { topic, events, .. } = kind;
    let mut said = format!("{events} × {} in {topic}", notation::id(&kind.kind));
    if let Some(last) = &kind.last {
        said += &format!(", last at {last}");
    }
    if let Some(meant) = &kind.meant {
        said += &format!(": {}", lookalike::hint(meant));
    }
    format!("{}    {}", Tone::Bad.paint("unhandled", out.colour), line(&said))
}

pub fn text(status: &StatusView, out: &Output) -> String {
    let running = if status.running { Tone::Good.paint("runs", out.colour) } else { "does not run".to_owned() };
    let mut text = format!("app {} {running}\n", line(&status.app));
    for what in &status.waiting_for {
        text += &format!("  {} {}\n", Tone::Bad.paint("waits for", out.colour), line(what));
    }
    for what in &status.held {
        text += &format!("  {} {}\n", Tone::Bad.paint("held", out.colour), line(what));
    }
    text += &format!("  transport    {}\n  journal      {}\n", line(&status.transport), line(&status.journal));
    text += &format!("  incarnation  {}\n", line(&status.incarnation));
    let behind = status.batch.saturating_sub(status.published);
    text += &format!("  batches      {} journaled, {behind} of them not known to be published\n", status.batch);
    for kind in status.unhandled.iter().filter(|kind| !kind.ignored) {
        text += &format!("  {}\n", unhandled(kind, out));
    }
    if status.open_letters > 0 {
        let count = status.open_letters;
        text += &format!("  dead letters {count} open: `sagahost dead-letters list`\n");
    }
    if status.removed_letters > 0 {
        let count = status.removed_letters;
        text += &format!("  dead letters {count} removed, past the bounds of [dead-letters]\n");
    }
    if status.queued_commands > 0 {
        text += &format!("  commands     {} wait for a host to run\n", status.queued_commands);
    }
    if !status.sagas.is_empty() {
        let mut table = Table::new(["sagas", ""]).indented(2);
        for (name, count) in &status.sagas {
            table.row([Cell::state(name), Cell::number(count)]);
        }
        text += &format!("\n{}", table.render(out.colour));
    }
    if !status.counters.is_empty() {
        let mut table = Table::new(["since its start", ""]).indented(2);
        for (name, count) in &status.counters {
            table.row([name.into(), Cell::number(count)]);
        }
        text += &format!("\n{}", table.render(out.colour));
    }
    text
}
