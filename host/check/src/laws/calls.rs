//! The law of requests: what leaves may arrive although nobody hears of it. Invariant: what is tried is what happens: each
//! request's answer is lost once, the step is tried again, and it is undone as one of which nobody knows.

use sagahost_saga::outcome::{Evidence, Outcome, UndoOutcome};

use super::{Judged, Scene, Verdict, answered, is_limit, scene, undo_answered};
use crate::{bench::Bench, case::Case};

pub(super) fn judge(bench: &Bench<'_>, case: &Case) -> Judged {
    let Scene { world: before, event } = scene(bench, case)?;
    let kind = &event.kind;
    let mut world = before.clone();
    bench.attempt(&mut world, &event, 1)?;
    let requests = bench.asked(&world, &event);
    if requests == 0 {
        return Ok(Verdict::Void(format!("{kind} leads to no request")));
    }
    for lost in 1..=requests {
        let mut world = before.clone();
        let first = bench.attempt_losing(&mut world, &event, 1, lost)?.answer;
        if let Outcome::Unknown { crash, .. } = &first
            && !is_limit(crash)
        {
            let how = answered(&first);
            return Ok(Verdict::Broken(format!("{kind}: where the answer to request {lost} is lost, it {how}")));
        }
        // A second later: whatever depends on the time, or on which attempt it is, is another request.
        let second = bench.attempt(&mut world.clone(), &event, 2)?.answer;
        if let Outcome::Unknown { crash, .. } = &second
            && crash.code == "diverged"
        {
            return Ok(Verdict::Broken(format!("{kind}: the second attempt asks something else: {}", crash.detail)));
        }
        let undone = bench.undo(&mut world, &event, &Evidence::Uncertain, 0)?;
        if matches!(undone, UndoOutcome::Unknown { .. } | UndoOutcome::Stuck(_))
            && super::undoing::compensable(bench, kind.as_str())
        {
            let how = undo_answered(&undone);
            let why = "may have been done where the answer to request";
            return Ok(Verdict::Broken(format!("{kind} {why} {lost} is lost, and its undo function {how}")));
        }
    }
    Ok(Verdict::Holds)
}
