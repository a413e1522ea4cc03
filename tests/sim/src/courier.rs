//! A participant that is a service of its own, outside of every host: it books a courier for what is paid. Invariant: of one
//! step there is one booking, however often it is asked for; and none once it was called off, whichever came first.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use sagahost_manifest::http::{Answer as HttpAnswer, Failure};
use sagahost_processor::{
    outside::{Answer, Answers, Came, Launch, Outside},
    step::{Next, Now, Part, Signal, Wait},
};
use sagahost_saga::{
    id::{Direction, SagaId},
    input::CallRef,
    outcome::{
        Behaviour, Call, Completion, Crash, End, Evidence, Outcome, Problem, Progress, Rejection, Saved, StateChange,
        Undo, UndoOutcome, Undone,
    },
};
use sagahost_sdk::prelude::*;

use crate::{
    agent::Desk,
    plan::Fault,
    world::{self, HostNo, choose, happens, inside},
};

/// The money is taken.
#[event(example = {"orderId": "o-1"})]
pub struct PaymentProcessed {
    pub order_id: String,
}

#[data]
pub struct Booking {}

#[derive(Config)]
pub struct Courier {}

/// For the manifest and its example: the host calls the service instead.
#[participant(name = "courier")]
impl Courier {
    #[on(PaymentProcessed)]
    fn book(&self, _: &Context, _: PaymentProcessed) -> Handled<Booking> {
        Ok(Done::undo_with(Booking {}))
    }

    #[undo(PaymentProcessed)]
    fn call_off(&self, _: &Context, _: Step<PaymentProcessed, Booking>) -> Compensated {
        Ok(sagahost_sdk::Undone::new())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Booked {
    Standing,
    CalledOff,
}

struct Request {
    saga: SagaId,
    launch: Launch,
    answers: Arc<OnceLock<Answers>>,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    /// By step.
    bookings: BTreeMap<(SagaId, String), Booked>,
    /// Calls that left a host: each attempt does so once.
    left: HashSet<(SagaId, CallRef)>,
    twice: Vec<String>,
    desk: Desk,
}

#[derive(Default)]
pub struct Service {
    state: Mutex<State>,
    asked: Arc<Signal>,
}

impl Service {
    fn look<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().expect("nobody panics with it"))
    }

    /// Attempts that left more than once.
    pub fn twice(&self) -> Vec<String> {
        self.look(|state| state.twice.clone())
    }

    /// What the desk has in its books.
    pub fn desk<T>(&self, look: impl FnOnce(&Desk) -> T) -> T {
        self.look(|state| look(&state.desk))
    }

    /// Of an order, all that was ever asked for.
    pub fn bookings(&self, saga: &str) -> Vec<Booked> {
        let id = SagaId::new(saga);
        self.look(|state| state.bookings.iter().filter(|((of, _), _)| *of == id).map(|(_, booked)| *booked).collect())
    }
}

/// From one process to the service.
pub struct Line {
    pub service: Arc<Service>,
    pub host: HostNo,
    pub answers: Arc<OnceLock<Answers>>,
}

impl Outside for Line {
    fn launch(&self, saga: &SagaId, launch: Launch) {
        inside(self.host);
        let call = &launch.call;
        if happens(Fault::CallUnsent) {
            if launch.send.is_some() {
                return heard(&self.answers, saga, &launch, failed(false, "unreachable"));
            }
            let problem = Problem { code: "AWAY".to_owned(), detail: "simulated".to_owned() };
            let end = match call.direction {
                Direction::Forward => End::Outcome(Outcome::Unsent(problem)),
                Direction::Undo => End::Undo(UndoOutcome::Unsent(problem)),
            };
            return answer(&self.answers, saga, call, end, false);
        }
        let request = Request { saga: saga.clone(), launch, answers: self.answers.clone() };
        self.service.look(|state| {
            let call = CallRef::from(&request.launch.call);
            if !state.left.insert((saga.clone(), call.clone())) {
                state.twice.push(format!("{saga}: {call:?} left twice"));
            }
            state.requests.push(request);
        });
        self.service.asked.raise();
    }
}

