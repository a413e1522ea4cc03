//! A shop around one saga, as the host would drive it. Invariant: every input and its transition pass one place, where
//! an observer sees them.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::observer::{Observer, Seen};
use crate::{
    Saga,
    drive::{Drive, drive},
    event::Event,
    history::Entry,
    id::{Direction, EventKey, Kind, Participant, SagaId, Time},
    input::{CallRef, Input, Letter, Publish, Transition},
    outcome::{
        Behaviour, Call, Completion, Crash, Delay, Emission, Outcome, Problem, Progress, Rejection, Runs, Saved,
        StateChange, Undo, UndoOutcome, Undone,
    },
    topology::{Bounds, Member, OnDeadLetter, Retry, Role, Subscription, Topology, When},
};

/// What a call does when it is made.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Ok,
    Rejects(String),
    Retries(String, Option<Duration>),
    Crashes {
        uncertain: bool,
    },
    NotYet,
    Invalid(String),
    Unreadable,
    /// Nothing of the call left the host.
    Unsent(String),
    Stuck(String),
    Nothing,
    /// The call, or its request, stays out until the script brings it back.
    Hangs,
    /// It stops at a request.
    Sends,
}

#[derive(Clone)]
pub struct World {
    pub saga: Saga,
    pub topology: Topology,
    pub now: Time,
    /// Next answers, by participant and direction; then the standing answer, then `Ok`.
    pub answers: Vec<(Participant, Direction, VecDeque<Answer>)>,
    pub always: Vec<(Participant, Direction, Answer)>,
    pub digests: Vec<(Participant, String)>,
    pub hanging: Vec<Call>,
    /// Every call that was ever made.
    pub made: Vec<Call>,
    /// Published events, in order.
    pub published: Vec<Event>,
    pub letters: Vec<Letter>,
    pub log: Vec<String>,
    pub spilled: Vec<([u8; 16], [u8; 16])>,
    /// Extra events that a completed call emits: participant, kind, emission.
    pub extra: Vec<(Participant, Kind, Emission)>,
    /// Calls that are to be made once it is durable that they began.
    launches: VecDeque<CallRef>,
    /// What the first input of the chain did.
    first: Option<Transition>,
    /// All calls leave the same data, as when the golden sagas were written.
    pub data_alike: bool,
    pub observer: Option<Observer>,
    pub violation: Option<&'static str>,
}

pub fn subscription(kind: &str, role: Role) -> Subscription {
    Subscription {
        kind: kind.into(),
        role,
        when: When::Running,
        after: Vec::new(),
        retry: Retry { attempts_max: 3, base: Duration::from_millis(100), cap: Duration::from_secs(1) },
        undo_retry: Retry { attempts_max: 3, base: Duration::from_millis(100), cap: Duration::from_secs(1) },
        deadline: None,
        park_ttl: Duration::from_secs(60),
        on_dead_letter: OnDeadLetter::Compensate,
    }
}

pub fn member(name: &str, subscriptions: Vec<Subscription>) -> Member {
    Member {
        name: name.into(),
        serving: true,
        unreachable: false,
        outside_effects: false,
        subscriptions,
        compensate_on: Default::default(),
        finish_on: Default::default(),
        finishes: false,
    }
}

/// order → payment → inventory → order, all in one app.
pub fn shop() -> Topology {
    let mut order = member(
        "order",
        vec![subscription("OrderCreated", Role::Compensable), subscription("InventoryUpdated", Role::Retriable)],
    );
    order.finishes = true;
    let mut payment = member("payment", vec![subscription("OrderCreated", Role::Compensable)]);
    payment.finish_on.insert("OrderCompleted".into());
    let mut inventory = member("inventory", vec![subscription("PaymentProcessed", Role::Compensable)]);
    inventory.finish_on.insert("OrderCompleted".into());
    Topology {
        app: "shop".to_owned(),
        members: vec![order, payment, inventory],
        bounds: Bounds { saga_deadline: Some(Duration::from_secs(900)), ..Bounds::default() },
        saga_failed: None,
    }
}

pub fn event(kind: &str, id: &str, data: &str) -> Event {
    Event {
        key: EventKey::new("outside", id),
        saga: SagaId::new("o-1"),
        kind: kind.into(),
        time: Time(1),
        content_type: "application/json".into(),
        data: data.as_bytes().into(),
        attributes: vec![("traceparent".to_owned(), "00-1".to_owned())],
        hops: 0,
        origin: Some(crate::event::Origin { topic: kind.into(), partition: 0, offset: 1, record: None }),
        record_key: None,
    }
}

pub fn saved(text: &str) -> Saved {
    Saved { data: text.as_bytes().into(), format: 1 }
}

