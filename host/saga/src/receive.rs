//! An event comes in. Invariant: an event id is acted on once; what an event means is decided by its kind, the phase
//! and the topology, in that order: failure, subscriptions, end.

use crate::{
    compensation::Failure,
    event::Event,
    history::{EventNote, What},
    id::Participant,
    input::{Disposition, Effect, Letter, Refused, content_key, letter_key},
    mutation::{self, Mutation},
    on::{Turn, broken},
    outcome::{Behaviour, Cause, Problem},
    saga::{Expected, Need, Phase, Saga},
    step::{Budget, Stage, Step},
    topology::{Member, Role, Subscription, Topology, When},
};

/// What became of an event at one subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intake {
    Taken,
    /// Behind the fence: `compensate` hears of it.
    NeverRan,
    Ignored,
    /// Over a bound: in a dead letter.
    Refused,
}

/// An event on its way in, and the emission that it is, if it is one of this app's own.
struct Arrival<'e> {
    event: &'e Event,
    expected: Option<Expected>,
    /// An operator sent it again: bounds that guard against floods do not hold it.
    redriven: bool,
    /// It asks this participant for a step, and no other.
    to: Option<&'e Participant>,
}

impl<'e> Arrival<'e> {
    fn new(event: &'e Event) -> Self {
        Self { event, expected: None, redriven: false, to: None }
    }

    fn is_for(&self, member: &Member) -> bool {
        self.to.is_none_or(|to| *to == member.name)
    }

    fn subscribers<'a>(&'a self, topology: &'a Topology) -> impl Iterator<Item = (&'a Member, &'a Subscription)> {
        topology.subscribers(&self.event.kind).filter(|(member, _)| self.is_for(member))
    }

    /// Whose part it ends.
    fn ends<'a>(&'a self, topology: &'a Topology) -> impl Iterator<Item = &'a Member> {
        topology.members.iter().filter(|member| self.is_for(member) && member.finish_on.contains(&self.event.kind))
    }
}

impl Saga {
    pub(crate) fn receive(
        &mut self,
        event: Event,
        spilled: Option<[u8; 16]>,
        turn: &mut Turn<'_>,
    ) -> Result<Disposition, crate::input::Broken> {
        if event.saga != self.id {
            return Err(broken(&self.id, format!("event {} belongs to saga {}", event.key, event.saga)));
        }
        match self.known(&event, spilled) {
            Some(data) if data == event.data_hash() => {
                self.late += u32::from(mutation::on(Mutation::SilentChange));
                return Ok(Disposition::Known);
            }
            Some(_) => return Ok(self.quarantine(event, turn)),
            None => {}
        }
        if !turn.topology.concerns(&event.kind) {
            return Ok(Disposition::Unhandled);
        }
        if let Some(problem) = self.no_room(&event, turn.topology) {
            turn.effects.push(Effect::KeepAside(Letter::kept_aside(event, problem, turn.now)));
            return Ok(Disposition::Nothing("the saga has no room for it"));
        }
        if self.record_key.is_none() {
            self.record_key.clone_from(&event.record_key);
        }
        let expected = self.take_expected(&event);
        if self.overtaken(&Arrival::new(&event), turn.topology) {
            self.reopen(turn.now);
        }
        Ok(match self.phase {
            Phase::Completed | Phase::Compensated => self.after_the_end(event, turn),
            Phase::Finishing if expected.is_none() => self.after_the_end(event, turn),
            Phase::Open | Phase::Finishing | Phase::Compensating => {
                self.take(Arrival { expected, ..Arrival::new(&event) }, turn)
            }
        })
    }

    /// The data hash of the event, or of the one that came under its id before.
    fn known(&self, event: &Event, spilled: Option<[u8; 16]>) -> Option<[u8; 16]> {
        let known = self.seen_data(&event.key).or(spilled);
        known.filter(|data| *data != event.data_hash() || !mutation::on(Mutation::ForgetSeen))
    }

