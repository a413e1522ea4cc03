//! Times in people's words. Invariant: an absolute time stands beside each relative one.

use std::time::Duration;

use sagahost_saga::id::Time;

use sagahost_operator::stamp::Stamp;

/// `2026-07-29 10:03:12 (4m ago)`
pub fn when(at: Stamp, now: Time) -> String {
    format!("{} ({})", at.to_second(), relative(at, now))
}

pub fn relative(at: Stamp, now: Time) -> String {
    if at.0 > now {
        return format!("in {}", rough(at.0.since(now)));
    }
    match now.since(at.0) {
        short if short < Duration::from_secs(1) => "now".to_owned(),
        since => format!("{} ago", rough(since)),
    }
}

/// One unit is enough.
fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `840µs`, `1.2ms`, `3.4s`
pub fn took(us: u64) -> String {
    match us {
        0..1000 => format!("{us}µs"),
        1000..1_000_000 => format!("{}.{}ms", us / 1000, us % 1000 / 100),
        _ => format!("{}.{}s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// How long after the first one: `+12ms`, `+3.4s`, `+2m`.
pub fn after(first: Stamp, at: Stamp) -> String {
    let since = at.0.since(first.0);
    let ms = since.as_millis();
    match ms {
        0..1000 => format!("+{ms}ms"),
        1000..60_000 => format!("+{}.{}s", ms / 1000, ms % 1000 / 100),
        _ => format!("+{}", rough(since)),
    }
}
