//! Threads, and the only loop, wait and clock that drive the processor. Invariant: a part that waits sleeps until its
//! signal moved or its time came; there is no time-out behind that which would hide a lost wake-up.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};
use sagahost_processor::{
    Fatal,
    start::{Begun, Start, StartError, Starting},
    step::{Bell, Next, Now, Part, Steady, Wait},
};
use sagahost_wire::clock::Clock;
use tracing::{error, warn};

/// Time of day, and time that only grows.
#[derive(Clone)]
pub struct Clocks {
    pub wall: Arc<dyn Clock>,
    began: Instant,
}

impl Clocks {
    pub fn new(wall: Arc<dyn Clock>) -> Self {
        Self { wall, began: Instant::now() }
    }

    pub fn now(&self) -> Now {
        Now { wall: self.wall.now(), steady: Steady(self.began.elapsed()) }
    }
}

/// The system has no room for another thread.
#[derive(Debug, thiserror::Error)]
#[error("failed to start thread {name}")]
pub struct ThreadError {
    name: String,
    source: io::Error,
}

/// Threads that sleep on one signal.
#[derive(Default)]
struct Sleepers {
    /// Who sleeps, or is about to look at the signal for the last time before. Whoever moved the signal looks here behind
    /// that: one of the two sees the other, so nobody sleeps through it, and nobody rings for nobody.
    sleeping: AtomicUsize,
    /// Held between the last look at a signal and falling asleep, and while the bell rings: so none rings in between.
    latch: Mutex<()>,
    rung: Condvar,
}

impl Sleepers {
    fn wake(&self, ring: impl FnOnce(&Condvar)) {
        if self.sleeping.load(Ordering::SeqCst) > 0 {
            drop(self.latch.lock());
            ring(&self.rung);
        }
    }
}

impl Bell for Sleepers {
    fn ring(&self) {
        self.wake(|rung| {
            rung.notify_one();
        });
    }

    fn ring_all(&self) {
        self.wake(|rung| {
            rung.notify_all();
        });
    }

    fn sleep(&self, still: &dyn Fn() -> bool, at_most: Option<Duration>) {
        let mut latch = self.latch.lock();
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        if still() {
            match at_most {
                None => self.rung.wait(&mut latch),
                Some(at_most) => {
                    self.rung.wait_for(&mut latch, at_most);
                }
            }
        }
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A part, until it ends.
pub fn drive(part: &mut dyn Part, clocks: &Clocks) -> Result<(), Fatal> {
    loop {
        match part.step(clocks.now()) {
            Next::Again => {}
            Next::Wait(Wait { signal, seen, until }) => {
                let at_most = until.map(|until| until.since(clocks.now().steady));
                if at_most != Some(Duration::ZERO) {
                    signal.bell(|| Arc::new(Sleepers::default())).sleep(&|| signal.seen() == seen, at_most);
                }
            }
            Next::Ended(how) => return how,
        }
    }
}

/// Starts threads that the host cannot do without: when one ends for another reason than being told to, the host ends.
#[derive(Clone)]
pub struct Threads {
    pub clocks: Clocks,
    pub fatal: Sender<Fatal>,
}

impl Threads {
    pub fn part(&self, name: &str, mut part: impl Part + 'static) -> Result<JoinHandle<()>, ThreadError> {
        let clocks = self.clocks.clone();
        self.start(name, move || drive(&mut part, &clocks))
    }

    fn start(
        &self,
        name: &str,
        body: impl FnOnce() -> Result<(), Fatal> + Send + 'static,
    ) -> Result<JoinHandle<()>, ThreadError> {
        let (fatal, thread) = (self.fatal.clone(), name.to_owned());
        let body = move || {
            let ended = catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(Fatal::Panicked(thread.clone())));
            if let Err(why) = ended {
                error!(thread, %why, "the host stops");
                let _ = fatal.send(why);
            }
        };
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
        spawned.map_err(|source| ThreadError { name: name.to_owned(), source })
    }
}

/// A start, until the host has begun, or `stopped`.
pub fn begin(mut start: Start, clocks: &Clocks, stopped: impl Fn() -> bool) -> Result<Begun, StartError> {
    loop {
        let until = match start.step(clocks.now())? {
            Starting::Begun(begun) => return Ok(*begun),
            Starting::Wait(until) => Instant::now() + until.since(clocks.now().steady),
        };
        if await_until(until, &stopped) {
            return Err(StartError::Stopped);
        }
    }
}

/// `until`: threads that still wait for an answer by then are left to themselves. What they do is safe at any moment, as
/// for a host that is killed.
pub fn join(threads: impl Iterator<Item = JoinHandle<()>>, until: Option<Instant>) {
    for thread in threads {
        if let Some(until) = until {
            await_until(until, || thread.is_finished());
        }
        if until.is_some() && !thread.is_finished() {
            let name = thread.thread().name().unwrap_or_default();
            warn!(thread = name, "did not end in time; abandoned, for what it does is safe at any moment");
        } else if thread.join().is_err() {
            error!("a thread of the host panicked");
        }
    }
}

/// For what no signal tells. False: it did not come in time.
pub fn await_until(end: Instant, mut there: impl FnMut() -> bool) -> bool {
    while !there() {
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use sagahost_processor::step::Signal;
    use sagahost_wire::clock::SystemClock;

    use super::*;

    /// Takes what was put, and sleeps without a time-out.
    struct Taker {
        put: Arc<AtomicU64>,
        taken: Arc<AtomicU64>,
        signal: Arc<Signal>,
    }

    const STOP: u64 = 1 << 40;

    impl Part for Taker {
        fn step(&mut self, _: Now) -> Next {
            let seen = self.signal.seen();
            let put = self.put.load(Ordering::SeqCst);
            if put >= STOP {
                return Next::Ended(Ok(()));
            }
            if self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < put).then_some(n + 1)).is_ok() {
                return Next::Again;
            }
            Next::Wait(Wait { signal: self.signal.clone(), seen, until: None })
        }
    }