    /// SEMANTICS.md, rule 17: whoever asks hears what is in the way, so nothing of it is kept.
    pub(crate) fn requested(
        &mut self,
        event: Event,
        spilled: Option<[u8; 16]>,
        to: Option<&Participant>,
        turn: &mut Turn<'_>,
    ) -> Result<Disposition, crate::input::Broken> {
        if event.saga != self.id {
            return Err(broken(&self.id, format!("request {} belongs to saga {}", event.key, event.saga)));
        }
        match self.known(&event, spilled) {
            Some(data) if data == event.data_hash() => return Ok(Disposition::Known),
            Some(_) => return Ok(Disposition::Refused(Refused::OtherData)),
            None => {}
        }
        let topology = turn.topology;
        let arrival = Arrival { to, ..Arrival::new(&event) };
        let handled = match to {
            Some(_) => arrival.subscribers(topology).next().is_some() || arrival.ends(topology).next().is_some(),
            None => topology.concerns(&event.kind),
        };
        if !handled {
            return Ok(Disposition::Unhandled);
        }
        if let Some(why) = self.refuses(&arrival, topology) {
            return Ok(Disposition::Refused(why));
        }
        if self.phase == Phase::Compensated {
            self.reopen(turn.now);
        }
        Ok(self.take(arrival, turn))
    }

    fn refuses(&self, arrival: &Arrival<'_>, topology: &Topology) -> Option<Refused> {
        let kind = &arrival.event.kind;
        let begun = self.start.as_ref() == Some(kind) || self.steps.iter().any(|step| step.event.kind == *kind);
        if arrival.to.is_none() && begun && !mutation::on(Mutation::BeginTwice) {
            return Some(Refused::SagaExists);
        }
        let over = matches!(self.phase, Phase::Completed | Phase::Compensated | Phase::Finishing);
        if over && !self.overtaken(arrival, topology) {
            return Some(Refused::SagaOver);
        }
        let intakes = arrival.subscribers(topology).map(|(_, sub)| self.intake(sub, arrival));
        let taken: Vec<_> = intakes.filter(|intake| *intake != Intake::Ignored).collect();
        let compensating = self.phase == Phase::Compensating;
        let ends = || self.is_failure(arrival, topology) || arrival.ends(topology).next().is_some();
        if taken.is_empty() && (compensating || !ends()) && !mutation::on(Mutation::AdmitIgnored) {
            return Some(if compensating { Refused::SagaOver } else { Refused::NotCompensating });
        }
        let mut taken = taken.into_iter().enumerate();
        let full = self.events_seen() >= topology.bounds.events_per_saga_max as u64
            || taken.any(|(beside, intake)| self.over_bound_beside(beside, arrival, intake, topology).is_some());
        full.then_some(Refused::NoRoom)
    }

    /// Why an event is not taken in but kept aside, if its id is not known: the saga has come to a bound, which waits for a
    /// person already, and everybody who would act on the event would refuse it for that (SEMANTICS.md, rule 13). Asked
    /// for each of very many events, and so nothing of the saga is copied.
    pub fn no_room(&self, event: &Event, topology: &Topology) -> Option<Problem> {
        if self.needs.is_empty() || !matches!(self.phase, Phase::Open | Phase::Compensating) {
            return None;
        }
        let key = event.key.hash128();
        let expected = self.expected.iter().any(|expected| expected.key == key);
        let arrival = Arrival::new(event);
        if expected || self.is_failure(&arrival, topology) || arrival.ends(topology).next().is_some() {
            return None;
        }
        let mut refused = None;
        for (_, sub) in topology.subscribers(&event.kind) {
            let intake = self.intake(sub, &arrival);
            if intake == Intake::Ignored {
                continue;
            }
            let problem = self.over_bound(&arrival, intake, topology)?;
            if self.needs.iter().all(|need| *need.code != *problem.code) {
                return None;
            }
            refused.get_or_insert(problem);
        }
        refused
    }

    /// Did this event come behind the compensation of its saga, for a participant that never heard of such a one? What
    /// it would have begun has to be called off, too (SEMANTICS.md, rule 6): another topic was faster. Where the saga has
    /// come to a bound it stays as it is.
    fn overtaken(&self, arrival: &Arrival<'_>, topology: &Topology) -> bool {
        let event = arrival.event;
        let called_off = |(member, sub): (&Member, &Subscription)| {
            sub.role == Role::Compensable
                && sub.when == When::Running
                && !self.steps.iter().any(|step| step.participant == member.name && step.event.kind == event.kind)
        };
        self.phase == Phase::Compensated
            && self.start.as_ref() != Some(&event.kind)
            && !self.is_failure(arrival, topology)
            && arrival.subscribers(topology).any(called_off)
            && self.events_seen() < topology.bounds.events_per_saga_max as u64
            && self.over_bound(arrival, Intake::NeverRan, topology).is_none()
    }

