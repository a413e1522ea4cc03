//! What the store keeps of requests over HTTP, those that come and those that plugins make: rows of a participant that no plugin can be. Invariant: all rows of a request
//! are found by its saga, and go with it.
//!
//! | row | value |
//! |---|---|
//! | `key/REQUEST` | the saga that the request is about |
//! | `saga/SAGA/REQUEST` | who asked |
//! | `saga/SAGA/by/PRINCIPAL` | nothing: the principal asked for something, or cancelled it |
//! | `saga/SAGA/send/STEP/DIRECTION/ORDINAL/PLACE` | a request of a plugin's, and what came back |
//! | `answer/REQUEST`, `undone/REQUEST` | what the step emitted that it asked for, and what its undoing did |
//!
//! REQUEST is the event id that the request has, lower-case hexadecimal. In SAGA `%` and `/` are percent-encoded.

use sagahost_saga::id::{Direction, Participant, SagaId};

use crate::Name;

/// Upper case and signs are in no plugin's name.
const OWNER: &str = "$HTTP";

/// Whose rows they are.
pub fn owner() -> Participant {
    Participant::new(OWNER)
}

pub fn is_owner(participant: &Participant) -> bool {
    participant.as_str() == OWNER
}

fn row(key: String) -> Name {
    (owner(), key)
}

/// Which saga a request is about.
pub fn key(request: &str) -> Name {
    row(format!("key/{request}"))
}

/// Who asked.
pub fn of_saga(saga: &SagaId, request: &str) -> Name {
    row(format!("{}{request}", saga_prefix(saga)))
}

/// That the principal may know of the saga.
pub fn of_principal(saga: &SagaId, principal: &str) -> Name {
    row(format!("{}{principal}", principals_prefix(saga)))
}

/// What the keys of [`of_principal`] begin with.
pub fn principals_prefix(saga: &SagaId) -> String {
    format!("{}by/", saga_prefix(saga))
}

/// What the keys of [`of_saga`] and [`of_principal`] begin with.
pub fn saga_prefix(saga: &SagaId) -> String {
    format!("saga/{}/", escaped(saga.as_str()))
}

fn escaped(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

/// One request of a plugin's, by its place in the order of those that the step makes.
pub fn of_send(saga: &SagaId, step: &str, direction: Direction, ordinal: u32, place: usize) -> Name {
    let direction = match direction {
        Direction::Forward => "forward",
        Direction::Undo => "undo",
    };
    row(format!("{}send/{}/{direction}/{ordinal}/{place}", saga_prefix(saga), escaped(step)))
}

/// What the step emitted that the request asked for.
pub fn answer(request: &str) -> Name {
    row(format!("answer/{request}"))
}

/// What the undoing of that step emitted.
pub fn undone(request: &str) -> Name {
    row(format!("undone/{request}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_saga_has_the_rows_of_another() {
        let ids = ["a", "a/b", "a%2Fb", "a/", "%", "a%25"];
        for one in ids {
            for other in ids.into_iter().filter(|other| *other != one) {
                let (_, key) = of_saga(&SagaId::new(other), "00");
                assert!(!key.starts_with(&saga_prefix(&SagaId::new(one))), "{one} has {key}");
            }
        }
    }
}
