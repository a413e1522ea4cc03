//! How a command ends. Invariant: each code has one meaning, and the documentation names them all.

use std::{error::Error, fmt};

use sagahost_operator::{client::ClientError, protocol::Why};
use sagahost_saga::notation::with_causes;

use crate::config::Faults;

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
    Unavailable = 11,
    TimedOut = 12,
    Killed = 130,
}

pub const HELP: &str = "\
Exit codes:
    0  done
    1  failed
    2  wrong usage or wrong configuration
    3  nothing matched: no such saga, dead letter, plugin …
    4  a host is needed and was not reached
    5  refused: the saga, dead letter or plugin does not allow it (any longer), or there was nothing to do
    6  run: ended at its deadline with batches that are journaled and not yet published
    7  run: the host stopped by itself (another owner, journal not usable)
    8  check: a law is broken, or a figure is above its budget
    9  the broker (or the embedded topics) did not answer or refused
   10  the journal could not be opened, read or written
   11  unavailable for the moment: nothing was changed; try again
   12  timed out: it may still be carried out, so check before trying again
  130  run: ended immediately by a second signal";

/// Why a command did not do what was asked for.
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
    /// `doing` follows "failed to".
    pub fn failed(doing: &str, error: &(dyn Error + 'static)) -> Self {
        Self::new(Exit::of(error), format!("failed to {doing}: {}", with_causes(error)))
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

/// Any error, by its kind, with its causes.
impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(Exit::of(&error), with_causes(&error))
    }
}

/// The one place where the kind of an error becomes an exit code.
impl From<Why> for Exit {
    fn from(why: Why) -> Self {
        match why {
            Why::NotFound => Self::NothingMatched,
            Why::Invalid => Self::Usage,
            Why::Refused => Self::Declined,
            Why::NeedsHost => Self::HostNotReached,
            Why::Unavailable => Self::Unavailable,
            Why::TimedOut => Self::TimedOut,
            Why::Transport => Self::Transport,
            Why::Journal => Self::Journal,
            Why::Failed => Self::Failed,
        }
    }
}

impl Exit {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let why = match error.downcast_ref::<ClientError>() {
            Some(ClientError::Refused(refusal)) => refusal.why,
            Some(ClientError::TimedOut { .. }) => Why::TimedOut,
            Some(ClientError::Silent { .. } | ClientError::Foreign { .. }) => Why::NeedsHost,
            None if error.is::<Faults>() => Why::Invalid,
            None => Why::of(error),
        };
        why.into()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use sagahost_journal::JournalError;
    use sagahost_processor::{reply::Declined, start::StartError};
    use sagahost_transport::TransportError;

    use super::*;
    use crate::host::HostError;
    use sagahost_operator::protocol::Refusal;
    use sagahost_serving::{ChangeError, PluginsError};

    fn full() -> JournalError {
        JournalError::DiskFull("disk full".to_owned())
    }

    fn away() -> TransportError {
        TransportError::Away("no answer".to_owned())
    }

    /// Whichever way it takes: through a running host, which sends kind and text, or not.
    fn check(error: impl Error + 'static, exit: Exit, text: &str) {
        let refusal = Refusal::failed(error);
        let failure = Failure::from(refusal);
        assert_eq!((failure.exit, &*failure.text), (exit, text));
    }

    #[test]
    fn an_error_keeps_its_kind_and_its_causes_on_every_way() {
        let source = full;
        let full_text = "the disk is full: disk full";
        check(away(), Exit::Transport, "no answer");
        check(
            HostError::Start(StartError::Transport { source: away() }),
            Exit::Transport,
            "the transport failed during the start: no answer",
        );
        check(
            HostError::Journal { source: full() },
            Exit::Journal,
            &format!("failed to read the journal: {full_text}"),
        );
        check(
            Declined::NotWritten { source: source() },
            Exit::Journal,
            &format!("failed to write the journal: nothing is changed: {full_text}"),
        );
        check(
            Declined::BeganAgain,
            Exit::Unavailable,
            "the host began again from its journal before this was written: nothing is changed, try again",
        );
        let quarantined = Declined::Quarantined { saga: "o-1".to_owned(), why: "unreadable".to_owned() };
        check(quarantined, Exit::Declined, "saga o-1 is quarantined: unreadable");
        check(
            ChangeError::NotPaused { plugin: "a".into() },
            Exit::NothingMatched,
            "plugin a is not paused by an operator",
        );
        let plugins = || ChangeError::Plugins(PluginsError::Journal { source: full() });
        let plugins_text = format!("failed to read or write what the journal knows of plugins: {full_text}");
        check(plugins(), Exit::Journal, &plugins_text);
        let unchanged = ChangeError::Unchanged { source: Box::new(plugins()) };
        check(unchanged, Exit::Journal, &format!("nothing is changed: {plugins_text}"));
        check(
            ChangeError::Positions { source: away() },
            Exit::Transport,
            "failed to ask for the ends of topics that were not read before: no answer",
        );
        check(io::Error::other("something else"), Exit::Failed, "something else");
    }
}
