//! A request over HTTP on its way in: an event with a key that says which request it is. Invariant: one key is one request, and
//! what is answered is durable.
//!
//! The key is the event's id. Which saga it is about is a row of the store (`sagahost_journal::requests`), which the chain reads:
//! of two requests with one key one is thrown away and run again, as with any row that two chains want.

use std::sync::Arc;

use sagahost_journal::{JournalError, Name, requests};
use sagahost_saga::{
    event::Event,
    id::{Participant, SagaId},
    input::{Disposition, Refused},
};

use crate::{
    overlay::{Overlay, OverlayError},
    planted::{self, Planted},
};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its id is the key, 32 hexadecimal digits; its source says that it came so ([`Event::source_of_request`]).
    pub event: Event,
    /// The participant that is asked for a step; None: the event begins a saga.
    pub to: Option<Participant>,
    /// Who asks.
    pub principal: Arc<str>,
}

/// What became of a request. Behind each of these is a batch that is journaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    TakenIn,
    /// The same request came before.
    Known,
    /// Another request had this key.
    OtherBody,
    /// The saga exists: something else began it.
    SagaExists,
    /// The saga has ended.
    SagaOver,
    /// The saga has come to one of its bounds.
    NoRoom,
    /// Nobody here handles that kind.
    Unhandled,
}

impl Admission {
    pub(crate) fn of(disposition: &Disposition) -> Self {
        match disposition {
            Disposition::Changed => Self::TakenIn,
            Disposition::Known | Disposition::Nothing(_) => Self::Known,
            Disposition::Unhandled => Self::Unhandled,
            Disposition::Refused(Refused::OtherData) => Self::OtherBody,
            Disposition::Refused(Refused::SagaExists) => Self::SagaExists,
            Disposition::Refused(Refused::SagaOver) => Self::SagaOver,
            Disposition::Refused(Refused::NoRoom) => Self::NoRoom,
        }
    }
}

/// First byte of a row of events, before postcard's encoding.
const FORMAT: u8 = 1;

/// What a row says that a step emitted. None: it is not such a row.
pub fn emitted(row: &[u8]) -> Option<Vec<Event>> {
    let (&FORMAT, events) = row.split_first()? else { return None };
    postcard::from_bytes(events).ok()
}

/// The saga that the key was about. None: it is new.
pub(crate) fn saga_of_key(overlay: &mut Overlay, request: &str) -> Result<Option<SagaId>, JournalError> {
    let name = requests::key(request);
    let row = get(overlay, &name)?;
    if planted::on(Planted::TrustKeys) {
        overlay.reads.remove(&name);
    }
    Ok(row.map(|row| SagaId::new(String::from_utf8_lossy(&row))))
}

/// The key is about that saga from now on.
pub(crate) fn remember(overlay: &mut Overlay, request: &Request) {
    if planted::on(Planted::ForgetKeys) {
        return;
    }
    let (id, saga) = (&request.event.key.id, &request.event.saga);
    overlay.keep(requests::key(id), saga.as_str().as_bytes().into());
    overlay.keep(requests::of_saga(saga, id), request.principal.as_bytes().into());
}

/// One event more that a step emitted which the request asked for.
pub(crate) fn answer(overlay: &mut Overlay, request: &str, undoing: bool, event: Event) -> Result<(), JournalError> {
    if planted::on(Planted::ForgetAnswers) {
        return Ok(());
    }
    let name = if undoing { requests::undone(request) } else { requests::answer(request) };
    let mut all = get(overlay, &name)?.and_then(|row| emitted(&row)).unwrap_or_default();
    all.retain(|other| other.key != event.key);
    all.push(event);
    let row = postcard::to_extend(&all, vec![FORMAT]).expect("events have an encoding, and a vector takes all of it");
    overlay.keep(name, row.into());
    Ok(())
}

fn get(overlay: &mut Overlay, (owner, key): &Name) -> Result<Option<Arc<[u8]>>, JournalError> {
    match overlay.get(owner, key) {
        Ok(row) => Ok(row),
        Err(OverlayError::Journal(error)) => Err(error),
        Err(OverlayError::Guest(_) | OverlayError::Refused(_)) => unreachable!("a key is read, and nothing counted"),
    }
}
