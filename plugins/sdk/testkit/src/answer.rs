//! What one request caused, to be judged. Invariant: an assertion looks at everything that the request caused, in all
//! sagas, so that nothing happens unseen behind a step that went well.

use std::{collections::BTreeSet, fmt::Write as _};

use sagahost_sdk::Event;
use serde_json::Value;

use crate::{
    MockHost, Status,
    protocol::{Attempted, Direction, Emitted, Happened},
};

/// What happened. Each assertion panics with the timelines where it does not hold.
pub struct Answer<'h> {
    host: &'h mut MockHost,
    happened: Happened,
}

impl<'h> Answer<'h> {
    pub(crate) fn new(host: &'h mut MockHost, happened: Happened) -> Self {
        Self { host, happened }
    }

    /// All of it, for a closer look.
    pub fn happened(&self) -> &Happened {
        &self.happened
    }

    /// Every handler that ran completed, and at least one ran.
    #[track_caller]
    pub fn completed(self) -> Self {
        self.all(Direction::Handle, "completed")
    }

    /// Some handler rejected, with this code.
    #[track_caller]
    pub fn rejected(self, code: &str) -> Self {
        self.some(&["rejected"], code)
    }

    /// Some attempt, handling or compensating, asked for another one, with this code.
    #[track_caller]
    pub fn retried(self, code: &str) -> Self {
        self.some(&["retry"], code)
    }

    /// Some handler said that the event is early, with this code.
    #[track_caller]
    pub fn not_yet(self, code: &str) -> Self {
        self.some(&["not-yet"], code)
    }

    /// Some handler called the event invalid, with this code.
    #[track_caller]
    pub fn invalid(self, code: &str) -> Self {
        self.some(&["invalid"], code)
    }

    /// Some attempt panicked, or was stopped for a limit or a broken promise of the manifest; `text` is part of the
    /// reason.
    #[track_caller]
    pub fn trapped(self, text: &str) -> Self {
        let found = |attempt: &&Attempted| attempt.outcome == "trapped" && attempt.reason().contains(text);
        if self.happened.attempts.iter().any(|attempt| found(&attempt)) {
            return self;
        }
        self.fail(&format!("expected an attempt that traps with `{text}`"))
    }

    /// Every compensation that ran undid its step, and at least one ran.
    #[track_caller]
    pub fn undone(self) -> Self {
        self.all(Direction::Compensate, "undone")
    }

    /// A compensation ran, and there was nothing to undo for any.
    #[track_caller]
    pub fn nothing_to_undo(self) -> Self {
        self.all(Direction::Compensate, "nothing-to-undo")
    }

    /// Some compensation said that only a person can help, with this code.
    #[track_caller]
    pub fn stuck(self, code: &str) -> Self {
        self.some(&["stuck"], code)
    }

    /// No handler and no compensation ran.
    #[track_caller]
    pub fn nothing_ran(self) -> Self {
        if self.happened.attempts.is_empty() {
            return self;
        }
        self.fail("expected that nothing runs")
    }

    /// Nothing ran, nothing went out, no saga changed: as for every duplicate.
    #[track_caller]
    pub fn no_effect(self) -> Self {
        let Happened { changed, attempts, emitted, dead_letters, .. } = &self.happened;
        if !changed && attempts.is_empty() && emitted.is_empty() && dead_letters.is_empty() {
            return self;
        }
        self.fail("expected no effect at all")
    }

    /// Some event of this kind went out whose data has at least these fields.
    #[track_caller]
    pub fn emitted(self, kind: &str, data: Value) -> Self {
        if self.happened.emitted.iter().any(|emitted| emitted.kind == kind && contains(&emitted.data, &data)) {
            return self;
        }
        self.fail(&format!("expected {kind} with {data} to go out"))
    }

    /// Exactly this event went out.
    #[track_caller]
    pub fn emitted_event<E: Event>(self, event: E) -> Self {
        let data = crate::protocol::Sent::from(event).data;
        if self.happened.emitted.iter().any(|emitted| emitted.kind == E::KIND && emitted.data == data) {
            return self;
        }
        self.fail(&format!("expected exactly {} {data} to go out", E::KIND))
    }

    /// Plugins emitted exactly these kinds, in this order.
    #[track_caller]
    pub fn emitted_kinds(self, kinds: &[&str]) -> Self {
        let emitted: Vec<&str> = self.by_plugins().map(|emitted| &*emitted.kind).collect();
        if emitted == kinds {
            return self;
        }
        self.fail(&format!("expected exactly these events to go out: {}", kinds.join(", ")))
    }

    /// No plugin emitted anything.
    #[track_caller]
    pub fn emitted_nothing(self) -> Self {
        self.emitted_kinds(&[])
    }

    /// Some attempt put this note on the saga.
    #[track_caller]
    pub fn noted(self, name: &str, value: &str) -> Self {
        let noted = |(n, v): &(String, String)| n == name && v == value;
        if self.happened.attempts.iter().any(|attempt| attempt.notes.iter().any(noted)) {
            return self;
        }
        self.fail(&format!("expected a note {name}={value}"))
    }