    fn take(&mut self, arrival: Arrival<'_>, turn: &mut Turn<'_>) -> Disposition {
        let event = arrival.event;
        self.seen.push((event.key.hash128(), event.data_hash()));
        let entry = self.history.len();
        self.note(turn.now, received(event, EventNote::Ignored));
        let failure = self.is_failure(&arrival, turn.topology);
        if failure {
            self.failed_elsewhere(event, turn);
        }
        let topology = turn.topology;
        let mut intakes = Vec::new();
        for (member, subscription) in arrival.subscribers(topology) {
            intakes.push(self.take_in(member, subscription, &arrival, turn));
        }
        for member in arrival.ends(topology) {
            self.ask_to_finish(member);
        }
        if let What::Event { note, .. } = &mut self.history[entry].what {
            let from_outside = event.origin.is_some() || arrival.expected.is_none();
            *note = match (failure, intakes.contains(&Intake::Taken), from_outside) {
                (true, ..) => EventNote::Failure,
                (_, true, true) => EventNote::TakenIn,
                (_, true, false) => EventNote::Fused,
                _ if intakes.contains(&Intake::NeverRan) => EventNote::Late,
                _ if arrival.ends(topology).next().is_some() => EventNote::TakenIn,
                _ => EventNote::Ignored,
            };
        }
        self.late += u32::from(intakes.contains(&Intake::NeverRan));
        Disposition::Changed
    }

    /// Our own announcement, coming back, is not a failure.
    fn is_failure(&self, arrival: &Arrival<'_>, topology: &Topology) -> bool {
        let Event { key, kind, .. } = arrival.event;
        let foreign = self.announced.as_ref() != Some(key);
        let named = |member: &Member| arrival.is_for(member) && member.compensate_on.contains(kind);
        let announced = || arrival.to.is_none() && *kind == topology.saga_failed_kind();
        foreign && (announced() || topology.members.iter().any(named))
    }

    /// SEMANTICS.md, rules 7, 8, 14; a second failure is only evidence (race 7).
    fn failed_elsewhere(&mut self, event: &Event, turn: &mut Turn<'_>) {
        let problem = announced_problem(event);
        match self.phase {
            Phase::Open if self.pivoted() => self.need("failed-after-pivot", &problem, None, None, turn.now),
            Phase::Open => {
                let detail = format!("{}: {}", problem.code, problem.detail);
                let cause = Cause {
                    code: "failure-event".to_owned(),
                    detail,
                    participant: None,
                    event_kind: Some(event.kind.clone()),
                };
                self.fence(Failure { cause, problem, own: false, step: None }, turn);
            }
            Phase::Finishing => self.open_letter(event, None, &after_finish(event), 0, turn),
            Phase::Compensating if mutation::on(Mutation::LastFailureWins) => {
                self.cause = Some(crate::compensation::cause("failure-event", &problem, None));
            }
            Phase::Compensating | Phase::Completed | Phase::Compensated => {}
        }
    }

    fn take_in(&mut self, member: &Member, sub: &Subscription, arrival: &Arrival<'_>, turn: &mut Turn<'_>) -> Intake {
        let intake = self.intake(sub, arrival);
        if intake == Intake::Ignored {
            return intake;
        }
        if let Some(problem) = self.over_bound(arrival, intake, turn.topology) {
            self.open_letter(arrival.event, Some(&member.name), &problem, 0, turn);
            let letter = letter_key(&arrival.event.key, Some(&member.name));
            self.need(&problem.code, &problem, Some(&member.name), Some(letter.as_str().into()), turn.now);
            return Intake::Refused;
        }
        self.begin(arrival.event, turn);
        let step = self.step(member, sub, arrival, turn);
        if intake == Intake::NeverRan {
            self.plan_never_ran(step);
        } else {
            self.steps.push(step);
            self.note_away(member, &arrival.event.kind, turn.now);
        }
        intake
    }

