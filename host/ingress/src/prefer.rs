//! The header `Prefer` (RFC 7240). Invariant: what is not understood is ignored, as the RFC has it.

use std::time::Duration;

use http::HeaderMap;

/// Proxies give up after a minute.
const WAIT_MAX: Duration = Duration::from_secs(50);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// At most so long.
    pub wait: Option<Duration>,
    pub respond_async: bool,
}

impl Prefer {
    pub fn read(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        let lines = headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok());
        for preference in lines.flat_map(|line| line.split(',')) {
            let said = preference.split(';').next().unwrap_or_default();
            let (name, value) = said.split_once('=').unwrap_or((said, ""));
            match (&*name.trim().to_ascii_lowercase(), value.trim().trim_matches('"')) {
                ("respond-async", _) => found.respond_async = true,
                // The first one counts.
                ("wait", seconds) if found.wait.is_none() => {
                    found.wait = seconds.parse().ok().map(|seconds| Duration::from_secs(seconds).min(WAIT_MAX));
                }
                _ => {}
            }
        }
        found
    }

    /// Where it says nothing of it, `otherwise`.
    pub fn wait(self, otherwise: Duration) -> Duration {
        let otherwise = if self.respond_async { Duration::ZERO } else { otherwise };
        self.wait.unwrap_or(otherwise).min(WAIT_MAX)
    }

    /// For `Preference-Applied`; None: it asked for nothing that is done.
    pub fn applied(self) -> Option<String> {
        match self {
            Self { respond_async: true, wait: Some(wait) } => Some(format!("respond-async, wait={}", wait.as_secs())),
            Self { respond_async: true, wait: None } => Some("respond-async".to_owned()),
            Self { respond_async: false, wait: Some(wait) } => Some(format!("wait={}", wait.as_secs())),
            Self { respond_async: false, wait: None } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_preferred() {
        let read = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("prefer", line.parse().expect("a value"));
            }
            let prefer = Prefer::read(&headers);
            (prefer.wait(Duration::from_secs(10)).as_secs(), prefer.applied())
        };
        let applied = |text: &str| Some(text.to_owned());
        assert_eq!(read(&[]), (10, None));
        assert_eq!(read(&["wait=3"]), (3, applied("wait=3")));
        assert_eq!(read(&["return=minimal, Wait = \"7\" ; x=1"]), (7, applied("wait=7")));
        assert_eq!(read(&["wait=600"]), (50, applied("wait=50")));
        assert_eq!(read(&["wait=0"]), (0, applied("wait=0")));
        assert_eq!(read(&["respond-async"]), (0, applied("respond-async")));
        // RFC 7240, 4.3: asynchronously if it takes longer.
        assert_eq!(read(&["wait=3", "respond-async"]), (3, applied("respond-async, wait=3")));
        assert_eq!(read(&["wait=1, wait=9"]), (1, applied("wait=1")));
        assert_eq!(read(&["wait=-1"]), (10, None));
        assert_eq!(read(&["wait"]), (10, None));
    }
}
