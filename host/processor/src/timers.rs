//! Durable times: retries, delayed events, deadlines, park expiries. Invariant: a time is never fired from memory; the
//! journal's index says which sagas are due, and the saga itself decides what that means.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sagahost_journal::{Journal, JournalError};
use sagahost_saga::id::{SagaId, Time};
use sagahost_transport::Transport;
use tracing::{info, warn};

use crate::{
    inbox::Inbox,
    intake::Intake,
    mailbox::Item,
    open_transactions::OpenTransactions,
    planted::{self, Planted},
    stage::Stage,
    step::{Next, Now, Part, Signal, Steady, Stop, Wait},
};

/// How long a saga that was woken is not woken again for the same time: until its chain is journaled, that still stands
/// there. Another time is another cause: a retry may be due a few milliseconds after the one before.
const ASLEEP: Duration = Duration::from_secs(1);
/// Between two looks at the journal, at least …
const TICK: Duration = Duration::from_millis(25);
/// … and at most: a clock that is set, or a machine that slept, is noticed then.
const LOOK: Duration = Duration::from_secs(1);
/// After a failure of the journal.
const PAUSE: Duration = Duration::from_millis(500);
const AT_ONCE_MAX: usize = 1_000;

/// Sagas that were woken.
pub struct Waker {
    pub inbox: Inbox,
    pub journal: Arc<dyn Journal>,
    /// While more waits for workers, nobody is woken: those that wait for the broker would only find more of it.
    pub queue_events_max: usize,
    pub stop: Stop,
    /// What is due may have changed.
    pub stirred: Arc<Signal>,
    /// What was due of a saga, and when it was woken for that.
    pub woken: HashMap<SagaId, (Time, Steady)>,
    pub next_look: Steady,
}

impl Waker {
    /// `fire` wakes who is due, and says when somebody will be next.
    fn tick(
        &mut self,
        now: Now,
        seen: u64,
        fire: impl FnOnce(&mut Self) -> Result<Option<Time>, JournalError>,
    ) -> Next {
        let wait = |until| Next::Wait(Wait { signal: self.stirred.clone(), seen, until: Some(until) });
        if now.steady < self.next_look {
            return wait(self.next_look);
        }
        self.woken.retain(|_, (_, at)| now.steady.since(*at) < ASLEEP);
        let (least, most) = if self.inbox.mailboxes.queued() >= self.queue_events_max {
            (TICK, TICK)
        } else {
            match fire(self) {
                Ok(due) => (TICK, due.map_or(LOOK, |due| due.since(now.wall).clamp(TICK, LOOK))),
                Err(error) => {
                    warn!(%error, "failed to read due times");
                    (PAUSE, PAUSE)
                }
            }
        };
        self.next_look = now.steady.after(least);
        Next::Wait(Wait { signal: self.stirred.clone(), seen, until: Some(now.steady.after(most)) })
    }

    /// False: it was woken for this time already.
    fn wake(&mut self, saga: SagaId, due: Time, deadlines: bool, now: Now) -> bool {
        if self.woken.get(&saga).is_some_and(|(known, _)| *known == due) {
            return false;
        }
        self.inbox.post(&saga, Item::Due { deadlines });
        self.woken.insert(saga, (due, now.steady));
        true
    }
}

/// Retries and delayed events.
pub struct Timers {
    pub waker: Waker,
    pub intake: Arc<Intake>,
    pub clock: Option<ClockWatch>,
}

impl Part for Timers {
    fn step(&mut self, now: Now) -> Next {
        let seen = self.waker.stirred.seen();
        if self.waker.stop.asked() {
            return Next::Ended(Ok(()));
        }
        if self.clock.replace(ClockWatch { at: now }).is_some_and(|clock| clock.jumped(now)) {
            info!("the clock jumped; deadlines wait until queued records are handled");
            self.intake.stalled(now);
        }
        self.waker.tick(now, seen, |waker| {
            if planted::on(Planted::LoseTimers) {
                return Ok(None);
            }
            for (due, saga) in waker.journal.due(now.wall, AT_ONCE_MAX)? {
                waker.wake(saga, due, false, now);
            }
            Ok(waker.journal.next_due()?.0)
        })
    }
}

/// Deadlines and park expiries: a part of its own, since the broker is asked whether results are queued.
pub struct Deadlines {
    pub waker: Waker,
    pub stage: Arc<Stage>,
    pub intake: Arc<Intake>,
    pub transport: Arc<dyn Transport>,
    /// After a stall: how long deadlines wait for queued results.
    pub stall_wait_max: Duration,
    /// After a stall: how many fire per second.
    pub due_per_second_max: u32,
    pub open_transactions: OpenTransactions,
}

impl Part for Deadlines {
    fn step(&mut self, now: Now) -> Next {
        let seen = self.waker.stirred.seen();
        if self.waker.stop.asked() {
            return Next::Ended(Ok(()));
        }
        self.open_transactions.look(&self.stage, &self.intake, &*self.transport, now);
        let Self { waker, stage, intake, transport, stall_wait_max, due_per_second_max, .. } = self;
        waker.tick(now, seen, |waker| {
            let (_, deadline) = waker.journal.next_due()?;
            if deadline.is_none_or(|deadline| deadline > now.wall)
                || !intake.deadlines_may_fire(stage, &**transport, *stall_wait_max, now)
            {
                return Ok(deadline);
            }
            let mut left = (u64::from(*due_per_second_max) * TICK.as_millis() as u64 / 1000).max(1) as usize;
            for (due, saga) in waker.journal.deadlines(now.wall, waker.woken.len() + left)? {
                left -= usize::from(waker.wake(saga, due, true, now));
                if left == 0 {
                    break;
                }
            }
            Ok(deadline)
        })
    }
}

/// Tells a clock that was set, or a machine that slept, from time that passes.
pub struct ClockWatch {
    at: Now,
}

impl ClockWatch {
    fn jumped(self, now: Now) -> bool {
        const MOST: Duration = Duration::from_secs(5);
        let passed = now.steady.since(self.at.steady);
        let said = now.wall.since(self.at.wall);
        let back = now.wall < self.at.wall;
        back || said > passed + MOST || passed > MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_and_a_machine_that_slept_are_told_from_time_that_passes() {
        let at = |wall, steady| Now { wall: Time(wall), steady: Steady(Duration::from_millis(steady)) };
        let jumped = |now| ClockWatch { at: at(100_000, 0) }.jumped(now);
        assert!(!jumped(at(100_025, 25)));
        assert!(!jumped(at(104_000, 25)), "clocks are corrected now and then");
        assert!(jumped(at(106_000, 25)), "set forward");
        assert!(jumped(at(99_999, 25)), "set back");
        assert!(jumped(at(106_000, 6_000)), "asleep");
    }
}
