//! Named points at which the process can be made to end itself, for crash tests of the real binary: environment
//! variable `SAGAHOST_CRASH_AT=POINT` or `POINT:N` (the N-th time). Invariant: without that variable a point does
//! nothing.
//!
//! In the order in which a batch reaches them: `before-journal-commit`, `after-journal-commit` (the committer);
//! `before-offsets`, `after-offsets`, `before-produce`, `after-produce`, `before-end-of-transaction`,
//! `after-end-of-transaction` (a Kafka transaction; the first one of an app is that of its first start);
//! `before-confirm`, `after-confirm` (the committer, when it has nothing else to write). When plugins change:
//! `plugins-admitted`, `plugin-positions`, `plugin-stored` (each; a start stores, too), `plugins-journaled`,
//! `plugins-switched`.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

struct Plan {
    point: String,
    times: AtomicU64,
}

fn plan() -> Option<&'static Plan> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    PLAN.get_or_init(|| {
        let text = std::env::var("SAGAHOST_CRASH_AT").ok()?;
        let (point, times) = match text.split_once(':') {
            Some((point, times)) => (point.to_owned(), times.parse().ok()?),
            None => (text, 1),
        };
        Some(Plan { point, times: AtomicU64::new(times) })
    })
    .as_ref()
}

/// Ends the process as a kill would: no destructors, no flushing.
pub fn point(name: &str) {
    let Some(plan) = plan() else { return };
    if plan.point == name && plan.times.fetch_sub(1, Ordering::SeqCst) == 1 {
        eprintln!("crash point {name}");
        std::process::abort();
    }
}
