//! A ledger of its own that watches a saga from outside: calls, their ends, events, letters, states. Invariant: it
//! never looks into the record for what it can see itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Saga,
    id::{Direction, EventKey, Participant, emitted_id, step_id},
    input::{CallRef, Command, Disposition, Effect, Input, Status, Transition, letter_key},
    outcome::{Call, Completion, Evidence, Outcome, Runs, Saved, Undo, UndoOutcome},
    topology::{Role, Topology, When},
    view::{StepState, StepView},
};

pub type Found = Result<(), &'static str>;

/// One input, as it passed.
pub struct Seen<'s> {
    pub before: &'s Saga,
    pub input: &'s Input,
    pub transition: &'s Transition,
    pub after: &'s Saga,
    pub topology: &'s Topology,
}

#[derive(Clone, Default)]
pub struct Observer {
    steps: BTreeMap<String, Ledger>,
    /// Which step's forward call makes which event ids.
    makes: BTreeMap<String, String>,
    published: BTreeSet<EventKey>,
    announced: bool,
    keys: BTreeMap<String, (String, bool, u32)>,
    letters: BTreeSet<String>,
    starts: usize,
    pivoted: bool,
    fenced: bool,
    taken: BTreeSet<(EventKey, [u8; 16])>,
    /// Requests that left.
    sent: BTreeSet<(String, bool, u32, u32, u32)>,
}

/// What one step did.
#[derive(Clone, Default)]
struct Ledger {
    compensable: bool,
    start: Option<usize>,
    behind_fence: bool,
    cause: Option<String>,
    done: bool,
    completions: u32,
    undone: u32,
    undo_begun: bool,
    stuck: bool,
    late: bool,
    /// The attempt whose end is awaited.
    out: Option<u32>,
    released: bool,
    /// A request of it left the host.
    asked: bool,
    /// What the call that was accepted left for its undo.
    left: Option<Saved>,
    attempts: BTreeMap<(bool, u32), u32>,
    failed: BTreeMap<(bool, u32), (String, u32)>,
    spent: BTreeSet<(bool, u32)>,
}

/// Is the call that ended of a step that a request asked for?
fn answers(seen: &Seen<'_>) -> bool {
    let (Input::Returned { call, .. } | Input::Undone { call, .. }) = seen.input else { return false };
    let mut steps = seen.before.steps().filter(|step| step.step_id == call.step_id);
    steps.any(|step| step.event.source.contains("/asked/"))
}

fn must(holds: bool, otherwise: &'static str) -> Found {
    if holds { Ok(()) } else { Err(otherwise) }
}

impl Observer {
    pub fn see(&mut self, seen: &Seen<'_>) -> Found {
        let nothing = seen.transition.disposition.nothing().is_some();
        must(!nothing || seen.before == seen.after, "the record changed and nothing was said of it")?;
        must(nothing || seen.after.version() == seen.before.version() + 1, "a change without a version")?;
        self.see_received(seen)?;
        self.see_end_of_call(seen)?;
        self.see_operator(seen.input, seen.before);
        // Calls are asked for when all else is decided.
        self.fenced = seen.after.cause().is_some();
        for effect in &seen.transition.effects {
            match effect {
                Effect::Call(call) => self.see_call(call, seen)?,
                Effect::Publish(publish) => {
                    must(!answers(seen) || !publish.fuse, "what a request asked for is published")?;
                    self.see_published(&publish.event, seen.topology)?;
                }
                Effect::Answer { event, .. } => {
                    must(answers(seen), "nobody asked for what is answered")?;
                    self.see_published(event, seen.topology)?;
                }
                Effect::OpenLetter(letter) => drop(self.letters.insert(letter.key.clone())),
                Effect::KeepAside(letter) => self.kept_aside(&letter.event, nothing)?,
                Effect::CloseLetter { key, .. } => drop(self.letters.remove(key)),
                Effect::Spill { .. } => {}
            }
        }
        for step in seen.after.steps().filter(|step| step.released) {
            if let Some(ledger) = self.steps.get_mut(&step.step_id) {
                ledger.released = true;
            }
        }
        self.see_states(seen)
    }

