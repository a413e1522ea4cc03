//! The laws of undoing: a step leaves nothing behind that its compensation does not take back. Invariant: what they try
//! is what the host may do: a step is undone when it is done, when it never ran, and when nobody knows.

use sagahost_saga::{
    outcome::{Evidence, Outcome, Progress, UndoOutcome},
    topology::Role,
};
use sagahost_sandbox::HostError;

use super::{Judged, Scene, Step, Verdict, answered, scene, step, subject, undo_answered};
use crate::{
    bench::{Bench, World, evidence},
    case::Case,
    difference,
};

/// A done step's compensation answers that it is undone.
pub(super) fn undoes(bench: &Bench<'_>, case: &Case) -> Judged {
    let step = match step(bench, case)? {
        Ok(step) => step,
        Err(why) => return Ok(Verdict::Void(why)),
    };
    let Some(evidence) = evidence(&step.completion) else {
        return Ok(Verdict::Void(format!("{} leaves nothing to undo", step.event.kind)));
    };
    let mut world = step.after.clone();
    let answer = bench.undo(&mut world, &step.event, &evidence, 0)?;
    Ok(match answer {
        UndoOutcome::Undone(_) | UndoOutcome::NothingToUndo => Verdict::Holds,
        other => {
            Verdict::Broken(format!("{} is done, and its undo function {}", step.event.kind, undo_answered(&other)))
        }
    })
}

/// Where the world behind differs from the one before, in one respect.
type Left = fn(&World, &World) -> Option<String>;

/// Handling and undoing give back what was there.
pub(super) fn restores(left: Left, bench: &Bench<'_>, case: &Case) -> Judged {
    let step = match step(bench, case)? {
        Ok(step) => step,
        Err(why) => return Ok(Verdict::Void(why)),
    };
    let kind = step.event.kind.clone();
    let undone = match evidence(&step.completion) {
        _ if settled(bench, &step) => return Ok(Verdict::Holds),
        None => (step.after, format!("{kind} is done and says that there is nothing to undo, yet")),
        Some(evidence) => match undone(bench, &step, &evidence, 0)? {
            Some(world) => (world, format!("{kind} is done and undone, yet")),
            None => return Ok(Verdict::Void(format!("{kind} is not undone: see the law `undoes`"))),
        },
    };
    let (world, preface) = undone;
    let left = left(&step.before, &world);
    Ok(left.map_or(Verdict::Holds, |left| Verdict::Broken(format!("{preface} {left}"))))
}

/// Does the participant's part of the saga end here, so that nothing of it is undone any more?
fn settled(bench: &Bench<'_>, step: &Step) -> bool {
    let finished = matches!(step.completion.progress, Progress::Finished(_));
    finished || bench.plugin.manifest().finish_on.iter().any(|kind| kind == step.event.kind.as_str())
}

/// The world behind the compensation; none where it does not succeed.
fn undone(bench: &Bench<'_>, step: &Step, evidence: &Evidence, ordinal: u32) -> Result<Option<World>, HostError> {
    let mut world = step.after.clone();
    Ok(match bench.undo(&mut world, &step.event, evidence, ordinal)? {
        UndoOutcome::Undone(_) | UndoOutcome::NothingToUndo => Some(world),
        UndoOutcome::Retry(_)
        | UndoOutcome::Stuck(_)
        | UndoOutcome::Unsent(_)
        | UndoOutcome::Unknown { .. }
        | UndoOutcome::Unreadable { .. } => None,
    })
}

/// The same compensation again, and one that comes behind a compensation which knew of nothing (SEMANTICS.md, race 2).
pub(super) fn twice(bench: &Bench<'_>, case: &Case) -> Judged {
    let step = match step(bench, case)? {
        Ok(step) => step,
        Err(why) => return Ok(Verdict::Void(why)),
    };
    let Some(evidence) = evidence(&step.completion) else {
        return Ok(Verdict::Void(format!("{} leaves nothing to undo", step.event.kind)));
    };
    let kind = step.event.kind.clone();
    let Some(once) = undone(bench, &step, &evidence, 0)? else {
        return Ok(Verdict::Void(format!("{kind} is not undone: see the law `undoes`")));
    };
    let mut again = once.clone();
    let answer = bench.undo(&mut again, &step.event, &evidence, 1)?;
    if let UndoOutcome::Unknown { .. } = answer {
        return Ok(Verdict::Broken(format!(
            "{kind} is undone; a second time its undo function {}",
            undo_answered(&answer)
        )));
    }
    let more = difference::counters(&once, &again)
        .or_else(|| difference::store(&once, &again))
        .or_else(|| difference::states(&once, &again));
    if let Some(more) = more {
        return Ok(Verdict::Broken(format!("{kind} is undone twice, and {more} after the first time")));
    }
    let kept = difference::counters(&step.before, &once).or_else(|| difference::store(&step.before, &once));
    // What one undoing leaves, the laws of restoring report.
    if kept.is_some() { Ok(Verdict::Holds) } else { behind_never_ran(bench, &step) }
}

