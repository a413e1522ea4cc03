//! Redriving and discarding dead letters (SEMANTICS.md, rule 12). Invariant: a letter of a saga changes through the
//! saga's mailbox; a dry run changes nothing.

use sagahost_journal::LetterFilter;
use sagahost_saga::{
    Saga,
    id::SagaId,
    input::{Command, RedrivenEvent, Status},
    view::StepState,
};
use sagahost_wire::StoredLetter;

use super::{
    desk::Desk,
    protocol::{LIST_MAX, LetterSelection, Refusal, Why},
    view::{Done, LetterResult},
};

impl Desk {
    pub(super) fn redrive(&self, of: &LetterSelection, by: &str, dry_run: bool) -> Result<Vec<LetterResult>, Refusal> {
        let letters = self.selected(of)?;
        letters.into_iter().map(|letter| self.redrive_one(letter, by, dry_run)).collect()
    }

    pub(super) fn discard(&self, of: &LetterSelection, by: &str, reason: &str) -> Result<Vec<LetterResult>, Refusal> {
        if reason.trim().is_empty() {
            return Err(Refusal::new(Why::Invalid, "a reason is needed, for the timeline"));
        }
        let letters = self.selected(of)?;
        letters.into_iter().map(|letter| self.discard_one(letter, by, reason)).collect()
    }

    fn selected(&self, of: &LetterSelection) -> Result<Vec<StoredLetter>, Refusal> {
        if let Some(key) = &of.key {
            let letter = self.letter(key)?;
            return match &letter.closed {
                None => Ok(vec![letter]),
                Some(how) => Err(Refusal::refused(format!("the dead letter is closed: {how}"))),
            };
        }
        let filter = LetterFilter {
            saga: of.saga.clone(),
            code: of.code.clone(),
            participant: of.participant.clone(),
            open_only: true,
            limit: of.limit.clamp(1, LIST_MAX),
            offset: 0,
        };
        let letters = self.journal.letters(&filter).map_err(Refusal::failed)?;
        if letters.is_empty() {
            return Err(Refusal::not_found("no open dead letter matches"));
        }
        Ok(letters)
    }

    fn redrive_one(&self, letter: StoredLetter, by: &str, dry_run: bool) -> Result<LetterResult, Refusal> {
        let saga = self.saga_of(&letter)?;
        let result = letter_result(&letter, saga.as_ref());
        if dry_run {
            let (done, text) = forecast(&letter, saga.as_ref());
            return Ok(LetterResult { done, text, ..result });
        }
        let done = match (&letter.saga, &letter.participant, &letter.letter) {
            (Some(saga), Some(participant), Some(kept)) => {
                let command = Command::Redrive {
                    by: by.to_owned(),
                    letter: letter.key.clone(),
                    participant: participant.clone(),
                    event: RedrivenEvent(kept.event.clone()),
                };
                self.command(saga, command)?
            }
            (_, None, Some(_)) => Done { text: NOTHING_TO_RUN.to_owned(), ..Done::default() },
            (_, _, _) => self.record(|live| live.redrive_record(letter.clone()))?,
        };
        Ok(LetterResult { done: done.done, text: done.text, ..result })
    }

    fn discard_one(&self, letter: StoredLetter, by: &str, reason: &str) -> Result<LetterResult, Refusal> {
        let saga = self.saga_of(&letter)?;
        let result = letter_result(&letter, saga.as_ref());
        let (by, reason) = (by.to_owned(), reason.to_owned());
        let done = match (&letter.saga, &letter.letter) {
            (Some(saga), Some(_)) => self.command(saga, Command::Discard { by, letter: letter.key.clone(), reason })?,
            (_, _) => self.record(|live| live.discard_record(letter.clone(), by, reason))?,
        };
        Ok(LetterResult { done: done.done, text: done.text, ..result })
    }

    /// A letter that no saga keeps: only a running host can close it.
    fn record(
        &self,
        ask: impl FnOnce(&dyn super::Live) -> Result<sagahost_saga::input::Answer, Refusal>,
    ) -> Result<Done, Refusal> {
        let Some(live) = &self.live else {
            return Err(Refusal::new(
                Why::NeedsHost,
                "no saga's record has this letter: start the host, then try again",
            ));
        };
        let answer = ask(&**live)?;
        Ok(Done { done: answer.done, queued: false, text: answer.text })
    }

    fn saga_of(&self, letter: &StoredLetter) -> Result<Option<Saga>, Refusal> {
        let Some(id) = &letter.saga else { return Ok(None) };
        self.decoded(id)
    }

    /// None: there is none, or its record cannot be read.
    fn decoded(&self, id: &SagaId) -> Result<Option<Saga>, Refusal> {
        let row = self.journal.saga(id).map_err(Refusal::failed)?;
        Ok(row.and_then(|row| Saga::decode(&row.bytes).ok()))
    }
}

const NOTHING_TO_RUN: &str = "it concerns the saga as a whole, no participant: discard it when it is settled";

fn letter_result(letter: &StoredLetter, saga: Option<&Saga>) -> LetterResult {
    LetterResult {
        key: letter.key.clone(),
        saga: letter.saga.as_ref().map(ToString::to_string),
        participant: letter.participant.as_ref().map(ToString::to_string),
        kind: letter.kind.as_ref().map(ToString::to_string),
        code: letter.code.clone(),
        saga_status: saga.map(|saga| saga.status().name().to_owned()),
        done: false,
        text: String::new(),
    }
}

/// What a redrive would do: whether anything runs, and what to expect.
fn forecast(letter: &StoredLetter, saga: Option<&Saga>) -> (bool, String) {
    let Some(kept) = &letter.letter else {
        let record = &letter.record;
        let bytes = record.value.as_ref().map_or(0, Vec::len);
        return (true, format!("would take the record for topic {} in again ({bytes} bytes)", record.topic));
    };
    let Some(participant) = &letter.participant else { return (false, NOTHING_TO_RUN.to_owned()) };
    let Some(saga) = saga else {
        return (false, "its saga is not in the journal any more: discard it".to_owned());
    };
    if saga.fails_to_undo(&letter.key) {
        return (true, format!("would have {participant} undo {} again", kept.event.kind));
    }
    let status = saga.status();
    let past = match status {
        Status::Compensating | Status::Compensated | Status::Completed | Status::Finishing => true,
        Status::Waiting | Status::Running | Status::NeedsOperator | Status::Quarantined => false,
    };
    if past {
        return (
            false,
            format!("too late: the saga is {} already; it would be recorded, and nothing would run", status.name()),
        );
    }
    let step = saga.steps().find(|step| step.participant == participant && *step.event == kept.event.key);
    match step.map(|step| step.state) {
        Some(StepState::Blocked | StepState::GivenUp | StepState::Unknown) | None => {
            (true, format!("would send {} to {participant} again", kept.event.kind))
        }
        Some(_) => (false, format!("too late: the step of {participant} is done or under way; discard the letter")),
    }
}
