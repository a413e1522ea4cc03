//! Which saga runs next. Invariant: a participant that is slow, or has much to do, does not keep the others waiting: it has
//! its share of the workers and no more.
//!
//! Three rules. Of the participants for which something waits, the one that has had the least time comes first, and what
//! it costs is charged as it is spent (start-time fair queueing; Goyal, Vin, Cheng, SIGCOMM 1996). A chain that is in one
//! call for longer than a slice frees its slot for another worker, and continues beside it. And no participant has all of
//! the places beside: where its share is used up, its sagas wait.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use sagahost_saga::id::Participant;

use crate::step::{Now, Steady};

/// Where something fresh waits, what is tried again gets this part of its participant's time.
const AGAIN_ONE_IN: u32 = 8;

/// How much runs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleBounds {
    /// Chains, but for those in slow calls: about as many as there are cores.
    pub slots: usize,
    /// Chains in slow calls, beside them.
    pub slow_max: usize,
    /// A call that takes longer is slow.
    pub slow_after: Duration,
}

impl ScheduleBounds {
    /// How many slow calls one participant may have: never all of them, so that another one's find a place.
    fn share(&self) -> usize {
        if self.slow_max > 1 { self.slow_max - 1 } else { self.slow_max }
    }
}

/// What is known of a piece of work before it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Who will probably be called first. None: not known, or nobody.
    pub participant: Option<Participant>,
    /// Something is tried again: it comes behind what is fresh.
    pub again: bool,
}

/// A worker's number.
pub type WorkerNo = u64;

/// What a worker is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn<T> {
    Run(T),
    /// Nothing now. `until`: then a slot may be free, although nobody says so.
    Wait {
        until: Option<Steady>,
    },
}

#[derive(Debug)]
struct Lane<T> {
    fresh: VecDeque<T>,
    again: VecDeque<T>,
    /// Time of workers that it has had, or would have had if there had always been something to do.
    had: Duration,
    /// Of what is fresh, and of what is tried again.
    spent: Duration,
    spent_again: Duration,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self {
            fresh: VecDeque::new(),
            again: VecDeque::new(),
            had: Duration::ZERO,
            spent: Duration::ZERO,
            spent_again: Duration::ZERO,
        }
    }
}

impl<T> Lane<T> {
    fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.again.is_empty()
    }

    /// And whether it is tried again.
    fn pop(&mut self) -> Option<(T, bool)> {
        let again_is_due = !self.again.is_empty() && self.spent_again * AGAIN_ONE_IN < self.spent;
        let again = self.fresh.is_empty() || again_is_due;
        let item = if again { self.again.pop_front() } else { self.fresh.pop_front() };
        item.map(|item| (item, again))
    }
}

/// A chain at work.
#[derive(Debug)]
struct Running {
    /// From which lane it came …
    class: Class,
    /// … and whom it calls.
    calls: Option<Participant>,
    since: Steady,
    /// It waits for others, not for a plugin.
    waits: bool,
    /// Everything began anew since it was taken: what it had comes again.
    void: bool,
}

#[derive(Debug)]
pub struct Schedule<T> {
    bounds: ScheduleBounds,
    lanes: BTreeMap<Option<Participant>, Lane<T>>,
    running: BTreeMap<WorkerNo, Running>,
    /// What is ready to run.
    ready: usize,
    /// Chains that need no slot, as they were counted last.
    beside: usize,
    /// While all slots are taken and something waits, one worker looks from time to time whether a call has become slow.
    watcher: Option<WorkerNo>,
    /// What the lane had that was served last: one that was empty meanwhile saves nothing up.
    floor: Duration,
}

impl<T> Schedule<T> {
    pub fn new(bounds: ScheduleBounds) -> Self {
        Self {
            bounds,
            lanes: BTreeMap::new(),
            running: BTreeMap::new(),
            ready: 0,
            beside: 0,
            watcher: None,
            floor: Duration::ZERO,
        }
    }

    pub fn push(&mut self, class: &Class, item: T) {
        let lane = match self.lanes.get_mut(&class.participant) {
            Some(lane) => lane,
            None => self.lanes.entry(class.participant.clone()).or_default(),
        };
        if lane.is_empty() {
            lane.had = lane.had.max(self.floor);
        }
        if class.again {
            lane.again.push_back(item)
        } else {
            lane.fresh.push_back(item)
        }
        self.ready += 1;
    }

    /// Would a worker that sleeps find something to do, or to watch?
    pub fn wants_worker(&self) -> bool {
        self.ready > 0 && (self.free(self.beside) > 0 || self.watcher.is_none())
    }

    /// What the worker had under way has ended; what is it to do now?
    pub fn next(&mut self, worker: WorkerNo, now: Now) -> Turn<T> {
        self.ended(worker, now);
        if self.watcher == Some(worker) {
            self.watcher = None;
        }
        if self.ready == 0 {
            return Turn::Wait { until: None };
        }
        self.beside = self.count_beside(now);
        let free = self.free(self.beside);
        if free == 0 {
            return Turn::Wait { until: self.watch(worker, now) };
        }
        let Some(participant) = self.choose(free, now) else { return Turn::Wait { until: None } };
        let lane = self.lanes.get_mut(&participant).expect("it was chosen among them");
        let (item, again) = lane.pop().expect("something waits in it");
        self.floor = self.floor.max(lane.had);
        self.ready -= 1;
        let class = Class { participant: participant.clone(), again };
        self.running
            .insert(worker, Running { class, calls: participant, since: now.steady, waits: false, void: false });
        Turn::Run(item)
    }