/// Undone as a step that never ran; then its success comes late, and is undone with what is known now.
fn behind_never_ran(bench: &Bench<'_>, step: &Step) -> Judged {
    let mut world = step.before.clone();
    bench.undo(&mut world, &step.event, &Evidence::NeverRan, 0)?;
    let tombstone = world.clone();
    let Outcome::Completed(late) = bench.handle(&mut world, &step.event)? else {
        return Ok(Verdict::Holds);
    };
    let Some(evidence) = evidence(&late) else { return Ok(Verdict::Holds) };
    bench.undo(&mut world, &step.event, &evidence, 1)?;
    let left = difference::counters(&tombstone, &world).or_else(|| difference::store(&tombstone, &world));
    let kind = &step.event.kind;
    Ok(left.map_or(Verdict::Holds, |left| {
        Verdict::Broken(format!("{kind} is undone before it ran, runs late and is undone again, and {left}"))
    }))
}

/// There is nothing to take back, and nobody is to be called for it.
pub(super) fn never_ran(bench: &Bench<'_>, case: &Case) -> Judged {
    let Scene { world: before, event } = scene(bench, case)?;
    let mut trial = before.clone();
    let forward = bench.handle(&mut trial, &event)?;
    if let Outcome::Invalid(_) = forward {
        return Ok(Verdict::Void(format!("{} {}", event.kind, answered(&forward))));
    }
    let mut world = before.clone();
    let answer = bench.undo(&mut world, &event, &Evidence::NeverRan, 0)?;
    let kind = &event.kind;
    if !matches!(answer, UndoOutcome::Undone(_) | UndoOutcome::NothingToUndo) {
        let said = undo_answered(&answer);
        return Ok(Verdict::Broken(format!("{kind} never ran, and its undo function {said}")));
    }
    // A tombstone in the state is the way to remember it.
    let moved = difference::counters(&before, &world).or_else(|| difference::store(&before, &world));
    Ok(moved.map_or(Verdict::Holds, |moved| Verdict::Broken(format!("{kind} never ran, and is undone: {moved}"))))
}

/// Nobody knows whether it ran: nothing may be paid that was not taken.
pub(super) fn uncertain(bench: &Bench<'_>, case: &Case) -> Judged {
    let kind = &subject(case).kind;
    let Scene { world: before, event } = scene(bench, case)?;
    let mut world = before.clone();
    let answer = bench.undo(&mut world, &event, &Evidence::Uncertain, 0)?;
    if let UndoOutcome::Unknown { .. } = answer {
        let said = undo_answered(&answer);
        return Ok(Verdict::Broken(format!("{kind} may have run, and its undo function {said}")));
    }
    if let Some(moved) = difference::counters(&before, &world).or_else(|| difference::store(&before, &world)) {
        return Ok(Verdict::Broken(format!("{kind} may have run and had not, and is undone: {moved}")));
    }
    let Ok(step) = step(bench, case)? else {
        return Ok(Verdict::Holds);
    };
    let mut world = step.after.clone();
    bench.undo(&mut world, &step.event, &Evidence::Uncertain, 0)?;
    let undone = difference::counters(&step.before, &world);
    let left = difference::counters(&step.after, &world);
    Ok(match (undone, left) {
        (Some(moved), Some(_)) => Verdict::Broken(format!("{kind} may have run and had, and is half undone: {moved}")),
        (None, _) | (_, None) => Verdict::Holds,
    })
}

/// Only steps of this role have an undo function.
pub(super) fn compensable(bench: &Bench<'_>, kind: &str) -> bool {
    bench.subscription(kind).is_some_and(|subscription| subscription.role == Role::Compensable)
}