    fn intake(&self, sub: &Subscription, arrival: &Arrival<'_>) -> Intake {
        let compensating = self.phase == Phase::Compensating;
        let undoing = arrival.expected.as_ref().is_some_and(|expected| expected.undoing);
        match sub.when {
            When::Compensating if !compensating => Intake::Ignored,
            When::Compensating | When::Both => Intake::Taken,
            When::Running if !compensating || mutation::on(Mutation::ForwardBehindFence) => Intake::Taken,
            When::Running if undoing || sub.role != Role::Compensable => Intake::Ignored,
            When::Running => Intake::NeverRan,
        }
    }

    /// Where a request asks for a step, how long the saga may take is for whoever asked to say (SEMANTICS.md, rule 17).
    fn begin(&mut self, event: &Event, turn: &Turn<'_>) {
        self.start.get_or_insert_with(|| event.kind.clone());
        let asked = event.is_asked(&turn.topology.app) && !mutation::on(Mutation::DeadlineOfAsked);
        if self.phase == Phase::Open && turn.topology.finishes() && !asked && self.is_all_asked(turn.topology) {
            self.deadline = turn.topology.bounds.saga_deadline.map(|deadline| turn.now.after(deadline));
        }
    }

    /// Did requests ask for all of its steps?
    pub(crate) fn is_all_asked(&self, topology: &Topology) -> bool {
        self.steps.iter().all(|step| step.event.is_asked(&topology.app))
    }

    fn step(&self, member: &Member, sub: &Subscription, arrival: &Arrival<'_>, turn: &Turn<'_>) -> Step {
        Step {
            participant: member.name.clone(),
            event: arrival.event.clone(),
            role: sub.role,
            cause: arrival.expected.as_ref().map(|expected| expected.step),
            stage: Stage::Ready,
            start: None,
            attempts: 0,
            budget: Budget::default(),
            uncertain: false,
            outside: false,
            undo: None,
            by: Behaviour::default(),
            deadline: sub.deadline.map(|deadline| turn.now.after(deadline)),
            park_until: None,
            released: false,
            compensating: self.phase == Phase::Compensating && sub.when != When::Running,
            problem: None,
        }
    }

    /// SEMANTICS.md, rules 11, 13, 16: where a saga stops growing.
    fn over_bound(&self, arrival: &Arrival<'_>, intake: Intake, topology: &Topology) -> Option<Problem> {
        self.over_bound_beside(0, arrival, intake, topology)
    }

    /// `beside`: so many others take it in as well, and before.
    fn over_bound_beside(
        &self,
        beside: usize,
        arrival: &Arrival<'_>,
        intake: Intake,
        topology: &Topology,
    ) -> Option<Problem> {
        let bounds = &topology.bounds;
        let over = |code: &str, what: &str, max: usize| Some(Problem::new(code, format!("more than {max} {what}")));
        let full = self.steps.len() + beside >= bounds.steps_per_saga_max;
        if full && !mutation::on(Mutation::StepsWithoutBound) {
            return over("too-many-steps", "steps in one saga", bounds.steps_per_saga_max);
        }
        let full = self.data_bytes() + (beside + 1) * arrival.event.data.len() > bounds.data_bytes_max;
        if full && !(self.steps.is_empty() && beside == 0) && !mutation::on(Mutation::DataWithoutBound) {
            return over("too-many-bytes", "bytes of data in one saga", bounds.data_bytes_max);
        }
        let parked = self.steps.iter().filter(|step| step.parked()).count();
        let full = parked + beside >= bounds.parked_per_saga_max && !mutation::on(Mutation::ParkWithoutBound);
        if full && intake == Intake::Taken {
            return over("parked-overflow", "events of one saga wait", bounds.parked_per_saga_max);
        }
        if arrival.redriven {
            return None;
        }
        if arrival.event.hops > bounds.hops_max {
            return over("hop-limit", "events led to this one", bounds.hops_max as usize);
        }
        if self.events_seen() > bounds.events_per_saga_max as u64 {
            return over("too-many-events", "events in one saga", bounds.events_per_saga_max);
        }
        None
    }

    /// What the record has beside ids, codes and times: it is written anew with each change.
    fn data_bytes(&self) -> usize {
        let of = |step: &Step| step.event.data.len() + step.undo.as_ref().map_or(0, |undo| undo.data.len());
        let states: usize = self.states.iter().map(|(_, state)| state.data.len()).sum();
        self.steps.iter().map(of).sum::<usize>() + states
    }

