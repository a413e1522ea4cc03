//! A request over HTTP on its way in: an event with a key that says which request it is, or a cancel. Invariant: one key is one
//! request, nobody asks about a saga of others, and what is answered is durable.
//!
//! The key is the event's id. Which saga it is about, and who asked about a saga, are rows of the store
//! (`sagahost_journal::requests`), which the chain reads: of two requests that want one row one is thrown away and run again, as
//! with any row that two chains want.

use std::sync::Arc;

use sagahost_journal::{JournalError, Name, PageBounds, requests};
use sagahost_saga::{
    Saga,
    event::Event,
    id::{Participant, SagaId},
    input::{Answer, Disposition, Refused},
};

use crate::{
    overlay::{Overlay, OverlayError},
    planted::{self, Planted},
};

/// What is asked for, and by whom.
#[derive(Clone, Debug)]
pub struct Request {
    pub asks: Asks,
    pub by: Asker,
}

/// An event's id is the key, 32 hexadecimal digits; its source says that it came so ([`Event::source_of_request`]).
#[derive(Clone, Debug)]
pub enum Asks {
    /// That the event begins a saga.
    Begin(Event),
    /// One participant for a step.
    Step { event: Event, of: Participant },
    /// That a saga is undone.
    Cancel { saga: SagaId, reason: String },
}

/// Who asks. Whoever does not see all sagas may ask only about those that their requests were about before, and about those
/// that are nobody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Empty: nobody has to say who they are.
    pub name: Arc<str>,
    pub sees_all: bool,
}

impl Asks {
    pub fn saga(&self) -> &SagaId {
        match self {
            Self::Begin(event) | Self::Step { event, .. } => &event.saga,
            Self::Cancel { saga, .. } => saga,
        }
    }

    pub(crate) fn event(&self) -> Option<&Event> {
        match self {
            Self::Begin(event) | Self::Step { event, .. } => Some(event),
            Self::Cancel { .. } => None,
        }
    }
}

/// What became of a request. Whatever it says is journaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    TakenIn,
    /// The same request came before; or the saga is called off already.
    Known,
    /// Another request had this key.
    OtherBody,
    /// The saga exists: something else began it.
    SagaExists,
    /// The saga has ended, or is called off.
    SagaOver,
    /// Whoever is asked takes such an event only in a saga that compensates.
    NotCompensating,
    /// The saga has come to one of its bounds.
    NoRoom,
    /// The saga is others'.
    Foreign,
    /// Nothing of the saga is undone any more, and why.
    TooLate(String),
    /// Nobody here handles that kind.
    Unhandled,
}

impl Admission {
    pub(crate) fn of(disposition: &Disposition, answer: Option<&Answer>) -> Self {
        match (disposition, answer) {
            (_, Some(Answer { done: false, text })) => Self::TooLate(text.clone()),
            (Disposition::Changed, _) => Self::TakenIn,
            (Disposition::Known | Disposition::Nothing(_), _) => Self::Known,
            (Disposition::Unhandled, _) => Self::Unhandled,
            (Disposition::Refused(Refused::OtherData), _) => Self::OtherBody,
            (Disposition::Refused(Refused::SagaExists), _) => Self::SagaExists,
            (Disposition::Refused(Refused::SagaOver), _) => Self::SagaOver,
            (Disposition::Refused(Refused::NotCompensating), _) => Self::NotCompensating,
            (Disposition::Refused(Refused::NoRoom), _) => Self::NoRoom,
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

/// Why a request is refused, whatever the saga would say to it.
pub(crate) fn refused(
    overlay: &mut Overlay,
    saga: &Saga,
    Request { asks, by }: &Request,
) -> Result<Option<Admission>, JournalError> {
    let known = match asks.event() {
        Some(event) => saga_of_key(overlay, &event.key.id)?,
        None => None,
    };
    match known {
        Some(known) if known != *saga.id() => Ok(Some(Admission::OtherBody)),
        Some(_) => Ok(None),
        None => Ok((!may_ask(overlay, saga, asks, by)?).then_some(Admission::Foreign)),
    }
}

/// A saga that no principal has asked for is nobody's: events may have been faster than the request that begins it, and a
/// cancel, than all else.
fn may_ask(overlay: &mut Overlay, saga: &Saga, asks: &Asks, by: &Asker) -> Result<bool, JournalError> {
    if saga.version() == 0 || by.sees_all || get(overlay, &requests::of_principal(saga.id(), &by.name))?.is_some() {
        return Ok(true);
    }
    let begins = matches!(asks, Asks::Begin(_));
    if !begins && saga.steps().next().is_some() {
        return Ok(false);
    }
    const ONE: PageBounds = PageBounds { entries: 1, bytes: 1 << 10 };
    let (owner, prefix) = (requests::owner(), requests::principals_prefix(saga.id()));
    Ok(of_journal(overlay.scan(&owner, &prefix, None, ONE, usize::MAX))?.is_empty())
}

/// The saga that the key was about. None: it is new.
fn saga_of_key(overlay: &mut Overlay, request: &str) -> Result<Option<SagaId>, JournalError> {
    let name = requests::key(request);
    let row = get(overlay, &name)?;
    if planted::on(Planted::TrustKeys) {
        overlay.reads.remove(&name);
    }
    Ok(row.map(|row| SagaId::new(String::from_utf8_lossy(&row))))
}

/// Its key is about that saga from now on, and whoever asks may know of it.
pub(crate) fn remember(overlay: &mut Overlay, Request { asks, by }: &Request) {
    let saga = asks.saga();
    if !by.name.is_empty() {
        overlay.keep(requests::of_principal(saga, &by.name), Arc::from([]));
    }
    if let Some(event) = asks.event().filter(|_| !planted::on(Planted::ForgetKeys)) {
        overlay.keep(requests::key(&event.key.id), saga.as_str().as_bytes().into());
        overlay.keep(requests::of_saga(saga, &event.key.id), by.name.as_bytes().into());
    }
}

/// What a step emitted which the request asked for, beside what it did before.
pub(crate) fn answer(
    overlay: &mut Overlay,
    request: &str,
    undoing: bool,
    events: Vec<Event>,
) -> Result<(), JournalError> {
    if planted::on(Planted::ForgetAnswers) {
        return Ok(());
    }
    let name = if undoing { requests::undone(request) } else { requests::answer(request) };
    let mut all = get(overlay, &name)?.and_then(|row| emitted(&row)).unwrap_or_default();
    all.retain(|other| events.iter().all(|event| event.key != other.key));
    all.extend(events);
    let row = postcard::to_extend(&all, vec![FORMAT]).expect("events have an encoding, and a vector takes all of it");
    overlay.keep(name, row.into());
    Ok(())
}

fn get(overlay: &mut Overlay, (owner, key): &Name) -> Result<Option<Arc<[u8]>>, JournalError> {
    of_journal(overlay.get(owner, key))
}

fn of_journal<T>(read: Result<T, OverlayError>) -> Result<T, JournalError> {
    read.map_err(|error| match error {
        OverlayError::Journal(error) => error,
        OverlayError::Guest(_) | OverlayError::Refused(_) => unreachable!("it is read, and nothing counted"),
    })
}