    fn see_received(&mut self, seen: &Seen<'_>) -> Found {
        let (Input::Received { event, .. } | Input::Requested { event, .. }) = seen.input else {
            return Ok(());
        };
        if let Input::Requested { to, .. } = seen.input {
            let letter = |effect: &Effect| matches!(effect, Effect::OpenLetter(_) | Effect::KeepAside(_));
            let failed = seen.after.cause().is_some() && seen.before.cause().is_none();
            must(failed || !seen.transition.effects.iter().any(letter), "a request that is refused opens a letter")?;
            let begun = seen.before.steps().any(|step| *step.kind == event.kind);
            let changed = seen.transition.disposition == Disposition::Changed;
            must(to.is_some() || !begun || !changed, "a second request begins a saga that exists")?;
            let new = |step: &crate::view::StepView<'_>| seen.before.steps().all(|known| known.step_id != step.step_id);
            let acts = seen.after.steps().any(|step| new(&step)) || seen.after.cause() != seen.before.cause();
            let members = &seen.topology.members;
            let ends = members.iter().any(|member| member.finish_on.contains(&event.kind));
            // A second failure behind the pivot is evidence, and changes nothing.
            let fails = event.kind == seen.topology.saga_failed_kind()
                || members.iter().any(|member| member.compensate_on.contains(&event.kind));
            must(
                !changed || acts || ends || fails && seen.before.cause().is_none(),
                "a request is taken in that nobody acts on",
            )?;
            if matches!(seen.transition.disposition, Disposition::Refused(_) | Disposition::Unhandled) {
                return Ok(());
            }
        }
        let new = self.taken.insert((event.key.clone(), event.data_hash()));
        let changed = seen.transition.disposition == Disposition::Changed;
        must(new || !changed, "an event is taken in twice")
    }

    /// If the letter is redriven, the event comes again and is taken in.
    fn kept_aside(&mut self, event: &crate::event::Event, nothing: bool) -> Found {
        let here = self.taken.remove(&(event.key.clone(), event.data_hash()));
        must(nothing && here, "a saga took in what it kept aside")
    }

    fn see_call(&mut self, call: &Call, seen: &Seen<'_>) -> Found {
        let forward = call.direction == Direction::Forward;
        // The second half of a call that was journaled first is the same call.
        let launched = matches!(seen.input, Input::Started { interrupted: false, .. });
        let later = matches!(call.runs, Runs::Outside) == launched;
        must(later, "a call leaves before it is durable that it began")?;
        if call.send > 0 && launched {
            let request = (call.step_id.clone(), forward, call.ordinal, call.attempt, call.send);
            must(self.sent.insert(request), "a request leaves twice")?;
        }
        if !launched && call.send == 0 {
            self.see_key(call, forward)?;
            let ledger = self.steps.entry(call.step_id.clone()).or_default();
            let last = ledger.attempts.insert((forward, call.ordinal), call.attempt);
            must(last.is_none_or(|last| last < call.attempt), "an attempt's number comes twice")?;
            must(!ledger.spent.contains(&(forward, call.ordinal)), "attempts have no end")?;
        }
        if forward { self.see_forward(call, seen) } else { self.see_undo(call) }
    }

    fn see_key(&mut self, call: &Call, forward: bool) -> Found {
        let of = (call.step_id.clone(), forward, call.ordinal);
        let known = self.keys.insert(call.idempotency_key.clone(), of.clone());
        must(known.is_none_or(|known| known == of), "two directions or ordinals share a key")
    }

    fn see_forward(&mut self, call: &Call, seen: &Seen<'_>) -> Found {
        let member = seen.topology.member(&call.participant);
        let subscription =
            member.and_then(|member| member.subscription(&call.event.kind)).expect("only who subscribes");
        // With what it was answered it may see that it is over.
        let replayed = call.send > 0 && call.runs == Runs::Here;
        let forward = !self.fenced || subscription.when != When::Running;
        must(forward || replayed, "a forward step begins behind the fence")?;
        for index in 0..8 {
            self.makes.insert(emitted_id(&call.idempotency_key, index), call.step_id.clone());
        }
        let cause = self.makes.get(&*call.event.key.id).cloned();
        let (starts, fenced) = (self.starts, self.fenced);
        let ledger = self.steps.entry(call.step_id.clone()).or_default();
        ledger.compensable = subscription.role == Role::Compensable;
        ledger.cause = cause;
        ledger.out = Some(call.attempt);
        if ledger.start.is_none() {
            ledger.start = Some(starts);
            ledger.behind_fence = fenced;
            self.starts += 1;
        }
        Ok(())
    }

