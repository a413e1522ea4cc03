//! An input and all that it causes in its saga: the one loop for the host, the testkit's simulated app and the tests of
//! the core. Invariant: effects happen in the order in which the saga asks for them, and calls behind the effects of
//! everything before them: breadth first.

use std::collections::VecDeque;

use crate::event::Event;
use crate::id::EventKey;
use crate::input::{Effect, Input, Letter, Publish, Transition};
use crate::outcome::Call;

/// Where a saga is driven: what decides, runs, and keeps what comes of it.
pub trait Drive {
    /// The rest of the chain makes no sense any more.
    type Error;

    /// The saga decides: [`Saga::on`](crate::Saga::on).
    ///
    /// # Errors
    /// An assertion of the core failed.
    fn decide(&mut self, input: Input) -> Result<Transition, Self::Error>;

    /// Runs an attempt. None: its end comes later, as an input of its own.
    ///
    /// # Errors
    /// The host could not do its job; a plugin's failure is an end.
    fn call(&mut self, call: Call) -> Result<Option<Input>, Self::Error>;

    /// The attempt that ran last is decided: what it wrote counts, or vanishes.
    fn called(&mut self, keep_writes: bool);

    /// Some: the event is taken in at once, by this chain.
    ///
    /// # Errors
    /// What is known of the event cannot be read.
    fn publish(&mut self, publish: Publish) -> Result<Option<Input>, Self::Error>;

    /// What a step emits that a request asked for.
    fn answer(&mut self, request: &EventKey, undoing: bool, event: Event);

    fn open_letter(&mut self, letter: Letter);

    /// Its saga has no room for it, and does not change.
    fn keep_aside(&mut self, letter: Letter);

    fn close_letter(&mut self, key: String, how: String);

    /// Rows of their own for what no longer fits into the record.
    fn spill(&mut self, events: Vec<([u8; 16], [u8; 16])>, history: Vec<crate::history::Entry>);
}

/// What is still to do.
enum Work {
    Input(Input),
    Call(Call),
}

/// Input by input, call by call, until nothing is left to do.
///
/// # Errors
/// Those of `place`; what has happened by then is to be thrown away.
pub fn drive<D: Drive>(place: &mut D, first: Input) -> Result<(), D::Error> {
    let mut work = VecDeque::from([Work::Input(first)]);
    while let Some(next) = work.pop_front() {
        let transition = match next {
            Work::Input(input) => place.decide(input)?,
            Work::Call(call) => {
                let Some(end) = place.call(call)? else { continue };
                let transition = place.decide(end)?;
                place.called(transition.keep_writes);
                transition
            }
        };
        for effect in transition.effects {
            match effect {
                Effect::Call(call) => work.push_back(Work::Call(call)),
                Effect::Publish(publish) => work.extend(place.publish(publish)?.map(Work::Input)),
                Effect::Answer { request, undoing, event } => place.answer(&request, undoing, event),
                Effect::OpenLetter(letter) => place.open_letter(letter),
                Effect::KeepAside(letter) => place.keep_aside(letter),
                Effect::CloseLetter { key, how } => place.close_letter(key, how),
                Effect::Spill { events, history } => place.spill(events, history),
            }
        }
    }
    Ok(())
}
