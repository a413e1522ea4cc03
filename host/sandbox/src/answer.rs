//! From what a guest returned to the core's outcome. Invariant: nothing is judged here: what an answer must keep to is
//! said by `sagahost_manifest::answer`, for native code too.

use std::time::Duration;

use sagahost_saga::outcome::{
    Completion, Delay, Emission, Outcome, Problem, Progress, Rejection, Saved, StateChange, Undo, UndoOutcome, Undone,
};

use crate::bindings::wit;

/// `format`: in which the plugin writes state and undo data.
pub(crate) fn outcome(answer: wit::Outcome, format: u32) -> Outcome {
    match answer {
        wit::Outcome::Completed(completion) => Outcome::Completed(Completion {
            emit: emissions(completion.emit),
            state: state(completion.state, format),
            undo: match completion.undo {
                wit::Undo::NothingToUndo => Undo::NothingToUndo,
                wit::Undo::Data(data) => Undo::Data(saved(data, format)),
            },
            progress: match completion.progress {
                wit::Progress::GoingOn => Progress::GoingOn,
                wit::Progress::Finished(result) => Progress::Finished(result.into()),
            },
            attributes: completion.attributes,
        }),
        wit::Outcome::Rejected(rejection) => Outcome::Rejected(Rejection {
            problem: rejection.problem.into(),
            emit: emissions(rejection.emit),
            attributes: rejection.attributes,
        }),
        wit::Outcome::Retry(delay) => Outcome::Retry(delay.into()),
        wit::Outcome::NotYet(problem) => Outcome::NotYet(problem.into()),
        wit::Outcome::Invalid(problem) => Outcome::Invalid(problem.into()),
    }
}

/// The same for `compensate`.
pub(crate) fn undo_outcome(answer: wit::UndoOutcome, format: u32) -> UndoOutcome {
    match answer {
        wit::UndoOutcome::Undone(undone) => UndoOutcome::Undone(Undone {
            emit: emissions(undone.emit),
            state: state(undone.state, format),
            attributes: undone.attributes,
        }),
        wit::UndoOutcome::NothingToUndo => UndoOutcome::NothingToUndo,
        wit::UndoOutcome::Retry(delay) => UndoOutcome::Retry(delay.into()),
        wit::UndoOutcome::Stuck(problem) => UndoOutcome::Stuck(problem.into()),
    }
}

impl From<wit::Problem> for Problem {
    fn from(problem: wit::Problem) -> Self {
        Self::new(problem.code, problem.detail)
    }
}

impl From<wit::Delay> for Delay {
    fn from(delay: wit::Delay) -> Self {
        let after = delay.after_ms.map(|ms| Duration::from_millis(u64::from(ms)));
        Self { problem: delay.problem.into(), after }
    }
}

fn emissions(emit: Vec<wit::Emission>) -> Vec<Emission> {
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

fn state(change: wit::StateChange, format: u32) -> StateChange {
    match change {
        wit::StateChange::Keep => StateChange::Keep,
        wit::StateChange::Delete => StateChange::Delete,
        wit::StateChange::Put(data) => StateChange::Put(saved(data, format)),
    }
}

fn saved(data: Vec<u8>, format: u32) -> Saved {
    Saved { data: data.into(), format }
}
