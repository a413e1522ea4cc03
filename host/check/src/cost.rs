//! What a plugin costs: fuel of each call, memory, size of its file. Invariant: the figures are those of plain cases in
//! fresh instances, so they are the same on every machine that has the same file.

use std::collections::BTreeMap;

use sagahost_saga::outcome::Outcome;
use sagahost_sandbox::HostError;
use serde::{Deserialize, Serialize};

use crate::{
    bench::{Bench, World, evidence},
    material::Material,
};

/// Attempts until a step is done.
const ATTEMPTS_MAX: u32 = 5;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cost {
    pub component_bytes: u64,
    /// Of one call, all linear memories together.
    pub memory_bytes_peak: u64,
    /// By call: `handle OrderCreated`, `compensate OrderCreated`.
    pub fuel: BTreeMap<String, u64>,
}

/// Of each kind the plainest case in which the step is done, else the plainest.
pub fn measure(bench: &Bench<'_>, material: &Material, component_bytes: usize) -> Result<Cost, HostError> {
    let mut cost = Cost { component_bytes: component_bytes as u64, ..Cost::default() };
    for subscription in &bench.plugin.manifest().subscriptions {
        let kind = &subscription.kind;
        let mut told = false;
        for case in material.plain(kind) {
            let mut world = World::default();
            let (subject, history) = case.0.split_last().expect("a case has an event");
            for (index, input) in history.iter().enumerate() {
                bench.handle(&mut world, &bench.event(input, index))?;
            }
            let event = bench.event(subject, history.len());
            let called = done(bench, &mut world, &event)?;
            let completed = match &called.answer {
                Outcome::Completed(completion) => Some(completion),
                _ => None,
            };
            if !told || completed.is_some() {
                cost.memory_bytes_peak = cost.memory_bytes_peak.max(called.memory_bytes as u64);
                cost.fuel.insert(format!("handle {kind}"), called.fuel);
                told = true;
            }
            if let Some(completion) = completed {
                if let Some(evidence) = evidence(completion) {
                    let undone = bench.undo_attempt(&mut world, &event, evidence, 0, 1)?;
                    cost.memory_bytes_peak = cost.memory_bytes_peak.max(undone.memory_bytes as u64);
                    cost.fuel.insert(format!("compensate {kind}"), undone.fuel);
                }
                break;
            }
        }
    }
    Ok(cost)
}

fn done(
    bench: &Bench<'_>,
    world: &mut World,
    event: &sagahost_saga::event::Event,
) -> Result<crate::bench::Called<Outcome>, HostError> {
    let mut attempt = 1;
    loop {
        let called = bench.attempt(world, event, attempt)?;
        if matches!(called.answer, Outcome::Completed(_)) || attempt == ATTEMPTS_MAX {
            return Ok(called);
        }
        attempt += 1;
    }
}