    /// The host gave up on a record, with this code: `invalid`, `attempts-spent`, or what the plugin said.
    #[track_caller]
    pub fn dead_letter(self, code: &str) -> Self {
        if self.happened.dead_letters.iter().any(|letter| letter.code == code) {
            return self;
        }
        self.fail(&format!("expected a dead letter with {code}"))
    }

    /// The operator's request was done.
    #[track_caller]
    pub fn done(self) -> Self {
        if self.happened.answer.as_ref().is_some_and(|answer| answer.done) {
            return self;
        }
        self.fail("expected the operator's request to be done")
    }

    /// The operator was refused; `text` is part of the reason.
    #[track_caller]
    pub fn refused(self, text: &str) -> Self {
        if self.happened.answer.as_ref().is_some_and(|answer| !answer.done && answer.text.contains(text)) {
            return self;
        }
        self.fail(&format!("expected that the operator is refused with `{text}`"))
    }

    /// The saga has this status now.
    #[track_caller]
    pub fn saga_is(self, status: Status) -> Self {
        let status = status.name();
        if self.happened.status == status {
            return self;
        }
        let told = format!("expected saga {} to be {status}, it is {}", self.happened.saga, self.happened.status);
        self.fail(&told)
    }

    /// Detail of the last attempt that did not complete; empty where there is none.
    pub fn detail(&self) -> String {
        let failed = self.happened.attempts.iter().rev().find(|attempt| !attempt.detail.is_empty());
        failed.map(|attempt| attempt.detail.clone()).unwrap_or_default()
    }

    /// The events that plugins emitted, for a closer look.
    pub fn by_plugins(&self) -> impl Iterator<Item = &Emitted> {
        self.happened.emitted.iter().filter(|emitted| emitted.plugin.is_some())
    }

    #[track_caller]
    fn all(self, direction: Direction, outcome: &str) -> Self {
        let mut ran = self.happened.attempts.iter().filter(|attempt| attempt.direction == direction).peekable();
        let any = ran.peek().is_some();
        if any && ran.all(|attempt| attempt.outcome == outcome) {
            return self;
        }
        self.fail(&format!("expected every {} to end as {outcome}, and one at least", word(direction)))
    }

    #[track_caller]
    fn some(self, outcomes: &[&str], code: &str) -> Self {
        let fits = |attempt: &Attempted| outcomes.contains(&&*attempt.outcome) && attempt.code == code;
        if self.happened.attempts.iter().any(fits) {
            return self;
        }
        self.fail(&format!("expected an attempt that ends as {} with {code}", outcomes.join(" or ")))
    }

    #[track_caller]
    fn fail(self, expected: &str) -> ! {
        let Self { host, happened } = self;
        let mut told = format!("{expected}\n\nwhat happened:\n{}", happened.text());
        let mut sagas: BTreeSet<&str> = happened.attempts.iter().map(|attempt| &*attempt.saga).collect();
        sagas.extend(Some(&*happened.saga).filter(|saga| !saga.is_empty()));
        for saga in sagas {
            let _ = write!(told, "\n{}", host.report(saga).text());
        }
        panic!("{told}")
    }
}

impl Attempted {
    fn reason(&self) -> String {
        match (&*self.code, &*self.detail) {
            ("", detail) => detail.to_owned(),
            (code, "") => code.to_owned(),
            (code, detail) => format!("{code}: {detail}"),
        }
    }
}

impl Happened {
    /// One line each.
    fn text(&self) -> String {
        let mut text = String::new();
        for attempt in &self.attempts {
            let Attempted { plugin, kind, direction, attempt: number, outcome, .. } = attempt;
            let _ = writeln!(text, "  {plugin} {} {kind} #{number}: {outcome} {}", word(*direction), attempt.reason());
        }
        for emitted in &self.emitted {
            let who = emitted.plugin.as_deref().unwrap_or("the host");
            let _ = writeln!(text, "  {who} emitted {} {}", emitted.kind, emitted.data);
        }
        for letter in &self.dead_letters {
            let _ = writeln!(text, "  dead letter of {}: {}: {}", letter.kind, letter.code, letter.detail);
        }
        if let Some(answer) = &self.answer {
            let _ = writeln!(text, "  the operator's answer: {}", answer.text);
        }
        match (text.is_empty(), self.changed) {
            (true, true) => "  the saga took it in, and that was all\n".to_owned(),
            (true, false) => "  nothing\n".to_owned(),
            (false, _) => text,
        }
    }
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Handle => "handle",
        Direction::Compensate => "compensate",
    }
}

/// Does `whole` have at least what `part` has?
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, part)| whole.get(name).is_some_and(|whole| contains(whole, part)))
        }
        (whole, part) => whole == part,
    }
}
