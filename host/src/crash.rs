//! Named points at which the process can be made to end itself, for crash tests of the real binary: environment
//! variable `SAGAHOST_CRASH_AT=POINT` or `POINT:N` (the N-th time). With `SAGAHOST_STOP_AT` it stops there as SIGSTOP
//! does, and goes on at SIGCONT. Invariant: without these variables a point does nothing.
//!
//! In the order in which a batch reaches them: `before-journal-commit`, `after-journal-commit` (the committer);
//! `before-offsets`, `after-offsets`, `before-produce`, `after-produce`, `before-end-of-transaction`,
//! `after-end-of-transaction` (a Kafka transaction; the first one of an app is that of its first start);
//! `before-confirm`, `after-confirm` (the committer, when it has nothing else to write). When plugins change:
//! `plugins-admitted`, `plugin-positions`, `plugin-stored` (each; a start stores, too), `plugins-journaled`,
//! `plugins-switched`.

use std::{
    process::Command,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

struct Plan {
    point: String,
    times: AtomicU64,
}

impl Plan {
    fn of(variable: &str) -> Option<Self> {
        let text = std::env::var(variable).ok()?;
        let (point, times) = match text.split_once(':') {
            Some((point, times)) => (point.to_owned(), times.parse().ok()?),
            None => (text, 1),
        };
        Some(Self { point, times: AtomicU64::new(times) })
    }

    fn is_here(&self, name: &str) -> bool {
        self.point == name && self.times.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

static CRASH: LazyLock<Option<Plan>> = LazyLock::new(|| Plan::of("SAGAHOST_CRASH_AT"));
static STOP: LazyLock<Option<Plan>> = LazyLock::new(|| Plan::of("SAGAHOST_STOP_AT"));

/// Ends the process as a kill would: no destructors, no flushing.
pub fn point(name: &str) {
    if CRASH.as_ref().is_some_and(|plan| plan.is_here(name)) {
        eprintln!("crash point {name}");
        std::process::abort();
    }
    if STOP.as_ref().is_some_and(|plan| plan.is_here(name)) {
        eprintln!("stop point {name}");
        // Not by a call into libc: a test's detail is not worth unsafe code.
        let _ = Command::new("kill").args(["-STOP", &std::process::id().to_string()]).status();
    }
}
