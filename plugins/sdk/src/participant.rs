//! From the host's call to the typed handler and back. Invariant: whatever the event holds, the answer is an outcome;
//! only a bug in a handler traps.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Config, Context, Event, Handled,
    contract::{self, Evidence, Outcome, Problem, UndoOutcome},
    event,
    outcome::{Compensated, Fail, NoUndo, NotUndone, Step},
};

/// A participant, as a host drives it. `#[participant]` on an `impl` block implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a participant",
    note = "put `#[participant]` on an `impl {Self}` block that holds its handlers"
)]
pub trait Participant {
    /// The manifest, JSON.
    const MANIFEST: &'static str;
    /// Handles `ctx.event()`. The error is an uncaught one, treated like a trap.
    fn handle_event(ctx: &Context) -> Result<Outcome, String>;
    /// Undoes the step.
    fn compensate(step: contract::Step, ctx: &Context) -> Result<UndoOutcome, String>;
}

pub type Handler<P, E, U> = fn(&P, &Context, E) -> Handled<U>;
pub type Undoer<P, E, U> = fn(&P, &Context, Step<E, U>) -> Compensated;

/// A subscription with an `#[undo]` function: the two agree on the undo data.
pub fn handle<P: Config, E: Event, U: Serialize>(
    ctx: &Context,
    handler: Handler<P, E, U>,
    _: Undoer<P, E, U>,
) -> Result<Outcome, String> {
    run(ctx, handler)
}

/// A subscription without one.
pub fn handle_without_undo<P: Config, E: Event>(
    ctx: &Context,
    handler: Handler<P, E, NoUndo>,
) -> Result<Outcome, String> {
    run(ctx, handler)
}

fn run<P: Config, E: Event, U: Serialize>(ctx: &Context, handler: Handler<P, E, U>) -> Result<Outcome, String> {
    let participant = P::read(ctx.host())?;
    let event = match decode::<E>(ctx.event()) {
        Ok(event) => event,
        Err(problem) => return Ok(Outcome::Invalid(problem)),
    };
    match handler(&participant, ctx, event) {
        Ok(done) => Ok(Outcome::Completed(done.into())),
        Err(fail) => fail.into(),
    }
}

/// A step whose handler has an `#[undo]` function.
pub fn compensate<P: Config, E: Event, U: DeserializeOwned>(
    step: contract::Step,
    ctx: &Context,
    undoer: Undoer<P, E, U>,
) -> Result<UndoOutcome, String> {
    let participant = P::read(ctx.host())?;
    let never_ran = step.evidence == Evidence::NeverRan;
    let step = match typed(step) {
        Ok(step) => step,
        // An event that nobody can read was answered `invalid`: nothing came of it, and nobody need be called for it.
        Err(_) if never_ran => return Ok(UndoOutcome::NothingToUndo),
        Err(problem) => return Ok(UndoOutcome::Stuck(problem)),
    };
    match undoer(&participant, ctx, step) {
        Ok(undone) => Ok(UndoOutcome::Undone(undone)),
        Err(not_undone) => not_undone.into(),
    }
}

fn typed<E: Event, U: DeserializeOwned>(step: contract::Step) -> Result<Step<E, U>, Problem> {
    let evidence = match step.evidence {
        Evidence::Done(saved) => Evidence::Done(event::decode(&saved.data).map_err(|error| {
            Problem::new("UNREADABLE_UNDO", format!("failed to read undo data of format {}: {error}", saved.format))
        })?),
        Evidence::Uncertain => Evidence::Uncertain,
        Evidence::NeverRan => Evidence::NeverRan,
    };
    let event = decode(&step.event)?;
    Ok(Step { event, evidence, cause: step.cause, plugin_version: step.plugin_version })
}

fn decode<E: Event>(event: &contract::Event) -> Result<E, Problem> {
    if !event::is_json(&event.content_type) {
        return Err(Problem::new("CONTENT_TYPE", format!("{} must be JSON, not {}", E::KIND, event.content_type)));
    }
    event::decode(&event.data)
        .map_err(|error| Problem::new("MALFORMED", format!("failed to read {}: {error}", E::KIND)))
}

/// An event of a kind that no handler is marked with: its host has another manifest.
pub fn unknown_kind(ctx: &Context, known: &[&str]) -> Result<Outcome, String> {
    let detail = format!("no handler for {}; there are handlers for {}", ctx.event().kind, known.join(", "));
    Fail::invalid("UNKNOWN_KIND", detail).into()
}

