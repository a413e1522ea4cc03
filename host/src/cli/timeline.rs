//! A saga as people read it: state, steps, timeline, and what to type next. Invariant: everything that `--json` says is
//! there, in the order in which it happened.

use sagahost_operator::view::{SagaView, StepLine, TimelineLine};
use sagahost_saga::{id::Time, notation};

use super::{
    table::{Cell, Table, Tone, tone_of},
    time_text::{after, relative, took, when},
};

pub fn text(saga: &SagaView, now: Time, colour: bool) -> String {
    let mut text = head(saga, now, colour);
    if !saga.steps.is_empty() {
        text += &format!("\nsteps\n{}", steps(&saga.steps, now, colour));
    }
    if !saga.parked.is_empty() {
        let mut table = Table::new(["participant", "event", "why", "until"]).indented(2);
        for parked in &saga.parked {
            let until = parked.until.map(|until| when(until, now)).unwrap_or_default();
            table.row([(&parked.participant).into(), (&parked.kind).into(), (&parked.why).into(), until.into()]);
        }
        text += &format!("\nparked\n{}", table.render(colour));
    }
    if !saga.timeline.is_empty() {
        text += &format!("\ntimeline\n{}", timeline(&saga.timeline, colour));
    }
    if !saga.letters.is_empty() {
        text += "\nopen dead letters\n";
        for letter in &saga.letters {
            let said = format!("{}: {}", letter.code, letter.detail);
            text += &format!("  {}  {}\n", notation::id(&letter.key), notation::line(&said));
        }
    }
    for queued in &saga.queued {
        text += &format!("\nwaits for a host to run: {}\n", notation::line(queued));
    }
    if !saga.next.is_empty() {
        text += &format!(
            "\n{}\n{}",
            Tone::Bad.paint("it needs an operator; type one of", colour),
            next(&saga.next, colour)
        );
    }
    text
}

fn head(saga: &SagaView, now: Time, colour: bool) -> String {
    let status = tone_of(&saga.status).paint(&notation::line(&saga.status), colour);
    let app = notation::line(&saga.app);
    let mut text = format!("saga {} is {status} in app {app}\n", notation::id(&saga.id));
    let mut line = |name: &str, value: &str| text += &format!("  {name:<8} {}\n", notation::line(value));
    if let Some(why) = &saga.quarantined {
        line("why", why);
    }
    if saga.created.0.0 > 0 {
        line("began", &when(saga.created, now));
        line("changed", &when(saga.updated, now));
    }
    if let Some(ended) = saga.ended {
        line("ended", &when(ended, now));
    }
    if let Some(cause) = &saga.cause {
        line("cause", cause);
    }
    if let Some(result) = &saga.result {
        line("result", result);
    }
    for (name, value) in &saga.notes {
        line("note", &format!("{name}={value}"));
    }
    if saga.late > 0 {
        line("late", &format!("{} events or results came too late", saga.late));
    }
    text
}

fn steps(steps: &[StepLine], now: Time, colour: bool) -> String {
    let mut table =
        Table::new(["participant", "event", "role", "state", "tries", "undo", "version", "next", "why"]).indented(2);
    for step in steps {
        let undo = if step.undo_attempts > 0 { Cell::number(step.undo_attempts) } else { "".into() };
        table.row([
            (&step.participant).into(),
            (&step.kind).into(),
            (&step.role).into(),
            Cell::state(&step.state),
            Cell::number(step.attempts),
            undo,
            (&step.version).into(),
            step.next_at.map(|next| relative(next, now)).unwrap_or_default().into(),
            step.why.clone().unwrap_or_default().into(),
        ]);
    }
    table.render(colour)
}

fn timeline(lines: &[TimelineLine], colour: bool) -> String {
    rows(lines, 0, colour)
}

/// What came behind the first `known` lines.
pub fn news(saga: &SagaView, known: usize, colour: bool) -> String {
    let status = tone_of(&saga.status).paint(&notation::line(&saga.status), colour);
    format!("saga {} is {status}\n{}", notation::id(&saga.id), rows(&saga.timeline, known, colour))
}

fn rows(lines: &[TimelineLine], known: usize, colour: bool) -> String {
    let mut table = Table::new(["time", "after", "who", "what", "outcome", "took", "version", "why"]).indented(2);
    let first = lines.first().map(|line| line.at).unwrap_or_default();
    let mut day = String::new();
    for line in lines.iter().skip(known) {
        let stamp = line.at.to_second();
        let (date, _) = stamp.split_once(' ').unwrap_or((&stamp, ""));
        // The date stands where it changes, so that the column stays narrow.
        let time = if date == day { line.at.time_of_day() } else { format!("{date} {}", line.at.time_of_day()) };
        date.clone_into(&mut day);
        let time = format!("{time:>23}");
        let entry = entry(line);
        table.row([
            Cell::toned(time, Tone::Faint),
            Cell::number(after(first, line.at)),
            entry.who.into(),
            entry.what.into(),
            Cell::toned(entry.outcome, entry.tone),
            line.took_us.map(|us| Cell::number(took(us))).unwrap_or_else(|| "".into()),
            line.version.clone().unwrap_or_default().into(),
            entry.why.into(),
        ]);
    }
    table.render(colour)
}

struct EntryText {
    who: String,
    what: String,
    outcome: String,
    tone: Tone,
    why: String,
}

fn entry(line: &TimelineLine) -> EntryText {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let who = text(&line.participant);
    let kind = text(&line.kind);
    let id = line.id.as_deref().map(|id| notation::id(id).into_owned()).unwrap_or_default();
    let why = [&line.code, &line.detail].into_iter().flatten().cloned().collect::<Vec<_>>().join(": ");
    let (who, what, outcome, why) = match line.what.as_str() {
        "event" => (String::new(), format!("event {kind}"), text(&line.note), id),
        "attempt" => {
            let what = format!("{} {kind} #{}", text(&line.direction), line.attempt.unwrap_or_default());
            (who, what, text(&line.outcome), why)
        }
        "request" => (who, "request".to_owned(), String::new(), text(&line.outcome)),
        "emitted" => (who, format!("emit {kind}"), String::new(), id),
        "parked" => {
            let until = line.until.map(|until| format!(" until {}", until.time_of_day())).unwrap_or_default();
            (who, format!("{kind} waits{until}"), String::new(), text(&line.reason))
        }
        "status" => (String::new(), "saga".to_owned(), text(&line.status), why),
        "operator" => (text(&line.by), text(&line.outcome), String::new(), text(&line.reason)),
        "dead-letter" => {
            let outcome = line.closed.as_ref().map_or("open".to_owned(), |how| format!("closed: {how}"));
            (String::new(), "dead letter".to_owned(), outcome, [text(&line.code), id].join(" "))
        }
        other => (who, format!("{other} {kind}"), String::new(), why),
    };
    let tone = match line.what.as_str() {
        "dead-letter" if line.closed.is_none() => Tone::Bad,
        _ => tone_of(&outcome),
    };
    EntryText { who, what, outcome, tone, why }
}

/// `command  # why`, the reasons below each other.
fn next(commands: &[String], colour: bool) -> String {
    let mut table = Table::new(["", ""]).indented(2);
    for command in commands {
        let (typed, why) = command.split_once("  # ").unwrap_or((command, ""));
        let why = if why.is_empty() { String::new() } else { format!("# {why}") };
        table.row([typed.into(), Cell::toned(why, Tone::Faint)]);
    }
    table.render(colour).trim_start_matches('\n').to_owned()
}
