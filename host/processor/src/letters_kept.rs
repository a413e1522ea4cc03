//! How long dead letters are kept that no saga keeps. Invariant: each batch that brings letters of records that could not be
//! decoded is followed by a removal at least as large, so that they never outgrow their bounds by more than one batch.

use std::{collections::BTreeMap, time::Duration};

use sagahost_journal::{Journal, JournalError, LetterRemoval, LetterRetention, LetterWrite};
use sagahost_saga::id::Time;
use sagahost_wire::{Epoch, StoredLetter};
use tracing::warn;

use crate::step::{Now, Steady};

/// How many go at once, where no batch brings more.
pub const BITE: usize = 200;
/// What went is reported so often.
const REPORT: Duration = Duration::from_secs(60);

/// Of open letters of records that could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterBounds {
    pub letters_max: u64,
    pub bytes_max: u64,
    pub retention: Duration,
}

pub struct LettersKept {
    bounds: LetterBounds,
    /// That the last batches brought.
    opened: usize,
    /// Letters by code and bytes of all, not yet reported.
    unreported: (BTreeMap<String, u64>, u64),
    next_report: Steady,
}

impl LettersKept {
    pub fn new(bounds: LetterBounds) -> Self {
        Self { bounds, opened: 0, unreported: Default::default(), next_report: Steady::default() }
    }

    pub fn journaled(&mut self, letters: &[LetterWrite]) {
        self.opened += letters.iter().filter(|letter| is_undecodable(letter)).count();
    }

    /// Whether more came than were looked at.
    pub fn more_came(&self) -> bool {
        self.opened > 0
    }

    pub fn remove(
        &mut self,
        journal: &dyn Journal,
        epoch: Epoch,
        now: Now,
        closed_before: Time,
    ) -> Result<LetterRemoval, JournalError> {
        let limit = std::mem::take(&mut self.opened).max(BITE);
        let may_go = LetterRetention {
            closed_before,
            undecodable_before: now.wall.before(self.bounds.retention),
            undecodable_max: self.bounds.letters_max,
            undecodable_bytes_max: self.bounds.bytes_max,
        };
        let removal = journal.remove_letters(epoch, now.wall, &may_go, limit)?;
        let (codes, bytes) = &mut self.unreported;
        for removed in &removal.undecodable {
            *codes.entry(removed.code.clone()).or_default() += removed.letters;
            *bytes += removed.bytes;
        }
        self.report(now);
        Ok(removal)
    }

    fn report(&mut self, now: Now) {
        if self.unreported.0.is_empty() || now.steady < self.next_report {
            return;
        }
        self.next_report = now.steady.after(REPORT);
        let (codes, bytes) = std::mem::take(&mut self.unreported);
        let letters: u64 = codes.values().sum();
        let codes: Vec<_> = codes.iter().map(|(code, letters)| format!("{letters} {code}")).collect();
        warn!(
            letters,
            bytes,
            codes = codes.join(", "),
            "removed open dead letters of records that could not be decoded: they were older, or more, than \
             [dead-letters] allows; `sagahost dead-letters list` has the count"
        );
    }
}

fn is_undecodable(letter: &LetterWrite) -> bool {
    matches!(letter, LetterWrite::Open(StoredLetter { kind: None, .. }))
}
