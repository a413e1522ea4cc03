//! An input and all that it causes in its saga, as the host's own pipeline drives it. Invariant: after an error the
//! caller throws everything away; a broken invariant of the core is said, never hidden.

use std::{collections::VecDeque, time::Duration};

use sagahost_saga::{
    Saga,
    id::{Direction, SagaId},
    input::{Disposition, Effect, Input, Publish, Transition},
    outcome::{Call, Crash, End, Outcome, UndoOutcome},
};

use super::{APP, CHAIN_STEPS_MAX, Engine, Record, report};
use crate::{
    code::Ran,
    protocol::{Answered, Happened},
    values::Attempt,
};

/// What is still to do in a chain.
enum Work {
    Input(Input),
    Call(Call),
}

impl Engine {
    /// Runs a chain in a saga that may not exist yet.
    pub(super) fn chain(&mut self, id: &SagaId, input: Input, happened: &mut Happened) -> Result<(), String> {
        self.acting = true;
        let fresh = || Record {
            saga: Saga::new(id.clone(), self.world.now),
            spilled_events: Default::default(),
            spilled_history: Vec::new(),
        };
        let record = self.world.sagas.get(id).cloned().unwrap_or_else(fresh);
        let mut chain = Chain { engine: self, record, happened, steps: 0, changed: false };
        chain.drive(input)?;
        let Chain { record, changed, .. } = chain;
        if changed {
            record.saga.check(&self.topology).map_err(|broken| broken.to_string())?;
            self.world.sagas.insert(id.clone(), record);
            happened.changed = true;
        }
        Ok(())
    }
}

struct Chain<'e> {
    engine: &'e mut Engine,
    record: Record,
    happened: &'e mut Happened,
    steps: usize,
    changed: bool,
}

impl Chain<'_> {
    fn drive(&mut self, input: Input) -> Result<(), String> {
        let mut work = VecDeque::from([Work::Input(input)]);
        while let Some(next) = work.pop_front() {
            let transition = match next {
                Work::Input(input) => self.decide(input)?,
                Work::Call(call) => self.attempt(&call)?,
            };
            for effect in transition.effects {
                self.effect(effect, &mut work)?;
            }
        }
        Ok(())
    }

    fn decide(&mut self, input: Input) -> Result<Transition, String> {
        let now = self.engine.world.now;
        let transition = self.record.saga.on(input, &self.engine.topology, now).map_err(|broken| broken.to_string())?;
        match transition.disposition {
            Disposition::Changed => self.changed = true,
            Disposition::Known | Disposition::Unhandled | Disposition::Nothing(_) => {}
        }
        if let Some(answer) = &transition.answer {
            self.happened.answer = Some(Answered { done: answer.done, text: answer.text.clone() });
        }
        Ok(transition)
    }

    fn attempt(&mut self, call: &Call) -> Result<Transition, String> {
        self.steps += 1;
        let plugin = self.engine.plugins.get(&call.participant);
        let code = plugin.and_then(|plugin| plugin.code.as_deref()).ok_or("a call for a plugin that is not there")?;
        let values = self.engine.world.values.entry(call.participant.clone()).or_default();
        let Ran { end, mut attempt, .. } = code.run(call, Attempt::new(values.clone()))?;
        let by = code.behaviour();
        let end = if self.dies(call) { killed(call) } else { end };
        let lines = attempt.take_log();
        self.engine.world.log.extend(lines.into_iter().map(|line| report::log_line(call, line)));
        self.happened.attempts.push(report::attempted(call, &end));
        // How long it took in reality is nobody's business in simulated time.
        let transition = self.decide(Input::ended(call, by, end, Duration::ZERO))?;
        if transition.keep_writes {
            self.engine.world.values.insert(call.participant.clone(), attempt.keep());
        }
        Ok(transition)
    }

    fn dies(&self, call: &Call) -> bool {
        self.engine.deaths.iter().any(|death| {
            death.participant == call.participant
                && death.direction == call.direction
                && death.attempts.contains(&call.attempt)
        })
    }

    fn effect(&mut self, effect: Effect, work: &mut VecDeque<Work>) -> Result<(), String> {
        let saga = self.record.saga.id().clone();
        let world = &mut self.engine.world;
        match effect {
            Effect::Call(call) if call.journal_first => {
                return Err(format!("plugin {} asks for effects outside, which no host grants", call.participant));
            }
            Effect::Call(call) => work.push_back(Work::Call(call)),
            Effect::Publish(publish) => self.publish(publish, work),
            Effect::OpenLetter(letter) => {
                self.happened.dead_letters.push(report::letter(&saga, &letter));
                world.letters.insert(letter.key.clone(), (saga, letter));
            }
            Effect::CloseLetter { key, .. } => {
                world.letters.remove(&key);
            }
            Effect::Spill { events, history } => {
                self.record.spilled_events.extend(events);
                self.record.spilled_history.extend(history);
            }
        }
        Ok(())
    }

    /// As the host does it: fused where it belongs to this saga, else it goes out and comes back. Kinds that are held
    /// do neither.
    fn publish(&mut self, publish: Publish, work: &mut VecDeque<Work>) {
        let Publish { event, fuse } = publish;
        self.happened.emitted.push(report::emitted(&event, APP));
        let topology = &self.engine.topology;
        let own_failure = event.saga == *self.record.saga.id() && event.kind == topology.saga_failed_kind();
        if own_failure || !topology.concerns(&event.kind) {
            return;
        }
        if self.engine.hold.contains(&event.kind) {
            self.engine.world.held.push(event);
        } else if fuse && event.saga == *self.record.saga.id() && self.steps < CHAIN_STEPS_MAX {
            self.engine.stands_in_a_topic(&event);
            let spilled = self.record.spilled_events.get(&event.key.hash128()).copied();
            work.push_back(Work::Input(Input::Received { event, spilled }));
        } else {
            self.engine.world.topics.push_back(event);
        }
    }
}

/// The end of an attempt that was killed: whatever it did is lost.
fn killed(call: &Call) -> End {
    let crash = Crash { code: "trap".to_owned(), detail: "it was killed by the test".to_owned() };
    match call.direction {
        Direction::Forward => End::Outcome(Outcome::Unknown { crash, uncertain: false }),
        Direction::Undo => End::Undo(UndoOutcome::Unknown { crash }),
    }
}
