//! Calls that trap, and calls that use too much: two laws over the same calls. Invariant: a limit is never a trap's
//! fault and the other way round, so each crash breaks exactly one law.

use sagahost_saga::outcome::{Crash, Evidence, Outcome, UndoOutcome};
use sagahost_sandbox::HostError;

use super::{Judged, Scene, Verdict, is_limit, scene, undo_answered, undoing::compensable};
use crate::{
    bench::{Bench, evidence},
    case::Case,
    difference::shown,
};

/// No call ends without an answer, and an event that is invalid needs no operator. (Undoing what is done is another
/// law's.)
pub(super) fn malformed(bench: &Bench<'_>, case: &Case) -> Judged {
    let seen = seen(bench, case)?;
    if let Some((what, crash)) = seen.crashes.iter().find(|(what, crash)| *what != UNDOING && !is_limit(crash)) {
        return Ok(Verdict::Broken(told(what, crash)));
    }
    Ok(match (&seen.outcome, seen.never_ran) {
        (Outcome::Invalid(_), Some(answer)) if matches!(answer, UndoOutcome::Stuck(_) | UndoOutcome::Retry(_)) => {
            let said = undo_answered(&answer);
            Verdict::Broken(format!("it is invalid; its saga is undone, and the undo function {said}"))
        }
        _ => Verdict::Holds,
    })
}

/// No call is stopped for using too much.
pub(super) fn bounds(bench: &Bench<'_>, case: &Case) -> Judged {
    let first = limited(bench, case)?;
    Ok(match first {
        None => Verdict::Holds,
        // A busy machine is not a fault of the plugin's: a time that is too long is measured again.
        Some((_, crash)) if crash.code == "deadline" => {
            limited(bench, case)?.map_or(Verdict::Holds, |(what, crash)| Verdict::Broken(told(what, &crash)))
        }
        Some((what, crash)) => Verdict::Broken(told(what, &crash)),
    })
}

fn limited(bench: &Bench<'_>, case: &Case) -> Result<Option<(&'static str, Crash)>, HostError> {
    Ok(seen(bench, case)?.crashes.into_iter().find(|(_, crash)| is_limit(crash)))
}

fn told(what: &str, crash: &Crash) -> String {
    format!("{what} ends without an answer: {} ({})", shown(&crash.detail), crash.code)
}

const UNDOING: &str = "undoing it";

struct Seen {
    outcome: Outcome,
    crashes: Vec<(&'static str, Crash)>,
    never_ran: Option<UndoOutcome>,
}

/// Every call that the host could make about the subject.
fn seen(bench: &Bench<'_>, case: &Case) -> Result<Seen, HostError> {
    let Scene { world, event } = scene(bench, case)?;
    let mut after = world.clone();
    let outcome = bench.attempt(&mut after, &event, 1)?.answer;
    let mut crashes = Vec::new();
    if let Outcome::Unknown { crash, .. } = &outcome {
        crashes.push(("handling it", crash.clone()));
    }
    let mut never_ran = None;
    // Those that were stopped for their time would be waited for again.
    if compensable(bench, event.kind.as_str()) && !crashes.iter().any(|(_, crash)| crash.code == "deadline") {
        if let Outcome::Completed(completion) = &outcome
            && let Some(evidence) = evidence(completion)
        {
            let answer = bench.undo_attempt(&mut after, &event, evidence, 0, 1)?.answer;
            crashes.extend(undo_crash(UNDOING, &answer));
        }
        let answer = bench.undo_attempt(&mut world.clone(), &event, Evidence::NeverRan, 0, 1)?.answer;
        crashes.extend(undo_crash("undoing it where it never ran", &answer));
        never_ran = Some(answer);
    }
    Ok(Seen { outcome, crashes, never_ran })
}

fn undo_crash(what: &'static str, answer: &UndoOutcome) -> Option<(&'static str, Crash)> {
    match answer {
        UndoOutcome::Unknown { crash } => Some((what, crash.clone())),
        _ => None,
    }
}
