//! What many calls leave: values that get longer with each, and work that gets more. Invariant: fuel and bytes are
//! counted, never time, so that the verdict is the same on every machine.

use sagahost_saga::outcome::{Outcome, Undo};
use sagahost_sandbox::HostError;

use super::{Judged, Verdict, answered};
use crate::{
    bench::{Bench, World},
    case::{Body, Case, Input},
    mutation::renamed,
};

/// Calls between two looks.
const STRIDE: usize = 12;
const LOOKS: usize = 4;
/// Some calls may be refused for reasons of the business.
const ROUNDS_MAX: usize = 2 * STRIDE * LOOKS;
/// Bytes that a value may gain from look to look: numbers get longer, too.
const BYTES_SLACK: u64 = STRIDE as u64;
/// A part of the first look's fuel that a call may gain from look to look.
const FUEL_SLACK: u64 = 50;
/// Events of one saga that a host takes, by default (`events-max`).
const EVENTS_MAX: u64 = 4096;

#[derive(Clone, Copy)]
enum Who {
    /// Each event comes in a saga of its own.
    Sagas,
    /// All come in one.
    OneSaga,
}

pub(super) fn judge(bench: &Bench<'_>, case: &Case) -> Judged {
    for who in [Who::Sagas, Who::OneSaga] {
        match grown(bench, case, who)? {
            Verdict::Holds => {}
            other => return Ok(other),
        }
    }
    Ok(Verdict::Holds)
}

/// What is looked at.
#[derive(Clone, Copy, Default)]
struct Look {
    fuel: u64,
    /// The largest value of the store, with its key's place in `keys`.
    value: u64,
    state: u64,
    outcome: u64,
}

fn grown(bench: &Bench<'_>, case: &Case, who: Who) -> Judged {
    let mut world = World::default();
    let mut looks = Vec::new();
    let (mut place, mut done, mut refused) = (0, 0, None);
    let (subject, history) = case.0.split_last().expect("a case has an event");
    for round in 1..=ROUNDS_MAX {
        let number = round + 1;
        let history = match who {
            Who::OneSaga if round > 1 => &[],
            Who::Sagas | Who::OneSaga => history,
        };
        for input in history {
            bench.handle(&mut world, &bench.event(&own(input, number, who), place))?;
            place += 1;
        }
        match look(bench, &mut world, &own(subject, number, who), place)? {
            Ok(look) => {
                done += 1;
                looks.extend((done % STRIDE == 0).then_some(look));
            }
            // Sold out, undeliverable: others may be done.
            Err(why) => drop(refused.get_or_insert(why)),
        }
        place += 1;
        if looks.len() == LOOKS {
            return Ok(verdict(bench, &looks, who));
        }
    }
    Ok(match (who, refused) {
        // One event may be all that a saga takes; what is refused leaves nothing.
        (Who::OneSaga, _) if done > 0 => Verdict::Holds,
        (Who::Sagas | Who::OneSaga, Some(why)) => {
            Verdict::Void(format!("only {done} of {ROUNDS_MAX} events are done, for {why}"))
        }
        (Who::Sagas | Who::OneSaga, None) => Verdict::Void(format!("only {done} events are done")),
    })
}

fn own(input: &Input, number: usize, who: Who) -> Input {
    match (who, &input.body) {
        (Who::Sagas, Body::Json(value)) => Input {
            kind: input.kind.clone(),
            saga: format!("{}-{number}", input.saga),
            body: Body::Json(renamed(value, number)),
        },
        (Who::Sagas, Body::Bytes(_)) => Input { saga: format!("{}-{number}", input.saga), ..input.clone() },
        (Who::OneSaga, _) => input.clone(),
    }
}

fn look(bench: &Bench<'_>, world: &mut World, input: &Input, place: usize) -> Result<Result<Look, String>, HostError> {
    let event = bench.event(input, place);
    let mut attempt = 1;
    let called = loop {
        let called = bench.attempt(world, &event, attempt)?;
        match called.answer {
            Outcome::Retry(_) | Outcome::Unknown { .. } if attempt < 3 => attempt += 1,
            _ => break called,
        }
    };
    let Outcome::Completed(done) = &called.answer else {
        return Ok(Err(format!("{} {}", event.kind, answered(&called.answer))));
    };
    let undo = match &done.undo {
        Undo::Data(saved) => saved.data.len(),
        Undo::NothingToUndo => 0,
    };
    let emitted: usize = done.emit.iter().map(|emission| emission.data.len()).sum();
    let state = world.states.get(&event.saga).map_or(0, |saved| saved.data.len());
    let value = world.values.store.values().map(|value| value.len()).max();
    Ok(Ok(Look {
        fuel: called.fuel,
        value: value.unwrap_or(0) as u64,
        state: state as u64,
        outcome: (undo + emitted) as u64,
    }))
}

fn verdict(bench: &Bench<'_>, looks: &[Look], who: Who) -> Verdict {
    let limits = bench.plugin.limits();
    let each = |of: fn(&Look) -> u64| looks.iter().map(of).collect::<Vec<u64>>();
    let fuel = each(|look| look.fuel);
    let parts: [(&str, Vec<u64>, u64, u64); 4] = [
        (
            "the largest value in the store has",
            each(|look| look.value),
            BYTES_SLACK,
            limits.store_value_bytes_max as u64,
        ),
        ("its state has", each(|look| look.state), BYTES_SLACK, limits.state_bytes_max as u64),
        ("undo data and events of a call have", each(|look| look.outcome), BYTES_SLACK, limits.undo_bytes_max as u64),
        ("a call takes", fuel.clone(), fuel[0] / FUEL_SLACK, 0),
    ];
    for (what, seen, slack, max) in parts {
        let steadily = seen.windows(2).all(|pair| pair[1] > pair[0] + slack);
        let slowing = seen[3].saturating_sub(seen[2]) * 2 < seen[1].saturating_sub(seen[0]);
        let unit = if max == 0 { "units of fuel" } else { "bytes" };
        let at_end = seen[3] + seen[3].saturating_sub(seen[0]) * EVENTS_MAX / (STRIDE * (LOOKS - 1)) as u64;
        let matters = match who {
            Who::Sagas => true,
            // A saga is bounded, so what it gathers may be, too.
            Who::OneSaga => max > 0 && at_end > max,
        };
        if steadily && !slowing && matters {
            let calls = match who {
                Who::Sagas => "sagas",
                Who::OneSaga => "events of one saga",
            };
            let list = seen.iter().enumerate().map(|(i, n)| format!("{n} after {}", (i + 1) * STRIDE));
            let list: Vec<String> = list.collect();
            return Verdict::Broken(format!("{what} ever more {unit}: {} {calls}", list.join(", ")));
        }
    }
    Verdict::Holds
}
