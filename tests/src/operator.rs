//! What an operator sees of a running host and does to it, through the requests that the command line makes, too.
//! Invariant: nothing is read from the journal's tables past the desk.

use std::{
    thread,
    time::{Duration, Instant},
};

use sagahost::host::Host;
use sagahost_operator::{
    desk::Desk,
    protocol::{LetterSelection, Refusal, Reply, Request},
    view::{Done, LetterLine, LetterResult, LetterView, SagaView, StatusView, TimelineLine},
};
use sagahost_saga::input::Command;
use serde::de::DeserializeOwned;

use crate::{shop::PATIENCE, wait::until};

const BY: &str = "anna";

pub struct Operator {
    desk: Desk,
}

impl Operator {
    pub fn of(host: &Host) -> Self {
        Self {
            desk: Desk {
                settings: host.config().operator(),
                journal: host.journal(),
                transport: host.transport(),
                live: Some(host.live()),
            },
        }
    }

    pub fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, Refusal> {
        match self.desk.reply(request) {
            Reply::Ok(value) => Ok(serde_json::from_value(value).expect("the answer has the shape of its view")),
            Reply::Refused(refusal) => Err(refusal),
        }
    }

    pub fn status(&self) -> StatusView {
        self.ask(Request::Status).expect("a host has a status")
    }

    /// None: there is no such saga (yet).
    pub fn saga(&self, id: &str) -> Option<SagaView> {
        self.ask(Request::Saga { id: id.into() }).ok()
    }

    pub fn await_saga(&self, id: &str, what: &str, is: impl Fn(&SagaView) -> bool) -> SagaView {
        let end = Instant::now() + PATIENCE;
        loop {
            let saga = self.saga(id);
            if let Some(saga) = saga.clone().filter(&is) {
                return saga;
            }
            assert!(Instant::now() < end, "saga {id} is not {what}: {saga:#?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn await_status(&self, id: &str, status: &str) -> SagaView {
        self.await_saga(id, status, |saga| saga.status == status)
    }

    /// Open dead letters, with their records.
    pub fn letters(&self) -> Vec<LetterView> {
        let of = LetterSelection { limit: 1_000, ..LetterSelection::default() };
        let lines: Vec<LetterLine> = self.ask(Request::Letters { of, closed: false }).expect("letters can be listed");
        lines.into_iter().map(|line| self.letter(&line.key)).collect()
    }

    /// Open or closed.
    pub fn letter(&self, key: &str) -> LetterView {
        self.ask(Request::Letter { key: key.to_owned() }).expect("the letter is there")
    }

    pub fn await_letters(&self, count: usize) -> Vec<LetterView> {
        until(&format!("there are {count} dead letters"), || {
            Some(self.letters()).filter(|letters| letters.len() >= count)
        })
    }

    pub fn redrive(&self, key: &str) -> Result<LetterResult, Refusal> {
        self.deed(Request::Redrive { of: one(key), by: BY.to_owned(), dry_run: false })
    }

    pub fn discard(&self, key: &str, reason: &str) -> Result<LetterResult, Refusal> {
        self.deed(Request::Discard { of: one(key), by: BY.to_owned(), reason: reason.to_owned() })
    }

    fn deed(&self, request: Request) -> Result<LetterResult, Refusal> {
        Ok(self.ask::<Vec<LetterResult>>(request)?.remove(0))
    }

    pub fn retry(&self, saga: &str) -> Done {
        self.command(saga, Command::Retry { by: BY.to_owned() })
    }

    pub fn cancel(&self, saga: &str, reason: &str) -> Done {
        self.command(saga, Command::Cancel { by: BY.to_owned(), reason: reason.to_owned() })
    }

    fn command(&self, saga: &str, command: Command) -> Done {
        self.ask(Request::Command { saga: saga.into(), command }).expect("the command is answered")
    }
}

fn one(key: &str) -> LetterSelection {
    LetterSelection { key: Some(key.to_owned()), limit: 1, ..LetterSelection::default() }
}

/// The ends of a participant's calls, in order: `handle completed`, `compensate undone`.
pub fn attempts(saga: &SagaView, participant: &str) -> Vec<String> {
    let of = |line: &&TimelineLine| line.what == "attempt" && line.participant.as_deref() == Some(participant);
    let said = |line: &TimelineLine| {
        format!("{} {}", line.direction.clone().unwrap_or_default(), line.outcome.clone().unwrap_or_default())
    };
    saga.timeline.iter().filter(of).map(said).collect()
}
