//! Between the core's types and the SDK's contract types, for native code. Invariant: the same fields as at the
//! component boundary, no more and no less; nothing is judged here.

use std::time::Duration;

use sagahost_manifest::{Limits, http};
use sagahost_saga::{
    event::Event,
    id,
    outcome::{
        Call, Completion, Delay, Emission, Evidence, Outcome, Problem, Progress, Rejection, Saved, StateChange, Undo,
        UndoCall, UndoOutcome, Undone,
    },
};
use sagahost_sdk::{contract, http as sdk};

pub(crate) fn event(event: &Event) -> contract::Event {
    contract::Event {
        id: event.key.id.to_string(),
        saga_id: event.saga.to_string(),
        kind: event.kind.to_string(),
        source: event.key.source.to_string(),
        time_ms: event.time.0,
        content_type: event.content_type.to_string(),
        data: event.data.to_vec(),
        attributes: event.attributes.clone(),
    }
}

pub(crate) fn context(call: &Call, limits: &Limits) -> contract::Attempt {
    contract::Attempt {
        step_id: call.step_id.clone(),
        attempt: call.attempt,
        idempotency_key: call.idempotency_key.clone(),
        now_ms: call.now.0,
        budget_ms: limits.budget_ms,
        seed: id::seed(&call.idempotency_key).to_vec(),
        state: call.state.as_ref().map(saved),
    }
}

pub(crate) fn step(call: &Call, undo: &UndoCall) -> contract::Step {
    let cause = &undo.cause;
    contract::Step {
        event: event(&call.event),
        evidence: match &undo.evidence {
            Evidence::Done(undo) => contract::Evidence::Done(saved(undo)),
            Evidence::Uncertain => contract::Evidence::Uncertain,
            Evidence::NeverRan => contract::Evidence::NeverRan,
        },
        cause: contract::Cause {
            code: cause.code.clone(),
            detail: cause.detail.clone(),
            participant: cause.participant.as_ref().map(ToString::to_string),
            event_kind: cause.event_kind.as_ref().map(ToString::to_string),
        },
        plugin_version: undo.plugin_version.to_string(),
    }
}

fn saved(saved: &Saved) -> contract::Saved {
    contract::Saved { data: saved.data.to_vec(), format: saved.format }
}

/// `format`: in which the plugin writes state and undo data.
pub(crate) fn outcome(answer: contract::Outcome, format: u32) -> Outcome {
    match answer {
        contract::Outcome::Completed(completion) => Outcome::Completed(Completion {
            emit: emissions(completion.emit),
            state: state(completion.state, format),
            undo: match completion.undo {
                contract::Undo::NothingToUndo => Undo::NothingToUndo,
                contract::Undo::Data(data) => Undo::Data(written(data, format)),
            },
            progress: match completion.progress {
                contract::Progress::GoingOn => Progress::GoingOn,
                contract::Progress::Finished(result) => Progress::Finished(result.into()),
            },
            attributes: completion.attributes,
        }),
        contract::Outcome::Rejected(rejection) => Outcome::Rejected(Rejection {
            problem: problem(rejection.problem),
            emit: emissions(rejection.emit),
            attributes: rejection.attributes,
        }),
        contract::Outcome::Retry(wanted) => Outcome::Retry(delay(wanted)),
        contract::Outcome::NotYet(early) => Outcome::NotYet(problem(early)),
        contract::Outcome::Invalid(invalid) => Outcome::Invalid(problem(invalid)),
    }
}

/// The same for `compensate`.
pub(crate) fn undo_outcome(answer: contract::UndoOutcome, format: u32) -> UndoOutcome {
    match answer {
        contract::UndoOutcome::Undone(undone) => UndoOutcome::Undone(Undone {
            emit: emissions(undone.emit),
            state: state(undone.state, format),
            attributes: undone.attributes,
        }),
        contract::UndoOutcome::NothingToUndo => UndoOutcome::NothingToUndo,
        contract::UndoOutcome::Retry(wanted) => UndoOutcome::Retry(delay(wanted)),
        contract::UndoOutcome::Stuck(stuck) => UndoOutcome::Stuck(problem(stuck)),
    }
}

fn problem(problem: contract::Problem) -> Problem {
    Problem::new(problem.code, problem.detail)
}

fn delay(delay: contract::Delay) -> Delay {
    let after = delay.after_ms.map(|ms| Duration::from_millis(u64::from(ms)));
    Delay { problem: problem(delay.problem), after }
}

fn emissions(emit: Vec<contract::Emission>) -> Vec<Emission> {
    emit.into_iter()
        .map(|emission| Emission {
            kind: emission.kind.into(),
            data: emission.data.into(),
            content_type: emission.content_type,
            saga: emission.saga_id.map(Into::into),
            after: emission.after_seconds.map(|seconds| Duration::from_secs(u64::from(seconds))),
            attributes: emission.attributes,
        })
        .collect()
}

fn state(change: contract::StateChange, format: u32) -> StateChange {
    match change {
        contract::StateChange::Keep => StateChange::Keep,
        contract::StateChange::Delete => StateChange::Delete,
        contract::StateChange::Put(data) => StateChange::Put(written(data, format)),
    }
}

fn written(data: Vec<u8>, format: u32) -> Saved {
    Saved { data: data.into(), format }
}

/// A request, on its way out.
pub(crate) fn asked(sdk::Request { method, url, headers, body, timeout_ms }: sdk::Request) -> http::Request {
    http::Request { method, url, headers, body, timeout_ms }
}

/// And its response, on its way in.
pub(crate) fn response(http::Response { status, headers, body }: http::Response) -> sdk::Response {
    sdk::Response { status, headers, body }
}

/// What a step asked for.
pub(crate) fn made(http::Made { key, request, response }: http::Made) -> sdk::Made {
    let http::Request { method, url, headers, body, timeout_ms } = request;
    let request = sdk::Request { method, url, headers, body, timeout_ms };
    sdk::Made { key, request, response: response.map(self::response) }
}
