//! The smoke call: a plugin handles the example events of its own manifest before it serves. Invariant: nothing of it is
//! kept, and nothing that it asks of the host may fail for lack of other sagas' data.

use sagahost_saga::{
    event::Event,
    id::{Direction, EventKey, Kind, Participant, SagaId, Time, idempotency_key, step_id},
    outcome::{Call, End, Outcome},
};

use crate::{Fault, Manifest, http::WAITS, manifest::Subscription};

/// What each example event led to, where that is a fault. A subscription with `after` is left out: it may count on what
/// an earlier step has kept. Rejecting, asking for another attempt or for another event first is an answer like any
/// other.
pub fn faults(manifest: &Manifest, run: impl Fn(&Call) -> Result<End, String>) -> Vec<Fault> {
    let name = Participant::new(&manifest.name);
    let tried = manifest.subscriptions.iter().enumerate().filter_map(|(index, subscription)| {
        let call = call(&name, subscription)?;
        let what = fault(&subscription.kind, run(&call))?;
        let place = format!("manifest, subscriptions[{index}].example");
        Some(Fault::new(what, place, "fix the handler, the example, or the configuration that makes it fail"))
    });
    tried.collect()
}

fn fault(kind: &str, end: Result<End, String>) -> Option<String> {
    match end {
        // It came as far as a request that nobody answers here.
        Ok(End::Outcome(Outcome::Unknown { crash, .. })) if crash.code == WAITS => None,
        Ok(End::Outcome(Outcome::Unknown { crash, .. })) => {
            Some(format!("it fails on its own example of {kind}: {}: {}", crash.code, crash.detail))
        }
        Ok(End::Outcome(Outcome::Invalid(problem))) => {
            Some(format!("it answers invalid to its own example of {kind}: {}: {}", problem.code, problem.detail))
        }
        Ok(End::Outcome(_) | End::Undo(_)) => None,
        Err(error) => Some(format!("its example of {kind} could not be tried: {error}")),
    }
}

/// It is done, and nothing follows.
#[cfg(test)]
pub(crate) fn done() -> End {
    use sagahost_saga::outcome::{Completion, Progress, StateChange, Undo};
    End::Outcome(Outcome::Completed(Completion {
        emit: Vec::new(),
        state: StateChange::Keep,
        undo: Undo::NothingToUndo,
        progress: Progress::GoingOn,
        attributes: Vec::new(),
    }))
}

/// A call of nobody's.
#[cfg(test)]
pub(crate) fn example() -> Call {
    let manifest =
        br#"{"name": "p", "version": "1", "contract": "0.1.0", "subscriptions": [{"kind": "K", "example": {}}]}"#;
    let manifest = Manifest::parse(manifest).expect("it is one");
    call(&Participant::new("p"), &manifest.subscriptions[0]).expect("it has an example")
}

fn call(name: &Participant, subscription: &Subscription) -> Option<Call> {
    let example = subscription.example.as_ref().filter(|_| subscription.after.is_empty())?;
    let event = Event {
        key: EventKey::new("sagahost/smoke", "1"),
        saga: SagaId::new("smoke"),
        kind: Kind::new(&subscription.kind),
        time: Time(1_700_000_000_000),
        content_type: "application/json".into(),
        data: example.to_string().into_bytes().into(),
        attributes: Vec::new(),
        hops: 0,
        origin: None,
        record_key: None,
    };
    let step = step_id(name, &event.key);
    Some(Call {
        participant: name.clone(),
        idempotency_key: idempotency_key(&event.saga, &step, Direction::Forward, 0),
        step_id: step,
        direction: Direction::Forward,
        ordinal: 0,
        attempt: 1,
        now: event.time,
        event,
        state: None,
        undo: None,
        runs: sagahost_saga::outcome::Runs::Here,
        send: 0,
    })
}