    /// The bell rings between the last look and falling asleep: whoever rings waits until the other sleeps.
    #[test]
    fn who_is_about_to_sleep_hears_the_bell() {
        let sleepers: Arc<Sleepers> = Arc::default();
        let sleeper = {
            let sleepers = sleepers.clone();
            thread::spawn(move || {
                let ringing = std::cell::RefCell::new(None);
                let still = || {
                    let sleepers = sleepers.clone();
                    let rings = thread::spawn(move || sleepers.ring());
                    // It can end only where it rings for nobody.
                    await_until(Instant::now() + Duration::from_millis(100), || rings.is_finished());
                    *ringing.borrow_mut() = Some(rings);
                    true
                };
                sleepers.sleep(&still, None);
                ringing.take().map(JoinHandle::join)
            })
        };
        assert!(await_until(Instant::now() + Duration::from_secs(10), || sleeper.is_finished()), "it sleeps on");
    }

    #[test]
    fn no_wake_up_is_lost() {
        const PUT: u64 = 20_000;
        let (put, taken, signal) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::<Signal>::default());
        let (fatal, _receiver) = crossbeam_channel::unbounded();
        let threads = Threads { clocks: Clocks::new(Arc::new(SystemClock)), fatal };
        let takers: Vec<_> = (0..3)
            .map(|n| {
                let taker = Taker { put: put.clone(), taken: taken.clone(), signal: signal.clone() };
                threads.part(&format!("taker-{n}"), taker).expect("a thread starts")
            })
            .collect();
        for n in 0..PUT {
            put.fetch_add(1, Ordering::SeqCst);
            signal.raise();
            if n % 64 == 0 {
                let end = Instant::now() + Duration::from_secs(10);
                assert!(await_until(end, || taken.load(Ordering::SeqCst) > n), "all of them sleep at {n}");
            }
        }
        put.fetch_add(STOP, Ordering::SeqCst);
        signal.raise_all();
        join(takers.into_iter(), Some(Instant::now() + Duration::from_secs(10)));
    }
}
