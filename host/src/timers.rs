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

use sagahost_saga::id::{SagaId, Time};
use tracing::{info, warn};

use crate::{intake::Intake, journal::JournalError, mailbox::Item, pipeline::Pipeline, transport::Transport};

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

/// Saga and whether for a deadline → what was due, and when it was woken.
type Woken = HashMap<(SagaId, bool), (Time, Instant)>;

impl Timers {
    pub fn run(self) {
        let mut woken = Woken::new();
        let mut clock = ClockWatch::new(self.pipeline.clock.now());
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(TICK);
            let now = self.pipeline.clock.now();
            if clock.jumped(now) {
                info!("the clock jumped; deadlines wait until queued records are handled");
                self.intake.stalled();
            }
            woken.retain(|_, (_, at)| at.elapsed() < ASLEEP);
            if let Err(error) = self.fire(now, &mut woken) {
                warn!(%error, "failed to read due times");
                std::thread::sleep(Duration::from_millis(500));
            }
        }
    }

    fn fire(&self, now: Time, woken: &mut Woken) -> Result<(), JournalError> {
        let settings = &self.pipeline.settings;
        let (due, deadline) = self.pipeline.journal.next_due()?;
        if due.is_some_and(|due| due <= now) {
            for (due, saga) in self.pipeline.journal.due(now, AT_ONCE_MAX)? {
                self.wake(saga, due, false, woken);
            }
        }
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
        let key = (saga, deadlines);
        if woken.get(&key).is_some_and(|(known, _)| *known == due) {
            return false;
        }
        self.pipeline.post(&key.0, Item::Due { deadlines });
        woken.insert(key, (due, Instant::now()));
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

    fn jumped(&mut self, wall: Time) -> bool {
        const MOST: Duration = Duration::from_secs(5);
        let passed = self.steady.elapsed();
        let said = wall.since(self.wall);
        let back = wall < self.wall;
        *self = Self::new(wall);
        back || said > passed + MOST || passed > MOST
    }
}