    /// In reverse order of start, unless a stuck step holds back what caused it.
    fn see_undo(&mut self, call: &Call) -> Found {
        must(!self.pivoted, "something is undone behind the pivot")?;
        let cause = self.makes.get(&*call.event.key.id).cloned();
        let ledger = self.steps.entry(call.step_id.clone()).or_default();
        ledger.cause = cause;
        let real = match &call.undo.as_ref().expect("it is an undo").evidence {
            Evidence::Done(data) => {
                must(ledger.left.as_ref() == Some(data), "a step is undone with what another call left")?;
                true
            }
            Evidence::Uncertain | Evidence::NeverRan => false,
        };
        if real && self.steps[&call.step_id].start.is_some() && !self.steps[&call.step_id].late {
            let mine = self.steps[&call.step_id].start;
            let passed = self.steps.iter().find(|(id, other)| {
                let waits = other.done && !other.released && !other.undo_begun && !other.late && other.start > mine;
                waits && other.compensable && !other.behind_fence && !self.held_back(id)
            });
            must(passed.is_none(), "steps are not undone in reverse order of start")?;
        }
        self.steps.entry(call.step_id.clone()).or_default().undo_begun = true;
        Ok(())
    }

    fn held_back(&self, id: &str) -> bool {
        self.steps.values().filter(|ledger| ledger.stuck).any(|ledger| {
            let mut cause = ledger.cause.clone();
            while let Some(of) = cause {
                if of == id {
                    return true;
                }
                cause = self.steps.get(&of).and_then(|ledger| ledger.cause.clone());
            }
            false
        })
    }

    fn see_published(&mut self, event: &crate::event::Event, topology: &Topology) -> Found {
        if *event.key.source == *format!("sagahost/{}", topology.app) {
            must(!self.announced, "a failure is announced twice")?;
            self.announced = true;
        }
        must(self.published.insert(event.key.clone()), "two events have one id")
    }

    fn see_end_of_call(&mut self, seen: &Seen<'_>) -> Found {
        let changed = seen.transition.disposition == Disposition::Changed;
        match seen.input {
            Input::Resumed { call, left: true, .. } if changed => {
                self.steps.entry(call.step_id.clone()).or_default().asked |= call.direction == Direction::Forward;
                Ok(())
            }
            Input::Returned { call, by, outcome, .. } if changed => self.see_returned(call, &by.digest, outcome, seen),
            Input::Undone { call, by, outcome, .. } if changed => self.see_undone(call, &by.digest, outcome, seen),
            Input::Started { call, interrupted: true }
                if changed && call.direction == Direction::Forward && call.send == 0 =>
            {
                self.steps.entry(call.step_id.clone()).or_default().out = None;
                self.see_failure(call, true, "", seen.topology);
                Ok(())
            }
            Input::Returned { .. }
            | Input::Undone { .. }
            | Input::Started { .. }
            | Input::Sends { .. }
            | Input::Resumed { .. }
            | Input::Received { .. }
            | Input::Requested { .. }
            | Input::Due { .. }
            | Input::TopologyChanged
            | Input::Operator(_) => must(!seen.transition.keep_writes, "writes of a late attempt are kept"),
        }
    }