    /// Slots, where so many chains need none.
    fn free(&self, beside: usize) -> usize {
        self.bounds.slots.saturating_sub(self.running.len() - beside)
    }

    /// When the first of those at work becomes slow, if that frees a slot and nobody else looks.
    fn watch(&mut self, worker: WorkerNo, now: Now) -> Option<Steady> {
        if self.watcher.is_some() || self.beside >= self.bounds.slow_max {
            return None;
        }
        let at_work = self.running.values().filter(|running| !running.waits);
        let ends = at_work.map(|running| running.since.after(self.bounds.slow_after));
        let until = ends.filter(|end| *end > now.steady).min()?;
        self.watcher = Some(worker);
        Some(until)
    }

    /// Of those that may run, the one that has had the least.
    fn choose(&self, free: usize, now: Now) -> Option<Option<Participant>> {
        let waiting = self.lanes.iter().filter(|(_, lane)| !lane.is_empty());
        let may_run = waiting.filter(|(participant, _)| {
            // The last slot is for others.
            free > 1 || participant.as_ref().is_none_or(|of| !self.is_saturated(of, now))
        });
        let had = |(participant, lane): &(&Option<Participant>, &Lane<T>)| lane.had + self.spends(participant, now);
        may_run.min_by_key(had).map(|(participant, _)| participant.clone())
    }

    /// Of calls under way.
    fn spends(&self, participant: &Option<Participant>, now: Now) -> Duration {
        let calls = self.running.values().filter(|running| running.calls == *participant && !running.waits);
        calls.map(|running| now.steady.since(running.since)).sum()
    }

    fn slow(&self, now: Now) -> impl Iterator<Item = &Participant> {
        let is_slow =
            move |running: &&Running| !running.waits && now.steady.since(running.since) >= self.bounds.slow_after;
        self.running.values().filter(is_slow).filter_map(|running| running.calls.as_ref())
    }

    /// Chains that need no slot: those in slow calls, of each participant up to its share.
    fn count_beside(&self, now: Now) -> usize {
        let slow: Vec<&Participant> = self.slow(now).collect();
        let before = |at: usize| slow[..at].iter().filter(|of| **of == slow[at]).count();
        let beside = (0..slow.len()).filter(|at| before(*at) < self.bounds.share()).count();
        beside.min(self.bounds.slow_max)
    }

    /// Would a further slow call of it need a slot?
    fn is_saturated(&self, participant: &Participant, now: Now) -> bool {
        let own = self.slow(now).filter(|of| *of == participant).count();
        own > 0 && (own >= self.bounds.share() || self.count_beside(now) >= self.bounds.slow_max)
    }

    /// Is there room for a further call of that participant? If not, it would take the last slot for what is probably slow.
    pub fn has_room(&self, participant: &Participant, now: Now) -> bool {
        self.free(self.count_beside(now)) > 0 || !self.is_saturated(participant, now)
    }

    /// The worker's chain, which has called nobody yet, finds whom it calls first. False: it is to be put aside, until that
    /// participant has room; and where nobody knew whom it would call, until those have had their turn who wait there.
    pub fn may_begin(&self, worker: WorkerNo, participant: &Participant, now: Now) -> bool {
        let Some(running) = self.running.get(&worker) else { return true };
        let expected = running.class.participant.as_ref() == Some(participant);
        let others = || self.lanes.get(&Some(participant.clone())).is_some_and(|lane| !lane.fresh.is_empty());
        self.has_room(participant, now) && (expected || !others())
    }

    /// The worker's chain calls.
    pub fn calls(&mut self, worker: WorkerNo, participant: &Participant, now: Now) {
        self.charge(worker, now);
        let Some(running) = self.running.get_mut(&worker) else { return };
        running.waits = false;
        if running.calls.as_ref() != Some(participant) {
            running.calls = Some(participant.clone());
        }
    }

    /// The worker's chain waits for other chains, which makes no call slow.
    pub fn waits(&mut self, worker: WorkerNo, now: Now) {
        self.charge(worker, now);
        if let Some(running) = self.running.get_mut(&worker) {
            running.waits = true;
        }
    }

    /// What the worker had from its lane goes into the lane of the participant that it is about to call. False: it is void.
    pub fn put_aside(&mut self, worker: WorkerNo, participant: Participant, item: T, now: Now) -> bool {
        let Some(Running { class, void: false, .. }) = self.ended(worker, now) else { return false };
        self.push(&Class { participant: Some(participant), again: class.again }, item);
        true
    }

    fn ended(&mut self, worker: WorkerNo, now: Now) -> Option<Running> {
        self.charge(worker, now);
        let ended = self.running.remove(&worker);
        self.beside = self.beside.min(self.running.len());
        ended
    }

    fn charge(&mut self, worker: WorkerNo, now: Now) {
        let Some(running) = self.running.get_mut(&worker) else { return };
        if !running.waits
            && let Some(lane) = self.lanes.get_mut(&running.calls)
        {
            let took = now.steady.since(running.since);
            lane.had += took;
            if running.class.again { lane.spent_again += took } else { lane.spent += took }
        }
        running.since = now.steady;
    }

    /// Everything that is ready is void, and what is under way was built on what is.
    pub fn clear(&mut self) {
        self.running.values_mut().for_each(|running| running.void = true);
        for lane in self.lanes.values_mut() {
            lane.fresh.clear();
            lane.again.clear();
        }
        self.ready = 0;
    }
}

#[cfg(test)]
mod tests;
