//! How a command ends. Invariant: each code has one meaning, and the documentation names them all.

use std::fmt;

use crate::{
    admin::{
        client::ClientError,
        protocol::{Refusal, Why},
    },
    config::Faults,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Failed = 1,
    /// As clap's own.
    Usage = 2,
    NothingMatched = 3,
    HostNotReached = 4,
    Declined = 5,
    Unpublished = 6,
    EndedItself = 7,
    LawBroken = 8,
    Transport = 9,
    Journal = 10,
    Killed = 130,
}

pub const HELP: &str = "\
Exit codes:
    0  done
    1  failed
    2  wrong usage or wrong configuration
    3  nothing matched: no such saga, dead letter, plugin …
    4  a host is needed and was not reached
    5  declined: the saga is past it, or nothing was there to do
    6  run: ended at its deadline with batches that are journaled and not yet published
    7  run: the host ended by itself (another owner, journal not usable)
    8  check: a law is broken, or a figure is above its budget
    9  the broker (or the embedded topics) did not answer or refused
   10  the journal could not be opened, read or written
  130  run: ended at once, by a second signal";

/// Why a command did not do what it was told.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub text: String,
}

impl Failure {
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }
    pub fn nothing(text: impl Into<String>) -> Self {
        Self::new(Exit::NothingMatched, text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::usage(faults.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let exit = match refusal.why {
            Why::NotFound => Exit::NothingMatched,
            Why::Invalid => Exit::Usage,
            Why::NeedsHost => Exit::HostNotReached,
            Why::Transport => Exit::Transport,
            Why::Journal => Exit::Journal,
            Why::Failed => Exit::Failed,
        };
        Self::new(exit, refusal.text)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(refusal) => refusal.into(),
            ClientError::Silent { .. } | ClientError::Foreign { .. } => {
                Self::new(Exit::HostNotReached, error.to_string())
            }
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let exit = match Why::of(&error) {
            Why::Journal => Exit::Journal,
            Why::Transport => Exit::Transport,
            Why::NotFound | Why::Invalid | Why::NeedsHost | Why::Failed => Exit::Failed,
        };
        Self::new(exit, told(&error))
    }
}

/// From the outside in; a cause that the text around it tells already is not told twice.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.contains(&cause) {
        true => text,
        false if text.is_empty() => cause,
        false => format!("{text}: {cause}"),
    })
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use anyhow::Context as _;

    use super::*;
    use sagahost_journal::JournalError;
    use sagahost_transport::TransportError;

    /// Whichever way an error takes, through a running host or not.
    #[test]
    fn errors_of_transport_and_journal_have_codes_of_their_own() {
        let away = || TransportError::Away("no answer".to_owned());
        let corrupt = || JournalError::Corrupt("journal.db".to_owned());
        let through = |error: anyhow::Error| Failure::from(error).exit;
        assert_eq!(Failure::from(Refusal::from(away())).exit, Exit::Transport);
        assert_eq!(Failure::from(Refusal::from(corrupt())).exit, Exit::Journal);
        assert_eq!(through(Err::<(), _>(away()).context("failed to start").unwrap_err()), Exit::Transport);
        assert_eq!(through(Err::<(), _>(corrupt()).context("failed to start").unwrap_err()), Exit::Journal);
        assert_eq!(through(anyhow::anyhow!("something else")), Exit::Failed);
        // As the keeper of plugins answers.
        let refused = |error: anyhow::Error| Failure::from(Refusal::from(error)).exit;
        assert_eq!(refused(Err::<(), _>(corrupt()).context("failed to pause").unwrap_err()), Exit::Journal);
        assert_eq!(refused(Refusal::not_found("no such plugin").into()), Exit::NothingMatched);
        assert_eq!(refused(Refusal::invalid("wrong configuration").into()), Exit::Usage);
        let codes = [Why::NotFound, Why::Invalid, Why::NeedsHost, Why::Transport, Why::Journal, Why::Failed];
        let codes = codes.map(|why| Failure::from(Refusal::new(why, "")).exit as u8);
        assert_eq!(codes, [3, 2, 4, 9, 10, 1]);
    }
}