fn answer(answers: &OnceLock<Answers>, saga: &SagaId, call: &Call, end: End, left: bool) {
    let by = Behaviour { digest: "courier".into(), ..Behaviour::default() };
    let answer = Answer { by, came: Came::End(end), left, took: Duration::from_millis(2) };
    answers.get().expect("who calls has begun").answer(saga, &CallRef::from(call), answer);
}

/// What a plugin hears of its request.
fn heard(answers: &OnceLock<Answers>, saga: &SagaId, launch: &Launch, answer: HttpAnswer) {
    let left = !matches!(answer, Err(Failure { sent: false, .. }));
    let came = Came::Answer { what: "simulated".to_owned(), answer };
    let answer = Answer { by: launch.by.clone().unwrap_or_default(), came, left, took: Duration::from_millis(2) };
    answers.get().expect("who calls has begun").answer(saga, &CallRef::from(&launch.call), answer);
}

fn failed(sent: bool, code: &str) -> HttpAnswer {
    Err(Failure { sent, code: code.to_owned(), detail: "simulated".to_owned() })
}

fn lost_request(call: &Call) -> HttpAnswer {
    world::world(|world| world.failed(&call.event.saga, &call.participant));
    failed(true, "timeout")
}

/// The service at work: it takes what it was asked in any order.
pub struct AtWork(pub Arc<Service>);

impl Part for AtWork {
    fn step(&mut self, _: Now) -> Next {
        let seen = self.0.asked.seen();
        let waiting = self.0.look(|state| state.requests.len());
        if waiting == 0 {
            return Next::Wait(Wait { signal: self.0.asked.clone(), seen, until: None });
        }
        let request = self.0.look(|state| state.requests.swap_remove(choose(waiting, 9)));
        self.take(&request);
        if happens(Fault::CallAgain) {
            self.0.look(|state| state.requests.push(request));
        }
        Next::Again
    }
}

impl AtWork {
    fn take(&self, Request { saga, launch, answers }: &Request) {
        let call = &launch.call;
        if let Some(send) = &launch.send {
            if happens(Fault::CallLost) {
                return heard(answers, saga, launch, lost_request(call));
            }
            let came = self.0.look(|state| state.desk.answer(saga, &send.key, &send.request));
            let came = if happens(Fault::AnswerLost) { lost_request(call) } else { came };
            return heard(answers, saga, launch, came);
        }
        if happens(Fault::CallLost) {
            return answer(answers, saga, call, lost(call), true);
        }
        let end = self.0.look(|state| book(state, saga, call));
        let end = if happens(Fault::AnswerLost) { lost(call) } else { end };
        answer(answers, saga, call, end, true);
    }
}

/// Whoever asked does not know what became of it.
fn lost(call: &Call) -> End {
    world::world(|world| world.failed(&call.event.saga, &call.participant));
    let crash = Crash { code: "reset".to_owned(), detail: "simulated".to_owned() };
    match call.direction {
        Direction::Forward => End::Outcome(Outcome::Unknown { crash, uncertain: false }),
        Direction::Undo => End::Undo(UndoOutcome::Unknown { crash }),
    }
}

fn book(state: &mut State, saga: &SagaId, call: &Call) -> End {
    let booked = state.bookings.entry((saga.clone(), call.step_id.clone()));
    if let Some(undo) = &call.undo {
        // The host knows that nothing ever left. Taken at its word: where it is wrong, a booking stands.
        if undo.evidence == Evidence::NeverRan {
            return End::Undo(UndoOutcome::NothingToUndo);
        }
        booked.insert_entry(Booked::CalledOff);
        return End::Undo(UndoOutcome::Undone(Undone {
            emit: Vec::new(),
            state: StateChange::Keep,
            attributes: Vec::new(),
        }));
    }
    End::Outcome(match booked.or_insert(Booked::Standing) {
        Booked::Standing => Outcome::Completed(Completion {
            emit: Vec::new(),
            state: StateChange::Keep,
            undo: Undo::Data(Saved { data: call.step_id.as_bytes().into(), format: 1 }),
            progress: Progress::GoingOn,
            attributes: Vec::new(),
        }),
        Booked::CalledOff => Outcome::Rejected(Rejection {
            problem: Problem { code: "CALLED_OFF".to_owned(), detail: "it was called off before".to_owned() },
            emit: Vec::new(),
            attributes: Vec::new(),
        }),
    })
}
