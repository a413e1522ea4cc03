//! An input and all that it causes in its saga, as the host's own pipeline drives it. Invariant: after an error the
//! caller throws everything away; a broken invariant of the core is said, never hidden.

use std::time::Duration;

use sagahost_saga::{
    Saga,
    drive::{Drive, drive},
    event::Event,
    history::Entry,
    id::{Direction, EventKey, Participant, SagaId},
    input::{Disposition, Input, Letter, Publish, Transition},
    outcome::{Call, Crash, End, Outcome, Runs, UndoOutcome},
};

use super::{APP, CHAIN_STEPS_MAX, Engine, Record, report};
use crate::{
    code::Ran,
    protocol::{Answered, Happened},
    values::Attempt,
};

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
        let mut chain = Chain { engine: self, record, happened, ran: None, steps: 0, changed: false };
        drive(&mut chain, input)?;
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
    /// The attempt that ran last, until it is decided.
    ran: Option<(Participant, Attempt)>,
    steps: usize,
    changed: bool,
}

impl Chain<'_> {
    fn dies(&self, call: &Call) -> bool {
        self.engine.deaths.iter().any(|death| {
            death.participant == call.participant
                && death.direction == call.direction
                && death.attempts.contains(&call.attempt)
        })
    }
}

impl Drive for Chain<'_> {
    type Error = String;

    fn decide(&mut self, input: Input) -> Result<Transition, String> {
        let now = self.engine.world.now;
        let transition = self.record.saga.on(input, &self.engine.topology, now).map_err(|broken| broken.to_string())?;
        match transition.disposition {
            Disposition::Changed => self.changed = true,
            Disposition::Known | Disposition::Unhandled | Disposition::Refused(_) | Disposition::Nothing(_) => {}
        }
        if let Some(answer) = &transition.answer {
            self.happened.answer = Some(Answered { done: answer.done, text: answer.text.clone() });
        }
        Ok(transition)
    }

    fn call(&mut self, call: Call) -> Result<Option<Input>, String> {
        if call.runs != Runs::Here {
            return Err(format!(
                "plugin {} asks for effects outside, which the simulated app does not grant",
                call.participant
            ));
        }
        self.steps += 1;
        let plugin = self.engine.plugins.get(&call.participant);
        let code = plugin.and_then(|plugin| plugin.code.as_deref()).ok_or("a call for a plugin that is not there")?;
        let values = self.engine.world.values.entry(call.participant.clone()).or_default();
        let Ran { end, mut attempt, .. } = code.run(&call, Attempt::new(values.clone()))?;
        let by = code.behaviour();
        let end = if self.dies(&call) { killed(&call) } else { end };
        let lines = attempt.take_log();
        self.engine.world.log.extend(lines.into_iter().map(|line| report::log_line(&call, line)));
        self.happened.attempts.push(report::attempted(&call, &end));
        self.ran = Some((call.participant.clone(), attempt));
        // How long it took in reality is nobody's business in simulated time.
        Ok(Some(Input::ended(&call, by, end, Duration::ZERO)))
    }

    fn called(&mut self, keep_writes: bool) {
        if let Some((participant, attempt)) = self.ran.take().filter(|_| keep_writes) {
            self.engine.world.values.insert(participant, attempt.keep());
        }
    }

    /// As the host does it: fused where it belongs to this saga, else it goes out and comes back. Kinds that are held
    /// do neither.
    fn publish(&mut self, Publish { event, fuse }: Publish) -> Result<Option<Input>, String> {
        self.happened.emitted.push(report::emitted(&event, APP));
        let topology = &self.engine.topology;
        let own_failure = event.saga == *self.record.saga.id() && event.kind == topology.saga_failed_kind();
        if own_failure || !topology.concerns(&event.kind) {
            return Ok(None);
        }
        if self.engine.hold.contains(&event.kind) {
            self.engine.world.held.push(event);
        } else if fuse && event.saga == *self.record.saga.id() && self.steps < CHAIN_STEPS_MAX {
            self.engine.stands_in_a_topic(&event);
            let spilled = self.record.spilled_events.get(&event.key.hash128()).copied();
            return Ok(Some(Input::Received { event, spilled }));
        } else {
            self.engine.world.topics.push_back(event);
        }
        Ok(None)
    }

    fn answer(&mut self, _: &EventKey, _: bool, _: Event) {
        unreachable!("nobody asks a simulated app for a step")
    }

    fn open_letter(&mut self, letter: Letter) {
        let saga = self.record.saga.id().clone();
        self.happened.dead_letters.push(report::letter(&saga, &letter));
        self.engine.world.letters.insert(letter.key.clone(), (saga, letter));
    }

    fn keep_aside(&mut self, letter: Letter) {
        self.open_letter(letter);
    }

    fn close_letter(&mut self, key: String, _: String) {
        self.engine.world.letters.remove(&key);
    }

    fn spill(&mut self, events: Vec<([u8; 16], [u8; 16])>, history: Vec<Entry>) {
        self.record.spilled_events.extend(events);
        self.record.spilled_history.extend(history);
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
