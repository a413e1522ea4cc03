//! Durable times: retries, delayed events, deadlines, park expiries. Invariant: a time is never fired from memory; the
//! journal's index says which sagas are due, and the saga itself decides what that means.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sagahost_journal::JournalError;
use sagahost_saga::id::{SagaId, Time};
use sagahost_transport::Transport;
use tracing::{info, warn};

use crate::{intake::Intake, mailbox::Item, open_transactions::OpenTransactions, pipeline::Pipeline};

#[derive(Clone)]
pub struct Timers {
    pub pipeline: Arc<Pipeline>,
    pub intake: Arc<Intake>,
    pub transport: Arc<dyn Transport>,
    pub stop: Arc<AtomicBool>,
}

/// How long a saga that was woken is not woken again for the same time: until its chain is journaled, that still stands
/// there. Another time is another cause: a retry may be due a few milliseconds after the one before.
const ASLEEP: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(25);
const AT_ONCE_MAX: usize = 1_000;

/// What was due of a saga, and when it was woken for that.
type Woken = HashMap<SagaId, (Time, Instant)>;

impl Timers {
    /// Retries and delayed events.
    pub fn run(self) {
        let mut woken = Woken::new();
        while !self.stop.load(Ordering::Relaxed) {
            let clock = ClockWatch::new(self.pipeline.clock.now());
            std::thread::sleep(TICK);
            let now = self.pipeline.clock.now();
            if clock.jumped(now) {
                info!("the clock jumped; deadlines wait until queued records are handled");
                self.intake.stalled();
            }
            self.tick(&mut woken, |woken| self.due(now, woken));
        }
    }

    /// Deadlines and park expiries: in a thread of their own, since the broker is asked whether results are queued.
    pub fn run_deadlines(self) {
        let mut woken = Woken::new();
        let mut open_transactions = OpenTransactions::default();
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(TICK);
            let now = self.pipeline.clock.now();
            self.tick(&mut woken, |woken| self.deadlines(now, woken));
            open_transactions.look(&self.pipeline, &self.intake, &*self.transport);
        }
    }

    fn tick(&self, woken: &mut Woken, fire: impl FnOnce(&mut Woken) -> Result<(), JournalError>) {
        woken.retain(|_, (_, at)| at.elapsed() < ASLEEP);
        // Workers that wait for the broker would only find more and more of it.
        if self.pipeline.mailboxes.queued() >= self.pipeline.settings.queue_events_max {
            return;
        }
        if let Err(error) = fire(woken) {
            warn!(%error, "failed to read due times");
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn due(&self, now: Time, woken: &mut Woken) -> Result<(), JournalError> {
        for (due, saga) in self.pipeline.journal.due(now, AT_ONCE_MAX)? {
            self.wake(saga, due, false, woken);
        }
        Ok(())
    }

    fn deadlines(&self, now: Time, woken: &mut Woken) -> Result<(), JournalError> {
        let settings = &self.pipeline.settings;
        let (_, deadline) = self.pipeline.journal.next_due()?;
        if deadline.is_some_and(|deadline| deadline <= now)
            && self.intake.deadlines_may_fire(&self.pipeline, &*self.transport, settings.stall_wait_max)
        {
            let mut left = (u64::from(settings.due_per_second_max) * TICK.as_millis() as u64 / 1000).max(1) as usize;
            for (due, saga) in self.pipeline.journal.deadlines(now, woken.len() + left)? {
                left -= usize::from(self.wake(saga, due, true, woken));
                if left == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// False: it was woken for this time already.
    fn wake(&self, saga: SagaId, due: Time, deadlines: bool, woken: &mut Woken) -> bool {
        if woken.get(&saga).is_some_and(|(known, _)| *known == due) {
            return false;
        }
        self.pipeline.post(&saga, Item::Due { deadlines });
        woken.insert(saga, (due, Instant::now()));
        true
    }
}

/// Tells a clock that was set, or a machine that slept, from time that passes.
struct ClockWatch {
    wall: Time,
    steady: Instant,
}

impl ClockWatch {
    fn new(wall: Time) -> Self {
        Self { wall, steady: Instant::now() }
    }

    fn jumped(self, wall: Time) -> bool {
        const MOST: Duration = Duration::from_secs(5);
        let passed = self.steady.elapsed();
        let said = wall.since(self.wall);
        let back = wall < self.wall;
        back || said > passed + MOST || passed > MOST
    }
}