    fn see_returned(&mut self, call: &CallRef, digest: &str, outcome: &Outcome, seen: &Seen<'_>) -> Found {
        let service = seen.topology.member(&call.participant).is_some_and(|member| member.outside_effects);
        let (kept, fenced) = (seen.transition.keep_writes, seen.after.cause().is_some());
        let ledger = self.steps.get_mut(&call.step_id).expect("a call was seen before its end");
        let behind = self.fenced && !ledger.behind_fence;
        let current = ledger.out == Some(call.attempt);
        let late = behind || !current;
        // What a plugin made of an answer that came behind the fence.
        let outside = service || current && call.send > 0;
        ledger.out = ledger.out.filter(|out| *out != call.attempt);
        match outcome {
            Outcome::Completed(completion) => {
                must(!kept || !late || outside, "writes of a late attempt are kept")?;
                if kept {
                    // What was undone before was not the real thing.
                    ledger.late = behind;
                    if behind {
                        (ledger.undone, ledger.stuck) = (0, false);
                    }
                    return self.see_completed(call, completion, seen);
                }
            }
            Outcome::Retry(_) | Outcome::Unknown { .. } if !late => self.see_failure(call, true, digest, seen.topology),
            Outcome::Rejected(_) if !service && ledger.compensable && ledger.asked && fenced => {
                let forgotten = |step: StepView<'_>| {
                    step.step_id == call.step_id && step.state == StepState::Rejected && step.undone
                };
                must(!seen.after.steps().any(forgotten), "a plugin's no is believed although a request of its left")?;
            }
            Outcome::Retry(_)
            | Outcome::Unknown { .. }
            | Outcome::Rejected(_)
            | Outcome::NotYet(_)
            | Outcome::Invalid(_)
            | Outcome::Unsent(_)
            | Outcome::Unreadable { .. } => {}
        }
        Ok(())
    }

    fn see_completed(&mut self, call: &CallRef, completion: &Completion, seen: &Seen<'_>) -> Found {
        let ledger = self.steps.get_mut(&call.step_id).expect("a call was seen before its end");
        ledger.completions += 1;
        must(ledger.completions == 1, "a step is done twice")?;
        ledger.left = match &completion.undo {
            Undo::Data(data) => Some(data.clone()),
            Undo::NothingToUndo => None,
        };
        ledger.done = ledger.left.is_some();
        let member = seen.topology.member(&call.participant).expect("it ran");
        let kind = seen.after.steps().find(|step| step.step_id == call.step_id).expect("it is there").kind.clone();
        let pivot = member.subscription(&kind).is_some_and(|sub| sub.role == Role::Pivot);
        self.pivoted |= pivot && !self.fenced;
        Ok(())
    }

    fn see_undone(&mut self, call: &CallRef, digest: &str, outcome: &UndoOutcome, seen: &Seen<'_>) -> Found {
        let ledger = self.steps.get_mut(&call.step_id).expect("a call was seen before its end");
        match outcome {
            UndoOutcome::Undone(_) | UndoOutcome::NothingToUndo => {
                ledger.undone += 1;
                must(ledger.undone <= 1, "a step is undone twice")?;
            }
            UndoOutcome::Unsent(_) => {}
            UndoOutcome::Stuck(_) | UndoOutcome::Unreadable { .. } => ledger.stuck = true,
            UndoOutcome::Retry(_) | UndoOutcome::Unknown { .. } => {
                self.see_failure(call, false, digest, seen.topology);
            }
        }
        Ok(())
    }

    /// Counts failures of one digest; the budget of the next digest is full.
    fn see_failure(&mut self, call: &CallRef, forward: bool, digest: &str, topology: &Topology) {
        let ledger = self.steps.get_mut(&call.step_id).expect("a call was seen before its end");
        let of = (forward, call.ordinal);
        let (last, count) = ledger.failed.entry(of).or_default();
        if !last.is_empty() && !digest.is_empty() && last != digest {
            *count = 0;
        }
        if !digest.is_empty() {
            digest.clone_into(last);
        }
        *count += 1;
        let max =
            topology.members.iter().flat_map(|member| &member.subscriptions).map(|sub| sub.retry.attempts_max).max();
        if max.is_some_and(|max| *count >= max) {
            ledger.spent.insert(of);
            ledger.stuck |= !forward;
        }
    }

    fn renew(&mut self, step: &str) {
        if let Some(ledger) = self.steps.get_mut(step) {
            ledger.spent.remove(&(true, 0));
            ledger.failed.remove(&(true, 0));
        }
    }

    fn see_operator(&mut self, input: &Input, before: &Saga) {
        let Input::Operator(command) = input else {
            return;
        };
        match command {
            // What was spent or blocked has a full budget again; what waits for its time only goes at once.
            Command::Retry { .. } => {
                for ledger in self.steps.values_mut() {
                    let spent = std::mem::take(&mut ledger.spent);
                    ledger.failed.retain(|of, _| !spent.contains(of));
                    let stuck = std::mem::take(&mut ledger.stuck);
                    ledger.failed.retain(|(forward, _), _| *forward || !stuck);
                }
                for step in before.steps().filter(|step| step.state == StepState::Blocked) {
                    self.renew(&step.step_id);
                }
            }
            // Of a compensation that failed: as a retry of it alone.
            Command::Redrive { participant, event, letter, .. } if letter.ends_with("/undo") => {
                let stuck = |step: &StepView<'_>| {
                    step.state == StepState::CompensationFailed
                        && *letter == format!("{}/undo", letter_key(step.event, Some(step.participant)))
                };
                let open = before.open_letters().iter().any(|open| *open.key == **letter);
                if open
                    && before.steps().any(|step| stuck(&step))
                    && let Some(ledger) = self.steps.get_mut(&step_id(participant, &event.0.key))
                {
                    ledger.stuck = false;
                    ledger.spent.retain(|(forward, _)| *forward);
                    ledger.failed.retain(|(forward, _), _| *forward);
                }
            }
            Command::Redrive { participant, event, .. } => {
                self.renew(&step_id(participant, &event.0.key));
            }
            Command::Resolve { participant, accept, .. } => {
                // Behind the pivot "undone" means that everything was undone by hand.
                self.pivoted &= *accept;
                for (id, ledger) in &mut self.steps {
                    let named = participant.as_ref().is_none_or(|who| id.starts_with(&format!("{who}:")));
                    ledger.stuck &= !named;
                }
            }
            Command::Cancel { .. } | Command::Discard { .. } => {}
        }
    }

    fn see_states(&self, seen: &Seen<'_>) -> Found {
        let (before, after) = (seen.before.status(), seen.after.status());
        let overtaken = before == Status::Compensated && after == Status::Compensating;
        must(!before.terminal() || before == after || overtaken, "a terminal state is left")?;
        let cause = seen.before.cause();
        must(cause.is_none() || cause == seen.after.cause(), "a second failure replaces the first")?;
        self.see_bounds(seen)?;
        let deleted = |who: &Participant| match seen.input {
            Input::Returned { call, .. } | Input::Undone { call, .. } => call.participant == *who,
            _ => false,
        };
        let kept = |(who, _): &(Participant, Saved)| deleted(who) || seen.after.state_of(who).is_some();
        must(after == Status::Completed || seen.before.states.iter().all(kept), "what a participant keeps is gone")?;
        let asked = seen.after.steps().all(|step| step.event.source.contains("/asked/"));
        must(!asked || seen.after.deadline.is_none(), "a time runs that is for whoever asked to keep")?;
        if after == Status::Compensated {
            self.see_compensated(seen.after)?;
        }
        let open: BTreeSet<String> = seen.after.open_letters().iter().map(|letter| letter.key.to_string()).collect();
        let full = open.len() >= seen.topology.bounds.steps_per_saga_max - 1;
        must(
            open == self.letters || (full && open.is_subset(&self.letters)),
            "an open letter is not known to its saga",
        )?;
        let wake = seen.after.wake(seen.topology);
        must(wake.remove_at.is_none() || self.letters.is_empty(), "an open letter does not keep its saga")?;
        let times = seen.after.steps().filter_map(|step| step.next_at).min();
        must(wake.at <= times || times.is_none(), "no next action: a retry's time is not asked for")?;
        must(wake.at.is_some() || times.is_none(), "no next action: a retry's time is not asked for")
    }

    fn see_bounds(&self, seen: &Seen<'_>) -> Found {
        let bounds = &seen.topology.bounds;
        let saga = seen.after;
        must(saga.steps().count() <= bounds.steps_per_saga_max, "a bound is broken: steps")?;
        must(saga.history().len() <= bounds.inline_history_max, "a bound is broken: history in the record")?;
        must(saga.seen.len() <= bounds.inline_events_max, "a bound is broken: ids in the record")?;
        // A step whose call came back to be parked was counted before.
        must(saga.parked().count() <= bounds.parked_per_saga_max + 1, "a bound is broken: parked events")
    }

    fn see_compensated(&self, saga: &Saga) -> Found {
        for step in saga.steps() {
            let Some(ledger) = self.steps.get(&step.step_id) else {
                continue;
            };
            let by_hand = matches!(step.state, StepState::UndoneByHand | StepState::Accepted);
            must(!ledger.stuck || by_hand, "the end is said while a step is stuck")?;
            let owed = ledger.done && ledger.compensable && !ledger.behind_fence && !step.released && !by_hand;
            must(!owed || ledger.undone == 1, "a done step is not undone")?;
        }
        Ok(())
    }
}
