//! Events that leave: emissions at once or later, and the announcement of a failure. Invariant: the id of an emitted
//! event depends only on the idempotency key of the call and its place in the outcome.

use crate::{
    event::{Attributes, Event},
    history::What,
    id::{EventKey, Time, emitted_id, hex, sha256},
    input::{Effect, Publish},
    mutation::{self, Mutation},
    on::Turn,
    outcome::{Cause, Emission, Problem},
    saga::{Delayed, Expected, Phase, Saga},
};

const JSON: &str = "application/json";

impl Saga {
    pub(crate) fn emit(
        &mut self,
        step: usize,
        key: &str,
        emissions: Vec<Emission>,
        undoing: bool,
        turn: &mut Turn<'_>,
    ) {
        for (index, emission) in emissions.into_iter().enumerate() {
            let index = if mutation::on(Mutation::OneEmittedId) { 0 } else { index };
            // Whoever asked has the answer before the time comes.
            let delay = emission.after.filter(|_| !self.steps[step].event.is_asked(&turn.topology.app));
            let event = self.emitted(step, emitted_id(key, index), emission, turn);
            match delay {
                None => self.publish(step, event, undoing, turn),
                Some(delay) => {
                    let step = u32::try_from(step).expect("steps are bounded");
                    self.delayed.push(Delayed { event, due: turn.now.after(delay), step });
                }
            }
        }
        if self.phase == Phase::Compensating {
            self.drop_delayed("dropped: the saga compensates", turn.now);
        }
    }

    fn emitted(&self, step: usize, id: String, emission: Emission, turn: &Turn<'_>) -> Event {
        let step = &self.steps[step];
        let mut attributes = guest_attributes(emission.attributes);
        trace(&step.event.attributes, &mut attributes);
        // The key of this saga's records says nothing of another saga.
        let own = emission.saga.as_ref().is_none_or(|saga| *saga == self.id);
        let record_key = self.record_key.clone().filter(|_| own);
        Event {
            key: EventKey::new(format!("sagahost/{}/{}", turn.topology.app, step.participant), id),
            saga: emission.saga.unwrap_or_else(|| self.id.clone()),
            kind: emission.kind,
            time: turn.now,
            content_type: emission.content_type.as_deref().unwrap_or(JSON).into(),
            data: emission.data,
            attributes,
            hops: step.event.hops.saturating_add(1),
            origin: None,
            record_key,
        }
    }

    /// What a step emits that a request asked for is the business of whoever asked: it is in the answer and nowhere else.
    /// Anything else is fused where it concerns this saga; the topology says whether a participant here acts on it.
    fn publish(&mut self, step: usize, event: Event, undoing: bool, turn: &mut Turn<'_>) {
        let participant = Some(self.steps[step].participant.clone());
        self.note(turn.now, What::Emitted { participant, kind: event.kind.clone(), id: event.key.id.clone() });
        let from = &self.steps[step].event;
        if from.is_asked(&turn.topology.app) && !mutation::on(Mutation::PublishAnswers) {
            turn.effects.push(Effect::Answer { request: from.key.clone(), undoing, event });
            return;
        }
        let fuse = event.saga == self.id;
        if fuse && turn.topology.concerns(&event.kind) {
            let step = u32::try_from(step).expect("steps are bounded");
            self.expected.push(Expected { key: event.key.hash128(), step, undoing });
        }
        turn.effects.push(Effect::Publish(Publish { event, fuse }));
    }

    /// Delayed emissions whose time has come.
    pub(crate) fn publish_due(&mut self, turn: &mut Turn<'_>) -> bool {
        let now = turn.now;
        let (due, later) = std::mem::take(&mut self.delayed).into_iter().partition(|delayed| delayed.due <= now);
        self.delayed = later;
        let due: Vec<Delayed> = due;
        let any = !due.is_empty();
        for Delayed { mut event, step, .. } in due {
            event.time = now;
            self.publish(step as usize, event, false, turn);
        }
        any
    }

    pub(crate) fn drop_delayed(&mut self, why: &str, now: Time) {
        for Delayed { event, step, .. } in std::mem::take(&mut self.delayed) {
            let participant = self.steps[step as usize].participant.clone();
            self.note(now, What::Parked { participant, kind: event.kind, why: why.into(), until: None });
        }
    }

    /// `SagaFailed` (SEMANTICS.md, rule 7): one for a saga and a cause, answered by nobody.
    pub(crate) fn announce(&mut self, cause: &Cause, problem: &Problem, step: Option<usize>, turn: &mut Turn<'_>) {
        let app = &turn.topology.app;
        let who = cause.participant.as_ref().map_or("", |participant| participant.as_str());
        let parts =
            [b"saga-failed", app.as_bytes(), self.id.as_str().as_bytes(), cause.code.as_bytes(), who.as_bytes()];
        let key = EventKey::new(format!("sagahost/{app}"), hex(&sha256(&parts)[..16]));
        let data = serde_json::json!({
            "saga": self.id.as_str(),
            "app": app,
            "participant": cause.participant.as_ref().map(|participant| participant.as_str()),
            "code": problem.code,
            "detail": problem.detail,
        });
        let from = step.or(if self.steps.is_empty() { None } else { Some(0) }).map(|step| &self.steps[step].event);
        let mut attributes = Attributes::new();
        if let Some(from) = from {
            trace(&from.attributes, &mut attributes);
        }
        let event = Event {
            key: key.clone(),
            saga: self.id.clone(),
            kind: turn.topology.saga_failed_kind(),
            time: turn.now,
            content_type: JSON.into(),
            data: data.to_string().into_bytes().into(),
            attributes,
            hops: from.map_or(0, |from| from.hops.saturating_add(1)),
            origin: None,
            record_key: self.record_key.clone(),
        };
        self.note(turn.now, What::Emitted { participant: None, kind: event.kind.clone(), id: key.id.clone() });
        self.announced = Some(key);
        let times = if mutation::on(Mutation::AnnounceAgain) { 2 } else { 1 };
        for _ in 0..times {
            turn.effects.push(Effect::Publish(Publish { event: event.clone(), fuse: false }));
        }
    }
}

/// A guest cannot set what the host says of an event.
fn guest_attributes(mut attributes: Attributes) -> Attributes {
    attributes.retain(|(name, _)| !name.starts_with("sagahost-") && !name.starts_with("ce_"));
    attributes
}

fn trace(from: &Attributes, to: &mut Attributes) {
    for (name, value) in from.iter().filter(|(name, _)| name == "traceparent" || name == "tracestate") {
        if !to.iter().any(|(known, _)| known == name) {
            to.push((name.clone(), value.clone()));
        }
    }
}