pub fn emission(kind: &str) -> Emission {
    Emission {
        kind: kind.into(),
        data: Arc::from(*b"{}"),
        content_type: None,
        saga: None,
        after: None,
        attributes: Vec::new(),
    }
}

impl World {
    pub fn new(topology: Topology) -> Self {
        Self {
            saga: Saga::new("o-1".into(), Time(1000)),
            topology,
            now: Time(1000),
            answers: Vec::new(),
            always: Vec::new(),
            digests: Vec::new(),
            hanging: Vec::new(),
            made: Vec::new(),
            published: Vec::new(),
            letters: Vec::new(),
            log: Vec::new(),
            spilled: Vec::new(),
            extra: Vec::new(),
            launches: VecDeque::new(),
            first: None,
            data_alike: false,
            observer: None,
            violation: None,
        }
    }

    pub fn receive(&mut self, event: Event) -> Transition {
        let spilled = self.spilled_data(&event);
        self.input(Input::Received { event, spilled })
    }

    /// `to`: the participant that it asks for a step.
    pub fn requested(&mut self, event: Event, to: Option<&str>) -> Transition {
        let source = Event::source_of_request(&self.topology.app, to.is_some(), "/test");
        let event = Event { key: EventKey::new(source, &event.key.id), origin: None, ..event };
        let spilled = self.spilled_data(&event);
        self.input(Input::Requested { event, spilled, to: to.map(Into::into) })
    }

    /// As the pipeline does it: on a copy, then the effects in their order, fused events and calls in the same chain;
    /// and once that is durable, the calls that waited for it.
    pub fn input(&mut self, input: Input) -> Transition {
        self.first = None;
        // A violation ends the chain, and is kept.
        let mut going = drive(self, input).is_ok();
        let first = self.first.take().expect("the first input was decided");
        while let Some(call) = self.launches.pop_front().filter(|_| going) {
            going = drive(self, Input::Started { call, interrupted: false }).is_ok();
        }
        first
    }

    fn spilled_data(&self, event: &Event) -> Option<[u8; 16]> {
        let key = event.key.hash128();
        self.spilled.iter().find(|(known, _)| *known == key).map(|(_, data)| *data)
    }

    /// The call ends with this answer.
    pub fn end(&mut self, call: &Call, answer: &Answer) -> Transition {
        let input = self.ended(call, answer);
        self.input(input)
    }

    fn ended(&mut self, call: &Call, answer: &Answer) -> Input {
        let by = self.behaviour(&call.participant);
        let took = Duration::from_millis(3);
        let back = CallRef::from(call);
        if call.runs == Runs::Outside && call.send > 0 {
            let left = !matches!(answer, Answer::Unsent(_));
            self.log.push(format!(
                "{}: request {} {}",
                name(call),
                call.send,
                if left { "came back" } else { "stayed" }
            ));
            return Input::Resumed { call: back, left, what: "a request".into(), took };
        }
        self.log.push(format!("{}: {}", name(call), said(answer)));
        match call.direction {
            Direction::Forward => {
                let outcome = self.outcome(call, answer);
                Input::Returned { call: back, by, outcome, left: false, took }
            }
            Direction::Undo => {
                let outcome = undo_outcome(call, answer);
                Input::Undone { call: back, by, outcome, took }
            }
        }
    }

    fn answer(&mut self, call: &Call) -> Answer {
        let of = |who: &Participant, direction: Direction| *who == call.participant && direction == call.direction;
        let mut queued = self.answers.iter_mut().filter(|(who, direction, _)| of(who, *direction));
        if let Some(answer) = queued.find_map(|(_, _, answers)| answers.pop_front()) {
            return answer;
        }
        let standing = self.always.iter().find(|(who, direction, _)| of(who, *direction));
        standing.map_or(Answer::Ok, |(_, _, answer)| answer.clone())
    }

    pub fn behaviour(&self, participant: &Participant) -> Behaviour {
        let digest =
            self.digests.iter().find(|(who, _)| who == participant).map_or("d1", |(_, digest)| digest.as_str());
        Behaviour { digest: digest.into(), config: "c".into(), version: "1.0".into() }
    }