    /// SEMANTICS.md, race 12, and rule 8 for failures.
    fn after_the_end(&mut self, event: Event, turn: &mut Turn<'_>) -> Disposition {
        let own = self.announced.as_ref() == Some(&event.key);
        let failed = self.is_failure(&Arrival::new(&event), turn.topology) && self.phase != Phase::Compensated;
        let again = self.start.as_ref() == Some(&event.kind);
        if own || (self.events_seen() >= turn.topology.bounds.events_per_saga_max as u64 && !failed && !again) {
            return Disposition::Nothing("late, without effect");
        }
        self.seen.push((event.key.hash128(), event.data_hash()));
        self.late = self.late.saturating_add(1);
        self.note(turn.now, received(&event, if failed { EventNote::Failure } else { EventNote::Late }));
        if failed {
            self.open_letter(&event, None, &after_finish(&event), 0, turn);
        } else if again {
            let problem = Problem::new("saga-finished", format!("saga {} is over; this starts it again", self.id));
            self.open_letter(&event, None, &problem, 0, turn);
        }
        if mutation::on(Mutation::LeaveTerminal) {
            self.phase = Phase::Open;
        }
        Disposition::Changed
    }

    /// An id of a known event with other data (race 14).
    fn quarantine(&mut self, event: Event, turn: &mut Turn<'_>) -> Disposition {
        const KEPT_MAX: usize = 16;
        let data = event.data_hash();
        let key = content_key(&event);
        if self.quarantined.contains(&data) || self.letter(&key).is_some() {
            return Disposition::Nothing("the event is in a dead letter");
        }
        if self.quarantined.len() < KEPT_MAX {
            self.quarantined.push(data);
        }
        let problem = Problem::new("event-id-reused", format!("event {} came before with other data", event.key));
        let letter =
            Letter { key, participant: None, event, problem, attempts: 0, by: Behaviour::default(), at: turn.now };
        self.open(letter, turn);
        Disposition::Changed
    }

    fn take_expected(&mut self, event: &Event) -> Option<Expected> {
        let key = event.key.hash128();
        let place = self.expected.iter().position(|expected| expected.key == key)?;
        Some(self.expected.remove(place))
    }

    /// A dead letter's event, for the one participant (SEMANTICS.md, rule 12). Its id is among the known ones already.
    pub(crate) fn take_redriven(&mut self, event: &Event, member: &Member, sub: &Subscription, turn: &mut Turn<'_>) {
        self.take_in(member, sub, &Arrival { redriven: true, ..Arrival::new(event) }, turn);
    }

    /// A person must act; said once for each reason.
    pub(crate) fn need(
        &mut self,
        code: &str,
        problem: &Problem,
        participant: Option<&Participant>,
        letter: Option<std::sync::Arc<str>>,
        now: crate::id::Time,
    ) {
        if self.needs.iter().any(|need| *need.code == *code && need.letter == letter) {
            return;
        }
        let detail = crate::on::short(&format!("{}: {}", problem.code, problem.detail));
        self.note_status(now, crate::input::Status::NeedsOperator, code, &detail);
        self.needs.push(Need { code: code.into(), detail, participant: participant.cloned(), letter });
    }

    /// Nothing may be compensated any more (SEMANTICS.md, rule 8).
    pub(crate) fn pivoted(&self) -> bool {
        self.steps.iter().any(Step::pivoted) && !mutation::on(Mutation::IgnorePivot)
    }
}

fn received(event: &Event, note: EventNote) -> What {
    What::Event { kind: event.kind.clone(), key: event.key.clone(), note }
}

fn after_finish(event: &Event) -> Problem {
    let problem = announced_problem(event);
    let detail = format!("{} came after this app's part was finished: {}", event.kind, problem.code);
    Problem::new("failed-after-finish", detail)
}

/// `SagaFailed` says why; another failure kind says it by its name.
fn announced_problem(event: &Event) -> Problem {
    #[derive(serde::Deserialize)]
    struct Announced {
        app: String,
        #[serde(default)]
        participant: Option<String>,
        code: String,
        #[serde(default)]
        detail: String,
    }
    match serde_json::from_slice::<Announced>(&event.data) {
        Ok(Announced { app, participant, code, detail }) => {
            let who = participant.map(|participant| format!("/{participant}")).unwrap_or_default();
            Problem::new(event.kind.as_str(), format!("{app}{who}: {code}: {detail}"))
        }
        Err(_) => Problem::new(event.kind.as_str(), event.key.to_string()),
    }
}
