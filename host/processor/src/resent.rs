//! The record of a dead letter, copied back into a topic: its header names the letter, and asks for it to be redriven.
//! Invariant: only an open letter of this journal is acted on, and only where the record is the letter's;
//! any other record is an ordinary delivery.

use sagahost_codec::{Decoded, LETTER, OMITTED, Undecodable};
use sagahost_journal::{Journal, JournalError};
use sagahost_saga::{
    event::Event,
    id::SagaId,
    input::{Command, Letter, RedrivenEvent},
};
use sagahost_wire::{Record, StoredLetter};

use crate::{
    letters::{self, QUARANTINED},
    mailbox::Item,
    positions::Receipt,
    serving::Serving,
};

/// What a record of a letter leads to.
pub enum Resent {
    /// For the mailbox of this saga.
    Item(SagaId, Box<Item>),
    /// It still cannot be decoded: the same letter, with this record and reason.
    Letter(Box<StoredLetter>),
}

/// The open letter that the record names.
pub fn letter_of(record: &Record, journal: &dyn Journal) -> Result<Option<StoredLetter>, JournalError> {
    let Some(key) = header(record, LETTER).and_then(|key| std::str::from_utf8(key).ok()) else { return Ok(None) };
    Ok(journal.letter(key)?.filter(|letter| letter.closed.is_none()))
}

/// None: an ordinary delivery.
pub fn resent(
    letter: StoredLetter,
    record: &Record,
    decoded: &Result<Decoded, Undecodable>,
    receipt: &Receipt,
    serving: &Serving,
) -> Option<Resent> {
    match &letter.letter {
        Some(kept) => redrive(&letter, kept, record, decoded.as_ref().ok().map(|decoded| &decoded.event), receipt),
        None if letter.record.topic != record.partition.topic => None,
        None => match decoded {
            Ok(decoded) => take_in(letter, decoded, receipt, serving),
            Err(_) if letter.code == QUARANTINED => None,
            Err(why) => {
                let again = letters::undecodable(record, why, letter.at);
                Some(Resent::Letter(Box::new(StoredLetter { key: letter.key, ..again })))
            }
        },
    }
}

/// How a letter is closed whose record was sent again.
pub fn how(receipt: &Receipt) -> String {
    format!("sent again as {}@{}", receipt.partition, receipt.offset)
}

/// A participant is to handle the letter's event again. Of a letter that was published without its value the journal's
/// copy counts.
fn redrive(
    letter: &StoredLetter,
    kept: &Letter,
    record: &Record,
    event: Option<&Event>,
    receipt: &Receipt,
) -> Option<Resent> {
    let (saga, participant) = (letter.saga.clone()?, letter.participant.clone()?);
    let same = |event: &Event| {
        let kept = &kept.event;
        event.saga == kept.saga && event.kind == kept.kind && event.data_hash() == kept.data_hash()
    };
    if header(record, OMITTED).is_none() && !event.is_some_and(same) {
        return None;
    }
    let command = Command::Redrive {
        by: format!("record {}@{}", receipt.partition, receipt.offset),
        letter: letter.key.clone(),
        participant,
        event: RedrivenEvent(kept.event.clone()),
    };
    let item = Item::Operator { command, queued: None, reply: None, receipt: Some(receipt.clone()) };
    Some(Resent::Item(saga, Box::new(item)))
}

fn take_in(letter: StoredLetter, decoded: &Decoded, receipt: &Receipt, serving: &Serving) -> Option<Resent> {
    let Decoded { event, formerly } = decoded.clone();
    // Nobody would handle it: then the letter is not settled.
    if !serving.topology.concerns(&event.kind) {
        return None;
    }
    let receipt = Some(receipt.clone());
    let saga = event.saga.clone();
    let item = Item::Redelivery { event, formerly, letter: Box::new(letter), receipt, reply: None };
    Some(Resent::Item(saga, Box::new(item)))
}

/// Of several with one name the last one counts, as with Kafka's own clients.
fn header<'r>(record: &'r Record, name: &str) -> Option<&'r [u8]> {
    record.headers.iter().rev().find(|(header, _)| header == name).and_then(|(_, value)| value.as_deref())
}
