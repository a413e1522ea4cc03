//! The same input, the same outcome: in a fresh instance, in another one, and in one that was used before. Invariant:
//! whole worlds are compared, not only answers.

use sagahost_saga::outcome::{Outcome, StateChange, Undo};
use sagahost_sandbox::{HostError, Instance};

use super::{Judged, Verdict, answered};
use crate::{
    bench::{Bench, World},
    case::Case,
    difference::{self, shown},
};

pub(super) fn judge(bench: &Bench<'_>, case: &Case) -> Judged {
    let first = played(bench, case, None)?;
    let second = played(bench, case, None)?;
    if let Some(what) = differs(case, &first, &second) {
        return Ok(Verdict::Broken(format!("run again in a fresh instance, {what}")));
    }
    // A run ends at each request, and the instance with it.
    if bench.plugin.sends() {
        return Ok(Verdict::Holds);
    }
    let Ok(mut instance) = bench.plugin.instance() else {
        return Ok(Verdict::Void("failed to make an instance".to_owned()));
    };
    // Twice: what the first round left in its memory shows in the second.
    for _ in 0..2 {
        let used = played(bench, case, Some(&mut instance))?;
        if let Some(what) = differs(case, &first, &used) {
            return Ok(Verdict::Broken(format!("in an instance that was used before, {what}")));
        }
        if !instance.lives() {
            break;
        }
    }
    Ok(Verdict::Holds)
}

struct Played {
    outcomes: Vec<Outcome>,
    world: World,
}

/// One attempt of each event.
fn played(bench: &Bench<'_>, case: &Case, mut used: Option<&mut Instance>) -> Result<Played, HostError> {
    let mut world = World::default();
    let mut outcomes = Vec::new();
    for (index, input) in case.0.iter().enumerate() {
        let event = bench.event(input, index);
        let outcome = match &mut used {
            Some(instance) if !instance.lives() => break,
            Some(instance) => bench.attempt_in(&mut world, &event, instance)?,
            None => bench.attempt(&mut world, &event, 1)?.answer,
        };
        outcomes.push(outcome);
    }
    Ok(Played { outcomes, world })
}

fn differs(case: &Case, one: &Played, other: &Played) -> Option<String> {
    let pairs = one.outcomes.iter().zip(&other.outcomes).zip(&case.0);
    let outcome = pairs.into_iter().find(|((one, other), _)| !same(one, other)).map(|((one, other), input)| {
        let (was, is) = match (answered(one), answered(other)) {
            (was, is) if was == is => (debug(one, other), debug(other, one)),
            different => different,
        };
        format!("{}: {is}; at first: {was}", input.kind)
    });
    let whole = one.outcomes.len() == other.outcomes.len();
    outcome.or_else(|| {
        let (was, is) = (&one.world, &other.world);
        let requests = (was.sent != is.sent).then(|| "it sends other requests".to_owned());
        let what = requests.or_else(|| difference::counters(was, is)).or_else(|| difference::store(was, is));
        what.or_else(|| difference::states(was, is)).filter(|_| whole)
    })
}

/// A deadline is a matter of the machine, and a trap's backtrace one of the optimiser.
fn same(one: &Outcome, other: &Outcome) -> bool {
    match (one, other) {
        (Outcome::Unknown { crash: one, .. }, Outcome::Unknown { crash: other, .. }) => one.code == other.code,
        _ => one == other,
    }
}

/// What is different in two outcomes of the same sort, from a little before there.
fn debug(outcome: &Outcome, other: &Outcome) -> String {
    let (one, two) = (text(outcome), text(other));
    let at = one.char_indices().zip(two.chars()).find(|((_, a), b)| a != b).map_or(0, |((at, _), _)| at);
    match one[..at].char_indices().rev().nth(40) {
        Some((from, _)) => format!("…{}", shown(&one[from..])),
        None => shown(&one),
    }
}

/// With data as text.
fn text(outcome: &Outcome) -> String {
    let Outcome::Completed(done) = outcome else { return format!("{outcome:?}") };
    let data = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
    let emitted: Vec<String> = done.emit.iter().map(|event| format!("{} {}", event.kind, data(&event.data))).collect();
    let undo = match &done.undo {
        Undo::Data(saved) => data(&saved.data),
        Undo::NothingToUndo => "nothing".to_owned(),
    };
    let state = match &done.state {
        StateChange::Put(saved) => data(&saved.data),
        StateChange::Keep => "as it was".to_owned(),
        StateChange::Delete => "deleted".to_owned(),
    };
    format!("emits {}, undo data {undo}, state {state}, notes {:?}", emitted.join(", "), done.attributes)
}