    fn outcome(&self, call: &Call, answer: &Answer) -> Outcome {
        let problem = |code: &str| Problem::new(code, "as told");
        match answer {
            Answer::Ok | Answer::Hangs | Answer::Sends => Outcome::Completed(self.completion(call)),
            Answer::Rejects(code) => Outcome::Rejected(Rejection {
                problem: problem(code),
                emit: failure_kind(&call.participant).into_iter().map(emission).collect(),
                attributes: Vec::new(),
            }),
            Answer::Retries(code, after) => Outcome::Retry(Delay { problem: problem(code), after: *after }),
            Answer::Crashes { uncertain } => Outcome::Unknown {
                crash: Crash { code: "trap".to_owned(), detail: "unreachable".to_owned() },
                uncertain: *uncertain,
            },
            Answer::NotYet | Answer::Nothing => Outcome::NotYet(problem("NOT_YET")),
            Answer::Invalid(code) | Answer::Stuck(code) => Outcome::Invalid(problem(code)),
            Answer::Unreadable => Outcome::Unreadable { formats: vec![1] },
            Answer::Unsent(code) => Outcome::Unsent(problem(code)),
        }
    }

    /// What a call leaves to later ones: no two leave the same, so that mixing them up is seen.
    fn left(&self, what: &str, call: &Call) -> Saved {
        if self.data_alike { saved(what) } else { saved(&format!("{what} of {} {}", call.step_id, call.attempt)) }
    }

    fn completion(&self, call: &Call) -> Completion {
        let (emits, undo): (&[&str], bool) = match (call.participant.as_str(), call.event.kind.as_str()) {
            ("order", "OrderCreated") => (&[], true),
            ("order", "InventoryUpdated") => (&["OrderCompleted"], false),
            ("payment", "OrderCreated") => (&["PaymentProcessed"], true),
            ("inventory", "PaymentProcessed") => (&["InventoryUpdated"], true),
            (_, kind) => (&[], kind != "Noted"),
        };
        let finished = call.participant.as_str() == "order" && call.event.kind.as_str() == "InventoryUpdated";
        let mut emit: Vec<Emission> = emits.iter().map(|kind| emission(kind)).collect();
        let extra = self.extra.iter().filter(|(who, kind, _)| *who == call.participant && *kind == call.event.kind);
        emit.extend(extra.map(|(_, _, emission)| emission.clone()));
        Completion {
            emit,
            state: StateChange::Put(self.left("state", call)),
            undo: if undo { Undo::Data(self.left("undo", call)) } else { Undo::NothingToUndo },
            progress: if finished { Progress::Finished(Arc::from(*b"ok")) } else { Progress::GoingOn },
            attributes: Vec::new(),
        }
    }
}

impl Drive for World {
    /// A violation of what the observer demands.
    type Error = ();

    fn decide(&mut self, input: Input) -> Result<Transition, ()> {
        let before = self.saga.clone();
        let mut after = before.clone();
        let transition = match after.on(input.clone(), &self.topology, self.now) {
            Ok(transition) => transition,
            Err(broken) => panic!("{broken}"),
        };
        if let Some(observer) = &mut self.observer
            && let Err(violation) = observer.see(&Seen {
                before: &before,
                input: &input,
                transition: &transition,
                after: &after,
                topology: &self.topology,
            })
        {
            self.violation.get_or_insert(violation);
        }
        self.saga = after;
        if let Some(answer) = &transition.answer {
            self.log.push(format!("answer: {}{}", if answer.done { "" } else { "no, " }, answer.text));
        }
        self.first.get_or_insert_with(|| transition.clone());
        if self.violation.is_some() { Err(()) } else { Ok(transition) }
    }

    fn call(&mut self, call: Call) -> Result<Option<Input>, ()> {
        if call.runs == Runs::Later {
            self.log.push(format!("{}: journaled first", name(&call)));
            self.launches.push_back(CallRef::from(&call));
            return Ok(None);
        }
        self.made.push(call.clone());
        let answer = self.answer(&call);
        if answer == Answer::Sends && call.runs == Runs::Here {
            self.log.push(format!("{}: sends", name(&call)));
            let by = self.behaviour(&call.participant);
            return Ok(Some(Input::Sends { call: CallRef::from(&call), by }));
        }
        // A run that goes on with an answer is part of the chain that brings it.
        if answer == Answer::Hangs && (call.send == 0 || call.runs == Runs::Outside) {
            self.log.push(format!("{}: is out", name(&call)));
            self.hanging.push(call);
            return Ok(None);
        }
        Ok(Some(self.ended(&call, &answer)))
    }

    fn called(&mut self, _: bool) {}

    fn publish(&mut self, Publish { event, fuse }: Publish) -> Result<Option<Input>, ()> {
        let text = String::from_utf8_lossy(&event.data).into_owned();
        let said = if text == "{}" { String::new() } else { format!(" {text}") };
        let to = if event.saga == self.saga.id { String::new() } else { format!(" for {}", event.saga) };
        self.log.push(format!("publish {}{to}{said}", event.kind));
        self.published.push(event.clone());
        if !(fuse && self.topology.concerns(&event.kind)) {
            return Ok(None);
        }
        let spilled = self.spilled_data(&event);
        Ok(Some(Input::Received { event, spilled }))
    }

