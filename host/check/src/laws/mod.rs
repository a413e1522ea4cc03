//! One law, one case, one verdict. Invariant: a verdict depends on plugin, configuration and case alone, so that a case
//! repeats it.

mod bounds;
mod calls;
mod determinism;
mod growth;
mod order;
mod undoing;

use sagahost_manifest::{Law, manifest::Subscription};
use sagahost_saga::{
    event::Event,
    outcome::{Completion, Crash, Outcome, UndoOutcome},
    topology::Role,
};
use sagahost_sandbox::HostError;

use crate::{
    bench::{Bench, World},
    case::{Case, Input},
    difference::{self, shown},
};

/// What a case says about a law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    /// What happened, as a sentence.
    Broken(String),
    /// The case cannot show it, and why.
    Void(String),
}

type Judged = Result<Verdict, HostError>;

/// Does the plugin keep this law in this case? (Admission has no case: there is a plugin.)
pub fn judge(law: Law, bench: &Bench<'_>, case: &Case) -> Judged {
    match law {
        Law::Admission => Ok(Verdict::Holds),
        Law::Determinism => determinism::judge(bench, case),
        Law::Malformed => bounds::malformed(bench, case),
        Law::Bounds => bounds::bounds(bench, case),
        Law::Growth => growth::judge(bench, case),
        Law::Undoes => undoing::undoes(bench, case),
        Law::RestoresState => undoing::restores(difference::states, bench, case),
        Law::RestoresStore => undoing::restores(difference::store, bench, case),
        Law::RestoresCounters => undoing::restores(difference::counters, bench, case),
        Law::UndoTwice => undoing::twice(bench, case),
        Law::NeverRan => undoing::never_ran(bench, case),
        Law::Uncertain => undoing::uncertain(bench, case),
        Law::Order => order::judge(bench, case),
        Law::Calls => calls::judge(bench, case),
    }
}

/// Has the law anything to say about steps of this subscription?
pub fn applies(law: Law, subscription: &Subscription) -> bool {
    match law {
        Law::Undoes | Law::UndoTwice | Law::NeverRan | Law::Uncertain => subscription.role == Role::Compensable,
        // What stands at the point of no return or behind it is never undone.
        Law::RestoresState | Law::RestoresStore | Law::RestoresCounters => {
            matches!(subscription.role, Role::Compensable | Role::NothingToUndo)
        }
        Law::Admission | Law::Determinism | Law::Malformed | Law::Bounds | Law::Growth | Law::Order | Law::Calls => {
            true
        }
    }
}

/// Was it stopped for using too much? Another attempt would be, too.
pub fn is_limit(crash: &Crash) -> bool {
    matches!(
        crash.code.as_str(),
        "deadline" | "memory" | "stack" | "payload-limit" | "log-limit" | "store-limit" | "sends-limit" | "call-limit"
    )
}

/// The subject of a case, behind its history.
struct Scene {
    world: World,
    event: Event,
}

/// Plays everything but the last event.
fn scene(bench: &Bench<'_>, case: &Case) -> Result<Scene, HostError> {
    let mut world = World::default();
    let (subject, history) = case.0.split_last().expect("a case has an event");
    for (index, input) in history.iter().enumerate() {
        bench.handle(&mut world, &bench.event(input, index))?;
    }
    Ok(Scene { world, event: bench.event(subject, history.len()) })
}

/// A step that is done, and the worlds before and behind it.
struct Step {
    before: World,
    after: World,
    event: Event,
    completion: Completion,
}

/// Handles the subject; `Err`: it is not done, in words.
fn step(bench: &Bench<'_>, case: &Case) -> Result<Result<Step, String>, HostError> {
    let Scene { world: before, event } = scene(bench, case)?;
    let mut after = before.clone();
    let outcome = bench.handle(&mut after, &event)?;
    Ok(match outcome {
        Outcome::Completed(completion) => Ok(Step { before, after, event, completion }),
        other => Err(format!("{} {}", event.kind, answered(&other))),
    })
}

/// `is rejected (SOLD_OUT: there are not enough left)`
fn answered(outcome: &Outcome) -> String {
    let told = |code: &str, detail: &str| format!("({code}: {})", shown(detail));
    match outcome {
        Outcome::Completed(_) => "is done".to_owned(),
        Outcome::Rejected(rejection) => {
            format!("is rejected {}", told(&rejection.problem.code, &rejection.problem.detail))
        }
        Outcome::Retry(delay) => format!("is retried {}", told(&delay.problem.code, &delay.problem.detail)),
        Outcome::NotYet(problem) => format!("is early {}", told(&problem.code, &problem.detail)),
        Outcome::Invalid(problem) => format!("is invalid {}", told(&problem.code, &problem.detail)),
        Outcome::Unknown { crash, .. } => format!("ends without an answer {}", told(&crash.code, &crash.detail)),
        Outcome::Unreadable { formats } => format!("leaves data of formats {formats:?}, which `reads` does not name"),
        Outcome::Unsent(problem) => format!("is unsent {}", told(&problem.code, &problem.detail)),
    }
}

/// `answers stuck (TOO_LATE: the show has begun)`
fn undo_answered(outcome: &UndoOutcome) -> String {
    let told = |code: &str, detail: &str| format!("({code}: {})", shown(detail));
    match outcome {
        UndoOutcome::Undone(_) => "answers undone".to_owned(),
        UndoOutcome::NothingToUndo => "answers nothing to undo".to_owned(),
        UndoOutcome::Retry(delay) => format!("answers retry {}", told(&delay.problem.code, &delay.problem.detail)),
        UndoOutcome::Stuck(problem) => format!("answers stuck {}", told(&problem.code, &problem.detail)),
        UndoOutcome::Unknown { crash } => format!("ends without an answer {}", told(&crash.code, &crash.detail)),
        UndoOutcome::Unsent(problem) => format!("is unsent {}", told(&problem.code, &problem.detail)),
        UndoOutcome::Unreadable { formats } => {
            format!("meets data of formats {formats:?}, which `reads` does not name")
        }
    }
}

fn subject(case: &Case) -> &Input {
    case.subject().expect("a case has an event")
}