/// A step whose handler has no `#[undo]` function.
pub fn no_undo() -> Result<UndoOutcome, String> {
    NotUndone::NothingToUndo.into()
}

/// The event that a handler takes is the one that it is marked with.
#[diagnostic::on_unimplemented(
    message = "this function is marked with `{Marked}`, but takes `{Self}`",
    label = "this must be `{Marked}`",
    note = "the type in `#[on(…)]` and `#[undo(…)]` is the one that the function gets"
)]
pub trait Takes<Marked> {}
impl<E> Takes<E> for E {}

/// See [`Takes`].
pub fn takes<Taken: Takes<Marked>, Marked>() {}

/// The undo data that a handler hands over is what its `#[undo]` function gets.
#[diagnostic::on_unimplemented(
    message = "the handler hands over `{Written}`, but this `#[undo]` function expects `{Self}`",
    label = "the handler says `{Written}`",
    note = "the type in `Handled<…>` of `#[on]` is the second one in `Step<…, …>` of `#[undo]`"
)]
pub trait Undoes<Written> {}
impl<U> Undoes<U> for U {}

/// See [`Undoes`].
pub fn undoes<Read: Undoes<Written>, Written>() {}

/// What a handler answers.
#[diagnostic::on_unimplemented(
    message = "a handler answers `Handled<UndoData>`, not `{Self}`",
    label = "this must be `Handled<UndoData>`, or `Handled` where there is nothing to undo",
    note = "errors of your own become an answer where you say how: `impl From<MyError> for Fail`"
)]
pub trait Answer {}
impl<U> Answer for Handled<U> {}

/// See [`Answer`].
pub fn answers<A: Answer>() {}

/// What an undo function answers.
#[diagnostic::on_unimplemented(
    message = "an `#[undo]` function answers `Compensated`, not `{Self}`",
    label = "this must be `Compensated`",
    note = "`Ok(Undone::new())` says that it is undone; `NotUndone` says why it is not"
)]
pub trait UndoAnswer {}
impl UndoAnswer for Compensated {}

/// See [`UndoAnswer`].
pub fn answers_undo<A: UndoAnswer>() {}

/// Can it be a participant's name?
pub const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > 64 || !bytes[0].is_ascii_lowercase() || bytes[bytes.len() - 1] == b'-' {
        return false;
    }
    let mut at = 0;
    while at < bytes.len() {
        if !(bytes[at].is_ascii_lowercase() || bytes[at].is_ascii_digit() || bytes[at] == b'-') {
            return false;
        }
        at += 1;
    }
    true
}

/// May a literal of type `is` be the default of a configuration key of type `of`?
pub const fn default_fits(of: &str, is: &str) -> bool {
    let (of, is) = (of.as_bytes(), is.as_bytes());
    // The first letters differ: string, integer, float, boolean, json.
    of[0] == b'j' || of[0] == is[0] || (of[0] == b'f' && is[0] == b'i')
}

/// Joins strings at compile time: the manifest is put together from constants of several types.
#[doc(hidden)]
pub const fn length(parts: &[&str]) -> usize {
    let (mut length, mut part) = (0, 0);
    while part < parts.len() {
        length += parts[part].len();
        part += 1;
    }
    length
}

/// See [`length`].
#[doc(hidden)]
pub const fn join<const N: usize>(parts: &[&str]) -> [u8; N] {
    let mut joined = [0; N];
    let (mut at, mut part) = (0, 0);
    while part < parts.len() {
        let bytes = parts[part].as_bytes();
        let mut byte = 0;
        while byte < bytes.len() {
            joined[at] = bytes[byte];
            at += 1;
            byte += 1;
        }
        part += 1;
    }
    joined
}

/// See [`length`].
#[doc(hidden)]
pub const fn text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("parts of UTF-8 make UTF-8"),
    }
}

/// The bytes of a manifest, for its custom section.
#[doc(hidden)]
pub const fn bytes<const N: usize>(text: &str) -> [u8; N] {
    join(&[text])
}

#[doc(hidden)]
#[macro_export]
macro_rules! __join {
    ($($part:expr),* $(,)?) => {{
        const PARTS: &[&str] = &[$($part),*];
        const LENGTH: usize = $crate::__private::length(PARTS);
        const JOINED: &[u8; LENGTH] = &$crate::__private::join(PARTS);
        $crate::__private::text(JOINED)
    }};
}

/// The example of an event, as the manifest has it.
#[doc(hidden)]
pub const fn example<E: Event>() -> &'static str {
    match E::EXAMPLE {
        Some(json) => json,
        None => "null",
    }
}
