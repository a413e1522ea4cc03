//! An input and all that it causes in its saga, as the host's own pipeline drives it. Invariant: after an error the
//! caller throws everything away; a broken invariant of the core is said, never hidden.

use std::{collections::VecDeque, time::Duration};

use sagahost_manifest::{
    http::{Answer, Failure},
    sends::{Config, Run, Sending, is_shown, made},
};
use sagahost_saga::{
    Saga,
    drive::{Drive, drive},
    event::Event,
    history::Entry,
    id::{Direction, EventKey, Participant, SagaId},
    input::{CallRef, Disposition, Input, Letter, Publish, Transition},
    outcome::{Behaviour, Call, Crash, End, Outcome, Runs, UndoOutcome},
};

use super::{APP, CHAIN_STEPS_MAX, Engine, ROUNDS_MAX, Record, outside::place, report};
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
        let mut chain = Chain {
            engine: self,
            record,
            happened,
            ran: None,
            steps: 0,
            changed: false,
            sends: None,
            came: None,
            launches: VecDeque::new(),
            out: VecDeque::new(),
        };
        drive(&mut chain, input)?;
        chain.ask()?;
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
    /// The run that ended at a request, or has to be kept.
    sends: Option<Run>,
    /// What became of the last request.
    came: Option<Answer>,
    launches: VecDeque<CallRef>,
    out: VecDeque<Call>,
}

impl Chain<'_> {
    /// Requests leave, and their answers come, in no time.
    fn ask(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS_MAX {
            if let Some(call) = self.launches.pop_front() {
                drive(self, Input::Started { call, interrupted: false })?;
                continue;
            }
            let Some(call) = self.out.pop_front() else { return Ok(()) };
            let run = self.run_of(&call, Behaviour::default());
            let send = run.leaving().ok_or("a request leaves that nobody kept")?;
            let answer = self.engine.world.outside.answer(&call, &send)?;
            let left = !matches!(answer, Err(Failure { sent: false, .. }));
            let said = match &answer {
                Ok(response) => response.status.to_string(),
                Err(failure) => failure.code.clone(),
            };
            self.came = Some(answer);
            let what = format!("{}: {said}", send.request.shown()).into();
            drive(self, Input::Resumed { call: CallRef::from(&call), left, what, took: Duration::ZERO })?;
        }
        Err(format!("after {ROUNDS_MAX} requests there are still more"))
    }

    fn run_of(&self, call: &Call, by: Behaviour) -> Run {
        let rows = self.engine.world.outside.rows.get(&place(call, call.direction, call.ordinal));
        Run::new(rows.cloned().unwrap_or_default(), call, by, Config::default())
    }

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
        match call.runs {
            Runs::Here => {}
            Runs::Later => {
                if let Some(mut run) = self.sends.take() {
                    run.keep_request();
                    self.engine
                        .world
                        .outside
                        .rows
                        .insert(place(&call, call.direction, call.ordinal), run.rows().to_vec());
                }
                self.launches.push_back(CallRef::from(&call));
                return Ok(None);
            }
            Runs::Outside => {
                self.out.push_back(call);
                return Ok(None);
            }
        }
        self.steps += 1;
        let plugin = self.engine.plugins.get(&call.participant);
        let code = plugin.and_then(|plugin| plugin.code.as_deref()).ok_or("a call for a plugin that is not there")?;
        let values = self.engine.world.values.get(&call.participant).cloned().unwrap_or_default();
        let by = code.behaviour();
        let mut run = self.run_of(&call, by.clone());
        if let Some(answer) = self.came.take() {
            run.hear(answer);
        }
        let made = match is_shown(&call) {
            true => {
                let rows = self.engine.world.outside.rows.get(&place(&call, Direction::Forward, 0)).cloned();
                made(rows.unwrap_or_default(), &call.event.saga, &call.step_id)
            }
            false => Vec::new(),
        };
        let now = run.began().map_or(call.now, |began| began.now);
        let sending = Sending::new(Box::new(Attempt::new(values)), run, made);
        let Ran { end, host, .. } = code.run(&Call { now, ..call.clone() }, Box::new(sending))?;
        let (host, run) = Sending::into_parts(host);
        let attempt = host.into_any().downcast::<Attempt>();
        let mut attempt = *attempt.expect("what was given is given back");
        let dies = self.dies(&call);
        let end = if dies { killed(&call) } else { run.end_of(end, &call) };
        let lines = attempt.take_log();
        self.engine.world.log.extend(lines.into_iter().map(|line| report::log_line(&call, line)));
        self.ran = Some((call.participant.clone(), attempt));
        if run.waits() && !dies {
            self.sends = Some(run);
            return Ok(Some(Input::Sends { call: CallRef::from(&call), by }));
        }
        let open = run.is_open();
        self.happened.attempts.push(report::attempted(&call, &end));
        if run.heard().is_some() {
            self.engine.world.outside.rows.insert(place(&call, call.direction, call.ordinal), run.rows().to_vec());
        }
        // How long it took in reality is nobody's business in simulated time.
        Ok(Some(Input::ended_outside(CallRef::from(&call), by, end, open, Duration::ZERO)))
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
