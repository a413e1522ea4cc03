//! Two independent sagas: whichever comes first, and also when one is undone under the other, the result is the same.
//! Invariant: a case in which one of them is refused shows nothing, for the last seat goes to whoever comes first.

use std::collections::BTreeMap;

use sagahost_saga::{
    event::Event,
    id::EventKey,
    outcome::{Outcome, UndoOutcome},
};
use sagahost_sandbox::HostError;
use serde_json::Value;

use super::{Judged, Verdict, answered};
use crate::{
    bench::{Bench, World, evidence},
    case::{Body, Case, Input},
    difference,
    mutation::{renamed, unused_number},
};

pub(super) fn judge(bench: &Bench<'_>, case: &Case) -> Judged {
    let (one, other) = sagas(bench, case);
    // Without a field there is no id that they could share.
    if one.iter().zip(&other).any(|(one, other)| one.data == other.data && one.data.contains(&b':')) {
        let why = "its events have no id (a field named id or …Id, or a text like o-1), so a second saga would have the same ones";
        return Ok(Verdict::Void(why.to_owned()));
    }
    let forth = match played(bench, &one, &other)? {
        Ok(played) => played,
        Err(why) => return Ok(Verdict::Void(why)),
    };
    let back = match played(bench, &other, &one)? {
        Ok(played) => played,
        Err(why) => return Ok(Verdict::Void(format!("in the other order, {why}"))),
    };
    if let Some((key, was)) = forth.outcomes.iter().find(|(key, outcome)| back.outcomes.get(*key) != Some(outcome)) {
        let is = back.outcomes.get(key).map_or_else(String::new, emitted);
        let event = one.iter().chain(&other).find(|event| event.key == *key);
        let what = event.map_or_else(String::new, |event| format!("{} of {}", event.kind, event.saga));
        return Ok(Verdict::Broken(format!("{what} gives {}; after the other saga, {is}", emitted(was))));
    }
    let what = difference::counters(&forth.world, &back.world)
        .or_else(|| difference::store(&forth.world, &back.world))
        .or_else(|| difference::states(&forth.world, &back.world));
    if let Some(what) = what {
        return Ok(Verdict::Broken(format!("in the other order {what}")));
    }
    undone_under(bench, &one, &other)
}

/// Events of the case's first saga, and those of the second: the first's with other ids, where there is one only.
fn sagas(bench: &Bench<'_>, case: &Case) -> (Vec<Event>, Vec<Event>) {
    let first = &case.0[0].saga;
    let own = case.0.iter().enumerate().filter(|(_, input)| input.saga == *first);
    let others: Vec<(usize, &Input)> = case.0.iter().enumerate().filter(|(_, input)| input.saga != *first).collect();
    let one: Vec<(usize, &Input)> = own.collect();
    let events = |inputs: &[(usize, &Input)]| inputs.iter().map(|(at, input)| bench.event(input, *at)).collect();
    if !others.is_empty() {
        return (events(&one), events(&others));
    }
    let bodies: Value = one.iter().filter_map(|(_, input)| input.body.json()).cloned().collect();
    let number = unused_number(&bodies);
    let twin = |(at, input): &(usize, &Input)| {
        let body = match &input.body {
            Body::Json(value) => Body::Json(renamed(value, number)),
            Body::Bytes(bytes) => Body::Bytes(bytes.clone()),
        };
        let twin = Input { kind: input.kind.clone(), saga: format!("{}-2", input.saga), body };
        let mut event = bench.event(&twin, *at);
        event.key = EventKey::new(&event.key.source, format!("{}-2", event.key.id));
        event
    };
    (events(&one), one.iter().map(twin).collect())
}

struct Played {
    outcomes: BTreeMap<EventKey, Outcome>,
    world: World,
}

fn played(bench: &Bench<'_>, first: &[Event], second: &[Event]) -> Result<Result<Played, String>, HostError> {
    let mut world = World::default();
    let mut outcomes = BTreeMap::new();
    for event in first.iter().chain(second) {
        let outcome = bench.handle(&mut world, event)?;
        if !matches!(outcome, Outcome::Completed(_)) {
            return Ok(Err(format!("{} {}", event.kind, answered(&outcome))));
        }
        outcomes.insert(event.key.clone(), outcome);
    }
    Ok(Ok(Played { outcomes, world }))
}

/// The first saga's last step is undone behind the second saga: what the second did must stand.
fn undone_under(bench: &Bench<'_>, one: &[Event], other: &[Event]) -> Judged {
    let Some((last, before)) = one.split_last() else { return Ok(Verdict::Holds) };
    let mut alone = World::default();
    for event in before {
        bench.handle(&mut alone, event)?;
    }
    let mut under = alone.clone();
    let Outcome::Completed(done) = bench.handle(&mut under, last)? else { return Ok(Verdict::Holds) };
    let Some(evidence) = evidence(&done) else { return Ok(Verdict::Holds) };
    let mut restored = under.clone();
    let answer = bench.undo(&mut restored, last, &evidence, 0)?;
    let left = difference::counters(&alone, &restored).or_else(|| difference::store(&alone, &restored));
    if left.is_some() || !matches!(answer, UndoOutcome::Undone(_)) {
        // It does not even restore what it finds alone: another law's case.
        return Ok(Verdict::Holds);
    }
    for event in other {
        bench.handle(&mut alone, event)?;
        bench.handle(&mut under, event)?;
    }
    bench.undo(&mut under, last, &evidence, 0)?;
    let left = difference::counters(&alone, &under).or_else(|| difference::store(&alone, &under));
    Ok(left.map_or(Verdict::Holds, |left| {
        Verdict::Broken(format!("{} of {} is undone after the other saga, and {left} without it", last.kind, last.saga))
    }))
}

fn emitted(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Completed(done) => {
            let events = done.emit.iter().map(|e| format!("{} {}", e.kind, String::from_utf8_lossy(&e.data)));
            difference::shown(&events.collect::<Vec<_>>().join(", "))
        }
        other => answered(other),
    }
}