    fn answer(&mut self, request: &EventKey, undoing: bool, event: Event) {
        let how = if undoing { " of its undoing" } else { "" };
        self.log.push(format!("answer {}{how}: {}", request.id, event.kind));
    }

    fn open_letter(&mut self, letter: Letter) {
        let who = letter.participant.as_ref().map(|who| format!("{who}.")).unwrap_or_default();
        self.log.push(format!("letter {who}{} {}", letter.event.kind, letter.problem.code));
        self.letters.retain(|known| known.key != letter.key);
        self.letters.push(letter);
    }

    fn keep_aside(&mut self, letter: Letter) {
        self.log.push(format!("kept aside {} {}", letter.event.kind, letter.problem.code));
    }

    fn close_letter(&mut self, key: String, how: String) {
        self.log.push(format!("letter {key} closed: {how}"));
    }

    fn spill(&mut self, events: Vec<([u8; 16], [u8; 16])>, _: Vec<Entry>) {
        self.spilled.extend(events);
    }
}

fn failure_kind(participant: &Participant) -> Option<&'static str> {
    match participant.as_str() {
        "payment" => Some("PaymentFailed"),
        "inventory" => Some("InventoryRejected"),
        _ => None,
    }
}

fn undo_outcome(call: &Call, answer: &Answer) -> UndoOutcome {
    let problem = |code: &str| Problem::new(code, "as told");
    let emits = match (call.participant.as_str(), call.event.kind.as_str()) {
        ("order", "OrderCreated") => Some("OrderCancelled"),
        ("payment", _) => Some("PaymentRefunded"),
        ("inventory", _) => Some("InventoryReleased"),
        _ => None,
    };
    // There is nothing to take back, but an order that never was is announced as cancelled.
    let ran = !matches!(call.undo.as_ref().map(|undo| &undo.evidence), Some(crate::outcome::Evidence::NeverRan));
    match answer {
        Answer::Ok | Answer::Hangs | Answer::Sends if !ran && call.participant.as_str() != "order" => {
            UndoOutcome::NothingToUndo
        }
        Answer::Ok | Answer::Hangs | Answer::Sends => UndoOutcome::Undone(Undone {
            emit: emits.into_iter().map(emission).collect(),
            state: StateChange::Keep,
            attributes: Vec::new(),
        }),
        Answer::Retries(code, after) => UndoOutcome::Retry(Delay { problem: problem(code), after: *after }),
        Answer::Crashes { .. } | Answer::NotYet => {
            UndoOutcome::Unknown { crash: Crash { code: "trap".to_owned(), detail: "unreachable".to_owned() } }
        }
        Answer::Stuck(code) | Answer::Rejects(code) | Answer::Invalid(code) => UndoOutcome::Stuck(problem(code)),
        Answer::Nothing => UndoOutcome::NothingToUndo,
        Answer::Unreadable => UndoOutcome::Unreadable { formats: vec![1] },
        Answer::Unsent(code) => UndoOutcome::Unsent(problem(code)),
    }
}

pub fn name(call: &Call) -> String {
    let attempt = if call.attempt == 1 { String::new() } else { format!(" attempt {}", call.attempt) };
    match &call.undo {
        None => format!("{}.{}{attempt}", call.participant, call.event.kind),
        Some(undo) => {
            let evidence = match &undo.evidence {
                crate::outcome::Evidence::Done(_) => "done",
                crate::outcome::Evidence::Uncertain => "uncertain",
                crate::outcome::Evidence::NeverRan => "never-ran",
            };
            let again = if call.ordinal == 0 { String::new() } else { format!(" ordinal {}", call.ordinal) };
            format!("undo {}.{} ({evidence}){again}{attempt}", call.participant, call.event.kind)
        }
    }
}

fn said(answer: &Answer) -> String {
    match answer {
        Answer::Ok | Answer::Hangs | Answer::Sends => "ok".to_owned(),
        Answer::Rejects(code) => format!("rejects {code}"),
        Answer::Retries(code, _) => format!("retries {code}"),
        Answer::Crashes { uncertain: true } => "crashes, uncertain".to_owned(),
        Answer::Crashes { uncertain: false } => "crashes".to_owned(),
        Answer::NotYet => "not yet".to_owned(),
        Answer::Invalid(code) => format!("invalid {code}"),
        Answer::Unreadable => "unreadable".to_owned(),
        Answer::Unsent(code) => format!("unsent {code}"),
        Answer::Stuck(code) => format!("stuck {code}"),
        Answer::Nothing => "nothing to undo".to_owned(),
    }
}
