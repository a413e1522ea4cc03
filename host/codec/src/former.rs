//! Identities that earlier versions gave. Invariant: a record that an earlier version took in is known again, whatever
//! the rules of today make of it.

use sagahost_saga::{
    event::Event,
    id::{EventKey, SagaId},
};
use sagahost_wire::Record;

use super::{
    Codec,
    headers::{Found, Rules},
    mode::Mode,
};

/// What a record becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    pub event: Event,
    /// Boxed: hardly any record has one.
    pub formerly: Option<Box<Formerly>>,
}

/// As which event of which saga an earlier version took the same record in, if it ever came to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formerly {
    pub saga: SagaId,
    pub key: EventKey,
}

impl Codec {
    /// None: the same identity as today's, or none at all. The record is read a second time only where something in it
    /// is read differently today.
    pub(super) fn formerly(
        &self,
        record: &Record,
        found: &Found<'_>,
        mode: Mode,
        event: &Event,
    ) -> Option<Box<Formerly>> {
        // Every key was text once.
        let key = event.record_key.as_deref().filter(|_| found.saga.is_none());
        let by_key = key.is_some_and(|key| std::str::from_utf8(key).is_ok());
        if !(by_key || found.respelled || found.content_types.quoted || mode == Mode::Recognised) {
            return None;
        }
        let found = Found::read(&record.headers, &self.topics.headers, Rules::Former).ok()?;
        let (was, _) = self.event(record, &found).ok()?;
        let same = was.saga == event.saga && was.key == event.key;
        (!same).then(|| Box::new(Formerly { saga: was.saga, key: was.key }))
    }
}
