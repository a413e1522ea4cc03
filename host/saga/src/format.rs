//! The record as bytes. Invariant: what was ever written is read, or refused by name; it is never guessed at.
//!
//! The version in one byte, the record in postcard's encoding, and eight bytes of FNV-1a over both. Version 6 is
//! written, versions 2 to 5 are read as well; version 1 was never released, and is refused. Whoever changes a type that
//! is part of `Saga` keeps the old shape beside this file, converts it, and adds a golden file. Versions 4 to 6 have the
//! shape of version 3: they only say more of an undoing (`UndoState::Out`), of a step (`Stage::Invalid`), and of requests
//! (`Stage::Sending`, `UndoState::Sending`, `What::Sent`).

mod v2;

use serde::de::DeserializeOwned;

use crate::{
    mutation::{self, Mutation},
    saga::Saga,
};

const VERSION: u8 = 6;
const SUM: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("read a saga record: it is empty")]
    Empty,
    #[error("read a saga record of format {found}: this host reads formats 2 to {VERSION}; {} wrote it", writer(*found))]
    Version { found: u8 },
    #[error("read a saga record: its bytes are corrupt ({what})")]
    Corrupt { what: String },
}

fn writer(format: u8) -> &'static str {
    if format > VERSION { "a newer one" } else { "a development version that was never released" }
}

impl Saga {
    pub fn encode(&self) -> Vec<u8> {
        if mutation::on(Mutation::LoseCount) && self.late > 0 {
            return Self { late: 0, ..self.clone() }.encode();
        }
        let record = postcard::to_extend(self, vec![VERSION]);
        let mut bytes = record.expect("a saga's types have an encoding, and a vector takes all of it");
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let read: fn(&[u8]) -> Result<Self, FormatError> = match bytes.first() {
            None => return Err(FormatError::Empty),
            Some(&VERSION | 5 | 4 | 3) => record::<Self>,
            Some(2) => |bytes: &[u8]| record::<v2::Saga>(bytes).map(Self::from),
            Some(&found) => return Err(FormatError::Version { found }),
        };
        let saga = read(bytes)?;
        saga.check_references().map_err(corrupt)?;
        Ok(saga)
    }
}

/// What stands between the version and the checksum.
fn record<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FormatError> {
    let Some((record, sum)) = bytes.split_last_chunk::<SUM>().filter(|(record, _)| !record.is_empty()) else {
        return Err(corrupt(format!("only {} bytes", bytes.len())));
    };
    if checksum(record) != *sum {
        return Err(corrupt("the checksum differs".to_owned()));
    }
    let (read, rest) = postcard::take_from_bytes(&record[1..]).map_err(|error| corrupt(error.to_string()))?;
    if !rest.is_empty() {
        return Err(corrupt(format!("{} bytes too many", rest.len())));
    }
    Ok(read)
}

fn corrupt(what: String) -> FormatError {
    FormatError::Corrupt { what }
}

/// FNV-1a, 64 bits: against bytes that changed by accident, not by intent.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; SUM] {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash.to_be_bytes()
}
