//! What happens to many connections or requests at once, and is one line of the log. Invariant: each kind writes at most one line a minute,
//! and nothing is left out of its count.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const BETWEEN_LINES: Duration = Duration::from_secs(60);

/// Of one kind.
#[derive(Default)]
pub struct Occurrences(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    since_line: u64,
    line_at: Option<Instant>,
}

impl Occurrences {
    /// How many there were since the last line, this one among them, if another line is due.
    pub fn count(&self) -> Option<u64> {
        self.count_at(Instant::now())
    }

    fn count_at(&self, now: Instant) -> Option<u64> {
        let mut counted = self.0.lock();
        counted.since_line += 1;
        if counted.line_at.is_some_and(|at| now.saturating_duration_since(at) < BETWEEN_LINES) {
            return None;
        }
        counted.line_at = Some(now);
        Some(std::mem::take(&mut counted.since_line))
    }
}

/// What a server refuses or survives.
#[derive(Default)]
pub(super) struct Troubles {
    /// Beyond the most that may be open.
    pub connections: Occurrences,
    /// With a client that does not speak TLS as this server does, or whose certificate is not accepted.
    pub handshakes: Occurrences,
    /// Not valid HTTP.
    pub requests: Occurrences,
    /// The system gave no connection.
    pub accepts: Occurrences,
    pub panics: Occurrences,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_minute_counts_all() {
        let (occurrences, start) = (Occurrences::default(), Instant::now());
        let at = |secs| occurrences.count_at(start + Duration::from_secs(secs));
        assert_eq!([at(0), at(1), at(59), at(60), at(61), at(500)], [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
